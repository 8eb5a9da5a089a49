"""Put REPORT.md's first table, and with an argument a layer table, into README.md.

Usage: python scripts/readme.py [LAYERS.md], LAYERS.md being what `python -m xnornet.bench.layer --markdown` printed.
"""

import re
import sys
from pathlib import Path

from demo import first_table
from workspace import ROOT


def replace(text: str, block: str, content: str) -> str:
    """Replace what stands between `<!-- block: ... -->` and `<!-- /block -->`."""
    pattern = rf"(<!-- {block}:.*? -->\n).*?(<!-- /{block} -->)"
    text, found = re.subn(pattern, lambda match: f"{match[1]}\n{content.strip()}\n\n{match[2]}", text, flags=re.DOTALL)
    if found != 1:
        sys.exit(f"error: README.md must have one place marked <!-- {block}: ... --> to <!-- /{block} -->, not {found}")
    return text


def updated() -> str:
    """README.md with the summary of REPORT.md."""
    report = (ROOT / "REPORT.md").read_text("utf-8")
    return replace((ROOT / "README.md").read_text("utf-8"), "summary", "\n".join(first_table(report)))


def main() -> None:
    text = updated()
    if len(sys.argv) > 1:
        text = replace(text, "layers", Path(sys.argv[1]).read_text("utf-8"))
    (ROOT / "README.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()

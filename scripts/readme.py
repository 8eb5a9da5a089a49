"""Put REPORT.md's first table, and its tables of single layers, into README.md.

Usage: python scripts/readme.py
"""

import re
import sys

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
    """README.md with the tables of REPORT.md."""
    report = (ROOT / "REPORT.md").read_text("utf-8")
    layers = re.findall(r"\*\*Table \d+\. Layers: [^|]*\n\n((?:\|.*\n)+)", report)
    readme = replace((ROOT / "README.md").read_text("utf-8"), "summary", "\n".join(first_table(report)))
    return replace(readme, "layers", "\n".join(layers))


def main() -> None:
    (ROOT / "README.md").write_text(updated(), "utf-8")


if __name__ == "__main__":
    main()

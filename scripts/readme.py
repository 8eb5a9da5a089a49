"""Put REPORT.md's first table, and with a second argument a layer table, into README.md.

Usage: python scripts/readme.py [LAYERS.md], LAYERS.md being what `python -m xnornet.bench.layer --markdown` printed.
"""

import re
import sys
from pathlib import Path

from demo import first_table

ROOT = Path(__file__).parents[1]


def replace(text: str, block: str, content: str) -> str:
    """Replace what stands between `<!-- block: ... -->` and `<!-- /block -->`."""
    pattern = rf"(<!-- {block}:.*? -->\n).*?(<!-- /{block} -->)"
    return re.sub(pattern, lambda match: f"{match[1]}\n{content.strip()}\n\n{match[2]}", text, flags=re.DOTALL)


def main() -> None:
    readme = ROOT / "README.md"
    report = (ROOT / "REPORT.md").read_text("utf-8")
    text = replace(readme.read_text("utf-8"), "summary", "\n".join(first_table(report)))
    if len(sys.argv) > 1:
        text = replace(text, "layers", Path(sys.argv[1]).read_text("utf-8"))
    readme.write_text(text, "utf-8")


if __name__ == "__main__":
    main()

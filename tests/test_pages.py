"""The pages in git: every link leads to a file that is there, and to a heading that it has."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", "REPORT.md", "models/packed/README.md", *DOCS]


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings: small letters, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page))
    for link in (link for link in links if not link.startswith("https://")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_looked_at() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(tracked.stdout.split()) == set(PAGES)


@pytest.mark.parametrize(("block", "tables"), [("summary", 1), ("layers", 2)])
def test_what_the_readme_takes_from_the_report_are_tables(block: str, tables: int) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (content,) = re.findall(rf"<!-- {block}: .* -->\n(.*?)<!-- /{block} -->", readme, flags=re.DOTALL)
    parts = content.strip().split("\n\n")
    assert len(parts) == tables and all(line.startswith("|") for part in parts for line in part.splitlines())

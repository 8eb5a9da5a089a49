"""Run the whole pipeline on `digits` and `shapes` in a copy of the repository, demo/, so that committed results stay.

Usage: python scripts/demo.py [FOLDER]. Prints the result table and where the figures are.
"""

import re
import shutil
import subprocess
import sys
from itertools import dropwhile, takewhile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ("dvc.lock", "metrics", "plots", "REPORT.md", "models")


def copy_repository(folder: Path) -> None:
    """Copy the tracked files, without results, to an empty `folder` that is a DVC repository of its own."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, tracked.split("\0")):
        if name.split("/")[0] not in RESULTS and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run(["dvc", "config", "core.no_scm", "true"], cwd=folder, check=True)


def choose_datasets(params: Path, names: list[str]) -> None:
    """Replace the list `datasets` of params.yaml."""
    block = "datasets:\n" + "".join(f"  - {name}\n" for name in names)
    params.write_text(re.sub(r"^datasets:\n(  - \w+\n)+", block, params.read_text(), flags=re.MULTILINE))


def first_table(markdown: str) -> list[str]:
    """The lines of the first table of a Markdown text."""
    lines = iter(markdown.splitlines())
    return list(takewhile(is_row, dropwhile(lambda line: not is_row(line), lines)))


def is_row(line: str) -> bool:
    return line.startswith("|")


def main() -> None:
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "demo"
    if folder.exists() and not (folder / ".dvc").is_dir():
        sys.exit(f"error: {folder} exists and is no demo of ours: name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    copy_repository(folder)
    choose_datasets(folder / "params.yaml", ["digits", "shapes"])
    status = subprocess.run(["dvc", "repro", "--quiet"], cwd=folder, check=False).returncode
    if status:
        sys.exit(status)
    report = (folder / "REPORT.md").read_text(encoding="utf-8")
    print("\n".join(["", *first_table(report), ""]))
    print(f"The report: {folder / 'REPORT.md'}\nThe figures: {folder / 'plots/figures'}")


if __name__ == "__main__":
    main()

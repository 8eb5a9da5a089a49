"""Run the whole pipeline on `digits` and `shapes` in a copy of the repository, demo/, so that committed results stay.

Usage: python scripts/demo.py [FOLDER]. Prints the result table and where the figures are.
"""

import shutil
import subprocess
import sys
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

from workspace import ROOT, copy_repository, edit_params, environment

MARK = ".xnornet-demo"  # made by this script, which may therefore remove the folder


def shorten(folder: Path) -> None:
    """Only what needs no network, fewer points and less time for each: the shape of a curve, not its third digit."""
    changes: dict[str, Any] = {
        "datasets": ["digits", "shapes"],
        "digits.seeds": 2,
        "study.seeds": 2,
        "bench.seconds_per_point": 2.0,
        "bench.threads": [1],
        "bench.peers": False,
        "layers.repeats": 5,
        "sweep.passes": 1,
        "sweep.seconds_per_point": 0.4,
        "sweep.input_channels": [1, 16, 64, 128, 256, 512],
        "sweep.filter_size": [1, 3, 5, 7],
        "sweep.output_channels": [10, 50, 512],
        "sweep.image_size": [7, 14],
        "sweep.batch": [1, 4],
    }
    edit_params(folder, changes)


def first_table(markdown: str) -> list[str]:
    """The lines of the first table of a Markdown text."""
    lines = iter(markdown.splitlines())
    return list(takewhile(is_row, dropwhile(lambda line: not is_row(line), lines)))


def is_row(line: str) -> bool:
    return line.startswith("|")


def main() -> None:
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "demo"
    if folder.exists() and not (folder / MARK).exists():
        sys.exit(f"error: {folder} exists and is no demo of ours: name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    copy_repository(folder)
    shorten(folder)
    status = subprocess.run(["dvc", "repro"], cwd=folder, env=environment(folder), check=False).returncode
    if status:
        sys.exit(status)
    report = (folder / "REPORT.md").read_text(encoding="utf-8")
    print("\n".join(["", *first_table(report), ""]))
    print(f"The report: {folder / 'REPORT.md'}\nThe figures: {folder / 'plots/figures'}")


if __name__ == "__main__":
    main()

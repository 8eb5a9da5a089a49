"""Run the whole pipeline on `digits` and `shapes` in a copy of the repository, demo/, so that committed results stay.

Usage: python scripts/demo.py [FOLDER]. Prints the result table and where the figures are.
"""

import shutil
import subprocess
import sys
from itertools import dropwhile, takewhile
from pathlib import Path

import yaml

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
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    values["datasets"] = names
    params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def shorten_timings(params: Path) -> None:
    """Fewer points and less time for each: a demo shows the shape of a curve, not its third digit."""
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    values["bench"] |= {"seconds_per_point": 2.0, "threads": [1], "peers": False}
    values["sweep"] |= {"input_channels": [1, 16, 64, 128, 256, 512], "filter_size": [1, 3, 5, 7], "batch": [1, 4]}
    values["sweep"] |= {"output_channels": [10, 50, 512], "image_size": [7, 14], "seconds_per_point": 0.4}
    params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


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
    shorten_timings(folder / "params.yaml")
    status = subprocess.run(["dvc", "repro"], cwd=folder, check=False).returncode
    if status:
        sys.exit(status)
    report = (folder / "REPORT.md").read_text(encoding="utf-8")
    print("\n".join(["", *first_table(report), ""]))
    print(f"The report: {folder / 'REPORT.md'}\nThe figures: {folder / 'plots/figures'}")


if __name__ == "__main__":
    main()

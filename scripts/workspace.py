"""Copies of the repository to try the whole pipeline in, and what two runs of it must have in common."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
RESULTS = ("dvc.lock", "metrics", "plots", "REPORT.md", "models")

# Results that hold times; everything else is the same, to the byte, in every run on one machine.
TIMED = re.compile(
    r"metrics/(time|pace|inference|sweeps|layers\.json)|plots/(inference|sweeps|layers\.csv)|models/packed/README\.md|"
    r"plots/figures/(inference-|speedup-|roofline|time-shares)"
)
# Of REPORT.md, the tables without times.
UNTIMED_TABLES = ("Accuracy", "Memory", "Agreement", "Parameters", "Gradient")


def copy_repository(folder: Path) -> None:
    """Copy the tracked files, without results, to an empty `folder` that is a DVC repository of its own."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, tracked.split("\0")):
        if name.split("/")[0] not in RESULTS and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run([sys.executable, "-m", "dvc", "config", "core.no_scm", "true"], cwd=folder, check=True)


def edit_params(folder: Path, changes: dict[str, Any]) -> None:
    """Replace values of `folder`/params.yaml, given by dotted keys."""
    path = folder / "params.yaml"
    yaml = YAML()  # DVC's reader, and the stages': for others, `0100` is 64
    values = yaml.load(path)
    for key, value in changes.items():
        *blocks, last = key.split(".")
        block = values
        for name in blocks:
            block = block[name]
        block[last] = value
    yaml.dump(values, path)


def cut_to_seconds(folder: Path, datasets: list[str]) -> None:
    """Shorten everything on `digits` and `shapes` to what shows that it runs."""
    changes: dict[str, Any] = {
        "datasets": datasets,
        "runtime.threads": 1,
        "shapes.data": {"seed": 0, "train": 300, "test": 100},
        "shapes.split": {"seed": 0, "validation": 50},
        "shapes.model.width": 4,
        "digits.seeds": 2,
        "study.seeds": 2,
        "bench.repeats": 5,
        "bench.seconds_per_point": 0.1,
        "bench.peers": False,
        "bench.batches": [1, 8],
        "bench.threads": [1],
        "layers.names": ["lenet-linear"],
        "layers.repeats": 5,
        "sweep.passes": 1,
        "sweep.seconds_per_point": 0.05,
        "sweep.input_channels": [3, 64],
        "sweep.output_channels": [10],
        "sweep.filter_size": [1, 3],
        "sweep.image_size": [7],
        "sweep.batch": [1],
        "sweep.threads": [1],
    }
    for dataset in ("digits", "shapes"):
        for block in ("float", "xnor", "study"):
            changes |= {f"{dataset}.{block}.epochs": 1, f"{dataset}.{block}.warmup_epochs": 0.5}
    edit_params(folder, changes)


def environment(folder: Path) -> dict[str, str]:
    """Environment in which `python` and `dvc` are this interpreter's, and the code is that of `folder`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(folder / "src")}


def digests(folder: Path) -> dict[str, str]:
    """Digest of every result that two runs on one machine must have in common."""
    found = {}
    for top in ("data", "models", "metrics", "plots"):
        for path in sorted((folder / top).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and path.name != ".gitignore" and not TIMED.match(name):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    report = (folder / "REPORT.md").read_text(encoding="utf-8")
    for title in UNTIMED_TABLES:
        for number, table in enumerate(re.findall(rf"\*\*Table \d+\. {title}.*?(?=\n\n[^|])", report, re.DOTALL)):
            found[f"REPORT.md, {title} {number}"] = hashlib.sha256(table.encode()).hexdigest()
    return found


def unequal(wanted: dict[str, str], seen: dict[str, str]) -> list[str]:
    """Names of the results that are missing, additional or different."""
    return sorted(name for name in wanted.keys() | seen.keys() if wanted.get(name) != seen.get(name))

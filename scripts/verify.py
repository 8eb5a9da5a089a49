"""Do dvc.lock, params.yaml, the code, metrics, plots, REPORT.md and README.md belong together? Names what does not.

Usage: python scripts/verify.py (`make verify`). Needs neither data nor models: what a fresh clone does not have is
compared by the digests in dvc.lock alone. Exit status 1 if something does not belong.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any, get_args

import yaml

from readme import updated
from workspace import ROOT
from xnornet.engine.file import parse
from xnornet.engine.nodes import FormatError
from xnornet.files import md5
from xnornet.params import Dataset, Variant
from xnornet.params.timing import Axis

ABSENT = ("deleted", "not in cache")
ITEMS = {"dataset": Dataset, "variant": Variant, "axis": Axis}


def main() -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    stages, absent = dvc("stage", "list", "--name-only").split(), set[str]()
    others = [name for name in lock if name not in stages and could_be(name)]  # of what params.yaml no longer names
    gone = [f"{name}: in dvc.lock, but not in dvc.yaml" for name in lock if name not in (*stages, *others)]
    never = [f"{name}: never run here" for name in stages if name not in lock]
    stale = [*never, *gone, *changes(lock, absent), *chain(lock, stages), *packed(lock)]
    problems = [*stale, *([] if others else readme())]
    print("\n".join(problems), end="\n" * bool(problems))
    if absent:
        print(f"not here, compared by digest alone: {', '.join(sorted(absent))}")
    if others:
        print(f"not looked at, since params.yaml has other `datasets` or `variants`: README.md, {', '.join(others)}")
    if problems:
        count = "1 thing does" if len(problems) == 1 else f"{len(problems)} things do"
        sys.exit(f"{count} not belong together" + ": `dvc repro` makes them anew" * bool(stale))
    whole = "metrics, plots and report" if others else "metrics, plots, report and README"
    print(f"{len(stages)} stages: code, parameters, {whole} belong together")


def could_be(name: str) -> bool:
    """Whether dvc.yaml has this stage, `stage@dataset-variant` and so on, were params.yaml to name its items."""
    stage, _, items = name.partition("@")
    matrix = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].get(stage, {}).get("matrix", {})
    known = [get_args(ITEMS[key]) for key in matrix]
    return bool(matrix) and items in map("-".join, product(*known))


def dvc(*arguments: str) -> str:
    """What `dvc ARGUMENTS` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"error: dvc {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def changes(lock: dict[str, Any], absent: set[str]) -> Iterator[str]:
    """What DVC finds changed since dvc.lock was written, of stages that it has. Adds to `absent` what is not here."""
    md5s = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}
    for stage, entries in json.loads(dvc("status", "--json")).items():
        if stage not in lock:
            continue
        for kind, paths in (pair for entry in entries if isinstance(entry, dict) for pair in entry.items()):
            for path, state in paths.items():
                if isinstance(state, dict):  # parameters
                    yield from (f"{stage}: parameter {key} of {path} is {how}" for key, how in state.items())
                elif state in ABSENT and is_ignored(path):
                    if not (ROOT / path).exists():
                        absent.add(path)
                    elif md5(ROOT / path) != md5s.get(path):  # DVC's cache lacks it, so that DVC does not look
                        yield f"{stage}: {kind.removeprefix('changed ')[:-1]} {path} is modified"
                else:
                    yield f"{stage}: {kind.removeprefix('changed ')[:-1]} {path} is {state}"
        if "changed command" in entries:
            yield f"{stage}: its command is not the one that was run"


def is_ignored(path: str) -> bool:
    """Whether git ignores a path: data and models, which a fresh clone does not have."""
    return subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False).returncode == 0


def chain(lock: dict[str, Any], stages: list[str]) -> Iterator[str]:
    """Whether each of these stages read what the stage before it wrote."""
    written = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}
    for name in stages:
        for dep in lock.get(name, {}).get("deps", []):
            if written.get(dep["path"], dep["md5"]) != dep["md5"]:
                yield f"{name}: read another {dep['path']} than the pipeline wrote"


def packed(lock: dict[str, Any]) -> Iterator[str]:
    """Whether the packed networks are intact and come from the data of dvc.lock."""
    data = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}
    for path in sorted((ROOT / "models/packed").glob("*.safetensors")):
        try:
            _, _, about = parse(path.read_bytes())
        except FormatError as error:
            yield f"{path.name}: {error}"
            continue
        if about.get("data_md5") != data.get(f"data/{path.stem}.safetensors"):
            yield f"{path.name}: trained on other data than dvc.lock has"


def readme() -> Iterator[str]:
    """Whether README.md shows REPORT.md's tables."""
    if not (ROOT / "README.md").is_file():
        yield "README.md is missing"
    elif not (ROOT / "REPORT.md").is_file():
        return  # DVC has said so
    elif updated() != (ROOT / "README.md").read_text(encoding="utf-8"):
        yield "README.md: its tables are not REPORT.md's: run scripts/readme.py"


if __name__ == "__main__":
    main()

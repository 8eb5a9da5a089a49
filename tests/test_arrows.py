"""Who may import whom, and that every stage tells DVC all the code it runs."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from xnornet.params import Optimization, Xnor

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/xnornet"

# A room is a folder or a module of the package. `files` and `stage` are small helpers; nothing imports `stages/`.
ALLOWED = {
    "files": set(),
    "stage": set(),
    "params": set(),
    "cpu": set(),
    "layer_table": set(),
    "pairs": set(),
    "engine": set(),
    "data": {"files", "params"},
    "nn": {"files", "params", "cpu", "data"},
    "export": {"engine", "nn"},
    "seeds": {"files", "params", "data", "nn"},
    "study": {"files", "pairs", "params", "data", "nn"},
    "ablation": {"params", "data", "nn"},
    "bench": {"files", "params", "cpu", "data", "engine", "layer_table", "nn"},
    "report": {"files", "layer_table", "pairs"},
}
# The engine is for people who have no torch.
FORBIDDEN = {"engine": {"torch", "torchvision", "pandas"}, "report": {"torch", "numba"}}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it; `from xnornet import x` as xnornet.x."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def files_of(module: str) -> set[Path]:
    """What Python reads to import one of our modules: itself, and the __init__ of each package around it."""
    parts = module.split(".")[1:]
    found = {PACKAGE / "__init__.py"}
    for depth in range(1, len(parts) + 1):
        base = PACKAGE.joinpath(*parts[:depth])
        found |= {path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()}
    return found


def closure(script: Path) -> set[Path]:
    """All project files that running `script` may import."""
    seen: set[Path] = set()
    todo = [script]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += [file for name in imports(path) if name.split(".")[0] == "xnornet" for file in files_of(name)]
    return seen


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        assert not list(imports(path))
        return
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] != "stages"
        assert parts[0] not in FORBIDDEN.get(here, set()), f"{here} must not import {name}"
        if parts[0] == "xnornet" and len(parts) > 1:
            assert parts[1] == here or parts[1] in ALLOWED[here], f"{here} must not import {name}"


STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def script_of(stage: dict[str, Any]) -> str:
    """The script that a stage runs, with the code of the folder that it runs in."""
    path, interpreter, script = stage["cmd"].removeprefix("env ").split()[:3]
    assert (path, interpreter) == ("PYTHONPATH=src", "python")
    return script


# What reads and checks params.yaml as a whole. It decides no training, of which params.yaml's values are dependencies;
# so that a new setting of the timings does not make hours of training stale.
CHECKS = {PACKAGE / "params" / name for name in ("__init__.py", "arms.py", "file.py", "timing.py")}
WITHOUT_CHECKS = {"train": CHECKS, "seeds": CHECKS, "study": CHECKS - {PACKAGE / "params/arms.py"}}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_the_code_it_imports_and_no_other(name: str) -> None:
    stage = STAGES[name]
    script = ROOT / script_of(stage)
    listed = [ROOT / dep for dep in stage["deps"] if dep.startswith(("src/", "stages/"))]
    # The package's own __init__ is a docstring.
    needed = closure(script) - {PACKAGE / "__init__.py"} - WITHOUT_CHECKS.get(name, set())
    missing = {path for path in needed if not any(path == dep or dep in path.parents for dep in listed)}
    assert not missing, "imported, but no dependency of the stage"
    stale = [dep for dep in listed if not any(path == dep or dep in path.parents for path in needed)]
    assert not stale, "a dependency of the stage, but not imported"


# What of params.yaml the scripts read or hand on; of recipes, `pace` reads what the next test names.
OWN = "${item.dataset}."
READ = {
    "machine": set(),
    "prepare": {f"{OWN}data"},
    "train": {"runtime", *(OWN + block for block in ("data", "model", "split", "training", "${item.variant}"))},
    "seeds": {"runtime", *(OWN + block for block in ("seeds", "model", "split", "training", "${item.variant}"))},
    "study": {"runtime", "study", *(OWN + block for block in ("study", "model", "split", "training"))},
    "export": {f"{OWN}model", f"{OWN}split"},
    "bench": {"bench", "runtime.seed", f"{OWN}model"},
    "layers": {"bench.peers", "layers"},
    "sweep": {"sweep.passes", "sweep.repeats", "sweep.seconds_per_point", "sweep.${item.axis}"},
    "report": {"datasets"},
    "pace": {
        *("bench.repeats", "bench.seconds_per_point", "runtime.seed", "runtime.threads"),
        *(OWN + block for block in ("model", "split", "training")),
    },
}


@pytest.mark.parametrize("name", STAGES)
def test_no_parameter_of_a_stage_is_lost(name: str) -> None:
    listed = set(STAGES[name].get("params", []))
    recipes = {key for key in listed if key.startswith((f"{OWN}float.", f"{OWN}xnor."))}
    assert listed - recipes == READ[name]
    assert not recipes or name == "pace"


# What of a recipe does not decide how long a step takes; the XNOR network is timed in the float one's batches.
WITHOUT_EFFECT_ON_PACE = {"epochs", "learning_rate", "schedule", "warmup_epochs", "restarts"}


def test_pace_depends_on_every_parameter_of_a_training_step() -> None:
    for block, fields, others in (
        ("float", Optimization.model_fields, set()),
        ("xnor", Xnor.model_fields, {"batch_size", "precision"}),
    ):
        start = f"${{item.dataset}}.{block}."
        listed = {name.removeprefix(start) for name in STAGES["pace"]["params"] if name.startswith(start)}
        assert listed == set(fields) - WITHOUT_EFFECT_ON_PACE - others


def test_every_script_in_stages_is_a_stage() -> None:
    scripts = {path.name for path in (ROOT / "stages").glob("*.py")}
    assert scripts == {Path(script_of(stage)).name for stage in STAGES.values()}
    for path in (ROOT / "stages").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 40, f"{path.name} is no table of contents any more"

"""The pipeline as a user runs it: real DVC in a copy of the repository, on digits and shapes cut to seconds."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from workspace import copy_repository, cut_to_seconds, environment  # noqa: E402 (a script, no module of the package)

Dvc = Callable[..., str]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository of the code as it is, without results; its path has spaces in it.

    No letters beyond ASCII, though: DVC's queue cannot write those into its configuration.
    """
    folder = tmp_path_factory.mktemp("a repository in a path with spaces")
    copy_repository(folder)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = false\n")
    cut_to_seconds(folder, ["digits", "shapes"])
    for command in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "start"]):
        git(folder, *command)
    return folder


def git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)


def run(folder: Path, *command: str, status: int = 0) -> str:
    """Run a command in the copy, with the copy's own code; its output, standard error included."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment(folder), check=False, **output)
    assert done.returncode == status, done.stdout
    return done.stdout


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = yaml.safe_load((folder / "params.yaml").read_text())
    change(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.fixture(scope="module")
def built(clone: Path) -> Path:
    """The copy after `dvc repro`, results committed."""
    stages = stages_run(run(clone, "dvc", "repro"))
    assert {
        "prepare@digits",
        "train@shapes-xnor",
        "export@digits",
        "bench@shapes",
        "sweep@filter_size",
        "report",
    } < stages
    git(clone, "add", "-A")
    git(clone, "commit", "--quiet", "-m", "results")
    return clone


def test_repro_makes_the_report_and_its_figures(built: Path) -> None:
    report = (built / "REPORT.md").read_text()
    assert "digits, LeNet-5" in report and "shapes, ResNet-18" in report
    for figure in re.findall(r"\]\((plots/figures/[^)]+)\)", report):
        assert (built / figure).stat().st_size > 1000


def test_the_packed_networks_agree_with_torch(built: Path) -> None:
    for dataset in ("digits", "shapes"):
        packed = json.loads((built / f"metrics/packed/{dataset}.json").read_text())[dataset]["packed"]
        trained = json.loads((built / f"metrics/train/{dataset}-xnor.json").read_text())[dataset]["xnor"]
        assert packed["same_answers"] == 100 and packed["test_accuracy"] == trained["test_accuracy"]


def test_a_second_repro_runs_nothing(built: Path) -> None:
    # `machine` looks at the machine each time, so that timings run again on another one.
    assert stages_run(run(built, "dvc", "repro")) == {"machine"}


def test_metrics_and_parameters_read_well(built: Path) -> None:
    shown = run(built, "dvc", "metrics", "show", "--md")
    assert "digits.xnor.test_accuracy" in shown and "shapes.memory.ratio" in shown
    assert "train" in run(built, "dvc", "dag")
    assert "file://" in run(built, "dvc", "plots", "show")


def test_a_changed_xnor_parameter_runs_the_xnor_branch_only(built: Path) -> None:
    edit(built, lambda values: values["digits"]["xnor"].update(learning_rate=0.002))
    assert "digits.xnor.learning_rate" in run(built, "dvc", "params", "diff")
    ran = stages_run(run(built, "dvc", "repro"))
    branch = {"train@digits-xnor", "seeds@digits-xnor", "export@digits", "bench@digits", "report"}
    assert branch <= ran <= branch | {"machine"}
    assert "digits.xnor.test_accuracy" in run(built, "dvc", "metrics", "diff", "HEAD")


def test_a_changed_float_parameter_neither_packs_nor_times_anything(built: Path) -> None:
    edit(built, lambda values: values["digits"]["float"].update(learning_rate=0.03))
    assert stages_run(run(built, "dvc", "repro")) == {"machine", "train@digits-float", "seeds@digits-float", "report"}


def test_deleted_results_come_back(built: Path) -> None:
    for name in ("metrics", "plots"):
        shutil.rmtree(built / name)
    (built / "REPORT.md").unlink()
    run(built, "dvc", "repro")
    test_repro_makes_the_report_and_its_figures(built)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["stages/train.py", "imagenet", "xnor"], "error: unknown data set 'imagenet': choose from mnist, cifar10"),
        (["stages/train.py", "digits", "ternary"], "error: unknown variant 'ternary': choose from float, xnor"),
        (["stages/sweep.py", "stride"], "error: unknown sweep 'stride': choose from input_channels"),
    ],
)
def test_wrong_arguments_end_in_one_line(command: list[str], message: str, built: Path) -> None:
    output = run(built, sys.executable, *command, status=1)
    assert output.startswith(message) and output.count("\n") == 1


def test_a_wrong_parameter_ends_in_one_line_and_harms_nothing(built: Path) -> None:
    before = (built / "params.yaml").read_bytes()
    model = (built / "models/digits-xnor.safetensors").read_bytes()
    edit(built, lambda values: values["digits"]["xnor"].update(epochs=0))
    output = run(built, sys.executable, "stages/train.py", "digits", "xnor", status=1)
    assert output == "error: params.yaml: digits.xnor.epochs: Input should be greater than 0 (it is 0)\n"
    assert (built / "models/digits-xnor.safetensors").read_bytes() == model
    run(built, "dvc", "repro", "train@digits-xnor", status=255)
    (built / "params.yaml").write_bytes(before)
    assert (built / "models/digits-xnor.safetensors").read_bytes() == model
    deleted = subprocess.run(["git", "ls-files", "--deleted"], cwd=built, check=True, capture_output=True, text=True)
    assert deleted.stdout == ""


def test_the_readmes_experiments(built: Path) -> None:
    git(built, "add", "-A")
    git(built, "commit", "--quiet", "--allow-empty", "-m", "before the experiments")
    run(built, "dvc", "exp", "run", "-S", "digits.xnor.gradient=paper", "--name", "paper")
    run(built, "dvc", "exp", "run", "--queue", "-S", "digits.xnor.momentum=0.8,0.85")
    code = built / "src/xnornet/nn/training.py"
    queued = code.read_text()
    code.write_text("raise SystemExit('not the code that was queued')\n")
    run(built, "dvc", "queue", "start")
    while "Running" in (status := run(built, "dvc", "queue", "status")) or "Queued" in status:
        time.sleep(2)
    code.write_text(queued)
    assert status.count("Success") == 2, status
    shown = run(
        built,
        "dvc",
        "exp",
        "show",
        "--only-changed",
        "--hide-queued",
        "--md",
        "--drop",
        re.findall(r"dvc exp show .*?--drop '([^']+)'", (ROOT / "README.md").read_text(), re.DOTALL)[0],
    )
    assert "paper" in shown and "digits.xnor.gradient" in shown and "0.85" in shown
    run(built, "dvc", "exp", "apply", "paper")
    assert yaml.safe_load((built / "params.yaml").read_text())["digits"]["xnor"]["gradient"] == "paper"


def test_branches_compare_by_metrics_parameters_and_plots(built: Path) -> None:
    git(built, "checkout", "--quiet", "-b", "other")
    git(built, "add", "-A")
    git(built, "commit", "--quiet", "--allow-empty", "-m", "other")
    edit(built, lambda values: values["digits"]["xnor"].update(learning_rate=0.0005))
    run(built, "dvc", "repro")
    git(built, "commit", "--quiet", "-a", "-m", "a lower learning rate")
    assert "digits.xnor.train_accuracy" in run(built, "dvc", "metrics", "diff", "other~1", "other")
    assert "digits.xnor.learning_rate" in run(built, "dvc", "params", "diff", "other~1", "other")
    assert "file://" in run(built, "dvc", "plots", "diff", "other~1", "other")

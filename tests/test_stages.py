"""Stages that end with an error: one line that says what is wrong, and the earlier results stay as they are."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from xnornet.bench import packed
from xnornet.data.prepare import prepare
from xnornet.files import md5
from xnornet.nn import save_model, training
from xnornet.nn.checkpoint import Checkpoints
from xnornet.nn.loop import TrainingError
from xnornet.nn.training import architecture, make_network
from xnornet.params import load

ROOT = Path(__file__).parents[1]
RESULTS = ("models/packed/digits.safetensors", "metrics/packed/digits.json", "metrics/memory/digits.json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parameters, `digits`, and an XNOR network, untrained; the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    prepare("digits", load().digits.data).save(Path("data/digits.safetensors"))
    save_network()
    return tmp_path


def save_network(*, seed: int = 0, spoil: bool = False) -> None:
    params, path = load().digits, Path("data/digits.safetensors")
    data = prepare("digits", params.data)
    torch.manual_seed(seed)
    model = make_network(data, params, "xnor", data.train)
    if spoil:
        model.fc1.weight.data[0, 0] = torch.nan  # type: ignore[union-attr, operator]
    about = {"dataset": "digits", "data_md5": md5(path), "data_source": data.source, "classes": data.classes}
    save_model("models/digits-xnor.safetensors", model, architecture(data, params, "xnor"), about)


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> str:
    """Run a stage as DVC does; returns the error that it ended with, empty for none."""
    monkeypatch.setattr("sys.argv", [f"stages/{script}", *arguments])
    try:
        runpy.run_path(str(ROOT / "stages" / script), run_name="__main__")
    except SystemExit as end:
        return str(end.code)
    return ""


def test_without_prepared_data_a_training_has_them_prepared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise TrainingError("enough")

    monkeypatch.setattr(training, "fit", refused)
    data = folder / "data/digits.safetensors"
    before = data.read_bytes()
    data.unlink()
    assert run(monkeypatch, "train.py", "digits", "xnor") == "error: enough"
    assert data.read_bytes() == before and (folder / "metrics/data/digits.json").exists()
    data.unlink()
    parameters = Path("params.yaml")
    parameters.write_text(parameters.read_text().replace("test: 397", "test: 1797"))
    capfd.readouterr()
    assert run(monkeypatch, "train.py", "digits", "xnor") == "1"
    assert capfd.readouterr().err.startswith("error: ") and not data.exists()


def test_a_packed_network_that_disagrees_with_torch_takes_no_one_s_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "export.py", "digits") == ""
    before = {path: (folder / path).read_bytes() for path in RESULTS}

    def disagree(*_: Any) -> None:
        raise packed.DisagreementError("a logit differs by 0.1")

    monkeypatch.setattr(packed, "agreement", disagree)
    save_network(seed=1)
    assert run(monkeypatch, "export.py", "digits") == "error: a logit differs by 0.1"
    assert {path: (folder / path).read_bytes() for path in RESULTS} == before
    assert not list(folder.rglob("*.part*"))


def test_what_export_says_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "export.py", "digits") == ""
    memory = json.loads((folder / RESULTS[2]).read_text())["digits"]["memory"]
    assert memory["packed_bytes"] == (folder / RESULTS[0]).stat().st_size
    parameters = {"conv1": 520, "bn1": 40, "bn2": 40, "conv2": 25_000, "bn3": 100, "fc1": 400_000, "fc2": 5010}
    assert memory["float_bytes"] == pytest.approx(4 * (sum(parameters.values()) + 550), rel=0.02)  # 550: two biases
    assert memory["ratio"] == pytest.approx(memory["float_bytes"] / memory["packed_bytes"], abs=1e-3)
    assert memory["binary_share"] == pytest.approx(100 * 425_000 / (sum(parameters.values()) + 1100), abs=0.1)


def test_a_network_that_diverged_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_network(spoil=True)
    wanted = "error: fc1.weight holds NaN or infinity: the training has diverged"
    assert run(monkeypatch, "export.py", "digits") == wanted
    assert not (folder / RESULTS[0]).exists()


@pytest.mark.parametrize(
    "content",
    [
        "<<<<<<< HEAD\n",
        "[]",
        '{"digits": {"float": {}}}',
        '{"digits": {"xnor": {"test_accuracy": 98.0}}}',
        '{"digits": {"xnor": {"test_accuracy": null, "validation_accuracy": 98.0}}}',
        '{"digits": {"xnor": {"test_accuracy": NaN, "validation_accuracy": 98.0}}}',
    ],
)
def test_damaged_metrics_are_named(content: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "metrics/train/digits-xnor.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    error = run(monkeypatch, "seeds.py", "digits", "xnor")
    assert error.startswith("error: metrics/train/digits-xnor.json is damaged") and "get it back with git" in error
    path.unlink()
    error = run(monkeypatch, "seeds.py", "digits", "xnor")
    assert error == "error: metrics/train/digits-xnor.json is missing: make it with `dvc repro train@digits-xnor`"


def test_a_network_that_was_trained_on_other_data_is_not_packed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare("digits", load().digits.data.model_copy(update={"seed": 1})).save(Path("data/digits.safetensors"))
    assert "was trained on other data" in run(monkeypatch, "export.py", "digits")
    assert not (folder / RESULTS[0]).exists()


def test_a_checkpoint_of_other_data_or_settings_is_not_taken_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []

    def noted(*_: Any, checkpoints: Checkpoints, **__: Any) -> None:
        keys.append(checkpoints.key)
        raise TrainingError("enough")

    monkeypatch.setattr(training, "fit", noted)
    parameters, data = Path("params.yaml"), Path("data/digits.safetensors")
    changes = (
        lambda: None,
        lambda: prepare("digits", load().digits.data.model_copy(update={"seed": 1})).save(data),
        lambda: parameters.write_text(parameters.read_text().replace("batch_size: 50", "batch_size: 40")),
        lambda: parameters.write_text(parameters.read_text().replace("threads: 0", "threads: 1")),
    )
    for change in changes:
        change()
        assert run(monkeypatch, "train.py", "digits", "xnor") == "error: enough"
    assert len(set(keys)) == len(changes)

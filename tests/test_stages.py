"""Stages that end with an error: one line that says what is wrong, and the earlier results stay as they are."""

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from xnornet.bench import packed
from xnornet.data import prepare
from xnornet.files import md5
from xnornet.nn import save_model
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


def save_network(spoil: bool = False) -> None:
    params, path = load().digits, Path("data/digits.safetensors")
    data = prepare("digits", params.data)
    torch.manual_seed(0)
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


def test_a_packed_network_that_disagrees_with_torch_takes_no_one_s_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "export.py", "digits") == ""
    before = {path: (folder / path).read_bytes() for path in RESULTS}

    def disagree(*_: Any) -> None:
        raise packed.DisagreementError("a logit differs by 0.1")

    monkeypatch.setattr(packed, "agreement", disagree)
    torch.manual_seed(1)
    assert run(monkeypatch, "export.py", "digits") == "error: a logit differs by 0.1"
    assert {path: (folder / path).read_bytes() for path in RESULTS} == before
    assert not list(folder.rglob("*.part*"))


def test_a_network_that_diverged_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_network(spoil=True)
    wanted = "error: fc1.weight holds NaN or infinity: the training has diverged"
    assert run(monkeypatch, "export.py", "digits") == wanted
    assert not (folder / RESULTS[0]).exists()


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\n", "[]", '{"digits": {"float": {}}}'])
def test_damaged_metrics_are_named(content: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "metrics/train/digits-xnor.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    error = run(monkeypatch, "seeds.py", "digits", "xnor")
    assert error.startswith("error: metrics/train/digits-xnor.json is damaged") and "get it back with git" in error

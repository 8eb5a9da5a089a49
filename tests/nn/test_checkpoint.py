"""Checkpoints: of this training, whole, and never executed; that training goes on from them is in `test_training`."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xnornet.nn import checkpoint as under_test
from xnornet.nn.checkpoint import Checkpoints, key


def test_checkpoints_of_other_parameters_are_not_taken_up(tmp_path: Path) -> None:
    Checkpoints(tmp_path, key({"epochs": 1})).save(1, {"model": torch.ones(3)}, last=True)
    assert Checkpoints(tmp_path, key({"epochs": 2})).load(torch.device("cpu")) is None
    state = Checkpoints(tmp_path, key({"epochs": 1})).load(torch.device("cpu"))
    assert state is not None and torch.equal(state["model"], torch.ones(3))


@pytest.mark.parametrize("part", ["nn", "data/prepared.py", "params/trainings.py"])
def test_other_code_is_another_training(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert under_test.PACKAGE / part in under_test.CODE
    copy = tmp_path / "copy"
    (shutil.copytree if "." not in part else shutil.copy)(under_test.PACKAGE / part, copy)
    others = tuple(path for path in under_test.CODE if path != under_test.PACKAGE / part)
    monkeypatch.setattr(under_test, "CODE", (*others, copy))
    before = key("parameters")
    changed = next(copy.rglob("*.py")) if copy.is_dir() else copy
    changed.write_text(changed.read_text() + "\n")
    assert key("parameters") != before


def test_a_checkpoint_is_never_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    Checkpoints(tmp_path, "key").save(1, {"model": Evil()}, last=True)  # with a digest that is right
    with pytest.raises(pickle.UnpicklingError):
        Checkpoints(tmp_path, "key").load(torch.device("cpu"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_any_damage_to_a_checkpoint_is_noticed(damage: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "key")
    path = tmp_path / "key-00001.pt"
    rng = np.random.default_rng(0)
    for _ in range(50):
        checkpoints.save(1, {"model": torch.ones(300), "seconds": [1.5]}, last=True)
        data = bytearray(path.read_bytes())
        place = int(rng.integers(len(data)))
        if damage == "flipped":
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data[: {"truncated": place, "empty": 0, "flipped": None}[damage]])
        assert checkpoints.load(torch.device("cpu")) is None
        assert path.with_suffix(".pt.damaged").exists() and not path.exists()
    checkpoints.save(2, {"model": torch.ones(300)}, last=True)
    assert path.with_suffix(".pt.damaged").exists(), "to be looked at"
    checkpoints.clear()
    assert not list(tmp_path.glob("*"))


def test_saving_takes_two_percent_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save of one second: after the first, every fifth epoch of ten seconds, and the last."""
    now, save, saved = [0.0], torch.save, []

    def slow(*arguments: Any) -> None:
        now[0] += 1
        save(*arguments)

    monkeypatch.setattr(under_test.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(under_test.torch, "save", slow)
    checkpoints = Checkpoints(tmp_path, "key")
    for epoch in range(1, 15):
        now[0] += 10
        checkpoints.save(epoch, {"epoch": epoch}, last=epoch == 14)
        saved += [epoch] * (tmp_path / f"key-{epoch:05d}.pt").exists()
    assert saved == [1, 6, 11, 14]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["key-00011.pt", "key-00014.pt"]


def test_the_newest_checkpoints_are_kept_however_long_the_training(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "key")
    for epoch in (99_998, 99_999, 100_000):
        checkpoints.save(epoch, {"epoch": epoch}, last=True)
    assert checkpoints.load(torch.device("cpu")) == {"epoch": 100_000}
    assert {path.name for path in tmp_path.iterdir()} == {"key-99999.pt", "key-100000.pt"}


def test_a_training_removes_another_s_checkpoints_when_it_has_its_own(tmp_path: Path) -> None:
    first, second = (Checkpoints(tmp_path, name) for name in ("first", "second"))
    first.save(1, {"epoch": 1}, last=True)
    second.clear()  # finished long ago: what the other has done so far is kept
    assert first.load(torch.device("cpu")) == {"epoch": 1}
    second.save(1, {"epoch": 2}, last=True)
    assert [path.name for path in tmp_path.iterdir()] == ["second-00001.pt"]

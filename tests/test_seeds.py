"""More seeds: other trainings of the same settings, which outlive a kill, and their mean and deviation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import xnornet.seeds as under_test
from xnornet.data import Images, Prepared
from xnornet.nn.checkpoint import Checkpoints
from xnornet.params import DatasetParams, Params, Runtime
from xnornet.seeds import summary, train_seeds

RUNTIME = Runtime(device="cpu", threads=1, seed=7)
FIRST = {"test_accuracy": 50.0, "validation_accuracy": 51.0}


@pytest.fixture(scope="module")
def settings(params: Params) -> DatasetParams:
    recipe = params.digits.xnor.model_copy(update={"epochs": 2, "warmup_epochs": 0.0})
    return params.digits.model_copy(update={"xnor": recipe, "seeds": 3})


class Trainer:
    """`train_seeds`; `titles` are those of all trainings so far."""

    def __init__(self, digits: Prepared) -> None:
        self.digits = digits
        self.titles: list[str] = []

    def __call__(self, settings: DatasetParams, folder: Path, data_md5: str = "md5") -> pd.DataFrame:
        known: dict[str, Any] = {"first": FIRST, "finished": folder, "data_md5": data_md5, "title": "digits"}
        return train_seeds(self.digits, settings, "xnor", RUNTIME, **known)


@pytest.fixture
def train(digits: Prepared, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    fit, trainer = under_test.fit, Trainer(digits)

    def counted(*arguments: Any, **options: Any) -> Any:
        trainer.titles.append(options["title"])
        return fit(*arguments, **options)

    monkeypatch.setattr(under_test, "fit", counted)
    return trainer


def test_a_row_a_seed_and_the_first_is_taken_as_it_is(train: Trainer, settings: DatasetParams, tmp_path: Path) -> None:
    rows = train(settings, tmp_path)
    assert rows.seed.tolist() == [7, 8, 9]
    assert rows.test_accuracy[0] == 50.0 and rows.validation_accuracy[0] == 51.0
    assert train.titles == ["digits, seed 8", "digits, seed 9"]
    others = rows[rows.seed > 7]
    assert others.test_accuracy.between(15, 100).all()
    assert not others.duplicated(["test_accuracy", "validation_accuracy"]).any(), "two trainings are the same"


def test_the_test_images_are_those_that_are_tested(digits: Prepared, settings: DatasetParams, tmp_path: Path) -> None:
    """Given wrong labels, which training and validation images are not."""
    wrong = Images(digits.test.images, (digits.test.labels + 1) % np.uint8(10))
    settings = settings.model_copy(update={"seeds": 2})
    row = Trainer(replace(digits, test=wrong))(settings, tmp_path).iloc[1]
    assert row.test_accuracy < 20 and row.validation_accuracy > 60


def test_more_seeds_or_fewer_train_none_again(train: Trainer, settings: DatasetParams, tmp_path: Path) -> None:
    one, two = (settings.model_copy(update={"seeds": seeds}) for seeds in (1, 2))
    of_two = train(two, tmp_path)
    of_three = train(settings, tmp_path)
    assert train.titles == ["digits, seed 8", "digits, seed 9"]
    pd.testing.assert_frame_equal(of_three[:2], of_two)
    pd.testing.assert_frame_equal(train(two, tmp_path), of_two)
    assert train(one, tmp_path).seed.tolist() == [7]
    assert len(train.titles) == 2


def test_results_of_other_code_are_not_taken_up(
    train: Trainer, settings: DatasetParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = settings.model_copy(update={"seeds": 2})
    train(two, tmp_path)
    monkeypatch.setattr(under_test, "SOURCE", under_test.SOURCE + "\n")
    train(two, tmp_path)
    assert train.titles == ["digits, seed 8"] * 2


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"test_accuracy": 50.0}', '{"test_accuracy": "x", "validation_accuracy": 1}'),
        '{"test_accuracy": NaN, "validation_accuracy": 1}',
    ],
)
def test_a_damaged_result_is_trained_again(
    text: str, train: Trainer, settings: DatasetParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings.model_copy(update={"seeds": 2})
    whole = train(settings, tmp_path)
    (path,) = tmp_path.glob("*.json")
    path.write_text(text)
    pd.testing.assert_frame_equal(train(settings, tmp_path), whole)
    assert f"digits, seed 8: {path} is damaged" in capsys.readouterr().err
    assert train.titles == ["digits, seed 8"] * 2


def test_other_data_or_another_recipe_are_other_trainings(
    train: Trainer, settings: DatasetParams, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"seeds": 2})
    train(settings, tmp_path)
    train(settings, tmp_path, "another md5")
    slower = settings.xnor.model_copy(update={"learning_rate": 1e-4})
    train(settings.model_copy(update={"xnor": slower}), tmp_path)
    assert len(train.titles) == 3


def test_a_killed_training_goes_on_after_its_last_epoch(
    train: Trainer,
    settings: DatasetParams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, original = train(settings, tmp_path / "whole"), Checkpoints.save
    saved: list[int] = []

    def save(self: Checkpoints, epoch: int, state: Any, *, last: bool) -> None:
        # Even those epochs that are so short that a checkpoint would take more than its share of the time.
        self._cost = 0.0
        original(self, epoch, state, last=last)
        saved.append(epoch)
        if len(saved) == 3:  # the first epoch of the second training
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "killed")
    again = train(settings, tmp_path / "killed")
    assert saved == [1, 2, 1, 2], "what was finished is not trained again"
    assert "digits, seed 9: going on after epoch 1" in capsys.readouterr().err
    pd.testing.assert_frame_equal(again, whole)
    left = {path.suffix for path in (tmp_path / "killed").rglob("*") if path.is_file()}
    assert left == {".json"}


def test_what_a_call_left_that_was_killed_before_it_cleared_up_is_removed(
    train: Trainer, settings: DatasetParams, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"seeds": 2})
    train(settings, tmp_path)
    (result,) = tmp_path.glob("*.json")
    for key in (result.stem, "of_other_settings"):
        Checkpoints(tmp_path / "xnor-8", key)._path(2).parent.mkdir(exist_ok=True)
        Checkpoints(tmp_path / "xnor-8", key)._path(2).touch()
    train(settings, tmp_path)
    assert [path.name for path in tmp_path.rglob("*.pt")] == ["of_other_settings-00002.pt"]  # a training half done
    assert len(train.titles) == 1


def test_mean_and_deviation() -> None:
    rows = pd.DataFrame({"test_accuracy": [98.0, 99.0, 100.0]})
    assert summary(rows) == {"mean": 99.0, "std": 1.0, "runs": 3}
    assert summary(rows[:1]) == {"mean": 98.0, "runs": 1}

"""More seeds: other trainings of the same settings, which outlive a kill, and their mean and deviation."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import xnornet.seeds as under_test
from xnornet.data import Prepared, prepare
from xnornet.params import DatasetParams, Runtime, load
from xnornet.seeds import summary, train_seeds

ROOT = Path(__file__).parents[1]
RUNTIME = Runtime(device="cpu", threads=1, seed=7)
FIRST = {name: {"test_accuracy": 50.0, "validation_accuracy": 51.0, "epochs": 1} for name in ("float", "xnor")}


@pytest.fixture(scope="module")
def settings() -> DatasetParams:
    params = load(ROOT / "params.yaml").digits
    short = {name: getattr(params, name).model_copy(update={"epochs": 1, "warmup_epochs": 0.0}) for name in FIRST}
    return params.model_copy(update={**short, "seeds": 3})


@pytest.fixture(scope="module")
def digits(settings: DatasetParams) -> Prepared:
    return prepare("digits", settings.data)


def trained(digits: Prepared, settings: DatasetParams, folder: Path) -> pd.DataFrame:
    known: dict[str, Any] = {"first": FIRST, "finished": folder, "identity": "", "title": ""}
    return train_seeds(digits, settings, ["float", "xnor"], RUNTIME, **known)


def test_a_row_a_seed_and_the_first_is_taken_as_it_is(
    digits: Prepared, settings: DatasetParams, tmp_path: Path
) -> None:
    rows = trained(digits, settings, tmp_path)
    assert rows.seed.tolist() == [7, 8, 9, 7, 8, 9]
    assert rows.variant.tolist() == ["float"] * 3 + ["xnor"] * 3
    assert (rows[rows.seed == 7].test_accuracy == 50.0).all()
    assert rows[rows.seed > 7].validation_accuracy.between(15, 100).all()
    others = rows[rows.seed > 7]
    assert not others.duplicated(["test_accuracy", "validation_accuracy"]).any(), "two trainings are the same"


def test_a_killed_call_goes_on_with_the_next_training(
    digits: Prepared, settings: DatasetParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, fit = trained(digits, settings, tmp_path / "whole"), under_test.fit
    calls: list[str] = []

    def mortal(*arguments: Any, **options: Any) -> Any:
        calls.append(options["title"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(under_test, "fit", mortal)
    with pytest.raises(KeyboardInterrupt):
        trained(digits, settings, tmp_path / "killed")
    again = trained(digits, settings, tmp_path / "killed")
    assert len(calls) == 3 + 2, "what was finished is not trained again"
    pd.testing.assert_frame_equal(again, whole)


def test_mean_and_deviation() -> None:
    rows = pd.DataFrame({"variant": ["xnor"] * 3 + ["float"], "test_accuracy": [98.0, 99.0, 100.0, 97.0]})
    assert summary(rows) == {"xnor": {"mean": 99.0, "std": 1.0, "runs": 3}, "float": {"mean": 97.0, "runs": 1}}

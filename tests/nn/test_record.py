"""What a training leaves behind says of it what is true."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.nn.trainings import RUNTIME, short
from xnornet.data import Prepared
from xnornet.nn import load_model
from xnornet.nn.binarize import alpha
from xnornet.nn.evaluate import loss_and_accuracy
from xnornet.nn.layers import Binary, binary_layers
from xnornet.nn.loop import Run
from xnornet.nn.record import write_outputs
from xnornet.nn.training import fit
from xnornet.params import DatasetParams, Params


@pytest.fixture(scope="module")
def settings(params: Params) -> DatasetParams:
    return short(params.digits)


@pytest.fixture(scope="module")
def trained(digits: Prepared, settings: DatasetParams, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    run, folder = fit(digits, settings, "xnor", RUNTIME), tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_outputs(run, digits, "md5", "digits", settings, "xnor", RUNTIME)
    return run, folder


def written(folder: Path, kind: str) -> dict[str, Any]:
    return json.loads((folder / f"metrics/{kind}/digits-xnor.json").read_text())


def test_accuracies_are_those_of_the_saved_network_and_of_the_last_epoch(
    trained: tuple[Run, Path], digits: Prepared
) -> None:
    run, folder = trained
    model, about = load_model(folder / "models/digits-xnor.safetensors")
    loss, accuracy, _ = loss_and_accuracy(model, digits.test)
    metrics = written(folder, "train")["digits"]["xnor"]
    assert metrics["test_accuracy"] == round(accuracy, 4) and metrics["test_loss"] == pytest.approx(loss, abs=1e-6)
    last = run.curve[-1]
    assert metrics["train_accuracy"] == round(last["train_accuracy"], 4)
    assert metrics["validation_accuracy"] == round(last["validation_accuracy"], 4)
    assert metrics["epochs"] == len(run.curve) == 2
    assert metrics["binary_parameters"] == sum(layer.weight.numel() for layer in binary_layers(run.model))
    assert about["data_md5"] == "md5" and about["classes"] == list(digits.classes)


def test_answers_are_one_a_test_image_and_as_often_right_as_the_accuracy_says(
    trained: tuple[Run, Path], digits: Prepared
) -> None:
    _, folder = trained
    rows = pd.read_csv(folder / "plots/predictions/digits-xnor.csv", dtype=str)
    assert rows.actual.tolist() == [digits.classes[label] for label in digits.test.labels]
    right = 100 * (rows.actual == rows.predicted).mean()
    assert right == pytest.approx(written(folder, "train")["digits"]["xnor"]["test_accuracy"], abs=1e-4)


def test_times_are_of_the_median_epoch(trained: tuple[Run, Path], digits: Prepared, settings: DatasetParams) -> None:
    run, folder = trained
    times, median = written(folder, "time")["digits"]["xnor"], statistics.median(run.seconds)
    images = len(digits.train) - settings.split.validation
    images -= images % settings.xnor.batch_size
    assert times["seconds_per_epoch"] == round(median, 3)
    assert times["images_per_second"] == pytest.approx(images / median, abs=0.1)
    assert times["threads"] == 1


def test_every_weight_is_in_its_layer_s_histogram(trained: tuple[Run, Path]) -> None:
    run, folder = trained
    rows = pd.read_csv(folder / "plots/weights/digits-xnor.csv")
    layers = {name: layer for name, layer in run.model.named_modules() if isinstance(layer, Binary)}
    assert list(rows.layer.unique()) == list(layers)
    for name, layer in layers.items():
        bins, weight = rows[rows.layer == name], layer.weight.detach()
        assert bins["count"].sum() == weight.numel()
        positive = int((weight > bins.right.max() / 81).sum())  # right of the bin in the middle, which has 0
        assert bins["count"][bins.left > 0].sum() == pytest.approx(positive, abs=2)  # edges are rounded
        assert np.allclose(bins.alpha, alpha(layer.weight).mean().item(), atol=1e-6)


def test_settings_are_the_parameters(trained: tuple[Run, Path], settings: DatasetParams) -> None:
    seen = written(trained[1], "settings")
    assert seen["optimization"] == settings.xnor.model_dump(exclude_none=True)
    assert seen["split"] == settings.split.model_dump()
    assert seen["data"] == {"seed": 0, "test": 397}
    assert seen["runtime"] == RUNTIME.model_dump()
    assert seen["images"] == {"source": "scikit-learn digits", "encoding": "original", "md5": "md5"}

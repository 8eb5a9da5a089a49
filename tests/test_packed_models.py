"""The packed networks in git still answer as their metrics say."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xnornet.data import Prepared
from xnornet.engine import PackedNetwork

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "models/packed").glob("*.safetensors"))


def test_there_are_some() -> None:
    assert {path.stem for path in FILES} >= {"mnist", "cifar10"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_sample_images_get_the_recorded_answers(path: Path) -> None:
    """A hundred test images are in git, as one sheet, with the answers that the trained network gave."""
    sheet = np.asarray(Image.open(ROOT / f"plots/samples/{path.stem}.png"))
    side = sheet.shape[0] // 10
    sheet = sheet.reshape(10, side, 10, side, -1)
    images = np.ascontiguousarray(sheet.swapaxes(1, 2).reshape(100, side, side, sheet.shape[-1]))
    answers = pd.read_csv(ROOT / f"plots/predictions/{path.stem}-xnor.csv").astype(str)
    classes = sorted(answers.actual.unique())
    got = [classes[index] for index in PackedNetwork.load(path)(images).argmax(axis=1)]
    assert got == answers.predicted[:: len(answers) // 100][:100].tolist()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_accuracy_is_the_recorded_one(path: Path) -> None:
    data = ROOT / f"data/{path.stem}.safetensors"
    if not data.exists():
        pytest.skip(f"{data.name} is not here: dvc repro prepares it")
    test = Prepared.load(data).test
    answers = PackedNetwork.load(path)(test.images).argmax(axis=1)
    metrics = json.loads((ROOT / f"metrics/packed/{path.stem}.json").read_text(encoding="utf-8"))
    assert 100 * (answers == test.labels).mean() == pytest.approx(metrics[path.stem]["packed"]["test_accuracy"])

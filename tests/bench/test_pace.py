"""Training steps timed side by side: the numbers belong together, and nothing of the data is touched."""

from pathlib import Path

import pytest

from xnornet.bench.pace import time_steps
from xnornet.data import prepare
from xnornet.params import Runtime, load

ROOT = Path(__file__).parents[2]


def test_an_epoch_is_its_steps() -> None:
    params = load(ROOT / "params.yaml")
    data = prepare("digits", params.digits.data)
    before = data.train.images.copy()
    pace = time_steps(data, params.digits, Runtime(device="cpu", threads=1, seed=0), repeats=5, budget_seconds=0.1)
    images = (len(data.train) - params.digits.data.validation) // 50 * 50
    assert pace["images"] == images and pace["threads"] == 1
    for variant in ("float", "xnor"):
        rate = pace[variant]["images_per_second"]
        assert pace[variant]["seconds_per_epoch"] * rate == pytest.approx(images, rel=0.02)
    assert (data.train.images == before).all()

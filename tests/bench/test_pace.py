"""Training steps timed side by side: the numbers belong together, and nothing of the data is touched."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from xnornet.bench import pace
from xnornet.bench.pace import time_steps
from xnornet.data.prepare import prepare
from xnornet.nn import binary_layers
from xnornet.nn.loop import Run
from xnornet.params import Optimization, ParamsError, Runtime, Training, load

ROOT = Path(__file__).parents[2]


def test_an_epoch_is_its_steps() -> None:
    params = load(ROOT / "params.yaml")
    data = prepare("digits", params.digits.data)
    before = data.train.images.copy()
    times = time_steps(data, params.digits, Runtime(device="cpu", threads=1, seed=0), repeats=5, budget_seconds=0.1)
    images = (len(data.train) - params.digits.split.validation) // 50 * 50
    assert times["images"] == images and times["threads"] == 1
    for variant in ("float", "xnor"):
        rate = times[variant]["images_per_second"]
        assert times[variant]["seconds_per_epoch"] * rate == pytest.approx(images, rel=0.02)
    assert (data.train.images == before).all()


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    params = load(ROOT / "params.yaml").digits
    large = params.model_copy(update={"float": params.float.model_copy(update={"batch_size": 1300})})
    runtime = Runtime(device="cpu", threads=1, seed=0)
    with pytest.raises(ParamsError, match=r"float.batch_size is 1300, but there are 1200 training images"):
        time_steps(prepare("digits", params.data), large, runtime, repeats=5, budget_seconds=0.1)


def test_both_variants_are_timed_as_the_twin_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    params = load(ROOT / "params.yaml").digits
    differently = {"precision": "bfloat16", "batch_size": 1300}  # more than there are images: not used
    other = params.model_copy(update={"xnor": params.xnor.model_copy(update=differently)})
    seen = []

    class Watched(pace.Loop):
        def __init__(self, run: Run, training: Training, optimization: Optimization, images: int) -> None:
            seen.append((bool(binary_layers(run.model)), optimization.precision, optimization.batch_size))
            super().__init__(run, training, optimization, images)

    monkeypatch.setattr(pace, "Loop", Watched)
    data = prepare("digits", params.data)
    time_steps(data, other, Runtime(device="cpu", threads=1, seed=0), repeats=5, budget_seconds=0.1)
    assert seen == [(False, "float32", 50), (True, "float32", 50)]


def test_steps_are_timed_on_as_many_threads_as_training_has(
    threads_while_timing: Callable[[ModuleType], list[int]],
) -> None:
    params, seen = load(ROOT / "params.yaml").digits, threads_while_timing(pace)
    data = prepare("digits", params.data)
    time_steps(data, params, Runtime(device="cpu", threads=1, seed=0), repeats=5, budget_seconds=0.1)
    assert seen == [1]


def test_a_step_has_its_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    params, asked = load(ROOT / "params.yaml").digits, []

    class Watched(pace.Loop):
        def augment(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            batch = super().augment(images, generator)
            asked.append(not torch.equal(batch, images.permute(0, 3, 1, 2)))
            return batch

    monkeypatch.setattr(pace, "Loop", Watched)
    data = prepare("digits", params.data)
    time_steps(data, params, Runtime(device="cpu", threads=1, seed=0), repeats=5, budget_seconds=0.1)
    assert len(asked) >= 10 and all(asked)


def test_bfloat16_is_left_out_where_the_cpu_imitates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    params = load(ROOT / "params.yaml").digits
    asked = params.model_copy(update={"float": params.float.model_copy(update={"precision": "bfloat16"})})
    data = prepare("digits", params.data)
    for capabilities, precision in (({}, "float32"), ({"avx512_bf16": True}, "bfloat16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda here=capabilities: here)
        runtime = Runtime(device="cpu", threads=1, seed=0)
        assert time_steps(data, asked, runtime, repeats=5, budget_seconds=0.1)["precision"] == precision

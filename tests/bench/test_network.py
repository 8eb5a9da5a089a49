import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xnornet.bench import network
from xnornet.bench.machine import usable_cores
from xnornet.bench.network import Exports, time_network
from xnornet.nn import build_model

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1)).astype(np.uint8)

pytestmark = pytest.mark.usefixtures("bfloat16")


@pytest.mark.parametrize(("count", "chosen"), [(1, 1), (8, 8), (64, 64), (65, 33), (1000, 63)])
def test_int8_is_calibrated_on_images_from_all_over(count: int, chosen: int, tmp_path: Path) -> None:
    """They may be in order, class by class."""
    labels = np.arange(count) * 10 // count
    images = labels.astype(np.uint8).reshape(-1, 1, 1, 1)
    calibration = Exports(nn.Identity(), images, tmp_path).calibration
    assert len(calibration) == chosen
    assert set(calibration.flat) == set(labels.tolist())


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = build_model("lenet5", "float", in_channels=1, num_classes=10).eval()
    model.normalize.mean.fill_(0.5)
    model.normalize.std.fill_(0.3)
    return model


class Packed:
    """Stands for a packed network, and notes what it was given."""

    def __init__(self) -> None:
        self.seen: set[tuple[Any, ...]] = set()

    def __call__(self, images: np.ndarray, /, *, threads: int = 1) -> np.ndarray:
        self.seen.add((images.dtype.name, images.shape, threads))
        return np.zeros((len(images), 10), np.float32)


@pytest.fixture(scope="module")
def result(model: nn.Module) -> tuple[dict[str, Any], pd.DataFrame, Packed]:
    packed = Packed()
    metrics, rows = time_network(
        model, packed, IMAGES, batches=[1, 8], threads=[1], repeats=2, budget_seconds=0, peers=True
    )
    return metrics, rows, packed


def test_every_contestant_is_right_or_named_as_missing(result: tuple[dict[str, Any], pd.DataFrame, Packed]) -> None:
    _, rows, _ = result
    for note in rows.note:
        assert note == "" or note.endswith("is not installed")
    assert list(rows[rows.batch == 1].contestant) == list(rows[rows.batch == 8].contestant)
    assert {"packed", "torch float32", "torch float32, channels last", "torch bfloat16"} <= set(rows.contestant)


def test_packed_gets_channels_last_bytes(result: tuple[dict[str, Any], pd.DataFrame, Packed]) -> None:
    assert result[2].seen == {("uint8", (1, 28, 28, 1), 1), ("uint8", (8, 28, 28, 1), 1)}


def test_metrics_agree_with_rows(result: tuple[dict[str, Any], pd.DataFrame, Packed]) -> None:
    metrics, rows, _ = result
    assert set(metrics) == {"batch1", "batch8"}
    block = metrics["batch8"]["threads1"]
    of_batch = rows[rows.batch == 8].set_index("contestant").milliseconds_per_image
    assert block["packed_ms"] == of_batch["packed"]
    assert block["torch_float32_channels_last_ms"] == of_batch["torch float32, channels last"]
    best = of_batch[["torch float32", "torch float32, channels last"]].min()
    assert block["speedup"] == pytest.approx(best / of_batch["packed"])
    ratio = rows[(rows.batch == 8) & (rows.contestant == "torch bfloat16")].times_packed.item()
    assert ratio == pytest.approx(of_batch["torch bfloat16"] / of_batch["packed"])


def test_networks_are_timed_on_as_many_threads_as_it_says(
    model: nn.Module, threads_while_timing: Callable[[ModuleType], list[int]]
) -> None:
    seen = threads_while_timing(network)
    time_network(model, Packed(), IMAGES, batches=[1, 2], threads=[1], repeats=1, budget_seconds=0, peers=False)
    assert seen == [1, 1]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_images_and_weights_have_the_memory_format_that_is_timed(
    memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_forward", lambda model, x: (model[0].weight, x))
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for tensor in network._torch(nn.Sequential(nn.Conv2d(3, 4, 3)), images, memory_format)():
        formats = (torch.contiguous_format, torch.channels_last)
        assert [f for f in formats if tensor.is_contiguous(memory_format=f)] == [memory_format]


def test_the_model_given_is_left_as_it_was(model: nn.Module) -> None:
    model = copy.deepcopy(model).train()
    before = {name: (value.dtype, value.stride(), value.clone()) for name, value in model.state_dict().items()}
    time_network(model, Packed(), IMAGES, batches=[1], threads=[1], repeats=1, budget_seconds=0, peers=False)
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        dtype, stride, content = before[name]
        assert (value.dtype, value.stride()) == (dtype, stride) and torch.equal(value, content)


def test_a_contestant_that_computes_something_else_is_left_out(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = network._torch_bfloat16
    monkeypatch.setattr(network, "_torch_bfloat16", lambda model, images: right(model, 255 - images))
    metrics, rows = time_network(
        model, Packed(), IMAGES, batches=[2], threads=[1], repeats=1, budget_seconds=0, peers=False
    )
    row = rows[rows.contestant == "torch bfloat16"]
    assert row.note.item().startswith("wrong: relative error")
    assert "torch_bfloat16_ms" not in metrics["batch2"]["threads1"]


def test_bfloat16_is_left_out_where_the_cpu_imitates_it(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    metrics, rows = time_network(
        model, Packed(), IMAGES, batches=[1], threads=[1], repeats=1, budget_seconds=0, peers=False
    )
    assert "this CPU has no bfloat16" in rows.set_index("contestant").note["torch bfloat16"]
    assert "torch_bfloat16_ms" not in metrics["batch1"]["threads1"]


def test_logits_of_another_shape_are_left_out(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    right = network._torch_bfloat16

    def one_class_more(model: nn.Module, images: np.ndarray) -> Callable[[], torch.Tensor]:
        call = right(model, images)
        return lambda: F.pad(call(), (0, 1))

    monkeypatch.setattr(network, "_torch_bfloat16", one_class_more)
    _, rows = time_network(model, Packed(), IMAGES, batches=[2], threads=[1], repeats=1, budget_seconds=0, peers=False)
    assert rows.set_index("contestant").note["torch bfloat16"] == "wrong: result has shape (2, 11), not (2, 10)"


def test_a_peer_that_fails_is_left_out_and_nothing_else_may_fail(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Callable[[], Any]:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(network, "_openvino", broken)
    _, rows = time_network(model, Packed(), IMAGES, batches=[1], threads=[1], repeats=1, budget_seconds=0, peers=True)
    assert rows.set_index("contestant").note["OpenVINO float32"] == "failed: RuntimeError: no kernel for this"
    monkeypatch.setattr(network, "_torch", broken)
    with pytest.raises(RuntimeError, match="no kernel"):
        time_network(model, Packed(), IMAGES, batches=[1], threads=[1], repeats=1, budget_seconds=0, peers=False)


def test_zero_threads_are_every_core(model: nn.Module) -> None:
    metrics, _ = time_network(
        model, Packed(), IMAGES, batches=[1], threads=[0, usable_cores()], repeats=1, budget_seconds=0, peers=False
    )
    assert list(metrics["batch1"]) == [f"threads{usable_cores()}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images_uint8": IMAGES.astype(np.float32)}, "images must be uint8"),
        ({"images_uint8": IMAGES[0]}, "images must be uint8"),
        ({"batches": [1, 9]}, r"batches must be 1 to 8 .*, not \[1, 9\]"),
        ({"batches": [0]}, "batches must be 1 to 8"),
        ({"batches": []}, "at least one batch"),
        ({"threads": [-1]}, r"threads must be 0 to .*, not \[-1\]"),
        ({"threads": [10_000]}, "threads must be 0 to"),
    ],
)
def test_refused_before_anything_is_timed(model: nn.Module, arguments: dict[str, Any], message: str) -> None:
    packed = Packed()
    settings = {
        "images_uint8": IMAGES,
        "batches": [1],
        "threads": [1],
        "peers": False,
        "repeats": 1,
        "budget_seconds": 0,
    } | arguments
    with pytest.raises(ValueError, match=message):
        time_network(model, packed, **settings)
    assert not packed.seen

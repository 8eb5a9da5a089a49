"""Every contestant, ours and others', computes the layer that it is said to."""

import builtins
import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xnornet.bench import peers as peers_module
from xnornet.bench.baselines import BASELINES, TORCH_FLOAT32
from xnornet.bench.ours import CHAIN_RAW, ours
from xnornet.bench.peers import openvino_binary, peers
from xnornet.bench.workload import Layer, Problem, SkippedError, WrongError, check, line_up

from .cpu import VNNI

LAYERS = [
    Layer(16, 16, size=6, batch=2),
    Layer(20, 50, kernel=5, size=8, padding=0, batch=3),
    Layer(24, 10, kernel=2, size=5, padding=0, stride=2),
    Layer(3, 7, kernel=1, size=4, padding=0),
    Layer.dense(40, 30, batch=5),
]
CONTESTANTS = {**ours(), **BASELINES, **peers()}

pytestmark = pytest.mark.usefixtures("bfloat16")


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("name", CONTESTANTS)
def test_contestant_is_right(name: str, layer: Layer) -> None:
    try:
        contestant = CONTESTANTS[name](Problem(layer))
    except SkippedError as reason:
        pytest.skip(str(reason))
    if "int8" in name and not VNNI:
        pytest.skip("without VNNI, sums of int8 saturate")
    check(contestant)
    check(contestant)  # a second call does not build on the first


@pytest.mark.parametrize("name", CONTESTANTS)
def test_the_check_would_see_other_weights(name: str) -> None:
    """A contestant held to the result of other weights fails: its tolerance is not so wide that anything passes."""
    layer = LAYERS[0]
    try:
        contestant = CONTESTANTS[name](Problem(layer))
        other = CONTESTANTS[name](Problem(layer, seed=1))
    except SkippedError as reason:
        pytest.skip(str(reason))
    with pytest.raises(WrongError, match="relative error"):
        check(replace(contestant, wanted=other.wanted))


@pytest.mark.parametrize("name", TORCH_FLOAT32)
def test_torch_has_the_memory_format_that_its_name_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = torch.channels_last if "channels last" in name else torch.contiguous_format
    formats, seen = (torch.contiguous_format, torch.channels_last), []

    def noted(x: torch.Tensor, weight: torch.Tensor, **_: object) -> torch.Tensor:
        seen.extend([f for f in formats if tensor.is_contiguous(memory_format=f)] for tensor in (x, weight))
        return x

    monkeypatch.setattr(F, "conv2d", noted)
    CONTESTANTS[name](Problem(LAYERS[0])).call()
    assert seen == [[wanted], [wanted]]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_our_result(threads: int) -> None:
    for layer in LAYERS[:2]:
        builders = {name: partial(build, Problem(layer)) for name, build in ours(threads).items()}
        _, skipped = line_up(builders)
        assert skipped.keys() <= {CHAIN_RAW}


@pytest.mark.parametrize("channels", [20, 33])
def test_openvino_is_kept_off_the_channels_it_gets_wrong(channels: int) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(SkippedError, match=f"multiple of 8, here {channels}"):
        openvino_binary(Problem(Layer(channels, 16, size=6)))


def test_a_window_that_openvino_lacks_is_skipped() -> None:
    pytest.importorskip("openvino")
    with pytest.raises(SkippedError, match="20x20"):
        openvino_binary(Problem(Layer(8, 8, kernel=20, size=14, padding=9)))


@pytest.mark.parametrize("name", peers())
def test_a_missing_peer_is_skipped_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, package: str | None = None) -> object:
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(peers_module.importlib, "import_module", missing)
    with pytest.raises(SkippedError, match=r"(onnx|openvino)\w* is not installed"):
        peers()[name](Problem(LAYERS[0]))


def test_a_peer_whose_libraries_do_not_load_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: str, package: str | None = None) -> object:
        raise ImportError("libfoo.so.1: cannot open shared object file", name=module)

    monkeypatch.setattr(peers_module.importlib, "import_module", broken)
    with pytest.raises(SkippedError, match="onnx cannot be imported: libfoo"):
        peers_module.load("onnx.helper")


def test_baselines_need_no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(original: Callable) -> Callable:
        def load(name: str, *args: object, **kwargs: object) -> object:
            assert name.partition(".")[0] not in ("onnx", "onnxruntime", "openvino")
            return original(name, *args, **kwargs)

        return load

    monkeypatch.setattr(builtins, "__import__", guarded(builtins.__import__))
    monkeypatch.setattr(importlib, "import_module", guarded(importlib.import_module))
    with pytest.raises(AssertionError):
        next(iter(peers().values()))(Problem(LAYERS[0]))
    for build in (*ours().values(), *BASELINES.values()):
        check(build(Problem(LAYERS[0])))


def test_inputs_outlive_the_caller_s_arrays() -> None:
    """Runtimes share the memory of their input; a contestant alone must keep it alive."""
    contestants = []
    for name, build in peers().items():
        try:
            contestants.append((name, build(Problem(LAYERS[0]))))
        except SkippedError:
            continue
    if not contestants:
        pytest.skip("no peer is installed")
    litter = [np.full((2, 16, 6, 6), np.nan, np.float32) for _ in range(100)]
    for _, contestant in contestants:
        check(contestant)
    assert len(litter) == 100

"""Whole networks: the packed XNOR network against its float twin in torch, ONNX Runtime and OpenVINO.

Every contestant takes the same images and normalises them itself. The torch twin is the headline: eager, float32, in
the faster of its two memory formats. torch int8 is left out: its quantizers for whole networks are deprecated in torch
itself, and ONNX Runtime's int8 stands for that number format.
"""

import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import nn

from xnornet.bench import peers as engines
from xnornet.bench.baselines import TORCH_BFLOAT16, TORCH_FLOAT32, check_bfloat16
from xnornet.bench.machine import usable_cores
from xnornet.bench.timing import Timing, TimingError, compare, timing_lock
from xnornet.bench.timing import threads as use_threads
from xnornet.bench.workload import Array, Contestant, line_up

PACKED = "packed"
OPENVINO_FLOAT32 = "OpenVINO float32"

# Relative errors of the logits, ||y - y*|| / ||y*||, that a number format excuses over a whole network. For int8 it is
# loose: quantization moves the logits, and how far is the business of an accuracy test; this one finds broken exports.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "int8": 0.5}

_CALIBRATION_IMAGES = 64


class Packed(Protocol):
    """What is asked of a packed network: uint8 (N, H, W, C) images -> float32 (N, classes) logits."""

    def __call__(self, images: Array, /, *, threads: int = 1) -> Array: ...


def time_network(
    float_model: nn.Module,
    packed_network: Packed,
    images_uint8: Array,
    *,
    batches: Sequence[int],
    threads: Sequence[int],
    repeats: int,
    budget_seconds: float,
    peers: bool = True,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Time inference of a network at each batch size and thread count, all contestants interleaved.

    float_model: the float twin, which takes uint8 (N, C, H, W). images_uint8: (N, H, W, C), at least as many as the
    largest batch; they also calibrate int8. threads: thread counts, 0 for every core. peers: whether to time ONNX
    Runtime and OpenVINO, where installed. budget_seconds: for each pair of batch and threads, after which the rounds
    end early, but not before the fifth.

    Returns (metrics, rows). Metrics: {"batch1": {"threads1": {"packed_ms", "torch_float32_ms", "speedup", ...}}}, ms
    per image; `speedup` is over torch float32 in its better layout. Rows: one per batch, threads and contestant: batch,
    threads, contestant, milliseconds_per_image, iqr (same unit), noisy (see `Timing`), repeats, times_packed (its time
    over the packed one's), note (why it was left out). ValueError for images of a wrong type or too few, or a batch
    below 1.
    """
    counts = _check(images_uint8, batches, threads)
    float_model = copy.deepcopy(float_model).cpu().eval()
    metrics: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    with timing_lock(), tempfile.TemporaryDirectory(prefix="xnornet-") as folder:
        exports = Exports(float_model, images_uint8, Path(folder)) if peers else None
        for batch in batches:
            images = np.ascontiguousarray(images_uint8[:batch])
            for count in counts:
                with use_threads(count):
                    ready, skipped = _line_up(float_model, packed_network, images, count, exports)
                    calls = {name: contestant.call for name, contestant in ready.items()}
                    timings = compare(calls, threads=count, repeats=repeats, budget_seconds=budget_seconds)
                rows += _rows(timings, skipped, batch, count)
                metrics.setdefault(f"batch{batch}", {})[f"threads{count}"] = _metrics(timings, batch)
    return metrics, pd.DataFrame(rows)


def _check(images: Array, batches: Sequence[int], threads: Sequence[int]) -> list[int]:
    """The thread counts, without repetition and with a number for 0."""
    if images.dtype != np.uint8 or images.ndim != 4:
        raise TimingError(f"images must be uint8 (N, H, W, C), not {images.dtype} {images.shape}")
    if not batches or not threads:
        raise TimingError("name at least one batch size and one thread count")
    if min(batches) < 1 or max(batches) > len(images):
        raise TimingError(f"bench.batches must be 1 to {len(images)} (the images given), not {list(batches)}")
    if min(threads) < 0 or max(threads) > usable_cores():
        raise TimingError(
            f"bench.threads must be 0 to {usable_cores()} (the cores this process may use), not {list(threads)}"
        )
    return list(dict.fromkeys(count or usable_cores() for count in threads))


def _line_up(
    model: nn.Module, packed: Packed, images: Array, count: int, exports: "Exports | None"
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Build and verify, see `line_up`; all but the packed network and torch's float32 are optional."""
    with torch.inference_mode():
        logits = model(_nchw(images)).numpy()

    def contestant(call: Callable[[], Any], result: Callable[[Any], Array], number_format: str) -> Contestant:
        return Contestant(call, result, lambda: logits, _TOLERANCE[number_format])

    def in_torch(memory_format: torch.memory_format) -> Contestant:
        return contestant(_torch(model, images, memory_format), torch.Tensor.numpy, "float32")

    def in_bfloat16() -> Contestant:
        check_bfloat16()
        return contestant(_torch_bfloat16(model, images), lambda y: y.float().numpy(), "bfloat16")

    builders: dict[str, Callable[[], Contestant]] = {
        # The twin is untrained: there is nothing to compare its logits with. The stage `export` has done that.
        PACKED: lambda: Contestant(lambda: packed(images, threads=count), np.asarray, None, 0.0),
        TORCH_FLOAT32[0]: lambda: in_torch(torch.contiguous_format),
        TORCH_FLOAT32[1]: lambda: in_torch(torch.channels_last),
        TORCH_BFLOAT16: in_bfloat16,
    }
    if exports is not None:

        def in_onnxruntime(export: Callable[[], Path], number_format: str) -> Contestant:
            return contestant(_onnxruntime(export, images, count), engines.bound_output, number_format)

        def in_openvino() -> Contestant:
            call = _openvino(exports.float32, images, count)
            return contestant(call, lambda request: request.get_output_tensor().data, "float32")

        builders |= {
            engines.ONNXRUNTIME_FLOAT32: lambda: in_onnxruntime(exports.float32, "float32"),
            engines.ONNXRUNTIME_INT8: lambda: in_onnxruntime(exports.int8, "int8"),
            OPENVINO_FLOAT32: in_openvino,
        }
    return line_up(builders, optional=set(builders) - {PACKED, *TORCH_FLOAT32})


def _nchw(images: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _torch(model: nn.Module, images: Array, memory_format: torch.memory_format) -> Callable[[], torch.Tensor]:
    model = copy.deepcopy(model).to(memory_format=memory_format)
    x = _nchw(images).contiguous(memory_format=memory_format)
    return lambda: _forward(model, x)


def _torch_bfloat16(model: nn.Module, images: Array) -> Callable[[], torch.Tensor]:
    """Weights and activations in bfloat16; images come as bfloat16 0 to 1, to its advantage."""
    model = copy.deepcopy(model).to(torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = (_nchw(images).float() / 255).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    return lambda: _forward(model, x)


def _forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(x)


class Exports:
    """The float twin as ONNX files, made when first asked for: `float32()` and `int8()` give their paths.

    images: uint8 (N, H, W, C), up to 64 of which, from all over them (they may be in order), calibrate int8. The batch
    size of the files is free. SkippedError where a package for it is missing.
    """

    def __init__(self, model: nn.Module, images: Array, folder: Path) -> None:
        self._model, self._folder = model, folder
        self.calibration = images[:: -(-len(images) // _CALIBRATION_IMAGES)]

    def float32(self) -> Path:
        path = self._folder / "float32.onnx"
        if not path.exists():
            for package in ("onnx", "onnxscript"):
                engines.load(package)
            with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"):
                warnings.simplefilter("ignore")
                # Two images: torch.export would take a batch of 1 for a constant.
                torch.onnx.export(
                    self._model,
                    (_nchw(np.resize(self.calibration, (2, *self.calibration.shape[1:]))),),
                    path,
                    input_names=["images"],
                    output_names=["logits"],
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    external_data=False,
                    dynamo=True,
                    verbose=False,
                )
        return path

    def int8(self) -> Path:
        """Static quantization: uint8 activations calibrated on the images, int8 weights with a scale per channel."""
        path = self._folder / "int8.onnx"
        if not path.exists():
            float32 = self.float32()
            q = engines.load("onnxruntime.quantization")
            shaped = self._folder / "shaped.onnx"
            with _quiet(None):
                engines.load("onnxruntime.quantization.shape_inference").quant_pre_process(
                    float32, shaped, skip_symbolic_shape=True
                )
                q.quantize_static(
                    shaped,
                    path,
                    _calibration(q.CalibrationDataReader, self.calibration),
                    quant_format=q.QuantFormat.QDQ,
                    op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool"],
                    per_channel=True,
                    activation_type=q.QuantType.QUInt8,
                    weight_type=q.QuantType.QInt8,
                )
        return path


def _calibration(base: Any, images: Array) -> Any:
    batches = iter([{"images": _nchw(images).numpy()}])

    class Reader(base):  # known at run time only
        def get_next(self) -> Mapping[str, Array] | None:
            return next(batches, None)

    return Reader()


class _quiet:  # noqa: N801  # used like a function
    """Silence the chatter of loggers while a block runs; None is the root logger."""

    def __init__(self, *names: str | None) -> None:
        self._loggers = [logging.getLogger(name) for name in names]
        self._levels = [logger.level for logger in self._loggers]

    def __enter__(self) -> None:
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)


def _onnxruntime(export: Callable[[], Path], images: Array, count: int) -> Callable[[], Any]:
    engines.load("onnxruntime")
    session = engines.onnxruntime_session(str(export()), count)
    return engines.bound_run(session, _nchw(images).numpy())


def _openvino(export: Callable[[], Path], images: Array, count: int) -> Callable[[], Any]:
    ov = engines.load("openvino")
    x = _nchw(images).numpy()
    model = ov.Core().read_model(export())
    model.reshape(list(x.shape))
    return engines.openvino_run(model, x, count)


def _rows(timings: Mapping[str, Timing], skipped: Mapping[str, str], batch: int, count: int) -> list[dict[str, Any]]:
    place = {"batch": batch, "threads": count}
    timed = [
        {
            **place,
            "contestant": name,
            "milliseconds_per_image": 1e3 * timing.median / batch,
            "iqr": 1e3 * timing.iqr / batch,
            "noisy": timing.noisy,
            "repeats": timing.repeats,
            "times_packed": timing.median / timings[PACKED].median,
            "note": "",
        }
        for name, timing in timings.items()
    ]
    left_out = {**place, "noisy": False, "repeats": 0}
    return timed + [{**left_out, "contestant": name, "note": why} for name, why in skipped.items()]


def _metrics(timings: Mapping[str, Timing], batch: int) -> dict[str, float]:
    milliseconds = {
        f"{name.replace(',', '').replace(' ', '_').lower()}_ms": 1e3 * timing.median / batch
        for name, timing in timings.items()
    }
    best = min(timings[name].median for name in TORCH_FLOAT32 if name in timings)
    return {**milliseconds, "speedup": best / timings[PACKED].median}

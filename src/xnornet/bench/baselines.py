"""What a layer costs without our engine, with what every installation has: torch, and a plain loop that Numba compiles.

Each function builds a `Contestant`; data are converted to a contestant's own types and layout beforehand, so that its
time is that of the layer alone. Peers that must be installed apart are in `xnornet.bench.peers`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xnornet.bench.workload import Array, Builder, Contestant, Problem, SkippedError
from xnornet.cpu import has_bfloat16
from xnornet.engine.bits import aligned
from xnornet.engine.vector import kept

# Relative errors ||y - y*|| / ||y*|| on normal data: rounding of products of 24, 8 and 7 bits, summed up.
FLOAT32_TOLERANCE = 1e-5
BFLOAT16_TOLERANCE = 1e-2
INT8_TOLERANCE = 4e-2

TO_NHWC = (0, 2, 3, 1)
"""Axes of (N, C, H, W), channels last."""

TORCH_FLOAT32 = ("torch float32", "torch float32, channels last")
"""Names of the two memory formats; the faster of the two is the float32 that speed-ups refer to."""

TORCH_BFLOAT16, TORCH_INT8, LOOP = "torch bfloat16", "torch int8", "plain float32 loop"


def torch_float32(problem: Problem, memory_format: torch.memory_format = torch.contiguous_format) -> Contestant:
    """torch's eager float32 convolution (oneDNN) or linear layer (MKL)."""
    return _torch_float(problem, torch.float32, memory_format, FLOAT32_TOLERANCE)


def torch_bfloat16(problem: Problem) -> Contestant:
    """The same in bfloat16, channels last, bfloat16 in and out. SkippedError as `check_bfloat16`."""
    check_bfloat16()
    return _torch_float(problem, torch.bfloat16, torch.channels_last, BFLOAT16_TOLERANCE)


def check_bfloat16() -> None:
    """SkippedError where torch does not compute in bfloat16 but imitates it, in several times the time of float32."""
    if not has_bfloat16():
        raise SkippedError("this CPU has no bfloat16, and torch imitates it, much slower than float32")


def _torch_float(
    problem: Problem, dtype: torch.dtype, memory_format: torch.memory_format, tolerance: float
) -> Contestant:
    layer = problem.layer
    x, weight = torch.from_numpy(problem.x).to(dtype), torch.from_numpy(problem.weight).to(dtype)
    if layer.is_dense:
        if memory_format is torch.channels_last and dtype is torch.float32:
            raise SkippedError("a dense layer has no memory format")
        x, weight = x.flatten(1), weight.flatten(1)
        return Contestant(
            _inference(lambda: F.linear(x, weight)), _dense_result, lambda: problem.float_result, tolerance
        )
    x, weight = x.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format)
    call = _inference(lambda: F.conv2d(x, weight, stride=layer.stride, padding=layer.padding))
    return Contestant(call, _conv_result, lambda: problem.float_result, tolerance)


def torch_int8(problem: Problem) -> Contestant:
    """torch's quantized convolution or linear layer (oneDNN VNNI), uint8 in, float32 out.

    Weights int8 with a scale per output channel, input uint8 with one scale; the input comes quantized, so the time
    excludes that step, to the advantage of int8. Uses the operators that torch.compile lowers quantized models to.
    """
    if not hasattr(torch.ops.onednn, "qconv_pointwise") or not torch.backends.mkldnn.is_available():
        raise SkippedError("this build of torch has no oneDNN int8 operators")
    try:
        contestant = _torch_int8(problem)
        contestant.call()
    except RuntimeError as error:  # the operators exist everywhere, kernels behind them do not
        raise SkippedError(f"torch's int8 operators do not run here: {error}") from None
    return contestant


def _torch_int8(problem: Problem) -> Contestant:
    layer, operators = problem.layer, torch.ops.onednn
    x, weight = torch.from_numpy(problem.x), torch.from_numpy(problem.weight)
    x_scale = float(x.abs().max()) / 127
    quantized = (x / x_scale).round_().add_(128).to(torch.uint8)
    w_scale = weight.abs().amax((1, 2, 3)) / 127
    w = (weight / w_scale.view(-1, 1, 1, 1)).round_().to(torch.int8)
    w_zero = torch.zeros(layer.out_channels, dtype=torch.int32)
    to_float32: tuple[Any, ...] = (
        1.0,
        0,
        torch.float32,
        "none",
        [],
        "",
    )  # output scale, zero point, type; no fused activation
    if layer.is_dense:
        quantized, w = quantized.flatten(1), w.flatten(1)
        packed = operators.qlinear_prepack(w, list(quantized.shape))
        call = _inference(
            lambda: operators.qlinear_pointwise(quantized, x_scale, 128, packed, w_scale, w_zero, None, *to_float32)
        )
        return Contestant(call, _dense_result, lambda: problem.float_result, INT8_TOLERANCE)
    quantized = quantized.contiguous(memory_format=torch.channels_last)
    window: tuple[Any, ...] = ([layer.stride] * 2, [layer.padding] * 2, [1, 1], 1)
    packed = operators.qconv_prepack(w, w_scale, x_scale, 128, *window, list(quantized.shape))
    call = _inference(
        lambda: operators.qconv_pointwise(quantized, x_scale, 128, packed, w_scale, w_zero, None, *window, *to_float32)
    )
    return Contestant(call, _conv_result, lambda: problem.float_result, INT8_TOLERANCE)


def float32_loop(problem: Problem) -> Contestant:
    """A plain float32 loop, compiled by Numba as our engine is: what XNOR and popcount gain with all else equal.

    Channels last, one thread; one loop nest, vectorized over the output channels, with neither tiles nor im2col. Its
    arrays begin at a cache line: at another address, vectors of 512 bits lie in two, and it takes up to 1.4x as long.
    """
    layer = problem.layer
    p = layer.padding
    x = _aligned_copy(np.pad(problem.x.transpose(TO_NHWC), ((0, 0), (p, p), (p, p), (0, 0))))
    weight = _aligned_copy(problem.weight.transpose(2, 3, 1, 0))  # (k, k, C, O)
    out = aligned((layer.batch, layer.out_size, layer.out_size, layer.out_channels), np.float32)
    return Contestant(
        lambda: _convolve(x, weight, layer.stride, out), _same, lambda: problem.float_result, FLOAT32_TOLERANCE
    )


@partial(kept, fastmath=True, nogil=True)
def _convolve(x: Array, weight: Array, stride: int, out: Array) -> Array:  # pragma: no cover  # compiled
    """x padded (N, H, W, C), weight (k, k, C, O) -> out (N, H', W', O)."""
    images, height, width, outputs = out.shape
    kernel, _, channels, _ = weight.shape
    for n in range(images):
        for i in range(height):
            for j in range(width):
                sums = out[n, i, j]
                sums[:] = 0
                for di in range(kernel):
                    for dj in range(kernel):
                        for c in range(channels):
                            value = x[n, i * stride + di, j * stride + dj, c]
                            row = weight[di, dj, c]
                            for o in range(outputs):
                                sums[o] += value * row[o]
    return out


def _aligned_copy(array: Array) -> Array:
    copy = aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


BASELINES: Mapping[str, Builder] = {
    TORCH_FLOAT32[0]: torch_float32,
    TORCH_FLOAT32[1]: lambda problem: torch_float32(problem, torch.channels_last),
    TORCH_BFLOAT16: torch_bfloat16,
    TORCH_INT8: torch_int8,
    LOOP: float32_loop,
}


def _inference(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Without autograd's bookkeeping, which costs a few microseconds a call."""

    def run() -> Tensor:
        with torch.inference_mode():
            return call()

    return run


def _conv_result(y: Tensor) -> Array:
    return y.permute(TO_NHWC).float().numpy()


def _dense_result(y: Tensor) -> Array:
    return y[:, None, None, :].float().numpy()


def _same(y: Array) -> Array:
    return y

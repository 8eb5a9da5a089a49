"""Our engine as contestants: a layer end to end, and its parts."""

from collections.abc import Callable
from typing import Any

import numpy as np

from xnornet.bench.workload import Array, Builder, Contestant, Problem, convolve, signs
from xnornet.engine import PackedConv2d, PackedImages, PackedLinear

END_TO_END = "ours"
PACKING = "ours, packing"
KERNEL = "ours, kernel"
CHAIN = "ours, in a chain"

# Counts are exact; the product with alpha is rounded once, here and in the reference.
_TOLERANCE = 1e-6


def ours(threads: int = 1) -> dict[str, Builder]:
    """The contestants by name.

    `ours`: float32 in, packing, kernel, float32 out. `ours, packing` and `ours, kernel` (bits in, float32 out) are its
    parts, called on their own, so that their sum exceeds it by one call. `ours, in a chain`: bits in, BatchNorm and
    sign folded into thresholds, bits out.
    """

    def end_to_end(problem: Problem) -> Contestant:
        layer, x = _packed_layer(problem)
        return Contestant(lambda: layer(x, threads=threads), _nhwc, lambda: problem.binary_result, _TOLERANCE)

    def packing(problem: Problem) -> Contestant:
        layer, x = _packed_layer(problem)
        wanted: Callable[[], Array] = lambda: signs(problem.x).transpose(0, 2, 3, 1)  # noqa: E731
        return Contestant(lambda: layer.pack(x, threads=threads), PackedImages.signs, wanted, 0.0)

    def kernel(problem: Problem) -> Contestant:
        layer, x = _packed_layer(problem)
        packed = layer.pack(x)
        call = lambda: layer.run_packed(packed, threads=threads)  # noqa: E731
        return Contestant(call, _nhwc, lambda: problem.binary_result, _TOLERANCE)

    def chain(problem: Problem) -> Contestant:
        layer, x = _packed_layer(problem)
        rng, channels = np.random.default_rng(1), problem.layer.out_channels
        threshold, flip = rng.integers(-20, 20, channels), rng.random(channels) < 0.1
        padding = {} if problem.layer.is_dense else {"padding": problem.layer.padding}
        forward = layer.then_sign(threshold, flip, **padding)
        packed = layer.pack(x)

        def wanted() -> Array:
            count = convolve(signs(problem.x), signs(problem.weight), problem.layer)
            return np.where((count >= threshold) != flip, np.float32(1), np.float32(-1))

        return Contestant(lambda: forward(packed, threads=threads), PackedImages.signs, wanted, 0.0)

    return {END_TO_END: end_to_end, PACKING: packing, KERNEL: kernel, CHAIN: chain}


def _packed_layer(problem: Problem) -> tuple[Any, Array]:
    """The packed layer and its input, float32, channels last."""
    if problem.layer.is_dense:
        return PackedLinear(problem.weight[:, :, 0, 0]), np.ascontiguousarray(problem.x[:, :, 0, 0])
    layer = PackedConv2d(problem.weight, stride=problem.layer.stride, padding=problem.layer.padding)
    return layer, np.ascontiguousarray(problem.x.transpose(0, 2, 3, 1))


def _nhwc(y: Array) -> Array:
    return y if y.ndim == 4 else y[:, None, None, :]

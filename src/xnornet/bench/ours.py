"""Our engine as contestants: a layer end to end, and its parts."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np

from xnornet.bench.workload import CHAIN_LENGTH, Array, Builder, Chain, Contestant, Problem, signs
from xnornet.engine import PackedChain, PackedConv2d, PackedImages, PackedLinear

END_TO_END = "ours"
PACKING = "ours, packing"
KERNEL = "ours, kernel"
BITS = "ours, bits in and out"
CHAIN = "ours, in a chain"
CHAIN_RAW = f"ours, {CHAIN_LENGTH} layers"

# Counts are exact; the product with alpha is rounded once, here and in the reference.
_TOLERANCE = 1e-6


def ours(threads: int = 1) -> dict[str, Builder]:
    """The contestants by name.

    `ours`: float32 in, packing, kernel, float32 out. `ours, packing` and `ours, kernel` (bits in, float32 out) are its
    parts, called on their own, so that their sum exceeds it by one call. `ours, bits in and out`: with BatchNorm and
    sign folded into thresholds. `CHAIN_RAW`: nine of these in one call, which time one in a chain together with it, see
    `layer.CHAINS`.
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

    def chain(problem: Problem, length: int) -> Contestant:
        given = Chain.of(problem, length)
        padding = {} if problem.layer.is_dense else {"padding": problem.layer.padding}
        fused = [
            _packed(problem, weight).then_sign(threshold, flip, **padding)
            for weight, threshold, flip in zip(given.weights, given.thresholds, given.flips, strict=True)
        ]
        forward = reduce(PackedChain.then, fused)
        layer, x = _packed_layer(problem)
        packed = layer.pack(x)
        wanted: Callable[[], Array] = lambda: given.signs_of(given.counts(problem), length - 1)  # noqa: E731
        return Contestant(lambda: forward(packed, threads=threads), PackedImages.signs, wanted, 0.0)

    return {
        END_TO_END: end_to_end,
        PACKING: packing,
        KERNEL: kernel,
        BITS: partial(chain, length=1),
        CHAIN_RAW: partial(chain, length=CHAIN_LENGTH),
    }


def _packed_layer(problem: Problem) -> tuple[Any, Array]:
    """The packed layer and its input, float32, channels last."""
    x = problem.x[:, :, 0, 0] if problem.layer.is_dense else problem.x.transpose(0, 2, 3, 1)
    return _packed(problem, problem.weight), np.ascontiguousarray(x)


def _packed(problem: Problem, weight: Array) -> Any:
    """A packed layer of the problem's kind."""
    if problem.layer.is_dense:
        return PackedLinear(weight[:, :, 0, 0])
    return PackedConv2d(weight, stride=problem.layer.stride, padding=problem.layer.padding)


def _nhwc(y: Array) -> Array:
    return y if y.ndim == 4 else y[:, None, None, :]

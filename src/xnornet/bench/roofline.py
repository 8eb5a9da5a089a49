"""The machine's peak rates, measured: the loops that the binary and the float kernels can at best come near to.

Each loop keeps everything but one load a dozen vectors in registers, in as many independent accumulators as hide the
latencies: what it takes is what the arithmetic pipes take.
"""

import time
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types

from xnornet.engine.bits import aligned
from xnornet.engine.vector import WIDE, Emitter, f32, i64, intrinsic, vector

# Accumulators and constants of a loop, and the vector that it loads, must fit the registers together: 32 of 512 bits,
# or 16 of half the width, where LLVM makes two of each vector.
ACCUMULATORS = 12 if WIDE else 3
LOADED = 64  # vectors that are loaded in turn, 4 KiB: always in L1
STEPS = 200_000  # of a loop; 0.6 to 3 ms
REPEATS = 30

POPCOUNT_MACS = 512  # one-bit products of a xor, popcount and add of 512 bits
FMA_MACS = 16  # products of an FMA of 512 bits


def popcount_peak() -> float:
    """10^9 one-bit multiply-accumulates a second of one thread: acc += popcount(x xor w), nothing else."""
    return _rate(_popcount_loop, POPCOUNT_MACS)


def fma_peak() -> float:
    """10^9 float32 multiply-accumulates a second of one thread: acc = fma(x, w, acc), nothing else."""
    return _rate(_fma_loop, FMA_MACS)


def peaks() -> tuple[float, float]:
    """(`popcount_peak`, `fma_peak`)."""
    return popcount_peak(), fma_peak()


def _rate(loop: Callable[[int, int, int], None], macs: int) -> float:
    memory, result = aligned((LOADED, 64), np.uint8), aligned((ACCUMULATORS, 64), np.uint8)
    addresses = memory.ctypes.data, result.ctypes.data
    loop(*addresses, 1)
    best = np.inf
    for _ in range(REPEATS):  # the fastest: whatever else the machine does can only take time away
        start = time.perf_counter()
        loop(*addresses, STEPS)
        best = min(best, time.perf_counter() - start)
    return STEPS * ACCUMULATORS * macs / best / 1e9


def _loop(
    kind: ir.VectorType, update: Callable[[Emitter, ir.Value, ir.Value, ir.Value], ir.Value]
) -> Callable[..., None]:
    @intrinsic
    def body(context, memory, result, steps):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            memory, result, steps = args
            e = Emitter(builder)
            constants = [e.load(e.advance(memory, index, 64), kind, 64) for index in range(ACCUMULATORS)]

            def step(index: ir.Value, accumulators: list[ir.Value]) -> list[ir.Value]:
                place = builder.and_(index, e.constant(LOADED - 1))
                x = e.load(e.advance(memory, place, 64), kind, 64)
                return [update(e, a, x, w) for a, w in zip(accumulators, constants, strict=True)]

            for index, total in enumerate(e.loop(steps, [e.zeros(kind)] * ACCUMULATORS, step)):
                e.store(total, e.advance(result, index, 64), 64)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    @njit(nogil=True)
    def loop(memory, result, steps):  # type: ignore[no-untyped-def]
        body(memory, result, steps)

    return loop


_popcount_loop = _loop(vector(i64, 8), lambda e, total, x, w: e.ir.add(total, e.popcount(e.ir.xor(x, w))))
_fma_loop = _loop(vector(f32, 16), lambda e, total, x, w: e.fma(x, w, total))

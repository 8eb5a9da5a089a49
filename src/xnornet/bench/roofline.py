"""The machine's peak rates, measured: the loops that the float kernels, and the binary ones word by word, come near to.

(Where the engine counts words in groups, `engine.running`, it makes up to an eighth fewer instructions than this loop.)

Each loop keeps everything but up to three loads a step in registers, in as many independent accumulators as hide the
latencies: what it takes is what the arithmetic pipes take.
"""

import time
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types

from xnornet.engine import counter
from xnornet.engine.bits import aligned
from xnornet.engine.counter import CARRY_SAVE, LOOKUP
from xnornet.engine.vector import WIDE, Emitter, f32, i8, intrinsic, vector

# Accumulators (of two registers with carry-save counting) and constants of a loop, and the vectors that it loads, must
# fit the registers together: 32 of 512 bits, or 16 of half the width, where LLVM makes two of a vector of 512 bits. An
# FMA needs 10 chains there, which 5 cycles of latency on two pipes take; no register is left for as many constants.
COUNTERS = (8 if CARRY_SAVE else 12) if WIDE and not LOOKUP else 3
PRODUCTS, FACTORS, FLOATS = (12, 12, 16) if WIDE else (10, 2, 8)  # chains, constants, and lanes of each
WORDS = 2 if CARRY_SAVE else 1  # that one step counts in each accumulator
LOADED = 64  # vectors that are loaded in turn, 4 KiB: always in L1
STEPS = 200_000  # of a loop; 0.6 to 3 ms
REPEATS = 30

POPCOUNT_MACS = 3 * 4 * 2 * 32 if LOOKUP else 512 * WORDS
"""One-bit products of one step: three nibbles of 2 pixels and 32 channels, looked up; a vector, or two carry-saved."""


def peaks() -> tuple[float, float]:
    """Peak rates of one thread, in 10^9 multiply-accumulates a second: one-bit and float32 ones.

    One-bit: popcounts of x xor w, made and summed as the engine does it word by word; float32: acc = fma(x, w, acc).
    In turns, since the clock rate may change; of each the fastest, since whatever else the machine does takes time
    away. On normal data, as layers have them: switching bits takes power, and zeros run a few percent faster.
    """
    memory, result = aligned((LOADED + 2, 16), np.float32), aligned((2 * max(COUNTERS, PRODUCTS), 64), np.uint8)
    memory[:] = np.random.default_rng(0).standard_normal(memory.shape)
    addresses = memory.ctypes.data, result.ctypes.data
    loops = _popcount_loop, _fma_loop
    for loop in loops:
        loop(*addresses, 1)
    seconds = np.empty((REPEATS, len(loops)))
    for turn, column in np.ndindex(seconds.shape):
        start = time.perf_counter()
        loops[column](*addresses, STEPS)
        seconds[turn, column] = time.perf_counter() - start
    popcount, fma = (STEPS / 1e9 / seconds.min(axis=0)).tolist()
    return popcount * COUNTERS * POPCOUNT_MACS, fma * PRODUCTS * FLOATS


def _loop(
    kind: ir.VectorType,
    accumulators: int,
    registers: int,
    constant_count: int,
    unroll: bool,
    update: Callable[[Emitter, list[ir.Value], list[ir.Value], list[ir.Value], int], list[ir.Value]],
) -> Callable[..., None]:
    """A loop over `update(emitter, state, loaded, constants, index of the accumulator) -> state`.

    The accumulators begin with different values: LLVM keeps but one of two that would always be equal.
    """

    @intrinsic
    def body(context, memory, result, steps):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            memory, result, steps = args
            e = Emitter(builder)
            constants = [e.load(e.advance(memory, index, 64), kind, 64) for index in range(constant_count)]
            start = [e.load(e.advance(memory, index, 64), kind, 64) for index in range(accumulators * registers)]

            def step(index: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
                place = builder.and_(index, e.constant(LOADED - 1))
                # The memory has room for the vectors after the last place.
                loaded = [e.load(e.advance(memory, builder.add(place, e.constant(k)), 64), kind, 64) for k in range(3)]
                new = []
                for accumulator in range(accumulators):
                    old = state[accumulator * registers : (accumulator + 1) * registers]
                    new += update(e, old, loaded, constants, accumulator)
                return new

            for index, total in enumerate(e.loop(steps, start, step, unroll=unroll)):
                e.store(total, e.advance(result, index, 64), 64)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    @njit(nogil=True)
    def loop(memory, result, steps):  # type: ignore[no-untyped-def]
        body(memory, result, steps)

    return loop


def _count(
    e: Emitter, state: list[ir.Value], loaded: list[ir.Value], constants: list[ir.Value], index: int
) -> list[ir.Value]:
    (count,) = counter.from_state(state, CARRY_SAVE)
    weights = (constants[index], constants[(index + 1) % COUNTERS])
    return counter.to_state([counter.add(e, count, list(zip(loaded, weights, strict=False))[:WORDS])])


def _look_up(
    e: Emitter, state: list[ir.Value], loaded: list[ir.Value], constants: list[ir.Value], index: int
) -> list[ir.Value]:
    found = [e.look_up(table, constants[(index + k) % COUNTERS]) for k, table in enumerate(loaded)]
    return list(counter.add_found(e, counter.Sums(*state), found))


if LOOKUP:
    # Not unrolled, which makes LLVM keep sums in memory; 24 vector instructions a round hide the loop's own 4.
    _popcount_loop = _loop(vector(i8, 32), COUNTERS, 2, COUNTERS, False, _look_up)
else:
    _popcount_loop = _loop(counter.KIND, COUNTERS, 2 if CARRY_SAVE else 1, COUNTERS, True, _count)
_fma_loop = _loop(
    vector(f32, FLOATS),
    PRODUCTS,
    1,
    FACTORS,
    True,
    lambda e, state, loaded, constants, index: [e.fma(loaded[0], constants[index % FACTORS], state[0])],
)

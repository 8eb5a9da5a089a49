"""The loops that measure the peaks do the work that the rates are made of: their results are NumPy's."""

import numpy as np
import pytest

from xnornet.bench import roofline
from xnornet.bench.roofline import COUNTERS, FACTORS, FLOATS, LOADED, POPCOUNT_MACS, PRODUCTS
from xnornet.engine.bits import aligned
from xnornet.engine.counter import CARRY_SAVE, KIND, LOOKUP

STEPS = 3 * LOADED + 5
COUNTED = np.dtype(f"u{KIND.element.width // 8}")
"""What a lane counts, where no table is asked."""


def run(loop, memory: np.ndarray) -> np.ndarray:
    """What the loop's accumulators hold in the end, rows of 64 bytes."""
    result = aligned((64, 64), np.uint8)
    loop(memory.ctypes.data, result.ctypes.data, STEPS)
    return result


def memory_of(dtype: type | np.dtype) -> np.ndarray:
    memory = aligned((LOADED + 2, 64), np.uint8)
    memory[:] = np.random.default_rng(0).integers(0, 256, memory.shape)
    return memory.view(dtype)


@pytest.mark.skipif(not LOOKUP, reason="this CPU counts words")
def test_the_loop_that_looks_up_does_so():
    memory = memory_of(np.uint8)
    memory[:, :32] &= 0x8F  # VPSHUFB gives 0 for an index above 127
    rows = memory[:, :32].astype(np.int64)
    start = memory[: 2 * COUNTERS, :32].reshape(COUNTERS, 2, 32)
    plain, shifted = start[:, 0].copy(), start[:, 1].copy()
    for step in range(STEPS):
        for counter in range(COUNTERS):
            total = np.zeros(32, np.uint8)
            for number in range(3):
                table = rows[step % LOADED + number].reshape(2, 16)
                index = rows[(counter + number) % COUNTERS].reshape(2, 16)
                found = np.where(index < 128, np.take_along_axis(table, index % 16, axis=1), 0)
                total += found.reshape(32).astype(np.uint8)
            plain[counter] += total
            shifted[counter] += (total.view(np.uint16) >> 4).view(np.uint8)
    result = run(roofline._popcount_loop, memory)[: 2 * COUNTERS, :32].reshape(COUNTERS, 2, 32)
    assert np.array_equal(result[:, 0], plain) and np.array_equal(result[:, 1], shifted)
    assert POPCOUNT_MACS == 3 * 32 * 4 * 2  # lookups a step, of 32 bytes, each for 4 channels of 2 pixels


@pytest.mark.skipif(LOOKUP or CARRY_SAVE, reason="this CPU counts in another way")
def test_the_loop_that_counts_words_does_so():
    memory = memory_of(COUNTED)
    totals = memory[:COUNTERS].copy()
    for step in range(STEPS):
        totals += np.bitwise_count(memory[step % LOADED] ^ memory[:COUNTERS])
    assert np.array_equal(run(roofline._popcount_loop, memory).view(COUNTED)[:COUNTERS], totals)
    assert POPCOUNT_MACS == 512


@pytest.mark.skipif(not CARRY_SAVE, reason="this CPU counts in another way")
def test_the_loop_that_counts_carry_save_does_so():
    memory = memory_of(COUNTED)
    totals, ones = memory[: 2 * COUNTERS].reshape(COUNTERS, 2, KIND.count).transpose(1, 0, 2).copy()
    for step in range(STEPS):
        x = memory[step % LOADED : step % LOADED + 2]
        for counter in range(COUNTERS):
            a, b = x[0] ^ memory[counter], x[1] ^ memory[(counter + 1) % COUNTERS]
            left = ones[counter].copy()
            totals[counter] += np.bitwise_count(left & a | left & b | a & b)  # what a full adder carries
            ones[counter] = left ^ a ^ b
    result = run(roofline._popcount_loop, memory).view(COUNTED)[: 2 * COUNTERS].reshape(COUNTERS, 2, KIND.count)
    assert np.array_equal(result[:, 0], totals) and np.array_equal(result[:, 1], ones)
    assert POPCOUNT_MACS == 2 * 512


def test_the_loop_of_multiply_adds_does_so():
    memory = aligned((LOADED + 2, 16), np.float32)
    memory[:] = np.random.default_rng(0).standard_normal(memory.shape) / 8
    totals = memory[:PRODUCTS, :FLOATS].astype(np.float64)
    for step in range(STEPS):
        for product in range(PRODUCTS):
            totals[product] += memory[step % LOADED, :FLOATS].astype(np.float64) * memory[product % FACTORS, :FLOATS]
    result = run(roofline._fma_loop, memory).view(np.float32)[:PRODUCTS, :FLOATS]
    np.testing.assert_allclose(result, totals, rtol=1e-4, atol=1e-4)


def test_a_rate_is_the_products_of_the_fastest_run_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops of a first turn take 1 and 2 seconds, those of the second 3 and 1."""
    clock = iter([0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 1.0])
    monkeypatch.setattr(roofline, "REPEATS", 2)
    monkeypatch.setattr(roofline, "STEPS", 10**9)
    for loop in ("_popcount_loop", "_fma_loop"):
        monkeypatch.setattr(roofline, loop, lambda *_: None)
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: next(clock))
    assert roofline.peaks() == (COUNTERS * POPCOUNT_MACS, PRODUCTS * FLOATS)

"""Counting ones: how popcount(x xor w) is summed over the words of a product, as vector code.

Three ways, the same sums. Plainly, a word costs three instructions: xor, popcount, add. Carry-save counting (Harley and
Seal's) pairs the words: a full adder takes two of them and the ones left over from before, keeps their parity as the
new ones, and only its carry, which counts double, is popcounted. With AVX-512's ternary logic that is five instructions
for two words:

    p = ones ^ x1 ^ w1        s = p ^ x2 ^ w2        carry = ~s where p else ones        total += popcount(carry)

The carry is the majority of ones, x1 ^ w1 and x2 ^ w2: where p is 0 the first two of them are equal, and it is they;
where p is 1 they differ, and it is the third, p ^ s = ~s.

AVX2 has no popcount of vectors: made of other instructions, it takes, with xor and addition, nine for 256 bits. There
the sums are looked up: half a byte of the input chooses a table of 16 bytes, popcount(half ^ w) for each w, and a
shuffle takes from it what half a byte of the weights of each of 32 output channels asks for. Shuffle and addition, two
instructions, do 128.
(After T-MAC, Wei et al. 2024, which looks weights of a few bits up in tables of the activations.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from xnornet.engine.bits import Bytes, aligned
from xnornet.engine.vector import CPU, FEATURES, WIDE, Emitter, i32

LOOKUP = "avx2" in FEATURES and "avx512vpopcntdq" not in FEATURES
"""Whether the target counts by looking up: it has shuffles of 256 bits, but no popcount of vectors."""

CARRY_SAVE = WIDE and not LOOKUP and not CPU.startswith("znver")
"""Whether the target gains from it: a sixth of the time on Intel's cores, whose popcount and ternary logic share two
pipes; on AMD's Zen 4 it loses as much, since ternary logic has two pipes there and xor, popcount and add have four."""

XOR3 = 0x96  # truth tables of VPTERNLOG, bit 4a + 2b + c for the inputs a, b, c
CARRY = 0x3A  # ~b where a, else c

BYTES_AT_MOST = 31
"""Bytes of the input whose sums, of at most 8 each, a byte holds for sure."""

HALFWORDS_AT_MOST = 8191
"""And those whose sums 16 bits hold."""


def _lookup_table() -> Bytes:
    """(256, 2, 16): for each byte of the input and each half of it, the popcounts of its xors with 0, 1... 15."""
    byte, half = np.arange(256)[:, None], np.arange(16)
    table = aligned((256, 2, 16), np.uint8)
    table[:, 0], table[:, 1] = np.bitwise_count(byte % 16 ^ half), np.bitwise_count(byte // 16 ^ half)
    return table


LOOKUP_TABLE = _lookup_table()

Pair = tuple[ir.Value, ir.Value]
"""An input and a weight vector."""


class Count(NamedTuple):
    """A running count, in registers. `ones`: bits that still count once, while `total` counts double; None if plain."""

    total: ir.Value
    ones: ir.Value | None


def start(e: Emitter, kind: ir.VectorType, carry_save: bool) -> Count:
    """A count of nothing."""
    return Count(e.zeros(kind), e.zeros(kind) if carry_save else None)


def add(e: Emitter, count: Count, words: Sequence[Pair]) -> Count:
    """Count the ones of each pair's xor: any number of pairs plainly, two with carry-save counting."""
    if count.ones is None:
        total = count.total
        for x, w in words:
            total = e.ir.add(total, e.popcount(e.ir.xor(x, w)))
        return Count(total, None)
    (x1, w1), (x2, w2) = words
    p = _ternary(e, count.ones, x1, w1, XOR3)
    s = _ternary(e, p, x2, w2, XOR3)
    return Count(e.ir.add(count.total, e.popcount(_ternary(e, p, s, count.ones, CARRY))), s)


def to_state(counts: Sequence[Count]) -> list[ir.Value]:
    """All registers of the counts, as the state of a loop."""
    return [value for count in counts for value in count if value is not None]


def from_state(state: Sequence[ir.Value], carry_save: bool) -> list[Count]:
    """The inverse of `to_state`."""
    if not carry_save:
        return [Count(value, None) for value in state]
    return [Count(*both) for both in zip(state[::2], state[1::2], strict=True)]


def finish(e: Emitter, count: Count) -> ir.Value:
    """The number of ones in each lane."""
    if count.ones is None:
        return count.total
    return e.ir.add(e.ir.add(count.total, count.total), e.popcount(count.ones))


def _ternary(e: Emitter, a: ir.Value, b: ir.Value, c: ir.Value, table: int) -> ir.Value:
    """One VPTERNLOG; LLVM by itself would make two instructions of the carry."""
    return e.intrinsic("llvm.x86.avx512.pternlog.q.512", a.type, [a, b, c, ir.Constant(i32, table)])

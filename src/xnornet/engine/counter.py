"""Counting ones: how popcount(x xor w) is summed over the words of a product, as vector code.

Four ways, the same sums. Plainly, a word, here of as many bits as a lane of `KIND`, costs three instructions: xor,
popcount, add. Carry-save counting (Harley and Seal's) pairs the words: a full adder takes two of them and the ones left
over from before, keeps their parity as the new ones, and only its carry, which counts double, is popcounted. With
AVX-512's ternary logic that is five instructions for two words:

    p = ones ^ x1 ^ w1        s = p ^ x2 ^ w2        carry = ~s where p else ones        total += popcount(carry)

The carry is the majority of ones, x1 ^ w1 and x2 ^ w2: where p is 0 the first two of them are equal, and it is they;
where p is 1 they differ, and it is the third, p ^ s = ~s.

Two of the three ternary logics are for parities. Where words are stored as running xors a parity is a plain xor: that
is how `running` counts, on cores where ternary logic is what carry-save counting waits for.

AVX2 has no popcount of vectors: made of other instructions, it takes, with xor and addition, nine for 256 bits. There
the sums are looked up, four channels of two pixels at a time. A nibble a of one pixel and a nibble b of the other
choose a row of 16 bytes from a table, popcount(a ^ w) + 16 popcount(b ^ w) for each w, and a shuffle takes from it what
the nibbles w of the weights of 32 output channels ask for: 256 products. Three such bytes can be added before one of
their own nibbles, each a pixel's count, overflows (12 at most). Their sum s is added up twice, as it is and shifted,
s >> 4, each modulo 256; `separate` has the two pixels' counts from that. Three shuffles, four additions and one shift
do 768 products.
(After T-MAC, Wei et al. 2024, which looks weights of a few bits up in tables of the activations, one row of them at a
time.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from xnornet.engine.bits import Bytes, aligned
from xnornet.engine.vector import CPU, FEATURES, WIDE, Emitter, i16, i32, i64, vector

LOOKUP = "avx2" in FEATURES and "avx512vpopcntdq" not in FEATURES
"""Whether the target counts by looking up: it has shuffles of 256 bits, but no popcount of vectors."""

CARRY_SAVE = WIDE and not LOOKUP and not CPU.startswith("znver")
"""Whether the target gains from it: a sixth of the time on Intel's cores, whose popcount and ternary logic share two
pipes; on AMD's Zen 4 it loses as much, and a third on Zen 5: xor and addition have four pipes there, popcount two, and
ternary logic two as well where its operands are fresh."""

GROUPS = (8, 4) if WIDE and not LOOKUP and not CARRY_SAVE else ()
"""Words that the target counts together, as running xors, where a pixel has so many or a multiple; see `running`. An
eighth or a twelfth fewer instructions than plainly, and one in seven or eleven of them ternary logic, not three in
five.
"""

KIND = vector(i32, 16) if WIDE and not LOOKUP else vector(i64, 8)
"""Of vectors that are counted, and of their counts: 512 bits, a lane for each output channel.

AVX-512 counts lanes of 32 bits as fast as wider ones, and 16 counts in a register are 16 floats or comparisons.
"""

XOR3 = 0x96  # truth tables of VPTERNLOG, bit 4a + 2b + c for the inputs a, b, c
CARRY = 0x3A  # ~b where a, else c
MAJORITY = 0xD4  # ~c where a and b differ, else a

PART_BYTES = 30
"""Bytes of the input whose counts, of at most 8 each, a byte holds for sure; a multiple of 3."""

ROUND_BYTES = 960
"""And those that are looked up in one round; a multiple of 24, three words."""

SPARE_BYTES = 8
"""How many more a round may have, or have places for, since it takes taps whole, and words."""


def _lookup_table() -> Bytes:
    """(256, 16): at a + 16 b the counts of both nibbles with each nibble of the weights."""
    b, a, w = np.ogrid[:16, :16, :16]
    table = aligned((256, 16), np.uint8)
    table[:] = (np.bitwise_count(a ^ w) + 16 * np.bitwise_count(b ^ w)).reshape(256, 16)
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


def majority(e: Emitter, before: ir.Value, word: ir.Value, after: ir.Value) -> ir.Value:
    """Of three words, given the first, the second and the parity of all: that tells the third."""
    return _ternary(e, before, word, after, MAJORITY)


class Sums(NamedTuple):
    """Of what was found for two pixels, as bytes, modulo 256: sums of all s, and of all s >> 4, shifted in pairs.

    With x and y a byte's two counts, which stay below 256, `plain` is x + 16 y. `shifted` is y in an odd byte. In an
    even one it is y + 16 x', since the lower nibbles of the odd byte after it, whose count is x', move into it.

    For example, counts of x = 3, y = 5 in an even byte and of x' = 7, y' = 2 in the odd one after it are, as they are
    found, the bytes 83 and 39. As a word that is 0x2753, and shifted 0x0275: the bytes 117 and 2. Back: y' = 2;
    x' = 39 - 16 y' = 7; y = 117 - 16 x' = 5; x = 83 - 16 y = 3.
    """

    plain: ir.Value
    shifted: ir.Value


def no_sums(e: Emitter, kind: ir.VectorType) -> Sums:
    """Sums of nothing."""
    return Sums(e.zeros(kind), e.zeros(kind))


def add_found(e: Emitter, sums: Sums, found: Sequence[ir.Value]) -> Sums:
    """Add up to three vectors of bytes that were found: of more, a nibble would overflow."""
    total = found[0]
    for more in found[1:]:
        total = e.ir.add(total, more)
    pairs = e.ir.bitcast(total, ir.VectorType(i16, total.type.count // 2))
    shifted = e.ir.bitcast(e.ir.lshr(pairs, e.all_lanes(pairs.type, 4)), total.type)
    return Sums(e.ir.add(sums.plain, total), e.ir.add(sums.shifted, shifted))


def separate(e: Emitter, sums: Sums) -> list[list[ir.Value]]:
    """The counts of each of the two pixels, as 16 bits: those of the even bytes' channels, and of the odd ones'."""
    builder, kind = e.ir, ir.VectorType(i16, sums.plain.type.count // 2)
    plain, shifted = (builder.bitcast(part, kind) for part in sums)
    four, eight, low_byte = (e.all_lanes(kind, value) for value in (4, 8, 0xFF))
    odd_y = builder.lshr(shifted, eight)
    odd_y_16 = builder.and_(builder.shl(shifted, four), e.all_lanes(kind, 0xF000))  # modulo 256, where it lies
    odd_x = builder.lshr(builder.sub(plain, odd_y_16), eight)
    even_y = builder.and_(builder.sub(shifted, builder.shl(odd_x, four)), low_byte)
    even_x = builder.and_(builder.sub(plain, builder.shl(even_y, four)), low_byte)
    return [[even_x, odd_x], [even_y, odd_y]]


def _ternary(e: Emitter, a: ir.Value, b: ir.Value, c: ir.Value, table: int) -> ir.Value:
    """One VPTERNLOG; LLVM by itself would make two instructions of the carry."""
    return e.intrinsic("llvm.x86.avx512.pternlog.d.512", a.type, [a, b, c, ir.Constant(i32, table)])

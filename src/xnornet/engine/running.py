"""Register tiles for words that are stored as running xors: 21 instructions count eight of them, where it took 24.

Carry-save counting adds, bit by bit, three xors a, b and c up to their parity a ^ b ^ c, which counts once, and to a
carry, their majority, which counts twice. In a group of words of 32 channels, x1 to x8 of the input and w1 to w8 of the
weights (the code numbers them from 0), say that every parity is carried on into the next sum:

    p1 = x1 ^ w1                                     a parity of one
    p3 = p1 ^ (x2 ^ w2) ^ (x3 ^ w3)                  carry3 = majority(p1, x2 ^ w2, x3 ^ w3)
    p5 = p3 ^ (x4 ^ w4) ^ (x5 ^ w5)                  carry5 = majority(p3, x4 ^ w4, x5 ^ w5)
    p7 = p5 ^ (x6 ^ w6) ^ (x7 ^ w7)                  carry7 = majority(p5, x6 ^ w6, x7 ^ w7)

With |v| for the ones of v, the parity that is left and the eighth word count once, all else is in the carries:

    |x1 ^ w1| + ... + |x8 ^ w8| = 2 (|carry3| + |carry5| + |carry7|) + |p7| + |x8 ^ w8|

Now p3 = (x1 ^ x2 ^ x3) ^ (w1 ^ w2 ^ w3), and so on: with these xors in the places of x3, x5, x7 and w3, w5, w7, a
parity takes one instruction, as a xor did. And x3 ^ w3 itself need not be known. Where p1 and x2 ^ w2 are equal, they
are the majority; where they differ, it is the third, and that is then the opposite of the parity of all, p3.

That leaves, for two words, two xors, one ternary logic, one popcount and one addition; for the first, the eighth and
the last parity two xors, two popcounts and two additions.

The input is made so before a convolution reads it (`copy_running_xors`), the weights once, in `panels`. A group is a
pixel's words, or eight or four of them, so that windows can begin at any pixel; the zeros around an image stay zeros.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import njit, types

from xnornet.engine.counter import GROUPS, KIND, majority
from xnornet.engine.tiles import BINARY_LANES, CountTile, tile_of
from xnornet.engine.vector import Emitter, i32, intrinsic, vector

WORD_BYTES = 4
"""Of a word, here: a lane of a vector that is counted."""


class RunningTile(CountTile):
    """One panel; the taps are groups of words, as many as the field `group` says."""

    lanes = BINARY_LANES
    part = BINARY_LANES

    def accumulate(self) -> list[list[ir.Value]]:
        e, group = self.e, self.field("group")
        windows = [e.ir.add(self.source, self.per_pixel("pixels", row)) for row in range(self.rows)]
        panel = self.weights(self.panel)

        def count(size: int) -> Callable[[ir.Value, list[ir.Value]], list[ir.Value]]:
            def body(number: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
                offset, first = self.tap(number)
                inputs = [e.ir.add(window, offset) for window in windows]
                return self.count_group(size, inputs, e.ir.add(panel, first), state)

            return body

        state = [e.zeros(KIND)] * (2 * self.rows)
        for size in GROUPS:
            groups = e.ir.select(e.ir.icmp_signed("==", group, e.constant(size)), self.taps, e.constant(0))
            state = e.loop(groups, state, count(size))
        ones, twos = state[: self.rows], state[self.rows :]
        return [[e.ir.add(once, e.ir.add(twice, twice))] for once, twice in zip(ones, twos, strict=True)]

    def count_group(
        self, size: int, inputs: list[ir.Value], weights: ir.Value, state: list[ir.Value]
    ) -> list[ir.Value]:
        """The counts of all rows, what counts once and then what counts twice, with those of a group's words.

        Two words of one row after the other, then the next two: so the registers hold all that is carried on.
        inputs, weights: addresses of the group's first word of each row, and first vector.
        """
        e = self.e
        ones, twos = state[: self.rows], state[self.rows :]

        def weight(number: int) -> ir.Value:
            return e.load(e.advance(weights, number, 64), KIND, 64)

        def xor(row: int, number: int, of_weights: ir.Value) -> ir.Value:
            word = e.load(e.advance(inputs[row], number, WORD_BYTES), i32, WORD_BYTES)
            return e.ir.xor(e.splat(word, KIND.count), of_weights)

        rows = range(self.rows)
        first = weight(0)
        parities = [xor(row, 0, first) for row in rows]
        for number in range(1, size - 1, 2):
            second, third = weight(number), weight(number + 1)
            for row in rows:
                differs, parity = xor(row, number, second), xor(row, number + 1, third)
                # Opaque: LLVM would add popcounts of later words first, and has no registers for those that wait.
                twos[row] = e.opaque(self.add(twos[row], majority(e, parities[row], differs, parity)))
                parities[row] = parity
        last = weight(size - 1)
        for row in rows:
            ones[row] = self.add(self.add(ones[row], parities[row]), xor(row, size - 1, last))
        return ones + twos

    def add(self, total: ir.Value, word: ir.Value) -> ir.Value:
        return self.e.ir.add(total, self.e.popcount(word))


def running_tile(rows: int, panels: int, *, masked: bool = False) -> Callable[..., None]:
    """As `tiles.binary_tile`, of one panel."""
    assert panels == 1
    return tile_of(RunningTile, rows, panels, masked)


def _running_group(size: int) -> Callable[..., None]:
    """Intrinsic `(source, target)`: copy a group of words, the third, fifth... as the xor of all from the first on."""
    kind = vector(i32, size)

    @intrinsic
    def copy(context, source, target):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            e = Emitter(builder)

            def before(words: ir.Value, distance: int) -> ir.Value:
                """At each even place what lies so many places before it, or 0; at each odd one 0."""
                order = [place - distance if place % 2 == 0 and place >= distance else size for place in range(size)]
                return builder.shuffle_vector(words, e.zeros(kind), ir.Constant(kind, order))

            words = e.load(args[0], kind, WORD_BYTES)
            words = builder.xor(words, before(words, 1))
            for power in range(1, size.bit_length() - 1):
                words = builder.xor(words, before(words, 1 << power))
            e.store(words, args[1], WORD_BYTES)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return copy


_copy_four, _copy_eight = _running_group(4), _running_group(8)


@njit
def copy_running_xors(op, source, target, images, first, last):  # type: ignore[no-untyped-def]
    """Packed images with the words of each group as running xors; where they are, if `target` is `source`."""
    size = WORD_BYTES * op.group
    count = op.source_bytes // size
    begin, end = count * first // op.units, count * last // op.units
    for image in range(images):
        x, out = source + image * op.source_bytes, target + image * op.target_bytes
        for place in range(begin * size, end * size, size):
            if op.group == 8:
                _copy_eight(x + place, out + place)
            else:
                _copy_four(x + place, out + place)

"""Before a tile looks up: the places in the table, of all nibbles of a round of taps."""

from llvmlite import ir

from xnornet.engine.rounds import PLACES, STRETCH
from xnornet.engine.tiles import PixelCode
from xnornet.engine.vector import i8, i16, i32, i64, vector


class Places(PixelCode):
    """Writes 16 bits for each nibble of a round, and each pair of pixels: bytes from the table's start to its row."""

    arguments = 8

    def __init__(self, builder: ir.IRBuilder, args: list[ir.Value]) -> None:
        op, self.source, pixel, self.row_count, self.pairs, self.entry, self.out, self.pair_bytes = args
        super().__init__(builder, op, pixel)

    def emit(self) -> None:
        """Of so many pairs. Pixels past the last one of the tile are that one again."""
        e, builder = self.e, self.e.ir
        first, end = (e.read(e.advance(self.entry, index, 8), i64, 8) for index in range(2))
        stretches = e.advance(self.field("stretches"), first, STRETCH)
        last = builder.sub(self.row_count, e.constant(1))

        def pass_pair(pair: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            row = builder.mul(pair, e.constant(2))
            rows = [e.smaller(builder.add(row, e.constant(index)), last) for index in range(2)]
            windows = [builder.add(self.source, self.per_pixel("pixels", row)) for row in rows]
            target = builder.add(self.out, builder.mul(pair, self.pair_bytes))

            def pass_stretch(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                entry = e.advance(stretches, number, STRETCH)
                offset, words, place = (e.read(e.advance(entry, field, 8), i64, 8) for field in range(3))
                starts, out = [builder.add(window, offset) for window in windows], builder.add(target, place)

                def pass_word(word: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    both = [e.load(e.advance(start, word, 8), vector(i8, 8), 8) for start in starts]
                    for half, places in enumerate(self.places(*both)):
                        e.store(places, e.advance(e.advance(out, word, 8 * PLACES), half, 4 * PLACES), 4)
                    return []

                return e.loop(words, [], pass_word)

            return e.loop(builder.sub(end, first), [], pass_stretch)

        e.loop(self.pairs, [], pass_pair, unroll=False)

    def places(self, first: ir.Value, second: ir.Value) -> list[ir.Value]:
        """Of a word of each of two pixels, in two vectors: 16 times the first's nibble plus 256 times the second's.

        In the order of the bytes, of each the low nibble before the high one.
        """
        e, builder = self.e, self.e.ir
        kind = vector(i16, 8)
        in_turns = ir.Constant(vector(i32, 16), [index // 2 + 8 * (index % 2) for index in range(16)])
        both = builder.bitcast(builder.shuffle_vector(first, second, in_turns), kind)
        factors = ir.Constant(vector(i8, 16), [1, 16] * 8)

        def rows(nibbles: ir.Value) -> ir.Value:
            """A byte's high nibble is 16 times its value already; VPMADDUBSW adds the two pixels' bytes."""
            high = builder.bitcast(builder.and_(nibbles, e.all_lanes(kind, 0xF0F0)), vector(i8, 16))
            return e.intrinsic("llvm.x86.ssse3.pmadd.ub.sw.128", kind, [high, factors])

        low, high = rows(builder.shl(both, e.all_lanes(kind, 4))), rows(both)
        orders = ([index // 2 + 8 * (index % 2) for index in range(start, start + 8)] for start in (0, 8))
        return [builder.shuffle_vector(low, high, ir.Constant(vector(i32, 8), order)) for order in orders]

"""Register tiles whose sums are looked up, for CPUs with AVX2 and no popcount of vectors; see `counter`."""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core.cgutils import alloca_once

from xnornet.engine.counter import ROUND_BYTES, SPARE_BYTES, Sums, add_found, no_sums, separate
from xnornet.engine.lookup_input import Places
from xnornet.engine.lookup_output import HALFWORDS, INTEGERS, LookupEpilogue
from xnornet.engine.panels import LANES
from xnornet.engine.rounds import PART, PLACES, ROUND
from xnornet.engine.tiles import PixelCode
from xnornet.engine.vector import i1, i8, i16, i64, intrinsic, vector

BYTES = vector(i8, LANES)

ROUND_PLACES = PLACES * (ROUND_BYTES + SPARE_BYTES)
"""Bytes of a pair of pixels' places in a round."""

MOST_ROWS = 16
"""Pixels of a tile: a part's weights come into L1 once for all of them."""

PAIRS = {4: 1, 2: 2, 1: 2}
"""Pairs of pixels that are counted at a time in tiles of so many panels: what the registers hold of their sums."""


class LookupTile(PixelCode):
    """Sums of pairs of pixels and of 32 output channels, any number of either.

    A round (see `rounds`) writes down the places in the table that its taps ask for, then looks up and adds, part by
    part: of a pair of pixels in registers, as bytes, then in memory, as 16 bits. Where a window has several rounds, 32
    bits take the sums of each. The epilogue, one function for all tiles, finds them in memory, of 16 channels each,
    [row][panel][half of the panel]. A last pixel without a partner is its own.
    """

    def __init__(self, builder: ir.IRBuilder, args: list[ir.Value], panels: int) -> None:
        op, self.source, self.target, self.bits, pixel, self.panel, self.first_round, self.rounds, self.row_count = args
        super().__init__(builder, op, pixel)
        self.panels = panels
        e, self.at_once, most = self.e, PAIRS[panels], 2 * MOST_ROWS * panels
        pixels = 2 * self.at_once
        self.turns = builder.udiv(builder.add(self.row_count, e.constant(pixels - 1)), e.constant(pixels))
        self.vectors = builder.mul(self.turns, e.constant(2 * pixels * panels))  # of sums
        self.large = builder.trunc(self.field("large"), i1)
        self.table = self.field("lookup")
        self.halfwords, self.integers, self.places = (
            builder.ptrtoint(alloca_once(builder, kind, size), i64)
            for kind, size in (
                (HALFWORDS, most),
                (INTEGERS, most),
                (BYTES, MOST_ROWS // 2 * ROUND_PLACES // LANES),
            )
        )

    def emit(self) -> None:
        e, builder = self.e, self.e.ir
        self.clear(self.halfwords, HALFWORDS)
        e.when(self.large, lambda: self.clear(self.integers, INTEGERS))
        e.loop(self.rounds, [], self.pass_round)
        arguments = [self.op, self.source, self.target, self.bits, self.pixel, self.panel]
        sizes = [self.row_count, e.constant(2 * self.panels)]
        builder.call(_function(builder.module, LookupEpilogue), [*arguments, self.halfwords, self.integers, *sizes])

    def pass_round(self, number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        e, builder = self.e, self.e.ir
        entry = e.advance(self.field("rounds"), builder.add(self.first_round, number), ROUND)
        pairs = builder.mul(self.turns, e.constant(self.at_once))
        arguments = [self.op, self.source, self.pixel, self.row_count, pairs, entry, self.places]
        builder.call(_function(builder.module, Places), [*arguments, e.constant(ROUND_PLACES)])
        first, end = (e.read(e.advance(entry, index, 8), i64, 8) for index in (2, 3))
        parts = e.advance(self.field("parts"), first, PART)
        panels = [self.weights(e.advance(self.panel, panel, 1)) for panel in range(self.panels)]

        def count_part(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            fields = (e.read(e.advance(e.advance(parts, number, PART), index, 8), i64, 8) for index in range(4))
            place, weight, threes, rest = fields
            places, weights = builder.add(self.places, place), [builder.add(panel, weight) for panel in panels]
            count = lambda turn, _: self.count_pairs(turn, places, weights, threes, rest)  # noqa: E731
            return e.loop(self.turns, [], count, unroll=False)

        e.loop(builder.sub(end, first), [], count_part, unroll=False)
        return e.when(self.large, self.enlarge)

    def count_pairs(
        self, turn: ir.Value, places: ir.Value, weights: list[ir.Value], threes: ir.Value, rest: ir.Value
    ) -> list[ir.Value]:
        """Add what a part counts for some pairs of pixels to their halfwords."""
        e, builder = self.e, self.e.ir
        first = e.advance(places, turn, self.at_once * ROUND_PLACES)
        done = builder.mul(threes, e.constant(6))

        def three_bytes(number: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            nibble = builder.mul(number, e.constant(6))
            for triple in (nibble, builder.add(nibble, e.constant(3))):
                sums = self.look_up(first, weights, triple, 3, sums)
            return sums

        def one_nibble(number: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            return self.look_up(first, weights, builder.add(done, number), 1, sums)

        sums = [value for _ in range(self.at_once * self.panels) for value in no_sums(e, BYTES)]
        sums = e.loop(rest, e.loop(threes, sums, three_bytes), one_nibble, unroll=False)
        target = e.advance(self.halfwords, turn, 4 * self.at_once * self.panels * 32)
        for index in range(self.at_once * self.panels):
            pair, panel = divmod(index, self.panels)
            for row, halves in enumerate(separate(e, Sums(*sums[2 * index : 2 * index + 2]))):
                for half, total in enumerate(halves):
                    place = e.advance(target, ((2 * pair + row) * self.panels + panel) * 2 + half, 32)
                    e.store(builder.add(e.load(place, HALFWORDS, 32), total), place, 32)
        return []

    def look_up(
        self, places: ir.Value, weights: list[ir.Value], nibble: ir.Value, count: int, sums: list[ir.Value]
    ) -> list[ir.Value]:
        """The sums, [pair][panel], with those of up to three nibbles from one on.

        A pair and a panel after the other, each from its tables to its sums: so LLVM keeps all in registers.
        """
        e, builder = self.e, self.e.ir
        vectors = [e.advance(panel, nibble, 32) for panel in weights]
        new: list[ir.Value] = []
        for pair in range(self.at_once):
            tables = []
            for number in range(count):
                place = e.advance(e.advance(places, nibble, PLACES // 2), pair * ROUND_PLACES + number * PLACES // 2, 1)
                values = builder.add(self.table, builder.zext(e.load(place, i16, 2), i64))
                tables.append(e.twice(e.load(values, vector(i8, 16), 16)))
            for panel in vectors:
                wanted = [e.load(e.advance(panel, number, 32), BYTES, 32) for number in range(count)]
                found = [e.look_up(table, index) for table, index in zip(tables, wanted, strict=True)]
                new += add_found(e, Sums(*sums[len(new) : len(new) + 2]), found)
        return new

    def enlarge(self) -> list[ir.Value]:
        """Move the sums from 16 to 32 bits."""
        e, builder = self.e, self.e.ir

        def move(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            old, new = e.advance(self.integers, number, 64), e.advance(self.halfwords, number, 32)
            total = builder.add(e.load(old, INTEGERS, 32), builder.zext(e.load(new, HALFWORDS, 32), INTEGERS))
            e.store(total, old, 32)
            return []

        e.loop(self.vectors, [], move, unroll=False)
        return self.clear(self.halfwords, HALFWORDS)

    def clear(self, place: ir.Value, kind: ir.VectorType) -> list[ir.Value]:
        e = self.e

        def clear_one(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            e.store(e.zeros(kind), e.advance(place, number, 2 * kind.element.width), 32)
            return []

        return e.loop(self.vectors, [], clear_one)


def _function(module: ir.Module, emitter: type[Places] | type[LookupEpilogue]) -> ir.Function:
    """The function of the module that the class emits, made when first asked for."""
    name = f"xnornet.{emitter.__name__}"
    if name not in module.globals:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64] * emitter.arguments), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block())
        emitter(builder, list(function.args)).emit()
        builder.ret_void()
    return module.globals[name]


def lookup_tile(panels: int) -> Callable[..., None]:
    """Intrinsic `tile(op, source, target, bits, pixel, panel, first_round, rounds, rows)`, as `tiles.binary_tile`.

    rows: pixels, up to `MOST_ROWS`; rounds: how many, from entry `first_round` of the record's rounds on.
    """

    @intrinsic
    def tile(context, op, source, target, bits, pixel, panel, first, rounds, rows):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            LookupTile(builder, args, panels).emit()
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return tile

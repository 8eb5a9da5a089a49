"""Register tiles whose sums are looked up, for CPUs with AVX2 and no popcount of vectors; see `counter`."""

from collections.abc import Callable

from llvmlite import ir
from numba.core.cgutils import alloca_once

from xnornet.engine.panels import LANES
from xnornet.engine.tiles import FLOAT_LANES, CountTile, Tile, tile_of
from xnornet.engine.vector import f32, i1, i8, i16, i32, i64, vector

HALFWORDS, INTEGERS = vector(i16, FLOAT_LANES), vector(i32, FLOAT_LANES)
"""Sums of as many channels as the epilogue takes at a time."""


class LookupTile(Tile):
    """Sums of 8 input and 32 output channels at a time, any number of the latter: there is no `masked` tile.

    Sums are bytes at first. Before these are full, after `chunk` taps, they are added to sums of 16 bits, and before
    those are, after `chunks` times as many, to sums of 32: only windows of more than about 8,000 bytes need these.
    The sums of 16 channels each, [row][panel][half], go through memory to the epilogue, one function for all tiles:
    they are too many for the registers.
    """

    lanes = LANES
    part = FLOAT_LANES

    def emit(self) -> None:
        e, builder = self.e, self.e.ir
        count = 2 * self.rows * self.panels
        halfwords, integers = (
            builder.ptrtoint(alloca_once(builder, kind, count), i64) for kind in (HALFWORDS, INTEGERS)
        )
        self.count(halfwords, integers)
        arguments = [self.op, self.source, self.target, self.bits, self.pixel, self.panel]
        sizes = [e.constant(self.rows), e.constant(2 * self.panels)]
        builder.call(_epilogue(builder.module), [*arguments, halfwords, integers, *sizes])

    def count(self, halfwords: ir.Value, integers: ir.Value) -> None:
        """Store the sums at `halfwords` or, of a large kernel, at `integers`."""
        e, builder = self.e, self.e.ir
        chunk, most = self.field("chunk"), self.field("chunks")
        chunks = builder.udiv(builder.add(self.taps, builder.sub(chunk, e.constant(1))), chunk)
        rounds = builder.add(builder.sdiv(builder.sub(chunks, e.constant(1)), most), e.constant(1))  # one at least
        eight = e.all_lanes(HALFWORDS, 8)
        count_bytes = self.byte_counter()

        def count_round(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            start = builder.mul(index, most)

            def count_chunk(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                """Adds each accumulator as words of 16 bits, and the odd bytes alone.

                The even ones are what is left once 256 times the odd ones are taken from the former, modulo 2^16.
                """
                first = builder.mul(builder.add(start, index), chunk)
                new = []
                for byte_sums in count_bytes(first, e.smaller(builder.sub(self.taps, first), chunk)):
                    both = builder.bitcast(byte_sums, HALFWORDS)
                    new += [both, builder.lshr(both, eight)]
                return [builder.add(a, b) for a, b in zip(sums, new, strict=True)]

            zeros = [e.zeros(HALFWORDS)] * (2 * self.rows * self.panels)
            sums = e.loop(e.smaller(builder.sub(chunks, start), most), zeros, count_chunk)
            for number, (both, odd) in enumerate(zip(sums[::2], sums[1::2], strict=True)):
                sums[2 * number] = builder.sub(both, builder.shl(odd, eight))
            for number, total in enumerate(sums):
                e.store(total, e.advance(halfwords, number, 32), 32)

            def add_to_integers(_: ir.Value, __: list[ir.Value]) -> list[ir.Value]:
                first = builder.icmp_signed("==", index, e.constant(0))
                for number, total in enumerate(sums):
                    place = e.advance(integers, number, 64)
                    old = builder.select(first, e.zeros(INTEGERS), e.load(place, INTEGERS, 32))
                    e.store(builder.add(old, builder.zext(total, INTEGERS)), place, 32)
                return []

            return e.when(builder.trunc(self.field("large"), i1), [], add_to_integers)

        e.loop(rounds, [], count_round)

    def byte_counter(self) -> Callable[[ir.Value, ir.Value], list[ir.Value]]:
        """A function of a tap and how many follow: sums as bytes of all these, [row][panel] in one list."""
        e, builder = self.e, self.e.ir
        kind = vector(i8, self.lanes)
        table, sizes = self.field("lookup"), e.advance(self.field("sizes"), self.first_tap, 8)
        windows = [builder.add(self.source, self.per_pixel("pixels", row)) for row in range(self.rows)]
        panels = [self.weights(panel) for panel in range(self.panels)]

        def count_tap(tap: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            offset, place = self.tap(tap)
            words = [builder.add(window, offset) for window in windows]
            vectors = [builder.add(panel, place) for panel in panels]

            def count_byte(byte: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                values = [builder.zext(e.load(builder.add(word, byte), i8, 1), i64) for word in words]
                tables = [e.advance(table, value, 32) for value in values]
                for half in range(2):
                    weights = [e.load(e.advance(e.advance(v, byte, 64), half, 32), kind, 32) for v in vectors]
                    rows = [e.twice(e.load(e.advance(entries, half, 16), vector(i8, 16), 16)) for entries in tables]
                    found = [e.look_up(row, w) for row in rows for w in weights]
                    sums = [builder.add(total, part) for total, part in zip(sums, found, strict=True)]
                return sums

            return e.loop(e.load(e.advance(sizes, tap, 8), i64, 8), sums, count_byte)

        def count(first: ir.Value, taps: ir.Value) -> list[ir.Value]:
            zeros = [e.zeros(kind)] * (self.rows * self.panels)
            return e.loop(taps, zeros, lambda index, sums: count_tap(builder.add(first, index), sums))

        return count


class _Epilogue(CountTile):
    """What comes after the sums, for any number of rows and channels."""

    lanes = LANES
    part = FLOAT_LANES

    def __init__(self, builder: ir.IRBuilder, args: list[ir.Value]) -> None:
        *args, self.halfwords, self.integers, self.row_count, self.groups = args
        super().__init__(builder, [*args, ir.Constant(i64, 0), ir.Constant(i64, 0)], 0, 0, masked=False)

    def accumulate(self) -> list[list[ir.Value]]:
        return []

    def epilogue(self, mode: int, accumulators: list[list[ir.Value]]) -> None:
        e, builder = self.e, self.e.ir

        def finish_group(group: ir.Value, masked: bool) -> list[ir.Value]:
            self.masked = masked
            finish = self.finisher(mode, group)

            def finish_row(row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                number = builder.add(builder.mul(row, self.groups), group)
                halfwords, integers = e.advance(self.halfwords, number, 32), e.advance(self.integers, number, 64)
                counts = builder.zext(e.load(halfwords, HALFWORDS, 32), INTEGERS)
                large = builder.trunc(self.field("large"), i1)
                finish(row, e.when(large, [counts], lambda _, __: [e.load(integers, INTEGERS, 32)]))
                return []

            return e.loop(self.row_count, [], finish_row, unroll=False)

        left = builder.sub(self.field("channels"), self.first)
        whole = e.smaller(builder.lshr(left, e.constant(4)), self.groups)
        e.loop(whole, [], lambda group, _: finish_group(group, False), unroll=False)
        rest = e.smaller(builder.sub(left, builder.mul(whole, e.constant(16))), builder.sub(self.groups, whole))
        e.when(builder.icmp_signed(">", rest, e.constant(0)), [], lambda _, __: finish_group(whole, True))

    def store_floats(self, value: ir.Value, address: ir.Value, mask: ir.Value | None) -> None:
        """Of a group that is not whole, one float after the other: AVX2's masked stores are slow on AMD's cores."""
        if mask is None:
            super().store_floats(value, address, None)
            return
        e, builder = self.e, self.e.ir
        copy = builder.ptrtoint(alloca_once(builder, value.type), i64)
        e.store(value, copy, 32)

        def store(lane: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            e.store(e.load(e.advance(copy, lane, 4), f32, 4), e.advance(address, lane, 4), 4)
            return []

        e.loop(builder.and_(self.field("channels"), e.constant(FLOAT_LANES - 1)), [], store, unroll=False)

    def to_integers(self, accumulators: list[ir.Value]) -> ir.Value:
        (counts,) = accumulators
        return counts


def _epilogue(module: ir.Module) -> ir.Function:
    """The function of the module, made when first asked for."""
    name = "xnornet.epilogue"
    if name not in module.globals:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64] * 10), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block())
        _Epilogue(builder, list(function.args)).emit()
        builder.ret_void()
    return module.globals[name]


def lookup_tile(rows: int, panels: int, *, masked: bool = False) -> Callable[..., None]:
    """As `tiles.binary_tile`."""
    return tile_of(LookupTile, rows, panels, masked)

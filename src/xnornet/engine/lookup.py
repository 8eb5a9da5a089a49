"""Register tiles whose sums are looked up, for CPUs with AVX2 and no popcount of vectors; see `counter`."""

from collections.abc import Callable

from llvmlite import ir
from numba.core.cgutils import alloca_once

from xnornet.engine.panels import LANES
from xnornet.engine.tiles import FLOAT_LANES, CountTile, Tile, tile_of
from xnornet.engine.vector import f32, i1, i8, i16, i32, i64, vector

BYTES = vector(i8, LANES)

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
        count_bytes = self.byte_counter()

        def count_round(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            start = builder.mul(index, most)

            def count_chunk(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                first = builder.mul(builder.add(start, index), chunk)
                byte_sums = count_bytes(first, e.smaller(builder.sub(self.taps, first), chunk))
                new = [part for total in byte_sums for part in self.widen(total)]
                return [builder.add(a, b) for a, b in zip(sums, new, strict=True)]

            zeros = [e.zeros(HALFWORDS)] * (2 * self.rows * self.panels)
            sums = self.counts(e.loop(e.smaller(builder.sub(chunks, start), most), zeros, count_chunk))
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
        """A function of a tap and how many follow: the accumulators, sums as bytes of all these."""
        e, builder = self.e, self.e.ir
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
                return self.add_byte(sums, tables, [e.advance(panel, byte, 64) for panel in vectors])

            return e.loop(e.load(e.advance(sizes, tap, 8), i64, 8), sums, count_byte)

        def count(first: ir.Value, taps: ir.Value) -> list[ir.Value]:
            zeros = [e.zeros(BYTES)] * self.accumulators
            return e.loop(taps, zeros, lambda index, sums: count_tap(builder.add(first, index), sums))

        return count

    @property
    def accumulators(self) -> int:
        """Of 32 bytes: here [row][panel] in one list."""
        return self.rows * self.panels

    def add_byte(self, sums: list[ir.Value], tables: list[ir.Value], vectors: list[ir.Value]) -> list[ir.Value]:
        """Count a byte of the input of each row. Addresses: tables, both of a byte; vectors, weights of each panel.

        All loads come before what is done with them: LLVM keeps to that, and up to a fifth is lost otherwise.
        """
        e = self.e
        for half in range(2):
            weights = [e.load(e.advance(panel, half, 32), BYTES, 32) for panel in vectors]
            rows = [e.twice(e.load(e.advance(both, half, 16), vector(i8, 16), 16)) for both in tables]
            found = [e.look_up(row, w) for row in rows for w in weights]
            sums = [e.ir.add(total, part) for total, part in zip(sums, found, strict=True)]
        return sums

    def widen(self, byte_sums: ir.Value) -> list[ir.Value]:
        """An accumulator as words of 16 bits, and its odd bytes alone."""
        both = self.e.ir.bitcast(byte_sums, HALFWORDS)
        return [both, self.e.ir.lshr(both, self.e.all_lanes(HALFWORDS, 8))]

    def counts(self, sums: list[ir.Value]) -> list[ir.Value]:
        """From sums of these: 256 times the odd ones taken from the former leave the even bytes, modulo 2^16."""
        e, builder = self.e, self.e.ir
        eight = e.all_lanes(HALFWORDS, 8)
        pairs = zip(sums[::2], sums[1::2], strict=True)
        return [part for both, odd in pairs for part in (builder.sub(both, builder.shl(odd, eight)), odd)]


class LonePanelTile(LookupTile):
    """One panel, of another layout: one load brings both tables of a byte, for the two halves of 16 channels' weights.

    With two panels to look up for, a table of its own in both halves of a register costs less.
    """

    @property
    def accumulators(self) -> int:
        """[row][16 channels], the sums of the low and of the high halves of the input's bytes apart."""
        return 2 * self.rows

    def add_byte(self, sums: list[ir.Value], tables: list[ir.Value], vectors: list[ir.Value]) -> list[ir.Value]:
        e = self.e
        weights = [e.load(e.advance(vectors[0], part, 32), BYTES, 32) for part in range(2)]
        rows = [e.load(both, BYTES, 32) for both in tables]
        found = [e.look_up(row, w) for row in rows for w in weights]
        return [e.ir.add(total, part) for total, part in zip(sums, found, strict=True)]

    def widen(self, byte_sums: ir.Value) -> list[ir.Value]:
        """The two halves together: still at most 8 for each byte of the input."""
        low, high = self.e.split(byte_sums, 2)
        return [self.e.ir.zext(self.e.ir.add(low, high), HALFWORDS)]

    def counts(self, sums: list[ir.Value]) -> list[ir.Value]:
        """The sums themselves."""
        return sums


class _Epilogue(CountTile):
    """What comes after the sums, for any number of rows and channels."""

    lanes = LANES
    part = FLOAT_LANES

    def __init__(self, builder: ir.IRBuilder, args: list[ir.Value]) -> None:
        *args, self.halfwords, self.integers, self.row_count, self.groups = args
        super().__init__(builder, [*args, ir.Constant(i64, 0), ir.Constant(i64, 0)], 0, 0, masked=False)
        # One for all modes: alloca_once clears it, in every call of the function.
        self.copy = builder.ptrtoint(alloca_once(builder, vector(f32, FLOAT_LANES)), i64)

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
        e.store(value, self.copy, 32)

        def store(lane: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            e.store(e.load(e.advance(self.copy, lane, 4), f32, 4), e.advance(address, lane, 4), 4)
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
    return tile_of(LonePanelTile if panels == 1 else LookupTile, rows, panels, masked)

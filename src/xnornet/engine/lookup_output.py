"""After a tile has looked up: what becomes of the sums, for any number of pixels and channels."""

from llvmlite import ir
from numba.core.cgutils import alloca_once

from xnornet.engine.op import Mode
from xnornet.engine.panels import LANES
from xnornet.engine.tiles import FLOAT_LANES, CountTile
from xnornet.engine.vector import f32, i1, i16, i32, i64, vector

HALFWORDS, INTEGERS = vector(i16, FLOAT_LANES), vector(i32, FLOAT_LANES)
"""Sums of as many channels as make a vector of results."""


class LookupEpilogue(CountTile):
    """What comes after the sums, for any number of rows and channels."""

    arguments = 10
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
        large = self.e.ir.trunc(self.field("large"), i1)
        if mode == Mode.COUNTS:
            self.e.when(self.e.ir.not_(large), self.compare_halfwords)
            self.e.when(large, lambda: self.finish_groups(mode))
        else:
            self.finish_groups(mode)

    def compare_halfwords(self) -> list[ir.Value]:
        """Of counts below 2^15, whose limits have 16 bits too, a panel's channels at a time."""
        e, builder = self.e, self.e.ir

        def compare_panel(panel: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            channel = e.advance(self.first_channel, panel, LANES)
            byte = builder.lshr(channel, e.constant(3))
            limits = e.advance(self.field("table"), channel, 2)

            def compare_row(row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                number = builder.add(builder.mul(row, self.groups), builder.mul(panel, e.constant(2)))
                counts, limit = (
                    e.advance(self.halfwords, number, 32),
                    builder.add(limits, self.per_pixel("border", row)),
                )
                truths = [
                    builder.icmp_signed(
                        "<=",
                        e.load(e.advance(counts, half, 32), HALFWORDS, 32),
                        e.read(e.advance(limit, half, 32), HALFWORDS, 2),
                    )
                    for half in range(2)
                ]
                address = builder.add(builder.add(self.bits, self.per_pixel("bit_offsets", row)), byte)
                e.store(e.bits(e.join(truths)), address, 1)
                return []

            return e.loop(self.row_count, [], compare_row, unroll=False)

        return e.loop(builder.lshr(self.groups, e.constant(1)), [], compare_panel, unroll=False)

    def finish_groups(self, mode: int) -> list[ir.Value]:
        """All others, 16 channels at a time, whose constants stay in registers for all pixels."""
        e, builder = self.e, self.e.ir
        left = builder.sub(self.field("channels"), self.first_channel)
        whole = e.smaller(builder.lshr(left, e.constant(4)), self.groups)
        rest = e.smaller(builder.sub(left, builder.mul(whole, e.constant(16))), builder.sub(self.groups, whole))
        large = builder.trunc(self.field("large"), i1)

        def finish_group(group: ir.Value, masked: bool) -> list[ir.Value]:
            finish = self.finisher(mode, group, masked)

            def finish_row(row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                number = builder.add(builder.mul(row, self.groups), group)
                halfwords, integers = e.advance(self.halfwords, number, 32), e.advance(self.integers, number, 64)
                counts = builder.zext(e.load(halfwords, HALFWORDS, 32), INTEGERS)
                finish(row, e.when(large, lambda: [e.load(integers, INTEGERS, 32)], otherwise=[counts]))
                return []

            return e.loop(self.row_count, [], finish_row, unroll=False)

        e.loop(whole, [], lambda group, _: finish_group(group, False), unroll=False)
        return e.when(builder.icmp_signed(">", rest, e.constant(0)), lambda: finish_group(whole, True))

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

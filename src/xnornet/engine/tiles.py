"""Register tiles: the inner loops of the binary and the float convolution, with their epilogues, as LLVM vector code.

A tile is `rows` output pixels x `panels` panels of output channels (`panels.LANES` of them in the binary, 16 in the
float convolution), one vector accumulator for each pair. Per vector of weights, one a panel, it takes one input a
pixel, for all lanes, and updates all accumulators; taps are addressed through tables, so there is no im2col, and those
that lie on padding for all pixels of a tile are not in its table (see `plan`). The epilogue follows while the
accumulators are still in registers. Tiles that look up, in `lookup`, are these with another inside.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from llvmlite import ir
from numba import types

from xnornet.engine import counter
from xnornet.engine.counter import CARRY_SAVE, KIND, LOOKUP
from xnornet.engine.op import OFFSET, Mode
from xnornet.engine.panels import LANES as BINARY_LANES
from xnornet.engine.vector import Emitter, f32, i1, i32, i64, intrinsic, vector

FLOAT_LANES = 16  # 16 float32 fill 512 bits


def limit_type(large: bool) -> type[np.signedinteger]:
    """Of the limits that popcounts are compared with; large: these have several rounds, where they are looked up."""
    if LOOKUP:
        return np.int32 if large else np.int16
    return np.int32 if KIND.element is i32 else np.int64


FLOAT_MODES = (Mode.STORE, Mode.STORE | Mode.BITS, Mode.BITS)
BINARY_MODES = (
    Mode.COUNTS,
    Mode.STORE,
    Mode.STORE | Mode.RESIDUAL,
    Mode.STORE | Mode.BITS,
    Mode.STORE | Mode.RESIDUAL | Mode.BITS,
    Mode.STORE | Mode.SCALE,
    Mode.STORE | Mode.SCALE | Mode.RESIDUAL,
)
"""Each has code of its own in every tile, which takes time to compile; where floats are made, RELU may be added."""


Index: TypeAlias = "int | ir.Value"
"""A row of a tile, or a group of channels: a number known when it compiles, or one that is not."""


class PixelCode:
    """Emits code of an operation for some of its pixels; op: address of its record, pixel: number of the first one."""

    def __init__(self, builder: ir.IRBuilder, op: ir.Value, pixel: ir.Value) -> None:
        self.e = Emitter(builder)
        self.op, self.pixel = op, pixel

    def field(self, name: str) -> ir.Value:
        return self.e.read(self.e.advance(self.op, OFFSET[name], 1), i64, 8)

    def weights(self, panel: ir.Value) -> ir.Value:
        """Address of the weights of a panel."""
        return self.e.advance(self.field("weights"), self.e.ir.mul(panel, self.field("vectors")), 64)

    def per_pixel(self, table: str, row: Index) -> ir.Value:
        """Entry of an int32 table of the pixels."""
        entry = self.e.advance(self.field(table), self.e.advance(self.pixel, row, 1), 4)
        return self.e.ir.sext(self.e.read(entry, i32, 4), i64)


class Tile(PixelCode):
    """Emits one tile. Lanes past the last channel, `masked`, are neither loaded nor stored."""

    lanes: int  # of a panel
    part: int  # channels of one of the vectors that `accumulate` returns
    modes: tuple[int, ...]

    def __init__(self, builder: ir.IRBuilder, args: list[ir.Value], rows: int, panels: int, masked: bool) -> None:
        op, self.source, self.target, self.bits, pixel, self.panel, self.first_tap, self.taps = args
        super().__init__(builder, op, pixel)
        self.offsets = self.e.advance(self.field("offsets"), self.first_tap, 16)
        self.rows, self.panels = rows, panels
        self.first_channel = builder.mul(self.panel, self.e.constant(self.lanes))
        self.width = max(self.part, FLOAT_LANES if panels > 1 else 0)  # channels that the epilogue takes at a time
        self.masked = masked

    def emit(self) -> None:
        accumulators = self.accumulate()
        e, builder = self.e, self.e.ir
        after = builder.append_basic_block("after")
        wanted = self.field("mode")
        has_relu = builder.trunc(builder.lshr(wanted, e.constant(Mode.RELU.bit_length() - 1)), i1)
        # Not a mode of its own: without it the floor is minus infinity, below which no result is.
        self.floor = e.splat(builder.select(has_relu, ir.Constant(f32, 0.0), ir.Constant(f32, -math.inf)), self.width)
        switch = builder.switch(builder.and_(wanted, e.constant(~Mode.RELU)), after)
        for mode in self.modes:
            block = builder.append_basic_block(f"mode{int(mode)}")
            switch.add_case(e.constant(mode), block)
            builder.position_at_end(block)
            self.epilogue(mode, accumulators)
            builder.branch(after)
        builder.position_at_end(after)

    def per_channel(self, table: str, group: Index) -> ir.Value:
        """The vector of a group of channels in a table of one entry a channel, padded to whole panels."""
        return self.table_row(self.field(table), group, f32)

    def table_row(self, address: ir.Value, group: Index, element: ir.Type) -> ir.Value:
        size = 8 if element is i64 else 4
        return self.e.read(self.e.advance(address, self.channel(group), size), vector(element, self.width), 4)

    def channel(self, group: Index) -> ir.Value:
        """The first of a group of channels, as many as the epilogue takes at a time."""
        return self.e.advance(self.first_channel, group, self.width)

    def tap(self, number: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Of a tap of the run, bytes from a window's first word or float, and from a panel's first weight."""
        entry = self.e.advance(self.offsets, number, 16)
        return self.e.read(entry, i64, 8), self.e.read(self.e.advance(entry, 1, 8), i64, 8)

    def result(self, row: Index) -> ir.Value:
        """Number of the pixel's result."""
        return self.per_pixel("order", row)

    def accumulate(self) -> list[list[ir.Value]]:
        """The sums over all taps, [row][part of the channels]."""
        raise NotImplementedError

    def reader(self, kind: ir.VectorType) -> Callable[[ir.Value], list[list[tuple[ir.Value, ir.Value]]]]:
        """A function of a tap: (input in all lanes, weights) of each accumulator, [row][panel]."""
        e, element = self.e, kind.element
        windows = [e.ir.add(self.source, self.per_pixel("pixels", row)) for row in range(self.rows)]
        panels = [self.weights(e.advance(self.panel, panel, 1)) for panel in range(self.panels)]

        def read(tap: ir.Value) -> list[list[tuple[ir.Value, ir.Value]]]:
            offset, first = self.tap(tap)
            weights = [e.load(e.ir.add(panel, first), kind, 64) for panel in panels]
            values = [e.load(e.ir.add(window, offset), element, 8 if element is i64 else 4) for window in windows]
            return [[(e.splat(value, kind.count), w) for w in weights] for value in values]

        return read

    def epilogue(self, mode: int, accumulators: list[list[ir.Value]]) -> None:
        """Finish the sums of each row, as many at a time as make one vector of results."""
        at_once = self.width // self.part
        for group in range(len(accumulators[0]) // at_once):
            finish = self.finisher(mode, group, self.masked)
            for row in range(self.rows):
                finish(row, accumulators[row][group * at_once : (group + 1) * at_once])

    def finisher(self, mode: int, group: Index, masked: bool) -> Callable[[Index, list[ir.Value]], None]:
        """The epilogue of one group of channels, its constants loaded: a function of row and accumulators.

        masked: the group has lanes past the last channel.
        """
        e, builder = self.e, self.e.ir
        channel = self.channel(group)
        mask = e.lane_mask(self.width, builder.sub(self.field("channels"), channel)) if masked else None
        to_float = self.to_float(mode, group) if mode != Mode.COUNTS else None
        byte = builder.lshr(channel, e.constant(3))
        if mode & Mode.BITS:
            threshold = self.per_channel("threshold", group)
            flip = e.read(builder.add(self.field("flip"), byte), ir.IntType(self.width), 1)

        def finish(row: Index, accumulators: list[ir.Value]) -> None:
            if to_float is None:
                made = e.bits(self.compare_counts(row, group, accumulators))
            else:
                y = to_float(row, accumulators)
                index = builder.add(builder.mul(self.result(row), self.field("channels")), channel)
                y = builder.select(builder.fcmp_ordered("<", y, self.floor), self.floor, y)
                if mode & Mode.RESIDUAL:
                    y = builder.fadd(self.load_floats(e.advance(self.field("residual"), index, 4), mask), y)
                if mode & Mode.STORE:
                    self.store_floats(y, e.advance(self.target, index, 4), mask)
                if mode & Mode.BITS:
                    made = builder.xor(e.bits(builder.fcmp_ordered(">=", y, threshold)), flip)
            if mode & (Mode.BITS | Mode.COUNTS):
                address = builder.add(builder.add(self.bits, self.per_pixel("bit_offsets", row)), byte)
                e.store(made, address, 1)

        return finish

    def load_floats(self, address: ir.Value, mask: ir.Value | None) -> ir.Value:
        if mask is not None:
            return self.e.masked_load(address, mask)
        return self.e.load(address, vector(f32, self.width), 4)

    def store_floats(self, value: ir.Value, address: ir.Value, mask: ir.Value | None) -> None:
        if mask is not None:
            self.e.masked_store(value, address, mask)
        else:
            self.e.store(value, address, 4)

    def compare_counts(self, row: Index, group: Index, accumulators: list[ir.Value]) -> ir.Value:
        raise NotImplementedError

    def to_float(self, mode: int, group: Index) -> Callable[[Index, list[ir.Value]], ir.Value]:
        raise NotImplementedError


class CountTile(Tile):
    """What becomes of popcounts: compared with limits, or made floats."""

    modes = BINARY_MODES

    def to_integers(self, accumulators: list[ir.Value]) -> ir.Value:
        """The popcounts of a vector of results, as int32."""
        return accumulators[0] if accumulators[0].type.element is i32 else self.e.low_halves(accumulators)

    def border_row(self, row: Index, group: Index, element: ir.Type) -> ir.Value:
        """What the counts start from, or are compared with, at this pixel: at a border, padding has its part in it."""
        return self.table_row(self.e.ir.add(self.field("table"), self.per_pixel("border", row)), group, element)

    def compare_counts(self, row: Index, group: Index, accumulators: list[ir.Value]) -> ir.Value:
        """Popcount <= limit: what `weights.count_limits` makes of count >= threshold."""
        builder = self.e.ir
        limits = self.border_row(row, group, accumulators[0].type.element)
        parts = self.e.split(limits, len(accumulators))
        truths = [builder.icmp_signed("<=", a, limit) for a, limit in zip(accumulators, parts, strict=True)]
        return self.e.join(truths)

    def to_float(self, mode: int, group: Index) -> Callable[[Index, list[ir.Value]], ir.Value]:
        e, builder = self.e, self.e.ir
        scale, bias = self.per_channel("scale", group), self.per_channel("bias", group)
        minus_two = ir.Constant(scale.type, [-2.0] * self.width)

        def convert(row: Index, accumulators: list[ir.Value]) -> ir.Value:
            popcounts = builder.sitofp(self.to_integers(accumulators), scale.type)
            # Exact, an integer below 2^24. Then rounded after each step, as torch rounds: equal to the last bit.
            y = e.fma(popcounts, minus_two, self.border_row(row, group, f32))
            y = builder.fmul(y, scale)
            if mode & Mode.SCALE:
                input_scale = e.load(e.advance(self.field("scale_map"), self.result(row), 4), f32, 4)
                y = builder.fmul(y, e.splat(input_scale, self.width))
            return builder.fadd(y, bias)

        return convert


class BinaryTile(CountTile):
    """sign(x) . sign(w) = n - 2 popcount(x xor w), 512 products at a time; `counter` has the instructions."""

    lanes = BINARY_LANES
    part = BINARY_LANES

    def accumulate(self) -> list[list[ir.Value]]:
        e, taps = self.e, self.taps
        read = self.reader(KIND)
        zeros = counter.start(e, KIND, CARRY_SAVE)
        counts = [zeros] * (self.rows * self.panels)
        step = 2 if CARRY_SAVE else 1
        odd = e.ir.and_(taps, e.constant(step - 1))
        if CARRY_SAVE:
            # Of an odd number of taps the first has no partner: its xor is what the ones start from.
            ones = e.loop(
                odd,
                [count.ones for count in counts],
                lambda tap, _: [e.ir.xor(x, w) for row in read(tap) for x, w in row],
            )
            counts = [counter.Count(zeros.total, start) for start in ones]

        def body(index: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
            first = e.ir.add(odd, e.ir.mul(index, e.constant(step)))
            pairs = [read(e.ir.add(first, e.constant(offset))) for offset in range(step)]
            flat = [[pair for row in tap for pair in row] for tap in pairs]
            old = counter.from_state(state, CARRY_SAVE)
            return counter.to_state(
                [counter.add(e, count, words) for count, words in zip(old, zip(*flat, strict=True), strict=True)]
            )

        last = e.loop(e.ir.udiv(taps, e.constant(step)), counter.to_state(counts), body)
        totals = [counter.finish(e, count) for count in counter.from_state(last, CARRY_SAVE)]
        return [totals[row * self.panels : (row + 1) * self.panels] for row in range(self.rows)]


class FloatTile(Tile):
    """x . w by fused multiply-adds, one after the other in the order of the taps."""

    lanes = FLOAT_LANES
    part = FLOAT_LANES
    modes = FLOAT_MODES

    def accumulate(self) -> list[list[ir.Value]]:
        e = self.e
        kind = vector(f32, self.part)
        read = self.reader(kind)

        def body(tap: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
            pairs = [pair for row in read(tap) for pair in row]
            return [e.fma(x, w, total) for total, (x, w) in zip(state, pairs, strict=True)]

        flat = e.loop(self.taps, [e.zeros(kind)] * (self.rows * self.panels), body)
        return [flat[row * self.panels : (row + 1) * self.panels] for row in range(self.rows)]

    def to_float(self, mode: int, group: Index) -> Callable[[Index, list[ir.Value]], ir.Value]:
        bias = self.per_channel("bias", group)
        return lambda row, accumulators: self.e.ir.fadd(accumulators[0], bias)


class HalfPanelTile(FloatTile):
    """Of the first 8 channels of a panel alone, one register where it has no more than these."""

    part = FLOAT_LANES // 2


def tile_of(kind: type[Tile], rows: int, panels: int, masked: bool) -> Callable[..., None]:
    """To Numba, a function of eight integers; where it is called, `emit` writes a tile's LLVM code into the caller."""

    @intrinsic
    def tile(context, op, source, target, bits, pixel, panel, first_tap, taps):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            kind(builder, args, rows, panels, masked).emit()
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return tile


def binary_tile(rows: int, panels: int, *, masked: bool = False) -> Callable[..., None]:
    """Intrinsic `tile(op, source, target, bits, pixel, panel, first_tap, taps)`: pixels and panels from those on.

    op: address of the operation's record; source, target, bits: addresses; taps: how many, from entry `first_tap` of
    the record's offsets on. All int64.
    """
    return tile_of(BinaryTile, rows, panels, masked)


def float_tile(rows: int, panels: int, *, masked: bool = False, half_panel: bool = False) -> Callable[..., None]:
    """As `binary_tile`, for the float convolution."""
    return tile_of(HalfPanelTile if half_panel else FloatTile, rows, panels, masked)

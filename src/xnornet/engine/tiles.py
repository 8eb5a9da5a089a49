"""Register tiles: the inner loops of the binary and the float convolution, with their epilogues, as LLVM vector code.

A tile is `rows` output pixels x `panels` panels of output channels (8 of them in the binary, 16 in the float
convolution), one vector accumulator for each pair. Per tap it loads one weight vector a panel, broadcasts one input a
pixel and updates all accumulators; taps are addressed through tables, so there is no im2col. The epilogue follows while
the accumulators are still in registers.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xnornet.engine.op import OFFSET, Mode
from xnornet.engine.vector import Emitter, f32, i8, i32, i64, vector

BINARY_LANES = 8  # 8 uint64 words fill 512 bits
FLOAT_LANES = 16  # 16 float32 do

# A float convolution has no use for K or residuals: they belong to binary layers.
FLOAT_MODES = (Mode.STORE, Mode.STORE | Mode.BITS, Mode.BITS)
BINARY_MODES = (
    Mode.COUNTS,
    Mode.STORE,
    Mode.STORE | Mode.RESIDUAL,
    Mode.STORE | Mode.BITS,
    Mode.STORE | Mode.RESIDUAL | Mode.BITS,
    Mode.BITS,
    Mode.STORE | Mode.SCALE,
    Mode.STORE | Mode.SCALE | Mode.RESIDUAL,
)


class _Tile:
    """Emits one tile. Lanes past the last channel, `masked`, are neither loaded nor stored."""

    lanes: int
    modes: tuple[int, ...]

    def __init__(self, builder: ir.IRBuilder, args: list[ir.Value], rows: int, panels: int, masked: bool) -> None:
        self.e = Emitter(builder)
        self.op, self.source, self.target, self.bits, self.pixel, self.panel = args
        self.rows, self.panels = rows, panels
        self.first = builder.mul(self.panel, self.e.constant(self.lanes))  # channel
        self.mask = self.e.lane_mask(self.lanes, builder.sub(self.field("channels"), self.first)) if masked else None

    def field(self, name: str) -> ir.Value:
        return self.e.load(self.e.advance(self.op, OFFSET[name], 1), i64, 8)

    def emit(self) -> None:
        accumulators = self.accumulate()
        builder = self.e.ir
        after = builder.append_basic_block("after")
        switch = builder.switch(self.field("mode"), after)
        for mode in self.modes:
            block = builder.append_basic_block(f"mode{int(mode)}")
            switch.add_case(self.e.constant(mode), block)
            builder.position_at_end(block)
            self.epilogue(mode, accumulators)
            builder.branch(after)
        builder.position_at_end(after)

    def per_pixel(self, table: str, row: int) -> ir.Value:
        """Entry of an int32 table of the pixels."""
        entry = self.e.advance(self.field(table), self.e.ir.add(self.pixel, self.e.constant(row)), 4)
        return self.e.ir.sext(self.e.load(entry, i32, 4), i64)

    def per_channel(self, table: str, panel: int, element: ir.Type = f32) -> ir.Value:
        """The vector of a panel in a table of 4 bytes a channel, padded to whole panels."""
        return self.row(self.field(table), panel, element)

    def row(self, address: ir.Value, panel: int, element: ir.Type) -> ir.Value:
        start = self.e.advance(self.e.advance(address, self.first, 4), panel * self.lanes, 4)
        return self.e.load(start, vector(element, self.lanes), 4)

    def weight(self, panel: int, tap: ir.Value) -> ir.Value:
        """The weight vector of a tap; a panel's follow each other, 64 bytes each."""
        index = self.e.ir.mul(self.e.ir.add(self.panel, self.e.constant(panel)), self.field("taps"))
        return self.e.advance(self.e.advance(self.field("weights"), index, 64), tap, 64)

    def accumulate(self) -> list[list[ir.Value]]:
        """The accumulators after all taps, [row][panel]."""
        e = self.e
        offsets, taps = self.field("offsets"), self.field("taps")
        windows = [e.ir.add(self.source, self.per_pixel("pixels", row)) for row in range(self.rows)]
        element = i64 if self.lanes == BINARY_LANES else f32
        kind = vector(element, self.lanes)

        def body(tap: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
            offset = e.load(e.advance(offsets, tap, 8), i64, 8)
            weights = [e.load(self.weight(panel, tap), kind, 64) for panel in range(self.panels)]
            new = []
            for row, window in enumerate(windows):
                value = e.splat(e.load(e.ir.add(window, offset), element, element.width // 8 if element is i64 else 4), self.lanes)
                old = state[row * self.panels : (row + 1) * self.panels]
                new += [self.update(a, value, w) for a, w in zip(old, weights, strict=True)]
            return new

        flat = e.loop(taps, [e.zeros(kind)] * (self.rows * self.panels), body)
        return [flat[row * self.panels : (row + 1) * self.panels] for row in range(self.rows)]

    def epilogue(self, mode: int, accumulators: list[list[ir.Value]]) -> None:
        for panel in range(self.panels):
            finish = self.finisher(mode, panel)
            for row in range(self.rows):
                finish(row, accumulators[row][panel])

    def finisher(self, mode: int, panel: int) -> Callable[[int, ir.Value], None]:
        """The epilogue of one panel, its constants loaded: a function of row and accumulator."""
        e = self.e
        builder = e.ir
        to_float = self.to_float(panel) if mode != Mode.COUNTS else None
        if mode & (Mode.BITS | Mode.COUNTS):
            threshold = self.per_channel("threshold", panel, i32 if mode == Mode.COUNTS else f32)
            byte = builder.add(builder.lshr(self.first, e.constant(3)), e.constant(panel * self.lanes // 8))
            flip = e.load(builder.add(self.field("flip"), byte), ir.IntType(self.lanes), 1)
        if mode & Mode.STORE:
            relu = builder.icmp_signed("!=", self.field("relu"), e.constant(0))
            zero, lowest = ir.Constant(f32, 0.0), ir.Constant(f32, float("-inf"))
            floor = e.splat(builder.select(relu, zero, lowest), self.lanes)

        def finish(row: int, accumulator: ir.Value) -> None:
            if to_float is None:
                above = builder.icmp_signed(">=", self.counts(row, panel, accumulator), threshold)
            else:
                scale = self.input_scale(row) if mode & Mode.SCALE else None
                y = to_float(row, accumulator, scale)
                if mode & Mode.STORE:
                    y = builder.select(builder.fcmp_ordered("<", y, floor), floor, y)
                    channel = builder.add(self.first, e.constant(panel * self.lanes))
                    pixel = builder.add(self.pixel, e.constant(row))
                    index = builder.add(builder.mul(pixel, self.field("channels")), channel)
                    if mode & Mode.RESIDUAL:
                        y = builder.fadd(self.load_floats(e.advance(self.field("residual"), index, 4)), y)
                    self.store_floats(y, e.advance(self.target, index, 4))
                if mode & Mode.BITS:
                    above = builder.fcmp_ordered(">=", y, threshold)
            if mode & (Mode.BITS | Mode.COUNTS):
                place = builder.add(builder.add(self.bits, self.per_pixel("places", row)), byte)
                e.store(builder.xor(e.bits(above), flip), place, 1)

        return finish

    def input_scale(self, row: int) -> ir.Value:
        place = self.e.advance(self.field("scale_map"), self.e.ir.add(self.pixel, self.e.constant(row)), 4)
        return self.e.splat(self.e.load(place, f32, 4), self.lanes)

    def load_floats(self, address: ir.Value) -> ir.Value:
        if self.mask is not None:
            return self.e.masked_load(address, self.mask)
        return self.e.load(address, vector(f32, self.lanes), 4)

    def store_floats(self, value: ir.Value, address: ir.Value) -> None:
        if self.mask is not None:
            self.e.masked_store(value, address, self.mask)
        else:
            self.e.store(value, address, 4)

    def update(self, accumulator: ir.Value, value: ir.Value, weights: ir.Value) -> ir.Value:
        raise NotImplementedError

    def counts(self, row: int, panel: int, accumulator: ir.Value) -> ir.Value:
        raise NotImplementedError

    def to_float(self, panel: int) -> Callable[[int, ir.Value, ir.Value | None], ir.Value]:
        raise NotImplementedError


class _BinaryTile(_Tile):
    """sign(x) . sign(w) = n - 2 popcount(x xor w): xor, popcount, add; 3 instructions for 512 products."""

    lanes = BINARY_LANES
    modes = BINARY_MODES

    def update(self, accumulator: ir.Value, value: ir.Value, weights: ir.Value) -> ir.Value:
        return self.e.ir.add(accumulator, self.e.popcount(self.e.ir.xor(value, weights)))

    def counts(self, row: int, panel: int, accumulator: ir.Value) -> ir.Value:
        """The dot products as `<8 x i32>`. The table's row takes back what the zero words of the border counted as -1."""
        builder = self.e.ir
        twice = builder.shl(builder.trunc(accumulator, vector(i32, self.lanes)), self.e.splat(ir.Constant(i32, 1), self.lanes))
        start = builder.add(self.field("table"), self.per_pixel("border", row))
        return builder.sub(self.row(start, panel, i32), twice)

    def to_float(self, panel: int) -> Callable[[int, ir.Value, ir.Value | None], ir.Value]:
        builder = self.e.ir
        scale, bias = self.per_channel("scale", panel), self.per_channel("bias", panel)

        def convert(row: int, accumulator: ir.Value, input_scale: ir.Value | None) -> ir.Value:
            # Rounded after each step, as torch rounds: the results are equal to the last bit.
            y = builder.fmul(builder.sitofp(self.counts(row, panel, accumulator), scale.type), scale)
            if input_scale is not None:
                y = builder.fmul(y, input_scale)
            return builder.fadd(y, bias)

        return convert


class _FloatTile(_Tile):
    """x . w by fused multiply-adds, one after the other in the order of the taps."""

    lanes = FLOAT_LANES
    modes = FLOAT_MODES

    def update(self, accumulator: ir.Value, value: ir.Value, weights: ir.Value) -> ir.Value:
        return self.e.fma(value, weights, accumulator)

    def to_float(self, panel: int) -> Callable[[int, ir.Value, ir.Value | None], ir.Value]:
        bias = self.per_channel("bias", panel)
        return lambda row, accumulator, input_scale: self.e.ir.fadd(accumulator, bias)


def _tile(kind: type[_Tile], rows: int, panels: int, masked: bool) -> Callable[..., None]:
    @intrinsic
    def tile(context, op, source, target, bits, pixel, panel):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            kind(builder, args, rows, panels, masked).emit()
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return tile


def binary_tile(rows: int, panels: int, *, masked: bool = False) -> Callable[..., None]:
    """Intrinsic `tile(op, source, target, bits, pixel, panel)` for pixels from `pixel` and panels from `panel` on.

    op: address of the operation's record; source, target, bits: addresses; all int64.
    """
    return _tile(_BinaryTile, rows, panels, masked)


def float_tile(rows: int, panels: int, *, masked: bool = False) -> Callable[..., None]:
    """As `binary_tile`, for the float convolution."""
    return _tile(_FloatTile, rows, panels, masked)

"""The steps of a program: sizes, tables and, of a convolution, the plan and what becomes of its results."""

from dataclasses import dataclass

import numpy as np

from xnornet.engine import bits
from xnornet.engine.convolution import (
    BINARY_TILES,
    BINARY_UNIT,
    FLOAT_TILES,
    FLOAT_UNIT,
    RUNNING_TILES,
    RUNNING_UNIT,
)
from xnornet.engine.counter import LOOKUP, LOOKUP_TABLE
from xnornet.engine.geometry import Shape, Window, bit_offsets, int32
from xnornet.engine.op import Kind, Mode
from xnornet.engine.panels import VECTOR
from xnornet.engine.plan import Plan, border_groups, make_plan, whole_groups
from xnornet.engine.program import Buffer, Program, Value, row_units
from xnornet.engine.rounds import make_rounds
from xnornet.engine.tiles import BINARY_MODES, FLOAT_MODES, limit_type
from xnornet.engine.weights import (
    BinaryWeights,
    FloatWeights,
    count_limits,
    flip_bytes,
    per_channel,
)

FLOAT_WORK = 16
"""Binary products that take as long as a float one, about."""

PACK_WORK = 80
"""And as long as packing the sign of a float."""


@dataclass(eq=False)
class Epilogue:
    """What a convolution does with its results. `None` as a target is the caller's array.

    With COUNTS, bits are not flipped: see `weights.without_flips`.
    """

    mode: Mode | int
    scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    threshold: np.ndarray | None = None
    flip: np.ndarray | None = None
    target: Buffer | None = None
    residual: Buffer | None = None
    scale_map: Buffer | None = None
    bits: Buffer | None = None
    bits_padding: int = 0

    def fields(self, out: Shape, batch: int, plan: Plan) -> dict[str, Value]:
        fields: dict[str, Value] = {
            "mode": int(self.mode),
            "channels": out.depth,
            "count": out.pixels,
            "target_bytes": out.float_bytes,
            "bits_bytes": out.padded(self.bits_padding).packed_bytes,
            "scale": per_channel(self.scale, out.depth, 0, np.float32),
            "bias": per_channel(self.bias, out.depth, 0, np.float32),
        }
        if self.mode & Mode.STORE:
            fields["target"] = self.target
        if self.mode & Mode.RESIDUAL:
            fields["residual"] = self.residual
        if self.mode & Mode.SCALE:
            fields["scale_map"] = self.scale_map
        if self.mode & Mode.BITS:
            # A channel that only fills up a panel must give bits of 0: no value reaches its threshold.
            fields["threshold"] = per_channel(self.threshold, out.depth, np.inf, np.float32)
            fields["flip"] = flip_bytes(self.flip, out.depth)
        if self.mode & (Mode.BITS | Mode.COUNTS):
            fields["bits"] = self.bits
            size, words = (out.height, out.width), bits.word_count(out.depth)
            fields["bit_offsets"] = bit_offsets(size, words, self.bits_padding, batch)[plan.order]
        return fields


def add_pack(program: Program, source: Buffer | None, target: Buffer | None, shape: Shape, padding: int) -> None:
    """Signs of float32 images of `shape` -> packed images with `padding` zero words around."""
    program.work += PACK_WORK * shape.pixels * shape.depth
    program.add(
        Kind.PACK,
        units=row_units(shape.height),
        source=source,
        target=target,
        height=shape.height,
        width=shape.width,
        depth=shape.depth,
        source_bytes=shape.float_bytes,
        target_bytes=shape.padded(padding).packed_bytes,
        target_padding=padding,
    )


def folded_bytes(shape: Shape, window: Window) -> int:
    """Bytes of one folded image, see `kernels.fold`."""
    _, width = window.output(shape.height, shape.width)
    return 8 * (shape.height + 2 * window.padding) * width * bits.word_count(shape.depth * window.kernel_width)


def _add_fold(
    program: Program,
    source: Buffer | None,
    target: Buffer | None,
    shape: Shape,
    padding: int,
    window: Window,
) -> None:
    """Packed images of `shape`, with at least the padding of `window` -> folded ones."""
    height = shape.height + 2 * window.padding
    program.add(
        Kind.FOLD,
        units=row_units(height),
        source=source,
        target=target,
        height=height,
        width=shape.width + 2 * padding,
        channels=shape.depth,
        out_width=window.output(shape.height, shape.width)[1],
        depth=bits.word_count(shape.depth * window.kernel_width),
        kernel_width=window.kernel_width,
        stride=window.stride,
        source_padding=padding - window.padding,
        source_bytes=shape.padded(padding).packed_bytes,
        target_bytes=folded_bytes(shape, window),
    )


def _add_running_xors(
    program: Program, source: Buffer | None, target: Buffer, image_bytes: int, rows: int, group: int
) -> None:
    """Packed images of so many bytes and rows -> the same with the words of each group as running xors."""
    program.add(
        Kind.RUNNING_XORS,
        units=row_units(rows),
        source=source,
        target=target,
        group=group,
        source_bytes=image_bytes,
        target_bytes=image_bytes,
    )


def add_binary_conv(
    program: Program,
    weights: BinaryWeights,
    source: Buffer | None,
    shape: Shape,
    padding: int,
    window: Window,
    epilogue: Epilogue,
) -> None:
    """Packed images of `shape`, padded at least as `window` is -> what the epilogue makes."""
    assert epilogue.mode & ~Mode.RELU in BINARY_MODES, "no tile has code for it"
    assert epilogue.mode != Mode.COUNTS | Mode.RELU, "counts have no ReLU: it belongs into their threshold"
    out = Shape(*window.output(shape.height, shape.width), weights.channels)
    in_group, kind, tiles, unit = weights.group, Kind.BINARY_CONV, BINARY_TILES, BINARY_UNIT
    if weights.folded:
        image = folded_bytes(shape, window)
        program.scratch.grow(image * program.batch)
        _add_fold(program, source, program.scratch, shape, padding, window)
        source = program.scratch
        row = image // (shape.height + 2 * window.padding)
        # A folded row has a pixel for each output column: the stride is already in it.
        pixel = row // out.width
        pixels = Window(1, 1).pixel_offsets((out.height, out.width), image, row * window.stride, pixel, program.batch)
    else:
        image = shape.padded(padding).packed_bytes
        pixel = 8 * bits.word_count(shape.depth)
        row = pixel * (shape.width + 2 * padding)
        start = (padding - window.padding) * (row + pixel)
        pixels = window.pixel_offsets((out.height, out.width), image, row, pixel, program.batch, start)
    if in_group > 1:
        kind, tiles, unit = Kind.RUNNING_CONV, RUNNING_TILES, RUNNING_UNIT
        program.scratch.grow(image * program.batch)
        _add_running_xors(program, source, program.scratch, image, image // row, in_group)
        source = program.scratch
    axes = window.axes(shape.height, shape.width)
    rows, columns = weights.counted_axes(*axes)
    parts = len(weights.tap_sizes) // (rows.kernel * columns.kernel)
    # Of several images a pass may have fewer, which must be the first in its order.
    groups = whole_groups(rows, columns) if program.batch > 1 else border_groups(rows, columns, parts, tiles)
    pattern, starts = weights.border(*axes, groups)
    plan = make_plan(groups, parts, columns.kernel, program.batch, tiles[0])
    planned = _planned(plan, weights.tap_offsets(row, pixel), weights.tap_sizes, looked_up=LOOKUP)
    if epilogue.mode == Mode.COUNTS:
        assert epilogue.threshold is not None
        # No popcount is -1 or less: channels that only fill up a panel get bits of 0.
        integer = limit_type(large=bool(planned.get("large")))
        limits = count_limits(starts, epilogue.threshold).clip(max=np.iinfo(integer).max)
        table = per_channel(limits, out.depth, -1, integer)
    else:
        table = per_channel(starts, out.depth, 0, np.float32)
    program.work += _products(shape, window, out)
    program.add(
        kind,
        units=plan.units(out.depth, unit),
        source=source,
        source_bytes=image,
        weights=weights.panels,
        group=in_group,
        lookup=LOOKUP_TABLE,
        pixels=pixels[plan.order],
        border=int32(np.tile(pattern, program.batch)[plan.order] * table.strides[0]),
        table=table,
        **planned,
        **epilogue.fields(out, program.batch, plan),
    )


def add_float_conv(
    program: Program,
    weights: FloatWeights,
    source: Buffer | None,
    shape: Shape,
    padding: int,
    window: Window,
    epilogue: Epilogue,
) -> None:
    """float32 images of `shape`, with at least the padding of `window` -> what the epilogue makes."""
    assert epilogue.mode & ~Mode.RELU in FLOAT_MODES, "no tile has code for it"
    out = Shape(*window.output(shape.height, shape.width), weights.channels)
    image, pixel = shape.padded(padding).float_bytes, 4 * shape.depth
    row = pixel * (shape.width + 2 * padding)
    start = (padding - window.padding) * (row + pixel)
    groups = whole_groups(*window.axes(shape.height, shape.width))
    plan = make_plan(groups, shape.depth, window.kernel_width, program.batch, FLOAT_TILES[0])
    program.work += FLOAT_WORK * _products(shape, window, out)
    program.add(
        Kind.FLOAT_CONV,
        units=plan.units(out.depth, FLOAT_UNIT),
        source=source,
        source_bytes=image,
        weights=weights.panels,
        pixels=window.pixel_offsets((out.height, out.width), image, row, pixel, program.batch, start),
        **_planned(plan, weights.tap_offsets(row, pixel), weights.tap_sizes),
        **epilogue.fields(out, program.batch, plan),
    )


def _products(shape: Shape, window: Window, out: Shape) -> int:
    return out.pixels * out.depth * shape.depth * window.kernel_height * window.kernel_width


def _planned(plan: Plan, offsets: np.ndarray, sizes: np.ndarray, looked_up: bool = False) -> dict[str, Value]:
    """The fields of a plan.

    offsets: bytes from a window's first word or float to that of each tap of the kernel; sizes: vectors of weights of
    each; looked_up: in rounds.
    """
    weights = np.cumsum(sizes) - sizes  # vectors before those of each tap
    offsets, weights = offsets[plan.taps], weights[plan.taps]
    fields: dict[str, Value] = {
        "vectors": int(sizes.sum()),
        "runs": plan.runs,
        "blocks": plan.blocks,
        "block_count": len(plan.blocks) - 1,
        "order": int32(plan.order),
    }
    if not looked_up:
        return {**fields, "offsets": np.stack([offsets, VECTOR * weights], axis=1).astype(np.int64)}
    rounds, stretches, parts, runs = make_rounds(offsets, weights, sizes[plan.taps], plan.runs)
    large = int(runs[:, 3].max() > 1)
    return {**fields, "rounds": rounds, "stretches": stretches, "parts": parts, "runs": runs, "large": large}


def add_input_scale(
    program: Program, source: Buffer | None, target: Buffer | None, shape: Shape, window: Window
) -> None:
    """float32 images of `shape` -> K of each output pixel."""
    height, width = window.output(shape.height, shape.width)
    program.add(
        Kind.INPUT_SCALE,
        units=1,
        source=source,
        target=target,
        height=shape.height,
        width=shape.width,
        depth=shape.depth,
        out_height=height,
        out_width=width,
        kernel_height=window.kernel_height,
        kernel_width=window.kernel_width,
        stride=window.stride,
        padding=window.padding,
        source_bytes=shape.float_bytes,
        target_bytes=4 * height * width,
    )

"""The steps of a program: sizes, tables and, of a convolution, the plan and what becomes of its results."""

from dataclasses import dataclass, replace

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


@dataclass(frozen=True, eq=False)
class _Input:
    """Images as the tiles read them."""

    source: Buffer | None
    image: int
    """Bytes of one, as `row` and `pixel` are of those."""
    row: int
    pixel: int
    windows: np.ndarray
    """int32 (output pixels of a pass,): bytes from `source` to the first word or float of each one's window."""


def _as_they_are(
    source: Buffer | None, image: int, pixel: int, shape: Shape, padding: int, window: Window, batch: int
) -> _Input:
    """Images of `shape` with at least the padding of `window`, of so many bytes, and a pixel of so many."""
    size, row = window.output(shape.height, shape.width), pixel * (shape.width + 2 * padding)
    start = (padding - window.padding) * (row + pixel)
    return _Input(source, image, row, pixel, window.pixel_offsets(size, image, row, pixel, batch, start))


def _folded(program: Program, source: Buffer | None, shape: Shape, padding: int, window: Window) -> _Input:
    """Packed images of `shape`, with at least the padding of `window`, folded."""
    height, image = shape.height + 2 * window.padding, folded_bytes(shape, window)
    size = window.output(shape.height, shape.width)
    program.scratch.grow(image * program.batch)
    program.add(
        Kind.FOLD,
        units=row_units(height),
        source=source,
        target=program.scratch,
        height=height,
        width=shape.width + 2 * padding,
        channels=shape.depth,
        out_width=size[1],
        depth=bits.word_count(shape.depth * window.kernel_width),
        kernel_width=window.kernel_width,
        stride=window.stride,
        source_padding=padding - window.padding,
        source_bytes=shape.padded(padding).packed_bytes,
        target_bytes=image,
    )
    row = image // height
    # A folded row has a pixel for each output column: the stride is already in it.
    pixel = row // size[1]
    windows = Window(1, 1).pixel_offsets(size, image, row * window.stride, pixel, program.batch)
    return _Input(program.scratch, image, row, pixel, windows)


def _with_running_xors(program: Program, images: _Input, group: int) -> _Input:
    """Packed or folded images with the words of each group as running xors."""
    program.scratch.grow(images.image * program.batch)
    program.add(
        Kind.RUNNING_XORS,
        units=row_units(images.image // images.row),
        source=images.source,
        target=program.scratch,
        group=group,
        source_bytes=images.image,
        target_bytes=images.image,
    )
    return replace(images, source=program.scratch)


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
    if weights.folded:
        images = _folded(program, source, shape, padding, window)
    else:
        image, pixel = shape.padded(padding).packed_bytes, 8 * bits.word_count(shape.depth)
        images = _as_they_are(source, image, pixel, shape, padding, window, program.batch)
    kind, tiles, unit = Kind.BINARY_CONV, BINARY_TILES, BINARY_UNIT
    if weights.group > 1:
        images = _with_running_xors(program, images, weights.group)
        kind, tiles, unit = Kind.RUNNING_CONV, RUNNING_TILES, RUNNING_UNIT
    axes = window.axes(shape.height, shape.width)
    rows, columns = weights.counted_axes(*axes)
    parts = len(weights.tap_sizes) // (rows.kernel * columns.kernel)
    # Of several images a pass may have fewer, which must be the first in its order.
    groups = whole_groups(rows, columns) if program.batch > 1 else border_groups(rows, columns, parts, tiles)
    pattern, starts = weights.border(*axes, groups)
    plan = make_plan(groups, parts, columns.kernel, program.batch, tiles[0])
    offsets = weights.tap_offsets(images.row, images.pixel)
    planned = _planned(plan, offsets, weights.tap_sizes, looked_up=LOOKUP)
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
        source=images.source,
        source_bytes=images.image,
        weights=weights.panels,
        group=weights.group,
        lookup=LOOKUP_TABLE,
        pixels=images.windows[plan.order],
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
    images = _as_they_are(source, image, pixel, shape, padding, window, program.batch)
    groups = whole_groups(*window.axes(shape.height, shape.width))
    plan = make_plan(groups, shape.depth, window.kernel_width, program.batch, FLOAT_TILES[0])
    program.work += FLOAT_WORK * _products(shape, window, out)
    program.add(
        Kind.FLOAT_CONV,
        units=plan.units(out.depth, FLOAT_UNIT),
        source=images.source,
        source_bytes=images.image,
        weights=weights.panels,
        pixels=images.windows,
        **_planned(plan, weights.tap_offsets(images.row, images.pixel), weights.tap_sizes),
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

"""The operations of a program as Numba kernels: every loop around the register tiles, and the memory-bound rest.

Each takes the record `op`, addresses and a number of images. Channels come last.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit, types

from xnornet.engine.counter import CARRY_SAVE, LOOKUP
from xnornet.engine.lookup import lookup_tile
from xnornet.engine.signs import pack16, pack64
from xnornet.engine.tiles import BINARY_LANES, FLOAT_LANES, binary_tile, float_tile
from xnornet.engine.vector import WIDE, intrinsic

# Rows x panels of a register tile. 8 x 2 needs 16 accumulators and 2 weight vectors of the 32 registers of AVX-512, and
# then issues 3 instructions a vector; with 16 registers of half the width, 4 x 1 leaves room for what a popcount takes.
# Carry-save counting keeps two registers a count: 7 x 2 counts leave 4 for what they are fed with. Looking up, 16
# registers hold 6 x 2 sums of bytes, 2 times 32 weights, a table and what is found in it.
# The float convolution's 8 x 2 accumulators hide the latency of their additions.
BINARY_ROWS, BINARY_PANELS = (6, 2) if LOOKUP else ((7 if CARRY_SAVE else 8, 2) if WIDE else (4, 1))
FLOAT_ROWS, FLOAT_PANELS = (8, 2) if WIDE else (4, 1)


def _pointer(element: types.Type) -> Any:
    @intrinsic
    def pointer(context, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), codegen

    return pointer


_float_pointer = _pointer(types.float32)
_byte_pointer = _pointer(types.uint8)
_word_pointer = _pointer(types.uint64)
_integer_pointer = _pointer(types.int64)


@njit
def floats(address, size):  # type: ignore[no-untyped-def]
    return carray(_float_pointer(address), (size,))


@njit
def bytes_(address, size):  # type: ignore[no-untyped-def]
    return carray(_byte_pointer(address), (size,))


@njit
def integers(address, size):  # type: ignore[no-untyped-def]
    return carray(_integer_pointer(address), (size,))


@njit
def words(address, size):  # type: ignore[no-untyped-def]
    return carray(_word_pointer(address), (size,))


def _convolution(
    make_tile: Callable[..., Callable[..., None]], lanes: int, rows: int, panels: int, half: int, any_channels: bool
) -> Callable[..., None]:
    """The loops around a kind of tile: a block of pixels passes one group of panels after the other.

    The group's weights stay in L1 meanwhile or, looked up, come from L2, in order.

    half: rows of a lesser tile for what is left of a run where no mask is needed; 0 for none. A tile takes up to a
    second to compile, so that there is none where it does not pay.
    any_channels: tiles need no mask for channels that do not fill their panels.
    """

    def passing(panels: int, masked: bool) -> Callable[..., None]:
        """A function that takes the runs from `run` to `stop` through tiles of so many panels."""
        with_half = half > 0 and not masked
        wide, narrow = make_tile(rows, panels, masked=masked), make_tile(1, panels, masked=masked)
        middle = make_tile(half, panels) if with_half else narrow

        @njit(inline="always")
        def pass_(address, source, target, bits, runs, run, stop, pixels, part, parts, panel):  # type: ignore[no-untyped-def]
            for index in range(run, stop):
                pixel, end = runs[4 * index], min(runs[4 * index + 1], pixels)
                tap, taps = runs[4 * index + 2], runs[4 * index + 3]
                if parts > 1:  # whole tiles
                    tiles, first = -(-(end - pixel) // rows), pixel
                    pixel = first + tiles * part // parts * rows
                    end = min(first + tiles * (part + 1) // parts * rows, end)
                while pixel + rows <= end:
                    wide(address, source, target, bits, pixel, panel, tap, taps)
                    pixel += rows
                if with_half:  # known when it compiles
                    while pixel + half <= end:
                        middle(address, source, target, bits, pixel, panel, tap, taps)
                        pixel += half
                while pixel < end:
                    narrow(address, source, target, bits, pixel, panel, tap, taps)
                    pixel += 1

        return pass_

    # Past the last whole group of panels: as many again, of which the last is not full, or one.
    with_last = panels > 1 and not any_channels
    full, rest = passing(panels, False), passing(1, not any_channels)
    last = passing(panels, True) if with_last else rest

    @njit
    def convolve(op, address, source, target, bits, images, part, parts):  # type: ignore[no-untyped-def]
        """Of each run of pixels, share `part` of `parts`."""
        pixels = op.count * images
        blocks = integers(op.blocks, op.block_count + 1)
        runs = integers(op.runs, 4 * blocks[op.block_count])
        count = -(-op.channels // lanes)
        whole = (count if any_channels else op.channels // lanes) // panels * panels
        left = count - whole
        for block in range(op.block_count):
            run, stop = blocks[block], blocks[block + 1]
            for panel in range(0, whole, panels):
                full(address, source, target, bits, runs, run, stop, pixels, part, parts, panel)
            if with_last and left == panels:
                last(address, source, target, bits, runs, run, stop, pixels, part, parts, whole)
            elif left:
                rest(address, source, target, bits, runs, run, stop, pixels, part, parts, whole)

    return convolve


binary_convolution = _convolution(
    lookup_tile if LOOKUP else binary_tile,
    BINARY_LANES,
    BINARY_ROWS,
    BINARY_PANELS,
    half=BINARY_ROWS // 2,
    any_channels=LOOKUP,
)
float_convolution = _convolution(float_tile, FLOAT_LANES, FLOAT_ROWS, FLOAT_PANELS, half=0, any_channels=False)


@njit
def pack(op, source, target, images):  # type: ignore[no-untyped-def]
    """Signs of float32 (height, width, depth) into the words of a padded packed image. Not zero if any is NaN."""
    depth, pad = op.depth, op.target_padding
    full, tail = depth // 64, depth % 64
    pixel_bytes = 8 * (full + (tail > 0))
    row_bytes = pixel_bytes * (op.width + 2 * pad)
    nan = np.uint64(0)
    for image in range(images):
        x = source + image * op.source_bytes
        for y in range(op.height):
            out = target + image * op.target_bytes + (y + pad) * row_bytes + pad * pixel_bytes
            row = words(out, op.width * (full + (tail > 0)))
            place = 0
            for _ in range(op.width):
                for _ in range(full):
                    word, unordered = pack64(x)
                    row[place] = word
                    nan |= unordered
                    place += 1
                    x += 256
                if tail:
                    word = np.uint64(0)
                    for start in range(0, tail, 16):
                        part, unordered = pack16(x + 4 * start, min(tail - start, 16))
                        word |= part << np.uint64(start)
                        nan |= unordered
                    row[place] = word
                    place += 1
                    x += 4 * tail
    return nan


@njit
def fold(op, source, target, images):  # type: ignore[no-untyped-def]
    """Kernel columns into channels: for each output column the bits of its kernel_width pixels, one after the other.

    With few channels a word a pixel is mostly empty. Packed (height, width, 1) -> (height, out_width, depth words).
    """
    bits = op.channels  # of one pixel, below 64
    extra = op.source_padding  # beyond the padding that the window wants
    for image in range(images):
        x = words(source + image * op.source_bytes, op.source_bytes // 8)
        out = words(target + image * op.target_bytes, op.height * op.out_width * op.depth)
        place = 0
        for y in range(op.height):
            start = (y + extra) * op.width + extra
            if op.depth <= 2:
                _fold_row(x[start:], out[place:], op)
                place += op.out_width * op.depth
                continue
            for column in range(op.out_width):
                word = np.uint64(0)
                used = 0
                for tap in range(op.kernel_width):
                    pixel = x[start + column * op.stride + tap]
                    word |= pixel << np.uint64(used)
                    used += bits
                    if used >= 64:
                        out[place] = word
                        place += 1
                        used -= 64
                        # The high bits that had no room; used < bits here, so the shift is at most 63.
                        word = pixel >> np.uint64(bits - used) if used else np.uint64(0)
                if used:
                    out[place] = word
                    place += 1


@njit
def _fold_row(x, out, op):  # type: ignore[no-untyped-def]
    """One row where two words are enough: pixels enter them at the top, older ones leave at the bottom."""
    # Read once: for all the compiler knows, what is stored below may be the record.
    columns, stride, depth = op.out_width, op.stride, op.depth
    bits = np.uint64(op.channels)
    top = np.uint64((op.kernel_width - 1) * op.channels)  # where the newest pixel lies
    word = np.uint64(64)
    in_low, crosses = top < word, word - top < bits
    low = high = np.uint64(0)
    entered, wanted = 0, op.kernel_width
    for column in range(columns):
        while entered < wanted:
            pixel = x[entered]
            entered += 1
            low = low >> bits | high << (word - bits)
            high >>= bits
            if in_low:
                low |= pixel << top
                if crosses:
                    high |= pixel >> (word - top)
            else:
                high |= pixel << (top - word)
        wanted += stride
        out[depth * column] = low
        if depth == 2:
            out[2 * column + 1] = high


@njit
def normalize(op, source, target, images):  # type: ignore[no-untyped-def]
    """uint8 (height, width, depth) -> float32 through a table (depth, 256), into a padded image."""
    height, depth, pad = op.height, op.depth, op.target_padding
    row = op.width * depth
    table, parts = floats(op.table, depth * 256), integers(op.offsets, row)
    for image in range(images):
        x = bytes_(source + image * op.source_bytes, op.source_bytes)
        out = floats(target + image * op.target_bytes, op.target_bytes // 4)
        for y in range(height):
            place = (y + pad) * (row + 2 * pad * depth) + pad * depth
            levels, results = x[y * row : (y + 1) * row], out[place : place + row]
            for index in range(row):
                results[index] = table[parts[index] + levels[index]]


@njit
def pool_bits(op, source, target, images):  # type: ignore[no-untyped-def]
    """Maximum of signs, an OR, over windows; then the bits in `flip` inverted (slopes below 0)."""
    depth, stride, columns, kernel_width = op.depth, op.stride, op.out_width, op.kernel_width
    flip = words(op.flip, depth)
    in_width = op.width + 2 * op.source_padding
    out_width = columns + 2 * op.target_padding
    strip = np.empty(((columns - 1) * stride + kernel_width) * depth, np.uint64)
    for image in range(images):
        x = words(source + image * op.source_bytes, op.source_bytes // 8)
        out = words(target + image * op.target_bytes, op.target_bytes // 8)
        for y in range(op.out_height):
            place = ((y + op.target_padding) * out_width + op.target_padding) * depth
            results = out[place : place + columns * depth]
            # First down the columns, whose words follow each other.
            for ky in range(op.kernel_height):
                start = ((y * stride + op.source_padding + ky) * in_width + op.source_padding) * depth
                row = x[start : start + len(strip)]
                for index in range(len(strip)):
                    strip[index] = row[index] | (strip[index] if ky else np.uint64(0))
            for column in range(columns):
                for k in range(depth):
                    word = np.uint64(0)
                    for kx in range(kernel_width):
                        word |= strip[(column * stride + kx) * depth + k]
                    results[column * depth + k] = word ^ flip[k]


@njit
def pool_floats(op, source, target, images):  # type: ignore[no-untyped-def]
    """Maximum of floats over windows."""
    depth = op.depth
    for image in range(images):
        x = floats(source + image * op.source_bytes, op.source_bytes // 4)
        out = floats(target + image * op.target_bytes, op.target_bytes // 4)
        place = 0
        for y in range(op.out_height):
            for column in range(op.out_width):
                start = (y * op.stride * op.width + column * op.stride) * depth
                for channel in range(depth):
                    highest = np.float32(-np.inf)
                    for ky in range(op.kernel_height):
                        for kx in range(op.kernel_width):
                            highest = max(highest, x[start + (ky * op.width + kx) * depth + channel])
                    out[place] = highest
                    place += 1


@njit
def batch_norm(op, source, target, images):  # type: ignore[no-untyped-def]
    """y = scale x + bias per channel, optionally max(y, 0)."""
    depth = op.depth
    scale, bias = floats(op.scale, depth), floats(op.bias, depth)
    for image in range(images):
        x = floats(source + image * op.source_bytes, op.count * depth)
        out = floats(target + image * op.target_bytes, op.count * depth)
        index = 0
        for _ in range(op.count):
            for channel in range(depth):
                y = x[index] * scale[channel] + bias[channel]
                out[index] = np.float32(0) if op.relu and y < 0 else y
                index += 1


@njit
def input_scale(op, source, target, images):  # type: ignore[no-untyped-def]
    """K of Rastegari et al. 2016, eq. 11: mean|x| over the channels under a box filter, zeros around.

    float32 (height, width, depth) -> (out_height, out_width).
    """
    box = np.float32(1) / np.float32(op.kernel_height * op.kernel_width)
    means = np.empty((op.height, op.width), np.float32)
    for image in range(images):
        x = floats(source + image * op.source_bytes, op.height * op.width * op.depth)
        out = floats(target + image * op.target_bytes, op.out_height * op.out_width)
        index = 0
        for y in range(op.height):
            for column in range(op.width):
                total = np.float64(0)
                for _ in range(op.depth):
                    total += abs(x[index])
                    index += 1
                means[y, column] = total / op.depth
        for y in range(op.out_height):
            top = y * op.stride - op.padding
            for column in range(op.out_width):
                left = column * op.stride - op.padding
                scale = np.float32(0)
                for row in range(max(top, 0), min(top + op.kernel_height, op.height)):
                    for place in range(max(left, 0), min(left + op.kernel_width, op.width)):
                        scale += means[row, place] * box
                out[y * op.out_width + column] = scale


@njit
def average(op, source, target, images):  # type: ignore[no-untyped-def]
    """Mean over the pixels of max(scale x + bias, 0): BatchNorm, ReLU and global average pooling."""
    depth = op.depth
    scale, bias = floats(op.scale, depth), floats(op.bias, depth)
    for image in range(images):
        x = floats(source + image * op.source_bytes, op.count * depth)
        out = floats(target + image * op.target_bytes, depth)
        out[:] = 0
        for pixel in range(op.count):
            for channel in range(depth):
                out[channel] += max(x[pixel * depth + channel] * scale[channel] + bias[channel], np.float32(0))
        for channel in range(depth):
            out[channel] /= np.float32(op.count)

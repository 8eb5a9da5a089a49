"""The operations of a program that are no convolutions, as Numba kernels: what memory bounds.

Each takes the record `op`, addresses and a number of images and, where threads may share its rows, which of the units
they are cut into: from `first` to before `last`. Channels come last.
"""

import numpy as np
from numba import njit

from xnornet.engine.arrays import bytes_, floats, integers, words
from xnornet.engine.signs import pack16, pack_words

ADDED = 64
"""Pixels whose values `average` adds up in float32."""


@njit
def _rows(op, height, first, last):  # type: ignore[no-untyped-def]
    """Of so many rows, those of the units `first` to `last`: the first one, and the one behind the last."""
    return height * first // op.units, height * last // op.units


@njit
def pack(op, source, target, images, first, last):  # type: ignore[no-untyped-def]
    """Signs of float32 (height, width, depth) into the words of a padded packed image. Not zero if any is NaN."""
    depth, pad = op.depth, op.target_padding
    full, tail = depth // 64, depth % 64
    pixel_bytes = 8 * (full + (tail > 0))
    row_bytes = pixel_bytes * (op.width + 2 * pad)
    begin, end = _rows(op, op.height, first, last)
    nan = np.uint64(0)
    for image in range(images):
        x = source + image * op.source_bytes + 4 * begin * op.width * depth
        for y in range(begin, end):
            out = target + image * op.target_bytes + (y + pad) * row_bytes + pad * pixel_bytes
            if tail == 0:  # a row without gaps
                nan |= pack_words(x, out, op.width * full)
                x += 4 * op.width * depth
                continue
            row = words(out, op.width * (full + 1))
            for column in range(op.width):
                nan |= pack_words(x, out + column * pixel_bytes, full)
                x += 256 * full
                word = np.uint64(0)
                for start in range(0, tail, 16):
                    part, unordered = pack16(x + 4 * start, min(tail - start, 16))
                    word |= part << np.uint64(start)
                    nan |= unordered
                row[column * (full + 1) + full] = word
                x += 4 * tail
    return nan


@njit
def fold(op, source, target, images, first, last):  # type: ignore[no-untyped-def]
    """Kernel columns into channels: for each output column the bits of its kernel_width pixels, one after the other.

    With few channels a word a pixel is mostly empty. Packed (height, width, 1) -> (height, out_width, depth words).
    """
    bits = op.channels  # of one pixel, below 64
    extra = op.source_padding  # beyond the padding that the window wants
    begin, end = _rows(op, op.height, first, last)
    for image in range(images):
        x = words(source + image * op.source_bytes, op.source_bytes // 8)
        out = words(target + image * op.target_bytes, op.height * op.out_width * op.depth)
        place = begin * op.out_width * op.depth
        for y in range(begin, end):
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
def normalize(op, source, target, images, first, last):  # type: ignore[no-untyped-def]
    """uint8 (height, width, depth) -> float32 through a table (depth, 256), into a padded image."""
    depth, pad = op.depth, op.target_padding
    begin, end = _rows(op, op.height, first, last)
    row = op.width * depth
    table, parts = floats(op.table, depth * 256), integers(op.offsets, row)
    for image in range(images):
        x = bytes_(source + image * op.source_bytes, op.source_bytes)
        out = floats(target + image * op.target_bytes, op.target_bytes // 4)
        for y in range(begin, end):
            place = (y + pad) * (row + 2 * pad * depth) + pad * depth
            levels, results = x[y * row : (y + 1) * row], out[place : place + row]
            for index in range(row):
                results[index] = table[parts[index] + levels[index]]


@njit
def pool_bits(op, source, target, images, first, last):  # type: ignore[no-untyped-def]
    """Maximum of signs, an OR, over windows; then the bits in `flip` inverted (slopes below 0)."""
    depth, stride, columns, kernel_width = op.depth, op.stride, op.out_width, op.kernel_width
    begin, end = _rows(op, op.out_height, first, last)
    flip = words(op.flip, depth)
    in_width = op.width + 2 * op.source_padding
    out_width = columns + 2 * op.target_padding
    strip = np.empty(((columns - 1) * stride + kernel_width) * depth, np.uint64)
    for image in range(images):
        x = words(source + image * op.source_bytes, op.source_bytes // 8)
        out = words(target + image * op.target_bytes, op.target_bytes // 8)
        for y in range(begin, end):
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
def pool_floats(op, source, target, images, first, last):  # type: ignore[no-untyped-def]
    """Maximum of floats over windows."""
    depth = op.depth
    begin, end = _rows(op, op.out_height, first, last)
    for image in range(images):
        x = floats(source + image * op.source_bytes, op.source_bytes // 4)
        out = floats(target + image * op.target_bytes, op.target_bytes // 4)
        place = begin * op.out_width * depth
        for y in range(begin, end):
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
def batch_norm(op, source, target, images, first, last):  # type: ignore[no-untyped-def]
    """y = scale x + bias per channel, optionally max(y, 0)."""
    depth = op.depth
    scale, bias = floats(op.scale, depth), floats(op.bias, depth)
    begin, end = _rows(op, op.height, first, last)
    for image in range(images):
        x = floats(source + image * op.source_bytes, op.count * depth)
        out = floats(target + image * op.target_bytes, op.count * depth)
        index = begin * op.width * depth
        for _ in range((end - begin) * op.width):
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
    """Mean over the pixels of max(scale x + bias, 0): BatchNorm, ReLU and global average pooling.

    Sums of `ADDED` pixels are added up in float64: float32 would no longer notice a pixel among millions.
    """
    depth = op.depth
    scale, bias = floats(op.scale, depth), floats(op.bias, depth)
    sums = np.empty(depth, np.float64)
    for image in range(images):
        out = floats(target + image * op.target_bytes, depth)
        sums[:] = 0
        for first in range(0, op.count, ADDED):
            added = min(ADDED, op.count - first)
            x = floats(source + image * op.source_bytes + 4 * first * depth, added * depth)
            out[:] = 0
            for pixel in range(added):
                for channel in range(depth):
                    out[channel] += max(x[pixel * depth + channel] * scale[channel] + bias[channel], np.float32(0))
            for channel in range(depth):
                sums[channel] += out[channel]
        for channel in range(depth):
            out[channel] = sums[channel] / op.count

"""Weights made ready for the tiles: panels of output channels, tables of taps and borders."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnornet.engine import bits
from xnornet.engine.arguments import Floats
from xnornet.engine.bits import Bytes, Words
from xnornet.engine.counter import LOOKUP
from xnornet.engine.geometry import Axis
from xnornet.engine.panels import (
    LANES,
    VECTOR,
    group_size,
    in_panels,
    panel_count,
    side_by_side,
    tap_channels,
    tap_count,
    tap_sizes,
    vector_count,
)
from xnornet.engine.plan import Group
from xnornet.engine.tiles import FLOAT_LANES

MOST_PRODUCTS = 1 << 23
"""An output has fewer products than this: float32 holds every count, and what it starts from, up to twice as much."""

TABLE_BYTES = 64
"""What a tap takes in all tables while these are made."""


def folds(channels: int, kernel: tuple[int, int], depth: int) -> bool:
    """Whether the columns of a binary kernel share words (see `kernels.fold`); depth: input channels.

    Per output pixel it saves vectors of weights, of each panel, and, where they are looked up, words whose places must
    be found. It costs shifts for each column of the kernel. All in the time of a vector, measured.
    """
    if depth >= bits.WORD:
        return False
    height, width = kernel
    vectors = width * vector_count(depth) - vector_count(width * depth)
    words = width - bits.word_count(width * depth)
    saved = panel_count(channels) * vectors + (2.5 * words if LOOKUP else 0)
    return height * saved > (4 if LOOKUP else 5) * width


def panel_bytes(channels: int, kernel: tuple[int, int], depth: int) -> int:
    """Bytes of the panels of a binary convolution, its columns unfolded, and of the tables of its taps, about."""
    taps = kernel[0] * kernel[1]
    return taps * (VECTOR * panel_count(channels) * vector_count(depth) + TABLE_BYTES * tap_count(depth))


def float_panel_bytes(channels: int, kernel: tuple[int, int], depth: int) -> int:
    """The same of a float convolution, whose taps are floats."""
    return kernel[0] * kernel[1] * depth * (4 * FLOAT_LANES * -(-channels // FLOAT_LANES) + TABLE_BYTES)


@dataclass(frozen=True, eq=False)
class BinaryWeights:
    """Packed signs of a binary convolution's weights, words (O, kh, kw, ceil(C / 64)), and what the kernel reads."""

    words: Words
    depth: int

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the panels: a copy's would lie at any address, not at one of 64 bytes."""
        return type(self), (self.words, self.depth)

    @classmethod
    def of(cls, weight: np.ndarray) -> "BinaryWeights":
        """From float weights (O, kh, kw, C)."""
        return cls(bits.pack_signs(weight), weight.shape[3])

    def negated(self, channels: NDArray[np.bool_]) -> "BinaryWeights":
        """With the opposite signs in these output channels, so that their counts are the opposite ones."""
        if not channels.any():
            return self
        words = self.words.copy()
        words[channels] ^= bits.pack_bits(np.ones(self.depth, bool))
        return BinaryWeights(words, self.depth)

    @property
    def channels(self) -> int:
        return self.words.shape[0]

    @cached_property
    def folded(self) -> bool:
        """Whether the columns of the kernel share words, see `folds`."""
        channels, height, width, _ = self.words.shape
        return folds(channels, (height, width), self.depth)

    @cached_property
    def counted(self) -> tuple[int, int, int]:
        """Rows and columns of the kernel, and channels of its pixels, as the tiles see them."""
        _, height, width, _ = self.words.shape
        return (height, 1, width * self.depth) if self.folded else (height, width, self.depth)

    @property
    def group(self) -> int:
        """Words that are counted together, see `panels.group_size`."""
        return group_size(self.counted[2])

    @cached_property
    def tap_sizes(self) -> NDArray[np.int64]:
        """Vectors of weights of each tap."""
        height, width, depth = self.counted
        return np.tile(tap_sizes(depth), height * width)

    @cached_property
    def panels(self) -> Bytes:
        """(panels, sum(tap_sizes), 64), as the tiles read them, see `panels`."""
        words, (height, width, depth) = self.words, self.counted
        if self.folded:
            words = bits.pack_bits(bits.unpack_bits(words, self.depth).reshape(-1, height, width, depth))
        return in_panels(words.reshape(len(words), -1, words.shape[3]), depth)

    def tap_offsets(self, row_bytes: int, pixel_bytes: int) -> NDArray[np.int64]:
        """Bytes from a window's first word to each tap, in the order row, column, channels: int64 (taps,)."""
        height, width, depth = self.counted
        return _tap_offsets((height, width, tap_count(depth)), (row_bytes, pixel_bytes, tap_channels(depth) // 8))

    def counted_axes(self, rows: Axis, columns: Axis) -> tuple[Axis, Axis]:
        """The axes of a window as the tiles see them: of a folded kernel one column is left, inside at every pixel."""
        if self.folded:
            width = len(columns.class_of)
            columns = Axis.of_window(width, 1, width, 1, 0)
        return rows, columns

    def border(self, rows: Axis, columns: Axis, groups: list[Group]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """(pattern, start): what the count of each output pixel of an image starts from.

        rows, columns: of the window; groups: of `counted_axes`.
        start (patterns, O): the products that are counted, plus the sum of those weights among them that fall on
        padding. count = start - 2 popcount, since a zero word of the padding counts as signs of -1. pattern: the row of
        each output pixel.
        """
        channels, kernel_height, kernel_width, _ = self.words.shape
        sums = 2 * np.bitwise_count(self.words).sum(axis=3, dtype=np.int32) - np.int32(self.depth)
        # integral[o, i, j]: sum over the taps above i and left of j
        integral = np.zeros((channels, kernel_height + 1, kernel_width + 1), np.int64)
        integral[:, 1:, 1:] = sums.cumsum(axis=1).cumsum(axis=2)

        def total(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.int64]:
            (y0, y1), (x0, x1) = rows, columns
            return integral[:, y1, x1] - integral[:, y0, x1] - integral[:, y1, x0] + integral[:, y0, x0]

        pattern = (rows.class_of[:, None] * columns.classes.shape[1] + columns.class_of).reshape(-1)
        inside_rows = np.repeat(rows.classes, columns.classes.shape[1], axis=1)
        inside_columns = np.tile(columns.classes, rows.classes.shape[1])
        counted_rows, counted_columns = np.zeros_like(inside_rows), np.zeros_like(inside_columns)
        for group in groups:
            counted_rows[:, pattern[group.pixels]] = np.array(group.rows)[:, None]
            counted = (0, kernel_width) if self.folded else group.columns
            counted_columns[:, pattern[group.pixels]] = np.array(counted)[:, None]
        products = self.depth * np.diff(counted_rows, axis=0) * np.diff(counted_columns, axis=0)
        start = products + total(counted_rows, counted_columns) - total(inside_rows, inside_columns)
        return pattern, start.T


@dataclass(frozen=True, eq=False)
class FloatWeights:
    """Weights of a float convolution, float32 (O, kh, kw, C), and what the kernel reads of them."""

    weight: Floats

    @property
    def channels(self) -> int:
        return self.weight.shape[0]

    @cached_property
    def panels(self) -> Floats:
        """(panels, taps, 16), missing channels zero."""
        return side_by_side(self.weight.reshape(self.channels, -1), FLOAT_LANES)

    @property
    def tap_sizes(self) -> NDArray[np.int64]:
        """Vectors of weights of each tap."""
        return np.ones(self.panels.shape[1], np.int64)

    def tap_offsets(self, row_bytes: int, pixel_bytes: int) -> NDArray[np.int64]:
        """As `BinaryWeights.tap_offsets`; in the order row, column, channel, in which torch adds too."""
        _, height, width, depth = self.weight.shape
        return _tap_offsets((height, width, depth), (row_bytes, pixel_bytes, 4))


def _tap_offsets(counts: tuple[int, int, int], sizes: tuple[int, int, int]) -> NDArray[np.int64]:
    """Byte offsets of all taps: so many rows, columns and words or floats, of so many bytes each."""
    rows, columns, parts = (np.arange(count, dtype=np.int64) * size for count, size in zip(counts, sizes, strict=True))
    return (rows[:, None, None] + columns[:, None] + parts).reshape(-1)


def per_channel(values: np.ndarray | None, channels: int, fill: float, dtype: type) -> np.ndarray:
    """A table of one value a channel, (..., channels), as the tiles read it: padded with `fill` to whole panels."""
    lead = () if values is None else values.shape[:-1]
    whole = max(LANES, FLOAT_LANES)
    out: np.ndarray = np.full((*lead, -(-channels // whole) * whole), fill, dtype)
    out[..., :channels] = 0 if values is None else values
    return out


def without_flips(
    weights: BinaryWeights, threshold: np.ndarray, flip: NDArray[np.bool_]
) -> tuple[BinaryWeights, NDArray[np.int64]]:
    """Weights and thresholds whose count >= threshold is what (count >= threshold) xor flip is of those given.

    Of integers: not (count >= threshold) is -count >= 1 - threshold.
    """
    wide = threshold.astype(np.int64)
    return weights.negated(flip), np.where(flip, 1 - wide, wide)


def count_limits(start: NDArray[np.int64], threshold: np.ndarray) -> NDArray[np.int64]:
    """What a popcount must not exceed for count = start - 2 popcount >= threshold, rounded down: (patterns, O).

    -1, which no popcount is, where none may pass; `MOST_PRODUCTS`, which all are below, where all do.
    """
    return np.clip((start - threshold) // 2, -1, MOST_PRODUCTS)


def flip_bytes(flip: np.ndarray | None, channels: int) -> Bytes:
    """Truth values (channels,) as bytes of 8, padded to whole words."""
    truths = np.zeros(channels, bool) if flip is None else np.asarray(flip, bool)
    return bits.pack_bits(truths).view(np.uint8)

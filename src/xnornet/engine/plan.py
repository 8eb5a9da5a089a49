"""In which order a convolution's output pixels pass the register tiles, so that taps on padding need no counting.

At a border part of the kernel lies on padding, where a product is 0. A tile reads the same taps for all of its pixels;
so pixels that miss the same taps are put together: one after the other the rows at the top and bottom, with what is
inside of the kernel's rows, and of the other rows first the columns at the left and right, then what is between them.
Of a 3x3 kernel's products on a 14x14 image that leaves 91 %, on 4x4 pixels 75 %.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import mod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xnornet.engine.counter import LOOKUP
from xnornet.engine.geometry import Axis

BLOCK = 64 if LOOKUP else 128
"""Pixels, about, that pass all panels together: few enough for L1, enough to read the weights, in L2, seldom. Where
sums are looked up, tiles see to that; their panels are wide, and threads share what passes a group of them.
"""

NARROW_TILE = 1.25
"""What a pixel costs in a tile of one row, where it costs 1 in one of more: measured, with tiles that count words.
(Those that look up take pixels in pairs, however many: there it is a guess.)
"""

MOST_ENTRIES = 1 << 18
"""Taps, over all groups, that are worth a table: 4 to 6 MiB. Only huge kernels have more, at hundreds of places."""


class Group(NamedTuple):
    """Output pixels (in raster order, of one image) and the taps that are counted for them: rows, columns."""

    pixels: NDArray[np.intp]
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def taps(self) -> int:
        """How many pixels of the kernel are counted."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    def cost(self, tiles: tuple[int, ...]) -> float:
        """Taps times pixels, more for those that pass alone; tiles: how many pass together, the most first, then 1."""
        alone = reduce(mod, tiles[:-1], len(self.pixels))
        return self.taps * (len(self.pixels) + (NARROW_TILE - 1) * alone)


def whole_groups(rows: Axis, columns: Axis) -> list[Group]:
    """All pixels with all taps."""
    return [Group(np.arange(len(rows.class_of) * len(columns.class_of)), (0, rows.kernel), (0, columns.kernel))]


def border_groups(rows: Axis, columns: Axis, parts: int, tiles: tuple[int, ...]) -> list[Group]:
    """Pixels by the taps inside the image, or all together where that costs less.

    parts: taps at each place of the kernel; tiles: see `Group.cost`.
    """
    raster = np.arange(len(rows.class_of) * len(columns.class_of)).reshape(len(rows.class_of), -1)

    def select(row_class: int, column_classes: list[int]) -> Group:
        first, end = rows.classes[:, row_class].tolist()
        left, right = columns.classes[:, column_classes]
        pixels = raster[rows.class_of == row_class][:, np.isin(columns.class_of, column_classes)].reshape(-1)
        return Group(pixels, (first, end), (int(left.min()), int(right.max())))

    groups, every = [], list(range(columns.classes.shape[1]))
    for row_class, whole in enumerate(rows.whole):
        groups += [select(row_class, classes) for classes in ([[one] for one in every] if whole else [every])]
    together = whole_groups(rows, columns)
    if sum(group.taps for group in groups) * parts > MOST_ENTRIES:
        return together
    return min(together, groups, key=lambda choice: sum(group.cost(tiles) for group in choice))


@dataclass(frozen=True)
class Plan:
    """The order of the pixels, and for each run of them the taps."""

    order: NDArray[np.intp]
    """Raster number of each pixel of a pass, in the order of the runs."""
    taps: NDArray[np.intp]
    """Numbers of the taps that runs read, one list behind the other."""
    runs: NDArray[np.int64]
    """(runs, 4): first pixel and the one behind the last, in that order; first entry of `taps` and how many."""
    blocks: NDArray[np.int64]
    """The first run of each block of runs that pass all panels together, and the number of runs."""

    def units(self, channels: int, together: int) -> int:
        """What threads may share: each block of pixels, so many of the output channels together."""
        return (len(self.blocks) - 1) * -(-channels // together)


def make_plan(groups: list[Group], parts: int, columns: int, images: int, tile: int) -> Plan:
    """The plan of a pass of `images` images; several only in one group of all pixels, so that fewer are a part of it.

    parts: taps at each of the kernel's `columns` columns; tile: rows of a full tile.
    """
    assert images == 1 or len(groups) == 1
    count = sum(len(group.pixels) for group in groups)
    order = np.concatenate([np.arange(images)[:, None] * count + group.pixels for group in groups], axis=1)
    taps, runs, first, start = [], [], 0, 0
    for group in groups:
        inside = np.arange(*group.rows)[:, None] * columns + np.arange(*group.columns)
        taps.append((inside[..., None] * parts + np.arange(parts)).reshape(-1))
        end, most = first + len(group.pixels) * images, BLOCK // tile * tile
        runs += [(place, min(place + most, end), start, len(taps[-1])) for place in range(first, end, most)]
        first, start = end, start + len(taps[-1])
    table = np.array(runs, np.int64)
    return Plan(order.reshape(-1), np.concatenate(taps), table, np.array(list(_blocks(table)), np.int64))


def _blocks(runs: NDArray[np.int64]) -> Iterator[int]:
    """Where blocks of at most `BLOCK` pixels begin, and the end."""
    yield 0
    begin = 0
    for index, (_, end, _, _) in enumerate(runs):
        if end - begin > BLOCK:
            yield index
            begin = runs[index, 0]
    yield len(runs)

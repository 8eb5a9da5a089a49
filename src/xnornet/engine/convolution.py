"""Convolutions as Numba kernels: the loops around the register tiles."""

from collections.abc import Callable

from numba import njit

from xnornet.engine.arrays import integers
from xnornet.engine.counter import CARRY_SAVE, GROUPS, LOOKUP
from xnornet.engine.lookup import MOST_ROWS, PAIRS, lookup_tile
from xnornet.engine.running import running_tile
from xnornet.engine.tiles import BINARY_LANES, FLOAT_LANES, binary_tile, float_tile
from xnornet.engine.vector import WIDE

# Rows x panels of a register tile. 8 x 2 needs 16 accumulators and 2 weight vectors of the 32 registers of AVX-512, and
# then issues 3 instructions a vector; with 16 registers of half the width, 4 x 1 leaves room for what a popcount takes.
# Carry-save counting keeps two registers a count: 7 x 2 counts leave 4 for what they are fed with. With running xors
# there are three: 7 x 1 counts leave 11, and need no memory; 8 x 1 did, and took 3 % longer. Tiles of fewer rows take
# what is left of a run of pixels: a tile of one row waits for the latency of its additions. (`lookup` has tiles of its
# own.) The 8 x 2 accumulators of the float convolution hide that latency; of registers of 8 floats those of 4 x 1 do,
# or 8 x 1 where the last 8 channels of a panel are missing.
BINARY_TILES: tuple[int, ...]
if LOOKUP:
    BINARY_TILES, BINARY_PANELS = (MOST_ROWS, MOST_ROWS // 2, 1), max(PAIRS)
elif WIDE:
    BINARY_TILES, BINARY_PANELS = ((7, 3, 1) if CARRY_SAVE else (8, 4, 2, 1)), 2
else:
    BINARY_TILES, BINARY_PANELS = (4, 2, 1), 1
RUNNING_TILES, RUNNING_PANELS = (7, 5, 4, 2, 1), 1
FLOAT_TILES, FLOAT_PANELS = ((8, 1), 2) if WIDE else ((4, 1), 1)


BINARY_UNIT, RUNNING_UNIT = BINARY_PANELS * BINARY_LANES, RUNNING_PANELS * BINARY_LANES
FLOAT_UNIT = FLOAT_PANELS * FLOAT_LANES
"""Output channels that pass together; with a block of pixels, they are a unit that threads may share."""


@njit(inline="always")
def _tables(op, images):  # type: ignore[no-untyped-def]
    """Pixels of so many images, and the tables of blocks and runs, see `plan.Plan`."""
    blocks = integers(op.blocks, op.block_count + 1)
    return op.count * images, blocks, integers(op.runs, 4 * blocks[op.block_count])


@njit(inline="always")
def _entry(runs, index, pixels):  # type: ignore[no-untyped-def]
    """Of the run of this index, the first pixel and the one behind the last; its first tap, or round, and how many."""
    return runs[4 * index], min(runs[4 * index + 1], pixels), runs[4 * index + 2], runs[4 * index + 3]


@njit(inline="always")
def _nothing(address, source, target, bits, pixel, end, panel, tap, taps):  # type: ignore[no-untyped-def]
    """What is left to do after tiles of one row."""


def _in_tiles(tile: Callable[..., None], rows: int, finish: Callable[..., None]) -> Callable[..., None]:
    """A function that takes the pixels of a run through tiles of so many rows, and leaves the last few to `finish`."""

    @njit(inline="always")
    def take(address, source, target, bits, pixel, end, panel, tap, taps):  # type: ignore[no-untyped-def]
        while pixel + rows <= end:
            tile(address, source, target, bits, pixel, panel, tap, taps)
            pixel += rows
        finish(address, source, target, bits, pixel, end, panel, tap, taps)

    return take


def _convolution(
    make_tile: Callable[..., Callable[..., None]], lanes: int, sizes: tuple[int, ...], panels: int, half_panels: bool
) -> Callable[..., None]:
    """The loops around a kind of tile: a block of pixels passes one group of panels after the other.

    The group's weights stay in L1 meanwhile.

    sizes: rows of the tiles, the largest first; where channels are missing, there are but the largest and the smallest.
    half_panels: whether there are tiles for a last panel of which no more than half is there. A tile takes up to a
    second to compile, so that there is none where it does not pay.
    """

    def passing(sizes: tuple[int, ...], panels: int, masked: bool, **kind: bool) -> Callable[..., None]:
        """A function that takes the runs from `run` to `stop` through tiles of so many rows and panels."""
        finish: Callable[..., None] = _nothing
        for rows in reversed(sizes):
            finish = _in_tiles(make_tile(rows, panels, masked=masked, **kind), rows, finish)

        @njit(inline="always")
        def pass_(address, source, target, bits, runs, run, stop, pixels, panel):  # type: ignore[no-untyped-def]
            for index in range(run, stop):
                pixel, end, tap, taps = _entry(runs, index, pixels)
                finish(address, source, target, bits, pixel, end, panel, tap, taps)

        return pass_

    # Past the last whole group of panels: as many again, of which the last is not full, or one.
    with_last = panels > 1
    ends = sizes[0], 1
    full, rest = passing(sizes, panels, False), passing(ends, 1, True)
    ending = passing(ends, panels, True) if with_last else rest
    small = passing((2 * sizes[0], 1), 1, True, half_panel=True) if half_panels else rest

    @njit
    def convolve(op, address, source, target, bits, images, first, last):  # type: ignore[no-untyped-def]
        """The units from `first` to before `last`: of each block of pixels, one group of panels after the other."""
        pixels, blocks, runs = _tables(op, images)
        count = -(-op.channels // lanes)
        groups = -(-count // panels)
        whole = op.channels // lanes // panels
        for unit in range(first, last):
            block, group = unit // groups, unit % groups
            run, stop, panel = blocks[block], blocks[block + 1], panels * group
            if group < whole:
                full(address, source, target, bits, runs, run, stop, pixels, panel)
            elif with_last and count - panel == panels:
                ending(address, source, target, bits, runs, run, stop, pixels, panel)
            elif half_panels and op.channels - lanes * panel <= lanes // 2:
                small(address, source, target, bits, runs, run, stop, pixels, panel)
            else:
                rest(address, source, target, bits, runs, run, stop, pixels, panel)

    return convolve


def _lookup_convolution() -> Callable[..., None]:
    """As `_convolution`, with tiles of any number of pixels, and of channels."""
    four, two, one = (lookup_tile(panels) for panels in PAIRS)

    @njit
    def convolve(op, address, source, target, bits, images, first, last):  # type: ignore[no-untyped-def]
        pixels, blocks, runs = _tables(op, images)
        count = -(-op.channels // BINARY_LANES)
        groups = -(-count // BINARY_PANELS)
        for unit in range(first, last):
            block, begin = unit // groups, unit % groups * BINARY_PANELS
            panels = min(BINARY_PANELS, count - begin)
            for index in range(blocks[block], blocks[block + 1]):
                pixel, end, tap, taps = _entry(runs, index, pixels)
                while pixel < end:
                    rows, panel = min(MOST_ROWS, end - pixel), begin
                    if panels == 4:
                        four(address, source, target, bits, pixel, panel, tap, taps, rows)
                    else:
                        if panels & 2:
                            two(address, source, target, bits, pixel, panel, tap, taps, rows)
                            panel += 2
                        if panels & 1:
                            one(address, source, target, bits, pixel, panel, tap, taps, rows)
                    pixel += rows

    return convolve


binary_convolution = (
    _lookup_convolution()
    if LOOKUP
    else _convolution(binary_tile, BINARY_LANES, BINARY_TILES, BINARY_PANELS, half_panels=False)
)
running_convolution = (
    _convolution(running_tile, BINARY_LANES, RUNNING_TILES, RUNNING_PANELS, half_panels=False)
    if GROUPS
    else binary_convolution  # of which there are none then; the interpreter needs a function
)
float_convolution = _convolution(float_tile, FLOAT_LANES, FLOAT_TILES, FLOAT_PANELS, half_panels=not WIDE)

"""Convolutions as Numba kernels: the loops around the register tiles."""

from collections.abc import Callable

from numba import njit

from xnornet.engine.arrays import integers
from xnornet.engine.counter import CARRY_SAVE, LOOKUP
from xnornet.engine.lookup import MOST_ROWS, PAIRS, lookup_tile
from xnornet.engine.tiles import BINARY_LANES, FLOAT_LANES, binary_tile, float_tile
from xnornet.engine.vector import WIDE

# Rows x panels of a register tile. 8 x 2 needs 16 accumulators and 2 weight vectors of the 32 registers of AVX-512, and
# then issues 3 instructions a vector; with 16 registers of half the width, 4 x 1 leaves room for what a popcount takes.
# Carry-save counting keeps two registers a count: 7 x 2 counts leave 4 for what they are fed with. (`lookup` has tiles
# of its own.) The float convolution's 8 x 2 accumulators hide the latency of their additions; with registers of 8
# floats those of 4 x 1 tiles do, or 8 x 1 where the last 8 channels of a panel are missing.
if LOOKUP:
    BINARY_ROWS, BINARY_PANELS = MOST_ROWS, max(PAIRS)
elif WIDE:
    BINARY_ROWS, BINARY_PANELS = (7 if CARRY_SAVE else 8), 2
else:
    BINARY_ROWS, BINARY_PANELS = 4, 1
FLOAT_ROWS, FLOAT_PANELS = (8, 2) if WIDE else (4, 1)


BINARY_GROUP, FLOAT_GROUP = BINARY_PANELS * BINARY_LANES, FLOAT_PANELS * FLOAT_LANES
"""Output channels that pass together; with a block of pixels, a unit that threads may share."""


@njit(inline="always")
def _tables(op, images):  # type: ignore[no-untyped-def]
    """Pixels of so many images, and the tables of blocks and runs, see `plan.Plan`."""
    blocks = integers(op.blocks, op.block_count + 1)
    return op.count * images, blocks, integers(op.runs, 4 * blocks[op.block_count])


@njit(inline="always")
def _entry(runs, index, pixels):  # type: ignore[no-untyped-def]
    """Of the run of this index, the first pixel and the one behind the last; its first tap, or round, and how many."""
    return runs[4 * index], min(runs[4 * index + 1], pixels), runs[4 * index + 2], runs[4 * index + 3]


def _convolution(
    make_tile: Callable[..., Callable[..., None]], lanes: int, rows: int, panels: int, half: int, half_panels: bool
) -> Callable[..., None]:
    """The loops around a kind of tile: a block of pixels passes one group of panels after the other.

    The group's weights stay in L1 meanwhile.

    half: rows of a lesser tile for what is left of a run where no mask is needed; 0 for none. half_panels: whether
    there are tiles for a last panel of which no more than half is there. A tile takes up to a second to compile, so
    that there is none where it does not pay.
    """

    def passing(rows: int, panels: int, masked: bool, **kind: bool) -> Callable[..., None]:
        """A function that takes the runs from `run` to `stop` through tiles of so many rows and panels."""
        with_half = half > 0 and not masked
        wide, narrow = (make_tile(count, panels, masked=masked, **kind) for count in (rows, 1))
        middle = make_tile(half, panels) if with_half else narrow

        @njit(inline="always")
        def pass_(address, source, target, bits, runs, run, stop, pixels, panel):  # type: ignore[no-untyped-def]
            for index in range(run, stop):
                pixel, end, tap, taps = _entry(runs, index, pixels)
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
    with_last = panels > 1
    full, rest = passing(rows, panels, False), passing(rows, 1, True)
    ending = passing(rows, panels, True) if with_last else rest
    small = passing(2 * rows, 1, True, half_panel=True) if half_panels else rest

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
    else _convolution(binary_tile, BINARY_LANES, BINARY_ROWS, BINARY_PANELS, half=BINARY_ROWS // 2, half_panels=False)
)
float_convolution = _convolution(float_tile, FLOAT_LANES, FLOAT_ROWS, FLOAT_PANELS, half=0, half_panels=not WIDE)

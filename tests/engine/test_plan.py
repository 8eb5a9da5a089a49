"""Which pixels pass the tiles together, and which taps are counted for them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnornet.engine import plan
from xnornet.engine.geometry import Window
from xnornet.engine.plan import BLOCK, Group, border_groups, make_plan, whole_groups
from xnornet.engine.weights import BinaryWeights

TILES = 8, 4, 1


@st.composite
def placed(draw):
    """(window, size): a kernel and an image that it fits into, padded."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    window = Window(height, width, draw(st.integers(1, 3)), draw(st.integers(0, max(height, width))))
    size = tuple(draw(st.integers(max(1, kernel - 2 * window.padding), 20)) for kernel in (height, width))
    return window, size


def share(window: Window, size: tuple[int, int]) -> float:
    """Of the products of all taps at all pixels, those that are counted."""
    axes = window.axes(*size)
    (everything,) = whole_groups(*axes)
    groups = border_groups(*axes, 1, TILES)
    return sum(g.taps * len(g.pixels) for g in groups) / (everything.taps * len(everything.pixels))


@given(placed())
def test_every_pixel_is_in_one_group_that_counts_all_taps_inside(problem):
    window, (height, width) = problem
    groups = border_groups(*window.axes(height, width), 1, TILES)
    out = window.output(height, width)
    assert sorted(np.concatenate([group.pixels for group in groups])) == list(range(out[0] * out[1]))
    for group in groups:
        for y, x in zip(*np.unravel_index(group.pixels, out), strict=True):
            top, left = y * window.stride - window.padding, x * window.stride - window.padding
            for ky in range(window.kernel_height):
                for kx in range(window.kernel_width):
                    if 0 <= top + ky < height and 0 <= left + kx < width:
                        assert group.rows[0] <= ky < group.rows[1] and group.columns[0] <= kx < group.columns[1]


@pytest.mark.parametrize(("side", "counted"), [(4, 108 / 144), (7, 369 / 441), (14, 1608 / 1764), (56, 27564 / 28224)])
def test_what_a_border_saves(side: int, counted: float) -> None:
    """By hand: a ring of pixels counts 6 taps of 9, the others all."""
    assert share(Window(3, 3, padding=1), (side, side)) == pytest.approx(counted)


def test_rows_alone_where_columns_share_words() -> None:
    weights = BinaryWeights.of(np.ones((96, 3, 3, 20), np.float32))
    assert weights.folded
    axes = weights.counted_axes(*Window(3, 3, padding=1).axes(14, 14))
    assert [(group.rows, group.columns, len(group.pixels)) for group in border_groups(*axes, 1, TILES)] == [
        ((0, 2), (0, 1), 14),
        ((0, 3), (0, 1), 168),
        ((1, 3), (0, 1), 14),
    ]


def test_without_padding_all_pixels_are_one_group() -> None:
    assert share(Window(3, 3), (14, 14)) == 1
    assert len(border_groups(*Window(3, 3).axes(14, 14), 1, TILES)) == 1


def test_pixels_that_would_fill_no_tile_stay_together() -> None:
    """3x3 pixels and 9x9 taps: apart they count 72 or 81 taps, all nine pixels in tiles of one row."""
    axes = Window(9, 9, padding=1).axes(9, 9)
    (together,) = whole_groups(*axes)
    assert together.cost(TILES) == 81 * (8 + 1.25)
    row, single = Group(np.arange(3), (1, 9), (0, 9)), Group(np.arange(1), (0, 9), (1, 9))
    assert 2 * row.cost(TILES) + 2 * single.cost(TILES) + 81 * 1.25 == 72 * 8 * 1.25 + 81 * 1.25 > together.cost(TILES)
    assert border_groups(*axes, 1, TILES)[0].taps == 81


def test_tables_that_would_be_huge_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = Window(3, 3, padding=1).axes(14, 14)
    monkeypatch.setattr(plan, "MOST_ENTRIES", 4 * (6 + 6 + 6 + 6 + 9) - 1)
    assert len(border_groups(*axes, 3, TILES)) == 5
    assert len(border_groups(*axes, 4, TILES)) == 1


@given(placed(), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 4, 7, 8]))
def test_runs_and_blocks_cover_the_order(problem, parts, images, tile):
    window, size = problem
    axes = window.axes(*size)
    groups = whole_groups(*axes) if images > 1 else border_groups(*axes, parts, (tile, 1))
    made = make_plan(groups, parts, window.kernel_width, images, tile)
    assert sorted(made.order) == list(range(len(made.order)))
    assert np.array_equal(made.runs[:, 0], [0, *made.runs[:-1, 1]]) and made.runs[-1, 1] == len(made.order)
    taps = {tuple(made.taps[first : first + count]) for _, _, first, count in made.runs}
    assert taps == {taps_of(group, parts, window.kernel_width) for group in groups}
    assert made.blocks[0] == 0 and made.blocks[-1] == len(made.runs) and (np.diff(made.blocks) > 0).all()
    for begin, end in zip(made.blocks, made.blocks[1:], strict=False):
        assert made.runs[end - 1, 1] - made.runs[begin, 0] <= BLOCK


def taps_of(group: Group, parts: int, columns: int) -> tuple[int, ...]:
    return tuple(
        (ky * columns + kx) * parts + part
        for ky in range(*group.rows)
        for kx in range(*group.columns)
        for part in range(parts)
    )


def test_some_images_of_a_pass_are_the_first_of_its_order() -> None:
    axes = Window(3, 3, padding=1).axes(4, 4)
    made = make_plan(whole_groups(*axes), 1, 3, 4, 8)
    assert list(made.order) == list(range(64))

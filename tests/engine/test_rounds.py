"""What tiles that look up read: every byte of the taps once, in the input and in the weights, in pieces that fit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xnornet.engine.counter import PART_BYTES, ROUND_BYTES, SPARE_BYTES
from xnornet.engine.panels import VECTOR
from xnornet.engine.rounds import PLACES, Rounds, make_rounds

GAPS = st.sampled_from([0, 0, 0, 8])
TAPS = st.tuples(st.sampled_from([8, 8, 8, 8, 3, 1]), GAPS, GAPS)
"""Bytes of a tap, and words between it and the last one's in the input and vectors between them in the weights."""


def tables(lists):
    """(offsets, weights, sizes, runs) of lists of taps, each passed by two runs."""
    taps = np.array([tap for one in lists for tap in one], np.int64).reshape(-1, 3)
    sizes = taps[:, 0]
    offsets = 8 * np.arange(len(taps)) + np.cumsum(taps[:, 1])
    weights = np.cumsum(sizes + taps[:, 2]) - sizes
    counts = np.array([len(one) for one in lists])
    runs = np.stack([np.arange(len(lists)), np.arange(len(lists)) + 1, np.cumsum(counts) - counts, counts], axis=1)
    return offsets, weights, sizes, np.repeat(runs, 2, axis=0)


def nibbles_counted(made: Rounds, run: np.ndarray) -> list[tuple[int, int, int]]:
    """As the tiles do it: (byte of the input, byte of a panel's weights, nibble of that) of each nibble, in order."""
    out = []
    for first, end, part, parts_end in made.rounds[run[2] : run[2] + run[3]]:
        scratch = np.full(2 * (ROUND_BYTES + SPARE_BYTES), -1)
        for offset, words, place in made.stretches[first:end]:
            for word in range(words):
                start = 2 * place // PLACES + 16 * word
                assert start + 16 <= len(scratch)
                scratch[start : start + 16] = 2 * (offset + 8 * word) + np.arange(16)
        for index, weight, threes, rest in made.parts[part:parts_end]:
            count = 6 * threes + rest
            assert 0 < count <= 2 * PART_BYTES and rest < 6
            start = 2 * index // PLACES
            found = scratch[start : start + count]
            assert (found >= 0).all()
            out += [(half // 2, weight + 32 * number, half % 2) for number, half in enumerate(found.tolist())]
    return out


@given(st.lists(st.lists(TAPS, max_size=200), min_size=1, max_size=4))
def test_rounds_count_every_nibble_once(lists):
    offsets, weights, sizes, runs = tables(lists)
    made = make_rounds(offsets, weights, sizes, runs)
    assert np.array_equal(made.runs[:, :2], runs[:, :2])
    for before, run in zip(runs, made.runs, strict=True):
        entries = range(before[2], before[2] + before[3])
        assert nibbles_counted(made, run) == [
            (offsets[entry] + byte, VECTOR * (weights[entry] + byte) + 32 * half, half)
            for entry in entries
            for byte in range(sizes[entry])
            for half in range(2)
        ]


def test_the_example_of_the_docstring():
    offsets, sizes = np.array([0, 8, 16, 24, 480, 488, 496, 504]), np.array([8, 5] * 4)
    seen = make_rounds(offsets, np.array([0, 8, 13, 21, 26, 34, 39, 47]), sizes, np.array([[0, 49, 0, 8]]))
    assert seen.rounds.tolist() == [[0, 4, 0, 2]] and seen.runs.tolist() == [[0, 49, 0, 1]]
    assert seen.stretches.tolist() == [[0, 2, 0], [16, 2, 52], [480, 2, 104], [496, 2, 156]]
    assert seen.parts.tolist() == [[0, 0, 9, 0], [108, 1728, 8, 2]]


def test_a_window_of_whole_words_is_one_stretch_in_equal_parts():
    made = make_rounds(*tables([[(8, 0, 0)] * 36]))
    assert made.stretches.tolist() == [[0, 36, 0]]
    assert made.rounds.tolist() == [[0, 1, 0, 10]]
    assert set(made.parts[:, 2]) == {9, 10} and not made.parts[:, 3].any()


def test_a_long_window_has_rounds():
    made = make_rounds(*tables([[(8, 0, 0)] * 300]))
    assert made.runs[:, 2:].tolist() == [[0, 3]] * 2
    assert made.stretches.tolist() == [[0, 120, 0], [960, 120, 0], [1920, 60, 0]]


def test_a_list_without_taps_has_no_rounds():
    """As of a pixel whose window lies in the padding."""
    made = make_rounds(*tables([[(8, 0, 0)], [], [(8, 0, 0)]]))
    assert made.runs[:, 2:].tolist() == [[0, 1], [0, 1], [1, 0], [1, 0], [1, 1], [1, 1]]

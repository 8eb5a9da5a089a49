"""What tiles that look up read in place of taps: rounds. Each finds its places in the table, then looks up there."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xnornet.engine.bits import WORD
from xnornet.engine.counter import PART_BYTES, ROUND_BYTES

Table = NDArray[np.int64]

PLACES = 4
"""Bytes of the places that a byte of a pair of pixels asks for: 16 bits for each nibble."""

ROUND, STRETCH, PART = 32, 24, 32
"""Bytes of an entry of each table."""

WORD_BYTES = WORD // 8


class Rounds(NamedTuple):
    """The bytes that lists of taps read, cut where a round is full; in each, words and weights that lie together."""

    rounds: Table
    """(rounds, 4): the first of its stretches and the one behind the last, and the same of its parts."""
    stretches: Table
    """(stretches, 3): bytes from a window's first word, words that follow each other there, bytes to their places."""
    parts: Table
    """(parts, 4): bytes to the first place, and from a panel's first weight; how often three bytes, nibbles more."""
    runs: Table
    """Of a plan, with rounds in place of taps: where a list of them begins, and how many it has."""


def make_rounds(offsets: Table, places: Table, sizes: Table, runs: Table, vector: int) -> Rounds:
    """Of the entries of a plan's taps: bytes to each word of the input, vectors to its weights, vectors for its bytes.

    vector: bytes of one.
    """
    count = len(sizes)
    starts = np.unique(runs[:, 2][runs[:, 3] > 0])
    before = np.cumsum(sizes) - sizes  # bytes, in all lists
    lists = np.searchsorted(starts, np.arange(count), side="right") - 1  # of each entry
    number = (before - before[starts][lists]) // ROUND_BYTES
    opens = _changes(lists) | _changes(number)
    first = np.flatnonzero(opens)  # entry of each round
    index = before - before[first][np.cumsum(opens) - 1]  # byte in the round
    # Words that follow each other, all but the last with all of their bytes.
    new_stretch = opens | _breaks(offsets, np.full(count, WORD_BYTES)) | _after(sizes != WORD_BYTES)
    stretch = np.flatnonzero(new_stretch)
    words = np.diff(np.append(stretch, count))
    new_segment = opens | _breaks(places, sizes)
    segment = np.flatnonzero(new_segment)
    length = np.add.reduceat(sizes, segment) if count else sizes
    # Divided evenly, at multiples of three bytes.
    pieces = -(-length // PART_BYTES)
    of = np.repeat(np.arange(len(segment)), pieces)
    ends = np.cumsum(pieces)
    piece = np.arange(len(of)) - (ends - pieces)[of]
    begin, end = (np.minimum(3 * (-(-length // 3)[of] * n // pieces[of]), length[of]) for n in (piece, piece + 1))
    parts = np.stack(
        [
            PLACES * (index[segment][of] + begin),
            vector * (places[segment][of] + begin),
            (end - begin) // 3,
            2 * ((end - begin) % 3),
        ],
        axis=1,
    )
    stretch_of_round = np.searchsorted(stretch, np.append(first, count))
    part_of_round = np.append(ends - pieces, len(of))[np.searchsorted(segment, np.append(first, count))]
    rounds = np.stack([stretch_of_round[:-1], stretch_of_round[1:], part_of_round[:-1], part_of_round[1:]], axis=1)
    edges = np.searchsorted(first, np.stack([runs[:, 2], runs[:, 2] + runs[:, 3]]))
    counted = runs.copy()
    counted[:, 2], counted[:, 3] = edges[0], edges[1] - edges[0]
    return Rounds(rounds, np.stack([offsets[stretch], words, PLACES * index[stretch]], axis=1), parts, counted)


def _changes(values: Table) -> NDArray[np.bool_]:
    """Where a value differs from the one before; the first does."""
    return np.diff(values, prepend=-1) != 0


def _breaks(starts: Table, sizes: Table) -> NDArray[np.bool_]:
    """Where something does not begin at the end of the one before."""
    broken = np.ones(len(starts), bool)
    broken[1:] = starts[1:] != starts[:-1] + sizes[:-1]
    return broken


def _after(marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Marks moved on by one."""
    return np.concatenate([[False], marks])[:-1]

"""What tiles that look up read in place of taps: rounds. Each finds its places in the table, then looks up there."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xnornet.engine.bits import WORD
from xnornet.engine.counter import PART_BYTES, ROUND_BYTES
from xnornet.engine.panels import VECTOR

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


def make_rounds(offsets: Table, weights: Table, sizes: Table, runs: Table) -> Rounds:
    """Of the entries of a plan's taps, a word each: bytes to it, vectors to its weights, and how many bytes it has.

    A byte has a vector of weights, of `VECTOR` = 64 bytes. For example, all taps of a 2x2 kernel on 100 channels, 8
    bytes in a pixel's first word and 5 in its second, in an image of 480 bytes a row:

        offsets   0  8  16  24  480  488  496  504        rounds     (stretches 0 to 4, parts 0 to 2)
        weights   0  8  13  21   26   34   39   47        stretches  (0, 2, 0) (16, 2, 52) (480, 2, 104) (496, 2, 156)
        sizes     8  5   8   5    8    5    8    5        parts      (0, 0, 9, 0) (108, 1728, 8, 2)

    Each pixel's two words lie together; the second pixel's 13 bytes have the places from 4 x 13 on. All 52 bytes of
    weights follow each other, in two parts: 9 threes; then, 4 x 27 and 64 x 27 bytes further on, 8 threes and 2
    nibbles.
    """
    opens, byte = _cut(sizes, runs)
    stretch, stretches = _stretches(offsets, sizes, opens, byte)
    segment, part_of_segment, parts = _parts(weights, sizes, opens, byte)
    first = np.flatnonzero(opens)
    edges = np.append(first, len(sizes))
    stretch_of_round, part_of_round = np.searchsorted(stretch, edges), part_of_segment[np.searchsorted(segment, edges)]
    rounds = np.stack([stretch_of_round[:-1], stretch_of_round[1:], part_of_round[:-1], part_of_round[1:]], axis=1)
    begin, end = np.searchsorted(first, np.stack([runs[:, 2], runs[:, 2] + runs[:, 3]]))
    return Rounds(rounds, stretches, parts, np.column_stack([runs[:, :2], begin, end - begin]))


def _cut(sizes: Table, runs: Table) -> tuple[NDArray[np.bool_], Table]:
    """Of each entry: whether it opens a round, as the first of a list or where the last one is full; its byte there."""
    list_starts = np.unique(runs[:, 2][runs[:, 3] > 0])
    list_of_entry = np.searchsorted(list_starts, np.arange(len(sizes)), side="right") - 1
    byte = np.cumsum(sizes) - sizes  # in all lists
    round_in_list = (byte - byte[list_starts][list_of_entry]) // ROUND_BYTES
    opens = _changes(list_of_entry) | _changes(round_in_list)
    return opens, byte - byte[opens][np.cumsum(opens) - 1]


def _stretches(offsets: Table, sizes: Table, opens: NDArray[np.bool_], byte: Table) -> tuple[Table, Table]:
    """(first entry of each, table): words that follow each other, all but the last with all of their bytes."""
    begins = opens | _breaks(offsets, np.full(len(sizes), WORD_BYTES)) | _after(sizes != WORD_BYTES)
    first = np.flatnonzero(begins)
    words = np.diff(np.append(first, len(sizes)))
    return first, np.stack([offsets[first], words, PLACES * byte[first]], axis=1)


def _parts(weights: Table, sizes: Table, opens: NDArray[np.bool_], byte: Table) -> tuple[Table, Table, Table]:
    """(first entry of each segment, first part of each and the end, table).

    A segment is bytes whose weights follow each other. It is divided evenly, at multiples of three bytes.
    """
    first = np.flatnonzero(opens | _breaks(weights, sizes))
    length = np.add.reduceat(sizes, first) if len(sizes) else sizes
    count = -(-length // PART_BYTES)
    edges = np.append(0, np.cumsum(count))
    segment = np.repeat(np.arange(len(first)), count)  # of each part
    number = np.arange(len(segment)) - edges[segment]  # in its segment
    threes = -(-length // 3)
    begin, end = (
        np.minimum(3 * (threes[segment] * n // count[segment]), length[segment]) for n in (number, number + 1)
    )
    table = np.stack(
        [
            PLACES * (byte[first][segment] + begin),
            VECTOR * (weights[first][segment] + begin),
            (end - begin) // 3,
            2 * ((end - begin) % 3),
        ],
        axis=1,
    )
    return first, edges, table


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

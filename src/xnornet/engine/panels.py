"""Weights in the order in which the tiles read them: panels of output channels, one vector of 64 bytes after the other.

A tap of a binary convolution is a word of 64 input channels. Where words are counted whole, it has one vector, with the
word of each of 8 output channels. Where bytes are looked up (see `counter`), it has a vector for every byte that has
channels in it: for each of 32 output channels the byte's low nibble, then for each the high one.
"""

import numpy as np
from numpy.typing import NDArray

from xnornet.engine.bits import WORD, Bytes, Words, aligned, word_count
from xnornet.engine.counter import LOOKUP

VECTOR = 64
"""Bytes."""

LANES = 32 if LOOKUP else 8
"""Output channels a panel."""

STEP = 8 if LOOKUP else WORD
"""Input channels a vector of weights is for."""


def panel_count(channels: int) -> int:
    """Panels that hold `channels` output channels."""
    return -(-channels // LANES)


def vector_count(depth: int) -> int:
    """Vectors of weights, in one panel, for `depth` input channels."""
    return -(-depth // STEP)


def tap_sizes(depth: int) -> NDArray[np.int64]:
    """Vectors of each word of a pixel with `depth` channels."""
    left = depth - WORD * np.arange(word_count(depth))
    return -(-np.minimum(left, WORD) // STEP)


def in_panels(rows: Words, sizes: NDArray[np.int64]) -> Bytes:
    """Rows of words (O, taps), one an output channel, as the tiles read them: (panels, sum(sizes), 64 bytes).

    sizes: vectors of each tap. Missing channels are zero.
    """
    return _nibbles(rows, sizes, LANES) if LOOKUP else side_by_side(rows, LANES).view(np.uint8)


def side_by_side(rows: np.ndarray, lanes: int) -> np.ndarray:
    channels, taps = rows.shape
    out = aligned((-(-channels // lanes), taps, lanes), rows.dtype)
    full = channels // lanes
    out[:full] = rows[: full * lanes].reshape(full, lanes, taps).transpose(0, 2, 1)
    if channels % lanes:
        out[full, :, : channels % lanes] = rows[full * lanes :].T
    return out


def _nibbles(rows: Words, sizes: NDArray[np.int64], lanes: int) -> Bytes:
    """Bytes 0, 2, 4... of half a vector are the first 16 channels of a panel, 1, 3, 5... the other 16.

    So the counts of each 16 channels stand side by side once even and odd bytes are taken apart.
    """
    channels, taps = rows.shape
    each = np.ascontiguousarray(rows).view(np.uint8).reshape(channels, taps, 8)
    used = each[:, np.arange(8) < sizes[:, None]]
    nibbles = np.zeros((-(-channels // lanes) * lanes, used.shape[1], 2), np.uint8)
    nibbles[:channels, :, 0], nibbles[:channels, :, 1] = used & 15, used >> 4
    parts = nibbles.reshape(-1, 2, lanes // 2, used.shape[1], 2)  # (panel, half of it, channel, byte, nibble)
    out = aligned((len(parts), used.shape[1], VECTOR), np.uint8)
    out[:] = parts.transpose(0, 3, 4, 2, 1).reshape(out.shape)
    return out

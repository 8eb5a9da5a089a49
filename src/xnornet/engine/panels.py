"""Weights in the order in which the tiles read them: panels of output channels, one vector of 64 bytes after the other.

A tap of a binary convolution is what one count takes of a pixel: 64 input channels or, with AVX-512, 32. It has one
vector: these of each of 8 or 16 output channels. Where words are counted in groups (see `running`), a tap is a group,
its vectors one after the other, as running xors. Where bytes are looked up (see `counter`), a tap is a word of 64, and
has a vector for every byte that has channels in it: for each of 32 output channels the byte's low nibble, then for each
the high one.
"""

import numpy as np
from numpy.typing import NDArray

from xnornet.engine.bits import WORD, Bytes, Words, aligned
from xnornet.engine.counter import GROUPS, KIND, LOOKUP

VECTOR = 64
"""Bytes."""

LANES = 32 if LOOKUP else KIND.count
"""Output channels a panel."""

STEP = 8 if LOOKUP else KIND.element.width
"""Input channels a vector of weights is for."""


def panel_count(channels: int) -> int:
    """Panels that hold `channels` output channels."""
    return -(-channels // LANES)


def vector_count(depth: int) -> int:
    """Vectors of weights, in one panel, for `depth` input channels."""
    return -(-depth // STEP)


def group_size(depth: int) -> int:
    """Words that are counted together of a pixel with `depth` channels: 1 where each is counted by itself."""
    return next((size for size in GROUPS if vector_count(depth) % size == 0), 1)


def tap_channels(depth: int) -> int:
    """Input channels of a tap."""
    return WORD if LOOKUP else STEP * group_size(depth)


def tap_count(depth: int) -> int:
    """Taps of a pixel with `depth` channels."""
    return -(-depth // tap_channels(depth))


def tap_sizes(depth: int) -> NDArray[np.int64]:
    """Vectors of each tap of a pixel with `depth` channels."""
    tap = tap_channels(depth)
    left = depth - tap * np.arange(tap_count(depth))
    return -(-np.minimum(left, tap) // STEP)


def running_xors(words: np.ndarray, group: int) -> np.ndarray:
    """(..., words) in groups of so many: the third, fifth... as the xor of all from the group's first on."""
    groups = words.reshape(*words.shape[:-1], -1, group)
    running = groups.copy()
    running[..., 2::2] = np.bitwise_xor.accumulate(groups, axis=-1)[..., 2::2]
    return running.reshape(words.shape)


def in_panels(words: Words, depth: int) -> Bytes:
    """Packed weights (O, pixels, words of `depth` channels) as the tiles read them: (panels, vectors, 64 bytes).

    Missing output channels are zero.
    """
    sizes = tap_sizes(depth)
    if LOOKUP:
        return _nibbles(words.reshape(len(words), -1), np.tile(sizes, words.shape[1]), LANES)
    taps = np.ascontiguousarray(words).view(f"<u{STEP // 8}")[..., : sizes.sum()]
    taps = running_xors(taps, group_size(depth))
    return side_by_side(taps.reshape(len(words), -1), LANES).view(np.uint8)


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

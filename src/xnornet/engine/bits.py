"""Packed words, and the file's rows of bits: how signs become bits. (`signs` has the same, compiled, for words.)

Convention. A bit is 1 where the sign is +1 and 0 where it is -1, so packing is the comparison x >= 0. 64 channels make
a uint64 word, channel 0 in its least significant bit; the last word of a pixel is filled up with zeros, in the input as
in the weights, which cancel in a xor. For n signs a and w in bits: a . w = n - 2 popcount(a xor w).
"""

import sys

import numpy as np
from numpy.typing import NDArray

WORD = 64

UNPACKED = 1 << 24
"""Bits that are a byte each for a while, where rows of the file become words."""

BIT_ORDER = "1 is +1, channel 0 in the least significant bit, little-endian words of 64 channels"

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

if sys.byteorder != "little":  # the kernels store single bytes of a word
    raise ImportError("xnornet.engine needs a little-endian CPU")


def word_count(channels: int) -> int:
    """Words that hold `channels` bits."""
    return -(-channels // WORD)


def aligned(shape: tuple[int, ...], dtype: type | np.dtype) -> np.ndarray:
    """Zeros at an address that is a multiple of 64 bytes, a cache line and a 512-bit vector."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def pack_signs(x: np.ndarray) -> Words:
    """Pack the signs of the last axis, (..., C) -> (..., word_count(C)); sign(0) = sign(-0.0) = +1."""
    return pack_bits(np.asarray(x) >= 0)


def pack_bits(bits: np.ndarray) -> Words:
    """Pack truth values along the last axis, (..., C) -> (..., word_count(C))."""
    channels = bits.shape[-1]
    packed = np.packbits(bits, axis=-1, bitorder="little")
    words = np.zeros((*bits.shape[:-1], word_count(channels) * 8), np.uint8)
    words[..., : packed.shape[-1]] = packed
    return words.view(np.uint64)


def pack_rows(signs: np.ndarray) -> Bytes:
    """Truth values (O, ...) as the file has them: a row of bits for each of the first axis, filled up to a byte."""
    return np.packbits(signs.reshape(signs.shape[0], -1), axis=1, bitorder="little")


def unpack_rows(rows: Bytes, shape: tuple[int, int, int]) -> Words:
    """Rows of the file as packed words (O, kh, kw, ceil(C / 64)); shape: (kh, kw, C)."""
    if shape[2] % WORD == 0:
        return np.ascontiguousarray(rows).view(np.uint64).reshape(rows.shape[0], *shape[:2], -1)
    count = int(np.prod(shape))
    some = max(1, UNPACKED // count)
    blocks = [rows[first : first + some] for first in range(0, len(rows), some)]
    return np.concatenate([pack_bits(unpack_row(block, count).reshape(-1, *shape)) for block in blocks])


def pack_row(values: np.ndarray) -> Bytes:
    """Truth values (C,) as the file has them, filled up to a byte."""
    return np.packbits(values, bitorder="little")


def unpack_row(row: Bytes, count: int) -> Bytes:
    """The first `count` bits of a row, or of each of several: (..., bytes) -> (..., count), 0 and 1."""
    return np.unpackbits(row, axis=-1, count=count, bitorder="little")


def unpack_bits(words: Words, channels: int) -> Bytes:
    """The inverse of `pack_bits`: (..., word_count(channels)) -> (..., channels), 0 and 1."""
    return unpack_row(np.ascontiguousarray(words).view(np.uint8), channels)

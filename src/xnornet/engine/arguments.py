"""What callers pass to layers, checked: a ValueError names the argument, the value seen and the value wanted."""

import operator
import sys

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]


def floats_of(name: str, value: ArrayLike, wanted: str, rank: int) -> Floats:
    """The value as it is, if it is float32 of so many dimensions; wanted: its shape, for the message."""
    array = np.asarray(value)
    if array.dtype != np.float32 or array.ndim != rank:
        raise ValueError(f"{name} must be float32 {wanted}, not {array.dtype} {array.shape}")
    return array


def array_kind(value: object) -> str:
    """What a value is, for a message: dtype and shape of an array, else its type."""
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def channel_floats(name: str, value: ArrayLike, channels: int) -> Floats:
    """float32 (channels,), finite: a copy that nobody can write to, since programs have its numbers in them."""
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "biufO":  # O: Python's own, such as integers beyond 64 bits
            raise TypeError(f"they are {given.dtype}")
        with np.errstate(over="ignore"):
            array = np.array(given, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be real numbers: {error}") from None
    if array.shape != (channels,):
        raise ValueError(f"{name} must have the shape ({channels},), one a channel, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, but it holds NaN or infinity")
    array.flags.writeable = False
    return array


def channel_integers(name: str, value: ArrayLike, channels: int) -> NDArray[np.int32]:
    """int32 (channels,) of integers of any type; those that int32 cannot hold become its limits."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.shape != (channels,):
        raise ValueError(f"{name} must be int32 ({channels},), one a channel, not {array.dtype} {array.shape}")
    limits = np.iinfo(np.int32)
    return np.clip(array, limits.min, limits.max).astype(np.int32)


def thread_count(value: int) -> int:
    """The value of `threads`, at least 1; the usual case is quick, since it is part of every call."""
    return value if type(value) is int and value > 0 else integer("threads", value, 1)


def integer(name: str, value: int, least: int, most: int = sys.maxsize) -> int:
    """An integer of any type from `least` to `most` as Python's."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    if number > most:
        raise ValueError(f"{name} must be at most {most}, not {number}")
    return number

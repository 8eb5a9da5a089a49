"""BatchNorm and sign as thresholds on what comes before them, found by asking torch."""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from xnornet.nn.layers import BatchNorm

ChannelFunction = Callable[[Tensor], Tensor]
"""Float32 (1, C, 1, 1) -> the same shape, monotone in each channel. A BatchNorm1d may be one too."""

Threshold = tuple[np.ndarray, np.ndarray]
"""(threshold, flip), (C,) each: the bit of a value x is (x >= threshold) xor flip."""

HIGHEST = torch.finfo(torch.float32).max


class Sign:
    """The sign of functions, one after the other, of what a layer of `channels` makes, as a threshold on that.

    It is not computed from formulas, but found by bisection over the functions themselves.

    behind: functions behind a maximum over a window, those behind a second one, and so on. Pooling commutes with what
    is monotone: a maximum is above a threshold if any of the values is. So each pooling becomes an OR of bits. These
    are then inverted, in its entry of `flips`, where the BatchNorms up to the next pooling turn the order round: there
    the bit says that all values are small enough, not any of them is not.
    """

    def __init__(self, channels: int, functions: Sequence[ChannelFunction], *behind: Sequence[ChannelFunction]) -> None:
        self.channels = channels
        self.functions: list[ChannelFunction] = [*functions, *(function for part in behind for function in part)]
        self.flips = [_falls(channels, part) for part in behind]

    def bit(self, x: Tensor) -> Tensor:
        """x: (C,) -> truth values (C,)."""
        for function in self.functions:
            y = function(x.view(1, -1) if isinstance(function, nn.BatchNorm1d) else x.view(1, -1, 1, 1))
            x = y.clamp(-HIGHEST, HIGHEST)  # infinity times the gamma of a dead channel would be NaN
        return x.view(-1) >= 0

    def of_counts(self, most: int) -> Threshold:
        """For integers from -most to most: int32."""
        edge = torch.full((self.channels,), most, dtype=torch.int64)
        threshold, flip, constant = _bisect(lambda count: self.bit(count.to(torch.float32)), -edge, edge)
        threshold[constant] = -(2**31)
        return threshold.numpy().astype(np.int32), self._before_pooling(flip)

    def of_floats(self) -> Threshold:
        """For float32."""
        edge = torch.full((self.channels,), HIGHEST, dtype=torch.float32).view(torch.int32).to(torch.int64)
        threshold, flip, constant = _bisect(lambda rank: self.bit(_float_of_rank(rank)), -edge, edge)
        limits = _float_of_rank(threshold)
        limits[constant] = -torch.inf
        return limits.numpy(), self._before_pooling(flip)

    def _before_pooling(self, flip: Tensor) -> np.ndarray:
        return reduce(np.logical_xor, self.flips, flip.numpy())


def _falls(channels: int, functions: Sequence[ChannelFunction]) -> np.ndarray:
    """In which channels they turn the order round."""
    slopes = [function.weight < 0 for function in functions if isinstance(function, BatchNorm)]
    return reduce(np.logical_xor, (slope.numpy() for slope in slopes), np.zeros(channels, bool))


def _float_of_rank(rank: Tensor) -> Tensor:
    """The float32 values in order, numbered by int64: 0 is 0.0, 1 the next above it, -1 the next below."""
    magnitude = rank.abs().to(torch.int32).view(torch.float32)
    return torch.where(rank < 0, -magnitude, magnitude)


def _bisect(bit: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(first, flip, constant) of a bit per channel that changes at most once from `low` to `high`, int64 (C,).

    first: the lowest integer with the bit of `high`; flip: that bit is 0; constant: it never changes.
    """
    flip = ~bit(high)
    constant = bit(low) == ~flip
    while (high - low > 1).any():
        # low has the one bit, high the other
        middle = (low + high).div(2, rounding_mode="floor")
        above = bit(middle) == ~flip
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high, flip, constant

"""BatchNorm and sign as thresholds on what comes before them, found by asking torch."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

ChannelFunction = Callable[[Tensor], Tensor]
"""Float32 (1, C, 1, 1) -> the same shape, monotone in each channel. A BatchNorm1d may be one too."""

Threshold = tuple[np.ndarray, np.ndarray]
"""(threshold, flip), (C,) each: the bit of a value x is (x >= threshold) xor flip."""


class Sign:
    """The sign of functions, applied one after the other to what a layer of `channels` makes, as a threshold on that.

    Not computed from their formulas, but by bisection over the functions themselves.
    """

    def __init__(self, channels: int, *functions: ChannelFunction) -> None:
        self.channels, self.functions = channels, functions

    def bit(self, x: Tensor) -> Tensor:
        """x: (C,) -> truth values (C,)."""
        for function in self.functions:
            x = function(x.view(1, -1) if isinstance(function, nn.BatchNorm1d) else x.view(1, -1, 1, 1))
        return x.view(-1) >= 0

    def of_counts(self, most: int) -> Threshold:
        """For integers from -most to most: int32."""
        edge = torch.full((self.channels,), most, dtype=torch.int64)
        threshold, flip, constant = _bisect(lambda count: self.bit(count.to(torch.float32)), -edge, edge)
        threshold[constant] = -(2**31)
        return threshold.numpy().astype(np.int32), flip.numpy()

    def of_floats(self) -> Threshold:
        """For float32."""
        highest = torch.full((self.channels,), torch.finfo(torch.float32).max)
        edge = highest.view(torch.int32).to(torch.int64)
        threshold, flip, constant = _bisect(lambda rank: self.bit(_float_of_rank(rank)), -edge, edge)
        limits = _float_of_rank(threshold)
        limits[constant] = -torch.inf
        return limits.numpy(), flip.numpy()


class PooledSign(Sign):
    """The sign of `after`, of the maximum over a window, of `before`: a threshold, an OR over the window, a flip.

    Pooling commutes with what is monotone: a maximum is above a threshold if any of the values is. Where the BatchNorms
    of `after` turn the order round, the bit says that all values are small enough: not any of them is not.
    """

    def __init__(self, channels: int, before: Sequence[ChannelFunction], after: Sequence[nn.Module]) -> None:
        super().__init__(channels, *before, *after)
        self.flip_after = np.zeros(channels, bool)
        for module in after:
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                self.flip_after ^= (module.weight < 0).numpy()

    def of_counts(self, most: int) -> Threshold:
        threshold, flip = super().of_counts(most)
        return threshold, flip ^ self.flip_after

    def of_floats(self) -> Threshold:
        threshold, flip = super().of_floats()
        return threshold, flip ^ self.flip_after


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

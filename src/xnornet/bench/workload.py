"""What is timed: the shape of a layer, its data, the results that a contestant must give before it is timed."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """A convolution of `batch` images of in_channels x size x size with square kernels; no bias.

    A dense layer is the convolution with kernel, size and stride 1 (`Layer.dense`). ValueError for a size below 1 or a
    kernel larger than the padded image.
    """

    in_channels: int
    out_channels: int
    kernel: int = 3
    size: int = 14
    padding: int = 1
    stride: int = 1
    batch: int = 1
    is_dense: bool = False

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "kernel", "size", "stride", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.padding < 0:
            raise ValueError(f"padding must not be negative, not {self.padding}")
        if self.kernel > self.size + 2 * self.padding:
            raise ValueError(
                f"kernel {self.kernel} is larger than the padded image, {self.size} + 2 x {self.padding} pixels"
            )

    @classmethod
    def dense(cls, features: int, outputs: int, *, batch: int = 1) -> "Layer":
        """A linear layer, features -> outputs."""
        return cls(features, outputs, kernel=1, size=1, padding=0, batch=batch, is_dense=True)

    @property
    def out_size(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer, those with the padding among them, as the field counts them."""
        taps = self.in_channels * self.kernel**2
        return self.batch * self.out_channels * self.out_size**2 * taps

    @property
    def macs_inside(self) -> int:
        """Multiply-accumulates without those with the padding: what there is to do, and what a rate is made of."""
        starts = [place * self.stride - self.padding for place in range(self.out_size)]
        inside = sum(max(0, min(start + self.kernel, self.size) - max(start, 0)) for start in starts)
        return self.batch * self.out_channels * self.in_channels * inside**2


LAYERS: Mapping[str, Layer] = {
    # The four stages of ResNet-18 on ImageNet; 256@14 is the one that the paper times (Rastegari et al. 2016, fig. 4).
    "64@56": Layer(64, 64, size=56),
    "128@28": Layer(128, 128, size=28),
    "256@14": Layer(256, 256, size=14),
    "512@7": Layer(512, 512, size=7),
    # LeNet-5's two binary layers.
    "lenet-conv": Layer(20, 50, kernel=5, size=12, padding=0, batch=64),
    "lenet-linear": Layer.dense(800, 500, batch=64),
}


class Problem:
    """A layer with reproducible data, and what comes out of it, computed by NumPy alone.

    `x` float32 (N, C, H, W) and `weight` float32 (O, C, k, k) are standard normal, so no value sits on the threshold of
    sign, where engines are free to differ.
    """

    def __init__(self, layer: Layer, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shape = (layer.batch, layer.in_channels, layer.size, layer.size)
        self.layer = layer
        self.x: Array = rng.standard_normal(shape, dtype=np.float32)
        self.weight: Array = rng.standard_normal(
            (layer.out_channels, layer.in_channels, layer.kernel, layer.kernel), dtype=np.float32
        )

    @cached_property
    def alpha(self) -> Array:
        """alpha_o = mean|W_o| (Rastegari et al. 2016, eq. 6): float32 (O,)."""
        return np.abs(self.weight).mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32)

    @cached_property
    def float_result(self) -> Array:
        """x conv W: (N, H', W', O)."""
        return convolve(self.x, self.weight, self.layer)

    @cached_property
    def binary_result(self) -> Array:
        """alpha (sign(x) conv sign(W)), zero padding after the sign: (N, H', W', O)."""
        return convolve(signs(self.x), signs(self.weight), self.layer) * self.alpha


@dataclass(frozen=True)
class Chain:
    """Layers in a row, each with the BatchNorm and sign that follow it folded into limits on its counts.

    The sign of output channel o is +1 where (count >= threshold[o]) != flip[o]. weights: (O, C, k, k) each, the first
    the problem's own; thresholds: int (O,); flips: bool (O,), a BatchNorm with negative gamma.
    """

    weights: list[Array]
    thresholds: list[Array]
    flips: list[Array]

    @classmethod
    def of(cls, problem: Problem, length: int) -> "Chain":
        """SkippedError unless the layer's output is shaped like its input, where there are several."""
        layer, rng = problem.layer, np.random.default_rng(1)
        if length > 1 and (layer.in_channels, layer.size) != (layer.out_channels, layer.out_size):
            raise SkippedError("a chain needs a layer whose output is shaped like its input")
        shape, channels = problem.weight.shape, layer.out_channels
        return cls(
            [problem.weight, *(rng.standard_normal(shape, dtype=np.float32) for _ in range(length - 1))],
            [rng.integers(-20, 20, channels) for _ in range(length)],
            [rng.random(channels) < 0.1 for _ in range(length)],
        )

    def counts(self, problem: Problem) -> Array:
        """What the last layer counts: float32 (N, H', W', O)."""
        count = convolve(signs(problem.x), signs(self.weights[0]), problem.layer)
        for index, weight in enumerate(self.weights[1:]):
            count = convolve(self.signs_of(count, index).transpose(0, 3, 1, 2), signs(weight), problem.layer)
        return count

    def signs_of(self, count: Array, index: int) -> Array:
        """The signs behind the layer of that index: +-1, float32."""
        return np.where((count >= self.thresholds[index]) != self.flips[index], np.float32(1), np.float32(-1))


CHAIN_LENGTH = 9
"""Layers of a chain that is timed; enough for the difference to one layer to stand out of the noise of both."""


def signs(x: Array) -> Array:
    """+1 where x >= 0, else -1, float32."""
    return np.where(x >= 0, np.float32(1), np.float32(-1))


def convolve(x: Array, weight: Array, layer: Layer) -> Array:
    """Reference convolution: x (N, C, H, W) and weight (O, C, k, k) -> float32 (N, H', W', O).

    One matrix product an image; of +-1 it is exact, since every partial sum is an integer below 2^24.
    """
    p, k, s = layer.padding, layer.kernel, layer.stride
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))
    images = windows[:, :, ::s, ::s]  # (N, C, H', W', k, k)
    return np.stack([np.tensordot(image, weight, ([0, 3, 4], [1, 2, 3])) for image in images])


class SkippedError(Exception):
    """A contestant that cannot take part here; the message says why."""


class WrongError(Exception):
    """A contestant whose result is not the one that it must reach."""


@dataclass(frozen=True)
class Contestant:
    """Something to time: `call` does the work, `result` turns what it returns into a float32 array.

    wanted: the result it must reach, of a layer (N, H', W', O), or None if there is none to compare with; tolerance:
    relative error ||y - y*|| / ||y*|| that its number format excuses.
    """

    call: Callable[[], Any]
    result: Callable[[Any], Array]
    wanted: Callable[[], Array] | None
    tolerance: float


Builder = Callable[[Problem], Contestant]


def check(contestant: Contestant) -> None:
    """Run a contestant once; WrongError unless its result has the right shape and is within tolerance."""
    got = contestant.result(contestant.call())
    if contestant.wanted is None:
        return
    wanted = contestant.wanted()
    if got.shape != wanted.shape:
        raise WrongError(f"result has shape {got.shape}, not {wanted.shape}")
    error = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
    if not error <= contestant.tolerance:
        raise WrongError(f"relative error {error:.2g} is above {contestant.tolerance:.2g}")


def line_up(
    builders: Mapping[str, Callable[[], Contestant]], optional: Container[str] = ()
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Build and verify contestants: (those that are right, by name; why the others are left out, by name).

    optional: names of those that are left out whatever they raise, or if they are wrong: a fault of another engine must
    not end our timings. A fault of any other contestant does.
    """
    ready: dict[str, Contestant] = {}
    skipped: dict[str, str] = {}
    for name, build in builders.items():
        try:
            contestant = build()
            check(contestant)
        except SkippedError as reason:
            skipped[name] = str(reason)
        except WrongError as wrong:
            if name not in optional:
                raise WrongError(f"{name}: {wrong}") from None
            skipped[name] = f"wrong: {wrong}"
        except Exception as error:
            if name not in optional:
                raise
            skipped[name] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        else:
            ready[name] = contestant
    return ready, skipped

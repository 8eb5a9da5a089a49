"""Sizes of images, and how a kernel passes over them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xnornet.engine import bits


@dataclass(frozen=True)
class Shape:
    """Height, width and channels of an image."""

    height: int
    width: int
    depth: int

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def padded(self, padding: int) -> "Shape":
        return Shape(self.height + 2 * padding, self.width + 2 * padding, self.depth)

    @property
    def float_bytes(self) -> int:
        return 4 * self.pixels * self.depth

    @property
    def packed_bytes(self) -> int:
        return 8 * self.pixels * bits.word_count(self.depth)


@dataclass(frozen=True)
class Axis:
    """How a kernel lies at each output pixel along one axis. classes (2, k): the distinct ranges of taps inside."""

    classes: NDArray[np.intp]
    class_of: NDArray[np.intp]
    """The class of each output pixel."""
    kernel: int

    @classmethod
    def of_window(cls, size: int, kernel: int, out: int, stride: int, padding: int) -> "Axis":
        """For an image and a kernel of these sizes, and `out` pixels of output."""
        start = np.arange(out) * stride - padding
        first = np.clip(-start, 0, kernel)
        end = np.clip(size - start, first, kernel)
        classes, of = np.unique(np.stack([first, end]), axis=1, return_inverse=True)
        return cls(classes, of.reshape(-1), kernel)

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Which classes have all taps inside."""
        return (self.classes[0] == 0) & (self.classes[1] == self.kernel)


@dataclass(frozen=True)
class Window:
    """How a kernel passes over an image: its size, stride and zero padding, and what it leaves of height and width."""

    kernel_height: int
    kernel_width: int
    stride: int = 1
    padding: int = 0

    def output(self, height: int, width: int) -> tuple[int, int]:
        """(H', W') of an image (H, W). ValueError if the kernel does not fit into the padded image."""
        if height + 2 * self.padding < self.kernel_height or width + 2 * self.padding < self.kernel_width:
            raise ValueError(
                f"image of {height}x{width} pixels with padding {self.padding} is smaller than the kernel of "
                f"{self.kernel_height}x{self.kernel_width}"
            )
        return (
            (height + 2 * self.padding - self.kernel_height) // self.stride + 1,
            (width + 2 * self.padding - self.kernel_width) // self.stride + 1,
        )

    def axes(self, height: int, width: int) -> tuple[Axis, Axis]:
        """How the kernel lies at each output pixel of an image (H, W), rows and columns."""
        out = self.output(height, width)
        sizes = ((height, self.kernel_height, out[0]), (width, self.kernel_width, out[1]))
        rows, columns = (Axis.of_window(*size, self.stride, self.padding) for size in sizes)
        return rows, columns

    def pixel_offsets(
        self, out: tuple[int, int], image_bytes: int, row_bytes: int, pixel_bytes: int, batch: int, start: int = 0
    ) -> NDArray[np.int32]:
        """Bytes to each output pixel's window in the padded input, int32 (batch x out,).

        start: bytes to the first window. ValueError beyond 2 GiB, which the tables do not reach.
        """
        images = start + np.arange(batch)[:, None, None] * image_bytes
        rows = np.arange(out[0])[:, None] * self.stride * row_bytes
        columns = np.arange(out[1]) * self.stride * pixel_bytes
        return int32(images + rows + columns).reshape(-1)


def int32(offsets: NDArray[np.integer]) -> NDArray[np.int32]:
    """Offsets as the tiles read them. ValueError for one beyond 2 GiB: wrapped around, it would point anywhere."""
    if offsets.size and offsets.max() > np.iinfo(np.int32).max:
        raise ValueError("an image is larger than the 2 GiB that the engine addresses: divide it into smaller ones")
    return offsets.astype(np.int32)


def bit_offsets(size: tuple[int, int], words: int, padding: int, batch: int) -> NDArray[np.int32]:
    """Bytes from the start of padded packed images to each pixel inside the padding."""
    row = (size[1] + 2 * padding) * words * 8
    start = padding * row + padding * words * 8
    return Window(1, 1).pixel_offsets(size, (size[0] + 2 * padding) * row, row, words * 8, batch, start)

"""Programs: steps with named buffers, made into records that the interpreter runs."""

from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

import numpy as np

from xnornet.engine import bits
from xnornet.engine.interpreter import address, pool, run
from xnornet.engine.op import OP, Kind


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory for one kind of value of one pass, `size` bytes, zero at first; each arena has its own."""

    size: int


Value = int | np.ndarray | Buffer | None
"""What a field of a step may be: a number, the address of an array or of a buffer, or (None) the caller's array."""


@dataclass(eq=False)
class Program:
    """Steps that process up to `batch` images a pass, and the arenas (buffers and records) that they run in."""

    batch: int
    result: tuple[int, ...] = ()
    """Shape of what one image becomes."""
    shares_pixels: bool = True
    """Whether threads may share out the pixels of one image: only if nothing reads what a convolution made."""
    steps: list[dict[str, Value]] = field(default_factory=list)
    _free: list["_Arena"] = field(default_factory=list)

    def add(self, kind: Kind, **fields: Value) -> None:
        """Append an operation; the fields that it does not name are 0."""
        self.steps.append({"kind": int(kind), **fields})

    def __call__(self, x: np.ndarray, y: np.ndarray, images: int, threads: int = 1) -> bool:
        """Run over `images` images of the contiguous `x` into the contiguous `y`. True if a packed float was NaN.

        With several threads the images are shared out, or the pixels of the convolutions where there is one image only.
        """
        x_address, y_address = address(x), address(y)
        if threads == 1 or images == 0 or (images == 1 and not self.shares_pixels):
            return self._run(x_address, y_address, images, 0, 1)
        if images == 1:
            parts = min(threads, prod(self.result[:-1]))
            jobs = [(x_address, y_address, 1, part, parts) for part in range(parts)]
        else:
            x_size, y_size = x.nbytes // images, y.nbytes // images
            edges = [images * part // threads for part in range(threads + 1)]
            jobs = [
                (x_address + first * x_size, y_address + first * y_size, last - first, 0, 1)
                for first, last in pairwise(edges)
                if last > first
            ]
        # Jobs hold the arrays: where Ctrl-C ends this call, those of the pool still read and write them.
        others = [pool(len(jobs)).submit(self._run, *job, (x, y)) for job in jobs[1:]]
        nan = self._run(*jobs[0])
        return any([nan, *(other.result() for other in others)])

    def _run(self, x: int, y: int, images: int, part: int, parts: int, _held: object = None) -> bool:
        # pop and append of a list are atomic: a thread has its arena for itself.
        try:
            arena = self._free.pop()
        except IndexError:
            arena = _Arena(self.steps)
        nan = run(arena.address, len(self.steps), x, y, images, self.batch, part, parts)
        self._free.append(arena)
        return nan != 0


class _Arena:
    """The buffers of a program and its records, with addresses in them."""

    def __init__(self, steps: list[dict[str, Value]]) -> None:
        self.memory: dict[Buffer, np.ndarray] = {}
        self.records = np.zeros(len(steps), OP)
        for record, step in zip(self.records, steps, strict=True):
            for name, value in step.items():
                record[name] = self._number(value)
        self.address = self.records.ctypes.data

    def _number(self, value: Value) -> int:
        if value is None:
            return 0
        if isinstance(value, Buffer):
            if value not in self.memory:
                self.memory[value] = bits.aligned((max(value.size, 1),), np.uint8)
            return self.memory[value].ctypes.data
        if isinstance(value, np.ndarray):
            return value.ctypes.data
        return value


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

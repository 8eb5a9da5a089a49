"""Programs: steps with named buffers, made into records that the interpreter runs."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numba.core import config

from xnornet.engine import bits
from xnornet.engine.counter import KIND
from xnornet.engine.interpreter import address, pool, run, team
from xnornet.engine.op import OP, Kind
from xnornet.engine.sharing import ALONE, PROGRESS

CORES: int = getattr(config, "NUMBA_NUM_THREADS")  # noqa: B009 (set when Numba is imported)
"""That this process may run on, or NUMBA_NUM_THREADS; more threads would be in each other's way."""

AVX512 = KIND.count == 16
"""Whether the target has its popcount: measured on a Zen 5; the other limits on a Zen 3, which looks up."""

LEAST_WORK = 25_000_000 if AVX512 else 10_000_000
"""Of an image, in binary products, that is worth sharing: less takes 12 or 20 microseconds, not less with helpers."""

LEAST_BATCH_WORK = 250_000_000 if AVX512 else 50_000_000
"""Of several images. They are shared by the threads of a pool, and to wake one takes some 50 microseconds."""

KEPT_PROGRAMS = 16
"""Programs that a layer or chain keeps, each with its buffers; one for each image size and kind of call."""

PASS_PIXELS = 64
"""A pass takes as many images as make this many output pixels: tiles are full even with one pixel an image."""

PASS_BYTES = 1 << 24
"""But no more than these many bytes of floats, unless one image has them: what a pass takes comes from the caches."""

ROW_UNITS = 8
"""Units, at most, of an operation that threads share by rows."""


@dataclass(eq=False)
class Buffer:
    """Memory for one kind of value of one pass, `size` bytes, zero at first; each arena has its own."""

    size: int

    def grow(self, size: int) -> None:
        """To so many bytes at least, while the program is made."""
        self.size = max(self.size, size)


Value = int | np.ndarray | Buffer | None
"""What a field of a step may be: a number, the address of an array or of a buffer, or (None) the caller's array."""


@dataclass(eq=False)
class Program:
    """Steps that process up to `batch` images a pass, and the arenas (buffers and records) that they run in."""

    batch: int
    result: tuple[int, ...] = ()
    """Shape of what one image becomes."""
    steps: list[dict[str, Value]] = field(default_factory=list)
    work: int = 0
    """Of packing and convolutions, for an image: binary products, or as many as take as long."""
    most_units: int = 1
    """Threads for which an operation has work."""
    scratch: Buffer = field(default_factory=lambda: Buffer(0))
    """For what a step makes and only the next one reads."""
    _free: list["_Arena"] = field(default_factory=list)

    def add(self, kind: Kind, *, units: int, **fields: Value) -> None:
        """Append an operation of so many units, see `sharing`; the fields that it does not name are 0."""
        self.steps.append({"kind": int(kind), "units": units, **fields})
        self.most_units = max(self.most_units, units)

    def __call__(self, x: np.ndarray, y: np.ndarray, threads: int = 1) -> bool:
        """Run over the images of the contiguous `x` into the contiguous `y`. True if a packed float was NaN.

        With several threads the images are shared out, or the units of the operations where there is one image only;
        but where they take less time than waking threads does, one of these does it all.
        """
        images = len(x)
        if threads > 1:
            most, least = (images, LEAST_BATCH_WORK) if images > 1 else (self.most_units, LEAST_WORK)
            threads = min(threads, CORES, most if images * self.work >= least else 1)
        if threads == 1 or images == 0:
            return self._run(address(x), address(y), images)
        if images > 1:
            return self._share_images(x, y, images, threads)
        arena = self._arena()
        nan = team(threads - 1)(arena.address, len(self.steps), address(x), address(y), arena.progress)
        self._free.append(arena)
        return nan

    def _share_images(self, x: np.ndarray, y: np.ndarray, images: int, threads: int) -> bool:
        x_address, x_size, y_address, y_size = address(x), x.nbytes // images, address(y), y.nbytes // images
        edges = [images * part // threads for part in range(threads + 1)]
        jobs = [
            (x_address + first * x_size, y_address + first * y_size, last - first) for first, last in pairwise(edges)
        ]
        own, others = jobs[:1], []
        for job in jobs[1:]:
            try:
                # Jobs hold the arrays: where Ctrl-C ends this call, those of the pool still read and write them.
                others.append(pool(CORES - 1).submit(self._run, *job, (x, y)))
            except RuntimeError:  # the process is ending: pools take no more
                own.append(job)
        nan = [self._run(*job) for job in own]
        return any([*nan, *(other.result() for other in others)])

    def _run(self, x: int, y: int, images: int, _held: object = None) -> bool:
        arena = self._arena()
        nan = run(arena.address, len(self.steps), x, y, images, self.batch, *ALONE)
        self._free.append(arena)
        return nan

    def _arena(self) -> "_Arena":
        # pop and append of a list are atomic: a call has its arena for itself.
        try:
            return self._free.pop()
        except IndexError:
            return _Arena(self.steps)


class _Arena:
    """The buffers of a program, its records, and how far the threads that share them are.

    In a record each array and buffer of a step is a number, its address: the arrays live as long as the program's
    steps do, the buffers as long as the arena.
    """

    def __init__(self, steps: list[dict[str, Value]]) -> None:
        self.memory: dict[Buffer, np.ndarray] = {}
        self.records = np.zeros(len(steps), OP)
        self.progress = bits.aligned((len(steps), PROGRESS), np.uint8)
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


def row_units(rows: int) -> int:
    """Units of an operation that goes from row to row."""
    return min(rows, ROW_UNITS)


class Programs:
    """The programs last made, by kind of call and image size; for any number of threads.

    A copy, and what another process unpickles, starts empty: a program holds addresses of its own memory.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, tuple[int, ...]], Program] = {}
        self.get = self._made.get

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def keep(self, key: tuple[str, tuple[int, ...]], program: Program) -> Program:
        """Remember and return it; the oldest is forgotten where there are too many."""
        # Each of these is atomic. A lock might be held in another thread when the process forks.
        for oldest in list(self._made)[: 1 - KEPT_PROGRAMS]:
            self._made.pop(oldest, None)
        self._made[key] = program
        return program


def pass_images(pixels: int, size: int) -> int:
    """How many images a pass takes that have so many output pixels, and bytes, each."""
    return max(1, min(PASS_PIXELS // pixels, PASS_BYTES // size))

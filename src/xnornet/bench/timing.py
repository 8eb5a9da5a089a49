"""Timing that can be believed: interleaved rounds, medians with their spread, one job at a time on the machine."""

import fcntl
import gc
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
import torch

from xnornet.bench.machine import usable_cores

log = logging.getLogger(__name__)

NOISY = 0.10
"""A timing whose interquartile range exceeds this share of its median is marked as noisy."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one contestant: median and quartiles over `repeats` blocks of `loops` calls each."""

    median: float
    q1: float
    q3: float
    repeats: int
    loops: int

    @classmethod
    def of(cls, seconds_per_call: list[float], loops: int) -> "Timing":
        """Summarize one figure a block. ValueError for none."""
        if not seconds_per_call:
            raise ValueError("a timing needs at least one block")
        q1, median, q3 = np.percentile(seconds_per_call, [25, 50, 75]).tolist()
        return cls(median, q1, q3, len(seconds_per_call), loops)

    @property
    def iqr(self) -> float:
        """Interquartile range, in seconds."""
        return self.q3 - self.q1

    @property
    def noisy(self) -> bool:
        """Whether the interquartile range is wider than 10 % of the median."""
        return self.iqr > NOISY * self.median


def compare(
    contestants: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 30,
    min_block_seconds: float = 2e-3,
    budget_seconds: float = math.inf,
    min_repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time callables side by side, so that their ratios do not depend on what the machine did in the meantime.

    Each of `repeats` rounds times one block of every contestant, in an order that rotates from round to round. A block
    is as many calls as take `min_block_seconds`, found in a warm-up; where it is more than one, an untimed call comes
    first, so that a contestant finds its own data in the caches and not its predecessor's. Rounds end early, but not
    before `min_repeats`, once `budget_seconds` are spent. The garbage collector rests meanwhile.

    Returns a Timing for each name, in the order given. ValueError for no contestants or a number out of range.
    """
    if not contestants:
        raise ValueError("nothing to time: no contestants")
    for name, value in (("repeats", repeats), ("min_repeats", min_repeats)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not min_block_seconds >= 0:
        raise ValueError(f"min_block_seconds must not be negative, not {min_block_seconds}")
    names = list(contestants)
    blocks: dict[str, list[float]] = {name: [] for name in names}
    with _no_garbage_collection():
        start = clock()
        loops = {name: _loops(contestants[name], min_block_seconds, clock) for name in names}
        for turn in range(repeats):
            if turn >= min_repeats and clock() - start >= budget_seconds:
                break
            for position in range(len(names)):
                name = names[(position + turn) % len(names)]
                if loops[name] > 1:
                    contestants[name]()
                blocks[name].append(_block(contestants[name], loops[name], clock) / loops[name])
    return {name: Timing.of(blocks[name], loops[name]) for name in names}


def _loops(call: Callable[[], object], min_block_seconds: float, clock: Callable[[], float]) -> int:
    """Calls that fill a block; the doubling also warms up caches, thread pools and the clock rate of the core."""
    call()  # compiles, allocates
    loops = 1
    while _block(call, loops, clock) < min_block_seconds:
        loops *= 2
    return loops


def _block(call: Callable[[], object], loops: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(loops):
        call()
    return clock() - start


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch, BLAS and OpenMP use `count` threads inside the block. ValueError for more than the usable cores."""
    if not 1 <= count <= usable_cores():
        raise ValueError(f"threads must be 1 to {usable_cores()} (the cores this process may use), not {count}")
    before = torch.get_num_threads()
    with threadpoolctl.threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


_held = threading.RLock()
_depth = 0


@contextmanager
def timing_lock(path: Path | None = None) -> Iterator[None]:
    """Keep every other timing job of this user waiting until the block ends, so that two never disturb each other.

    An fcntl lock on a file in the temp folder: it ends with the process, however that ends. Says so, once, when it has
    to wait. May be entered again inside itself.
    """
    global _depth  # noqa: PLW0603  # fcntl locks of one process do not nest, so count
    with _held:
        if _depth:
            yield
            return
        path = path or Path(tempfile.gettempdir()) / f"xnornet-timing-{os.getuid()}.lock"
        with path.open("a+", encoding="ascii") as file:
            _acquire(file, path)
            _depth += 1
            try:
                yield
            finally:
                _depth -= 1


def _acquire(file: IO[str], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        log.warning("waiting for another timing job to finish (process %s holds %s)", holder, path)
        fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()

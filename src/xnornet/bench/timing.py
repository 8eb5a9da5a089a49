"""Timing that can be believed: interleaved rounds, medians with their spread, one job at a time on the machine."""

import fcntl
import gc
import hashlib
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
import torch

from xnornet.bench.machine import usable_cores

log = logging.getLogger(__name__)

NOISY = 0.10
"""A timing whose interquartile range, or the distance of whose passes, exceeds this share is marked as noisy."""

STARVED = 0.90
"""So is one whose calls got less than this share of a core.

Another process on the same core is not always seen in the spread: a block longer than the scheduler's time slice is
interrupted every time and reads two or three times too long, a short one mostly slips through, and the ratio of both is
nonsense with a narrow interquartile range.
"""

SETTLE = 0.03
"""Seconds of untimed calls before each block of several threads.

The idle threads of a runtime (OpenMP, ONNX Runtime) spin for some milliseconds before they sleep, on the core that the
next contestant needs, and threads that wake up together may wake up on one core: a call on two threads that takes 7 ms
in a row took 15 straight after one of torch, and 12 after a pause. Whoever uses an engine calls it in a row.
"""


LONG = 0.1
"""Seconds; a block that takes longer has no untimed call before it: it fills the caches itself before long."""


class TimingError(ValueError):
    """What was asked for cannot be timed: on this machine, with these images, of this shape."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one contestant: median and quartiles over `repeats` blocks of `loops` calls each."""

    median: float
    q1: float
    q3: float
    repeats: int
    loops: int
    cores: float = 1.0
    """CPU seconds of the whole process per second, in the median block."""
    disagreement: float = 0.0
    """How far the medians of several passes lie apart: largest over smallest, less 1."""
    free: float = 1.0
    """What other processes left each thread of its core, see `free_cores`; before or after, whichever was less."""

    @classmethod
    def of(cls, blocks: Sequence["Block"], loops: int, free: float = 1.0) -> "Timing":
        """Summarize blocks of `loops` calls each. ValueError for none."""
        if not blocks:
            raise ValueError("a timing needs at least one block")
        q1, median, q3 = np.percentile([block.seconds / loops for block in blocks], [25, 50, 75]).tolist()
        cores = float(np.median([block.cpu_seconds / max(block.seconds, 1e-9) for block in blocks]))
        return cls(median, q1, q3, len(blocks), loops, cores, free=free)

    @classmethod
    def of_passes(cls, passes: Sequence["Timing"]) -> "Timing":
        """Summarize timings of one contestant that were made some time apart: medians of their medians and quartiles.

        The spread within one pass does not see what lasts longer than it: a clock rate that drifts, memory that lies
        differently in the next process. ValueError for none.
        """
        if not passes:
            raise ValueError("a timing needs at least one pass")
        q1, median, q3 = (float(np.median([getattr(one, name) for one in passes])) for name in ("q1", "median", "q3"))
        repeats, cores, free = (
            sum(one.repeats for one in passes),
            min(one.cores for one in passes),
            min(one.free for one in passes),
        )
        return cls(median, q1, q3, repeats, passes[0].loops, cores, spread([one.median for one in passes]), free)

    @property
    def iqr(self) -> float:
        """Interquartile range, in seconds."""
        return self.q3 - self.q1

    @property
    def noisy(self) -> bool:
        """Whether the quartiles or the passes lie more than 10 % apart, or the process had to share its core."""
        return self.iqr > NOISY * self.median or self.disagreement > NOISY or self.starved

    @property
    def starved(self) -> bool:
        """Whether the calls got less than 90 % of a core, or of each of theirs, and took longer than they need."""
        return min(self.cores, self.free) < STARVED


def spread(values: Sequence[float]) -> float:
    """How far positive values lie apart: largest over smallest, less 1."""
    return max(values) / min(values) - 1


class Block(NamedTuple):
    """What one block of calls took, on the wall clock and of the CPU."""

    seconds: float
    cpu_seconds: float


def compare(
    contestants: Mapping[str, Callable[[], object]],
    *,
    threads: int = 1,
    repeats: int = 30,
    min_block_seconds: float = 2e-3,
    budget_seconds: float = math.inf,
    min_repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
) -> dict[str, Timing]:
    """Time callables side by side, so that their ratios do not depend on what the machine did in the meantime.

    Each of `repeats` rounds times one block of every contestant, in an order drawn anew (always the same draws): what a
    contestant leaves behind, in the caches or of its threads, meets each other one alike. A block is as many calls as
    take `min_block_seconds`, found in a warm-up. An untimed call comes first, so that a contestant finds its own data
    in the caches and not its predecessor's, unless a block takes more than 0.1 s. With several `threads`, untimed calls
    go on until its predecessor's have gone to sleep. Rounds end early, but not before `min_repeats`, once
    `budget_seconds` are spent. The garbage collector rests meanwhile. A warning is logged if another process took part
    of a core, which no repeating mends. What a contestant of several `threads` was given does not show it, since
    waiting threads use no CPU: before and after the rounds, that many cores are asked for.

    Returns a Timing for each name, in the order given. ValueError for no contestants or a number out of range.
    """
    if not contestants:
        raise ValueError("nothing to time: no contestants")
    for name, value in (("threads", threads), ("repeats", repeats), ("min_repeats", min_repeats)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not min_block_seconds >= 0:
        raise ValueError(f"min_block_seconds must not be negative, not {min_block_seconds}")
    names = list(contestants)
    blocks: dict[str, list[Block]] = {name: [] for name in names}
    with _no_garbage_collection():
        start = clock()
        order = np.random.default_rng(0)
        free = free_cores(threads)
        sizes = {name: _block_size(contestants[name], min_block_seconds, clock) for name in names}
        for turn in range(repeats):
            if turn >= min_repeats and clock() - start >= budget_seconds:
                break
            for name in order.permutation(names).tolist():
                if threads > 1:
                    _settle(contestants[name], clock)
                elif sizes[name].seconds < LONG:
                    contestants[name]()
                blocks[name].append(_block(contestants[name], sizes[name].loops, clock, cpu_clock))
        free = min(free, free_cores(threads))
    timings = {name: Timing.of(blocks[name], sizes[name].loops, free) for name in names}
    least = min(timing.cores for timing in timings.values())
    if least < STARVED:
        log.warning("the machine is busy: a contestant got only %.0f %% of a core, timings mislead", 100 * least)
    elif free < STARVED:
        log.warning("the machine is busy: only %.0f %% of %d cores are free, timings mislead", 100 * free, threads)
    return timings


def free_cores(count: int, seconds: float = 0.1) -> float:
    """The share of a core that each of `count` working threads gets, at least: 1.0 where nothing else runs.

    The best of three tries, since the system may take a moment to spread threads over cores. Not tried for one thread,
    whose timings show it by themselves.
    """
    if count == 1:
        return 1.0
    data = bytes(1 << 20)  # hashed without the interpreter's lock

    def work(_: int) -> float:
        end, before = time.perf_counter() + seconds, time.thread_time()
        while time.perf_counter() < end:
            hashlib.sha256(data)
        return (time.thread_time() - before) / seconds

    share, tries = 0.0, 3
    with ThreadPoolExecutor(count) as pool:
        while share < STARVED and tries:
            time.sleep(SETTLE)
            share, tries = max(share, min(1.0, *pool.map(work, range(count)))), tries - 1
    return share


class _BlockSize(NamedTuple):
    """Calls that fill a block, and what they take."""

    loops: int
    seconds: float


def _block_size(call: Callable[[], object], min_block_seconds: float, clock: Callable[[], float]) -> _BlockSize:
    """The doubling also warms up caches, thread pools and the clock rate of the core."""
    call()  # compiles, allocates
    loops = 1
    while (seconds := _block(call, loops, clock, clock).seconds) < min_block_seconds:
        loops *= 2
    return _BlockSize(loops, seconds)


def _settle(call: Callable[[], object], clock: Callable[[], float]) -> None:
    """Untimed calls, until the threads of the one before have gone to sleep and the own ones are spread over cores."""
    start = clock()
    while clock() - start < SETTLE:
        call()


def _block(call: Callable[[], object], loops: int, clock: Callable[[], float], cpu_clock: Callable[[], float]) -> Block:
    cpu_start, start = cpu_clock(), clock()
    for _ in range(loops):
        call()
    return Block(clock() - start, cpu_clock() - cpu_start)


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
        raise TimingError(f"threads must be 1 to {usable_cores()} (the cores this process may use), not {count}")
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

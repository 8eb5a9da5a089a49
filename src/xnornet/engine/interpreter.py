"""Running a program: one call into compiled code for a whole layer or network, so Python's overhead is paid once."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
from numba import njit

from xnornet.engine import convolution, kernels, sharing
from xnornet.engine.arrays import integers, records
from xnornet.engine.op import OP, Kind
from xnornet.engine.running import copy_running_xors
from xnornet.engine.vector import kept

OP_SIZE = OP.itemsize


@njit(inline="always")
def _operate(op, record, source, target, bits, images, first, last):  # type: ignore[no-untyped-def]
    """The units of an operation from `first` to before `last`; record: its address. Whether a packed float was NaN."""
    kind = op.kind
    nan = False
    if kind == Kind.BINARY_CONV:
        convolution.binary_convolution(op, record, source, target, bits, images, first, last)
    elif kind == Kind.RUNNING_CONV:
        convolution.running_convolution(op, record, source, target, bits, images, first, last)
    elif kind == Kind.RUNNING_XORS:
        copy_running_xors(op, source, target, images, first, last)
    elif kind == Kind.FLOAT_CONV:
        convolution.float_convolution(op, record, source, target, bits, images, first, last)
    elif kind == Kind.PACK:
        nan = kernels.pack(op, source, target, images, first, last) != 0
    elif kind == Kind.FOLD:
        kernels.fold(op, source, target, images, first, last)
    elif kind == Kind.NORMALIZE:
        kernels.normalize(op, source, target, images, first, last)
    elif kind == Kind.POOL_BITS:
        kernels.pool_bits(op, source, target, images, first, last)
    elif kind == Kind.POOL_FLOATS:
        kernels.pool_floats(op, source, target, images, first, last)
    elif kind == Kind.BATCH_NORM:
        kernels.batch_norm(op, source, target, images, first, last)
    elif kind == Kind.INPUT_SCALE:
        kernels.input_scale(op, source, target, images)
    elif kind == Kind.AVERAGE:
        kernels.average(op, source, target, images)
    return nan


@njit(inline="always")
def _interpret(program, length, x, y, images, batch, progress):  # type: ignore[no-untyped-def]
    """All operations or, with `progress`, those units of each that no other thread has claimed.

    Without `progress`, the inner loop runs once, over all units; with it, once for each unit that is claimed.
    """
    ops = records(program, length)
    nan = False
    for start in range(0, images, batch):
        for index in range(length):
            op, record, place = ops[index], program + index * OP_SIZE, progress + index * sharing.PROGRESS
            source = op.source if op.source else x + start * op.source_bytes
            target = op.target if op.target else y + start * op.target_bytes
            bits = op.bits if op.bits else y + start * op.bits_bytes
            first = sharing.claim(place) if progress else 0
            while first < op.units:
                last = first + 1 if progress else op.units
                nan |= _operate(op, record, source, target, bits, min(batch, images - start), first, last)
                if progress:
                    sharing.finish(place)
                first = sharing.claim(place) if progress else op.units
            if progress:
                sharing.wait(place, op.units)
    return nan


def _compiled(sources: str) -> Callable[..., bool]:
    def run(program, length, x, y, images, batch, progress, team):  # type: ignore[no-untyped-def]
        """Run the `length` records at address `program` over images at address `x`, writing at `y`; `batch` at a time.

        progress, team: 0 or, where a team shares one image, addresses, see `sharing`; progress has `PROGRESS` bytes for
        each record, zero at first. Without a program, help the team until there is nothing to do for a while.
        Returns whether a packed float was NaN.

        Three callers share the loop. Alone, without a team: one passage. The leader of a team: `offer`, the passage on
        the units that it claims, `close`. A helper, without a program: as many passages as it finds jobs.
        """
        sources  # noqa: B018  # part of the cache's key, see below
        helping, looking, nan = program == 0, True, False
        if team and not helping:
            sharing.offer(team)
        while looking:
            job = sharing.last_job(team) if helping else 0
            inside = not helping or sharing.enter(team)
            if inside and helping:
                program, length, x, y, progress = integers(team + sharing.ARGUMENTS, 5)
            if inside:  # in one place: the code is large
                nan = _interpret(program, length, x, y, images, batch, progress)
            if inside and helping:
                sharing.leave(team, nan)
            looking = helping and sharing.another_job(team, job)
        if team and not helping:
            nan |= sharing.close(team)
        return nan

    return kept(run, nogil=True)


def _source_digest() -> str:
    """Hash of the engine's code. Numba's on-disk cache looks at one file's time stamp; the kernels lie in several."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


# A variable that a cached function closes over is part of its cache key.
run = _compiled(_source_digest())


def _address(array):  # type: ignore[no-untyped-def]
    return array.ctypes.data


address = kept(_address)
"""Address of an array's data; ndarray.ctypes takes four times as long."""

# Numba imports 230 modules of its own at the first call of any function: have that done with the other imports, so that
# the first call of a network takes 0.03 s (once compiled) and not 0.5.
address(np.empty(1, np.float32))


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that live as long as the process; the kernels release the GIL."""
    return ThreadPoolExecutor(threads, thread_name_prefix="xnornet")


_teams: dict[int, sharing.Team] = {}
_making = Lock()


def team(helpers: int) -> sharing.Team:
    """So many threads that help with one image, for as long as the process lives."""
    if helpers not in _teams:
        with _making:  # else threads that ask at a time would each make one, and its helpers never end
            if helpers not in _teams:
                _teams[helpers] = sharing.Team(helpers, run)
    return _teams[helpers]


def _forget_threads() -> None:
    global _making  # noqa: PLW0603 (another thread may have held it)
    pool.cache_clear()
    _teams.clear()
    _making = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)  # a fork has the pools, but not their threads

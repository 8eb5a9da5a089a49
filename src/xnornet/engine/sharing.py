"""How threads share the work on one image: each operation is cut into units, which they claim one after the other.

No thread waits for another to begin: one that comes late finds units claimed, and goes on to the operation that still
has some. At the end of each operation all wait for its last units, which the next operation reads.

A network takes less time than waking a thread does. So the helpers of a `Team`, once awake, stay in compiled code and
look for the next job for about a millisecond before they sleep again.

    leader   writes the arguments; `offer`           claims and finishes units, waits; ...        `close`
    helper   `another_job`            `enter`, reads the arguments, claims and finishes ...  `leave`     `another_job`

`close` first bars the door and then waits until nobody is inside: a helper that has not entered by then finds it
barred, and one that has leaves before the arguments are written anew.
"""

from collections.abc import Callable
from threading import Lock, Semaphore, Thread

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types

from xnornet.engine.bits import aligned
from xnornet.engine.vector import FEATURES, i64, intrinsic

LINE = 64
"""Bytes of a cache line; counters that different threads change at a time lie in lines of their own."""

PROGRESS = 2 * LINE
"""Bytes an operation: how many of its units are claimed, and how many finished."""

# Where a team's words lie.
JOB = 0  # number of the job that was offered last
OPEN = LINE  # 1 while helpers may enter
INSIDE = 2 * LINE  # helpers that are looking at the job
NAN = 3 * LINE  # not zero if one of them has met a NaN
ARGUMENTS = 4 * LINE  # program, length, x, y, progress
TEAM = 5 * LINE

LOOKS = 20_000
"""How often a helper looks for a job, in half a millisecond to a whole, before it sleeps."""

PATIENCE = 1_000
"""Looks at a counter before a waiting thread lets others have its core."""

_sched_yield = types.ExternalFunction("sched_yield", types.int32())
_YIELDS = llvm.address_of_symbol("sched_yield") is not None
_PAUSES = "sse2" in FEATURES


@intrinsic
def _add(context, address, number):  # type: ignore[no-untyped-def]
    """Atomically; what was there before."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", builder.inttoptr(args[0], i64.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _swap(context, address, number):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("xchg", builder.inttoptr(args[0], i64.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _read(context, address):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load_atomic(builder.inttoptr(args[0], i64.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _pause(context):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if _PAUSES:
            name = "llvm.x86.sse2.pause"
            hint = builder.module.globals.get(name)
            builder.call(hint or ir.Function(builder.module, ir.FunctionType(ir.VoidType(), []), name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@njit
def _wait(address, wanted):  # type: ignore[no-untyped-def]
    """Until the number at `address` is the wanted one."""
    looks = 0
    while _read(address) != wanted:
        looks += 1
        if _YIELDS and looks > PATIENCE:
            _sched_yield()
        else:
            _pause()


@njit
def claim(progress):  # type: ignore[no-untyped-def]
    """The next unit of the operation whose progress it is; there may be none of that number."""
    return _add(progress, 1)


@njit
def finish(progress):  # type: ignore[no-untyped-def]
    """A unit is done: what it wrote can be read by those that wait."""
    _add(progress + LINE, 1)


@njit
def wait(progress, units):  # type: ignore[no-untyped-def]
    """Until all units are finished."""
    _wait(progress + LINE, units)


@njit
def offer(team):  # type: ignore[no-untyped-def]
    """Let helpers in: a job's arguments are written, its progress is zero."""
    _swap(team + OPEN, 1)
    _add(team + JOB, 1)


@njit
def close(team):  # type: ignore[no-untyped-def]
    """Let no more helpers in, and wait until those inside are out. Whether one of them has met a NaN."""
    _swap(team + OPEN, 0)
    _wait(team + INSIDE, 0)
    return _swap(team + NAN, 0) != 0


@njit
def enter(team):  # type: ignore[no-untyped-def]
    """Whether the job is open. If so, it stays until `leave`."""
    _add(team + INSIDE, 1)
    if _read(team + OPEN):
        return True
    _add(team + INSIDE, -1)
    return False


@njit
def leave(team, nan):  # type: ignore[no-untyped-def]
    """After `enter`; nan: whether the helper has met one."""
    if nan:
        _swap(team + NAN, 1)
    _add(team + INSIDE, -1)


@njit
def last_job(team):  # type: ignore[no-untyped-def]
    """The number of the job that was offered last."""
    return _read(team + JOB)


@njit
def another_job(team, last):  # type: ignore[no-untyped-def]
    """Look for a job after the `last` one. False if there was none for a while."""
    for _ in range(LOOKS):
        if _read(team + JOB) != last:
            return True
        _pause()
    return False


NO_PROGRAM = (0, 0, 0, 0)
"""For `interpreter.run`, in place of a program, its length, x and y: help the team."""

ONE_IMAGE = (1, 1)
"""Images, and how many a pass."""

ALONE = (0, 0)
"""In place of progress and team."""


class Team:
    """Helpers of a thread that runs a program on one image; `run` is `interpreter.run`, which does the helping too."""

    def __init__(self, helpers: int, run: Callable[..., bool]) -> None:
        self._memory = aligned((TEAM // 8,), np.int64)
        self._address = self._memory.ctypes.data
        self._run = run
        self._busy = Lock()
        self._bell = Semaphore(0)
        self._asleep: list[None] = []  # one for each; append and pop are atomic, as += of a number is not
        for number in range(helpers):
            try:
                Thread(target=self._help, name=f"xnornet-helper-{number}", daemon=True).start()
            except RuntimeError:  # the system allows no more threads: those that there are have to do
                break

    def _help(self) -> None:
        while True:
            self._run(*NO_PROGRAM, *ONE_IMAGE, 0, self._address)
            self._asleep.append(None)
            self._bell.acquire()

    def __call__(self, program: int, length: int, x: int, y: int, progress: np.ndarray) -> bool:
        """Run a program on one image, all together; alone if the team helps another thread. True if it met a NaN."""
        if not self._busy.acquire(blocking=False):
            return self._run(program, length, x, y, *ONE_IMAGE, *ALONE)
        try:
            progress[:] = 0
            place = progress.ctypes.data
            self._memory[ARGUMENTS // 8 : ARGUMENTS // 8 + 5] = program, length, x, y, place
            while self._asleep:
                self._bell.release()  # first: interrupted between the two, a helper wakes once for nothing
                self._asleep.pop()
            return self._run(program, length, x, y, *ONE_IMAGE, place, self._address)
        finally:
            self._busy.release()

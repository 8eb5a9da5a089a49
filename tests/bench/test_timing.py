import fcntl
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from xnornet.bench import timing
from xnornet.bench.machine import usable_cores
from xnornet.bench.timing import Block, Timing, compare, timing_lock


class Clock:
    """A clock that only the contestants move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *seconds: float):
        """A callable that takes these durations in turn, over and over."""
        calls = 0

        def call() -> None:
            nonlocal calls
            self.now += seconds[calls % len(seconds)]
            calls += 1

        return call


def test_quartiles_of_known_samples() -> None:
    summary = Timing.of([Block(2 * t, 2 * t) for t in (1.0, 2.0, 3.0, 4.0, 100.0)], loops=2)
    assert (summary.q1, summary.median, summary.q3, summary.repeats) == (2.0, 3.0, 4.0, 5)
    assert summary.iqr == 2.0


@pytest.mark.parametrize(("q3", "noisy"), [(1.09, False), (1.11, True)])
def test_a_timing_is_noisy_above_a_tenth_of_its_median(q3: float, noisy: bool) -> None:
    assert Timing(median=1.0, q1=1.0, q3=q3, repeats=30, loops=1).noisy is noisy


def test_passes_are_summed_up_by_their_median_one() -> None:
    fast, usual, slow = (Timing(m, 0.99 * m, 1.01 * m, repeats=30, loops=2, cores=m) for m in (1.0, 1.05, 1.2))
    summary = Timing.of_passes([slow, fast, usual])
    assert (summary.median, summary.repeats, summary.loops, summary.cores) == (1.05, 90, 2, 1.0)
    assert summary.iqr == pytest.approx(0.021)
    assert summary.disagreement == pytest.approx(0.2)
    assert not any(timing.noisy for timing in (fast, usual, slow))
    assert summary.noisy
    assert not Timing.of_passes([fast, usual]).noisy


def test_no_passes_are_no_timing() -> None:
    with pytest.raises(ValueError, match="at least one pass"):
        Timing.of_passes([])


@pytest.mark.parametrize(("share", "starved"), [(1.0, False), (2.0, False), (0.95, False), (0.5, True)])
def test_a_shared_core_is_noticed_without_any_spread(
    share: float, starved: bool, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    summary = compare({"x": clock.taking(1.0)}, clock=clock, cpu_clock=lambda: share * clock.now)["x"]
    assert summary.iqr == 0
    assert summary.cores == pytest.approx(share)
    assert summary.starved is summary.noisy is starved
    assert ("only 50 % of a core" in caplog.text) is starved


def test_waiting_is_not_work() -> None:
    """The real clocks: a process that sleeps does not get its core, as one that another process displaces."""
    assert compare({"asleep": lambda: time.sleep(2e-3)}, repeats=3)["asleep"].starved


def test_a_core_that_only_one_of_several_threads_misses_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shares = iter([1.0, 0.5])  # free before, half of it taken when the rounds end
    monkeypatch.setattr(timing, "free_cores", lambda count: next(shares))
    clock = Clock()
    summary = compare({"x": clock.taking(1.0)}, threads=2, clock=clock, cpu_clock=clock)["x"]
    assert summary.cores == pytest.approx(1.0)
    assert summary.noisy
    assert Timing.of_passes([summary, Timing(1.0, 1.0, 1.0, repeats=1, loops=1)]).noisy
    assert "only 50 % of 2 cores are free" in caplog.text


@pytest.mark.parametrize(("threads", "seconds", "untimed"), [(1, 0.02, 1), (1, 0.2, 0), (2, 0.02, 2)])
def test_a_block_finds_warm_caches_and_sleeping_threads(
    threads: int, seconds: float, untimed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "free_cores", lambda count: 1.0)
    calls, clock = [], Clock()
    call = clock.taking(seconds)  # of the 0.03 s to settle
    compare({"x": lambda: calls.append(call())}, threads=threads, repeats=5, clock=clock, cpu_clock=clock)
    assert len(calls) == 2 + 5 * (untimed + 1)  # two to warm up


def test_busy_cores_are_not_free() -> None:
    """Real processes: as many as there are cores leave two threads about half of theirs."""
    cores = usable_cores()
    spin = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    others = [subprocess.Popen(spin, stdout=subprocess.PIPE) for _ in range(2 * cores)]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        assert timing.free_cores(max(2, cores), seconds=0.3) < 0.75
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert timing.free_cores(1) == 1.0


def test_compare_recovers_what_each_contestant_takes() -> None:
    clock = Clock()
    timings = compare({"slow": clock.taking(0.3), "fast": clock.taking(0.01)}, repeats=7, clock=clock, cpu_clock=clock)
    assert list(timings) == ["slow", "fast"]
    assert timings["slow"].median == pytest.approx(0.3)
    assert timings["fast"].median == pytest.approx(0.01)
    assert timings["slow"].repeats == timings["fast"].repeats == 7


def test_the_median_ignores_a_stray_block() -> None:
    clock = Clock()
    # Warm-up takes the first two calls; one block in ten is then a hundred times slower.
    jittery = clock.taking(1, 1, *[1] * 8, 100, 1)
    summary = compare({"jittery": jittery}, repeats=10, min_block_seconds=0, clock=clock, cpu_clock=clock)["jittery"]
    assert summary.median == pytest.approx(1)
    assert not summary.noisy


def test_a_block_has_as_many_calls_as_fill_it() -> None:
    clock = Clock()
    timings = compare(
        {"short": clock.taking(1e-4), "long": clock.taking(1.0)}, min_block_seconds=1e-2, clock=clock, cpu_clock=clock
    )
    assert timings["long"].loops == 1
    assert 1e-2 <= timings["short"].loops * 1e-4 <= 2.1e-2
    assert timings["short"].median == pytest.approx(1e-4)


def test_every_contestant_follows_each_other_one() -> None:
    calls: list[str] = []
    clock = Clock()

    def contestant(name: str):
        def call() -> None:
            calls.append(name)
            clock.now += 1

        return call

    compare({name: contestant(name) for name in "abc"}, repeats=100, clock=clock, cpu_clock=clock)
    rounds = np.array(calls[-300:]).reshape(100, 3)  # after the warm-up
    assert (np.sort(rounds) == [*"abc"]).all()
    pairs = Counter(zip(calls[-300:], calls[-299:], strict=False))
    assert all(pairs[first, then] > 30 for first in "abc" for then in "abc" if first != then)


def test_a_drifting_machine_leaves_ratios_alone() -> None:
    """The reason to interleave: one after the other, the second contestant would look three times slower."""
    clock = Clock()
    drift = 1.0

    def contestant(seconds: float):
        def call() -> None:
            nonlocal drift
            clock.now += seconds * drift
            drift *= 1.01

        return call

    timings = compare({"one": contestant(1.0), "two": contestant(2.0)}, repeats=50, clock=clock, cpu_clock=clock)
    assert timings["two"].median / timings["one"].median == pytest.approx(2, rel=0.02)


def test_a_budget_ends_the_rounds_but_not_before_the_least() -> None:
    clock = Clock()
    assert (
        compare({"x": clock.taking(1.0)}, repeats=50, budget_seconds=12, clock=clock, cpu_clock=clock)["x"].repeats
        == 10
    )
    assert (
        compare({"x": clock.taking(1.0)}, repeats=50, budget_seconds=0, min_repeats=3, clock=clock, cpu_clock=clock)[
            "x"
        ].repeats
        == 3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"contestants": {}}, "no contestants"),
        ({"repeats": 0}, "repeats must be at least 1, not 0"),
        ({"min_repeats": 0}, "min_repeats must be at least 1, not 0"),
        ({"min_block_seconds": float("nan")}, "min_block_seconds"),
    ],
)
def test_compare_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(**{"contestants": {"x": lambda: None}, **arguments})


def test_an_error_of_a_contestant_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        compare({"broken": lambda: 1 / 0})


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()
    with timing.threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [0, -1, 10_000])
def test_threads_beyond_the_machine_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"1 to {usable_cores()} .*, not {count}"), timing.threads(count):
        pass


HOLD = """
import sys
from pathlib import Path
from xnornet.bench.timing import timing_lock
with timing_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
    Path(sys.argv[2]).write_text("done")
"""


def test_the_lock_excludes_a_second_process_and_names_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock, done = tmp_path / "lock", tmp_path / "done"
    command = [sys.executable, "-c", HOLD, str(lock), str(done)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        def release(_: object) -> bool:
            """The holder ends only once we have said that we wait: without the message the test would hang."""
            assert holder.stdin is not None
            assert not done.exists()
            holder.stdin.write("\n")
            holder.stdin.flush()
            return True

        timing.log.addFilter(release)
        try:
            with timing_lock(lock):
                assert done.exists()
        finally:
            timing.log.removeFilter(release)
    assert f"process {holder.pid} holds {lock}" in caplog.text


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), str(tmp_path / "done")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with timing_lock(tmp_path / "lock"):
        assert not (tmp_path / "done").exists()


def is_held(lock: Path) -> bool:
    """Whether another process would have to wait for it."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_lock_can_be_entered_again_and_is_free_afterwards(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for _ in range(2):
        with timing_lock(lock):
            with timing_lock(lock):
                assert is_held(lock)
            assert is_held(lock)
        assert not is_held(lock)


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for _ in range(2):
        with pytest.raises(KeyError), timing_lock(lock):
            assert is_held(lock)
            raise KeyError
        assert not is_held(lock)

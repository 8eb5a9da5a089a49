import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from xnornet.bench import sweeps
from xnornet.bench.machine import usable_cores
from xnornet.bench.sweeps import AXES, sweep
from xnornet.bench.theory import Peaks, speedup_law
from xnornet.bench.timing import Timing

PEAKS = Peaks(popcount=600.0, float32=30.0)
QUICK: dict[str, Any] = {"peaks": PEAKS, "passes": 1, "repeats": 30, "budget_seconds": 0}


def test_one_row_a_value_with_consistent_columns() -> None:
    frame, peaks = sweep("output_channels", [3, 8], **QUICK)
    assert peaks is PEAKS
    assert list(frame.value) == [3, 8]
    for column in ("ours", "packing", "kernel", "torch_nchw", "torch_channels_last", "torch", "float32_loop"):
        assert (frame[f"{column}_seconds"] > 0).all()
        assert (frame[f"{column}_iqr"] >= 0).all()
    assert (frame.torch_seconds == frame[["torch_nchw_seconds", "torch_channels_last_seconds"]].min(axis=1)).all()
    np.testing.assert_allclose(frame.speedup_torch, frame.torch_seconds / frame.ours_seconds)
    np.testing.assert_allclose(frame.speedup_loop, frame.float32_loop_seconds / frame.ours_seconds)
    np.testing.assert_allclose(frame.speedup_kernel, frame.torch_seconds / frame.kernel_seconds)
    assert frame.law_paper.tolist() == [speedup_law(20, 5)] * 2
    assert frame.law_machine.tolist() == [speedup_law(20, 5, 20.0)] * 2
    assert (frame.macs == frame.macs_with_padding).all()  # this layer has none
    assert (frame.repeats == 5).all()
    assert not frame.isna().any(axis=None)


def test_passes_are_made_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, visits = sweeps._in_fresh_process, []

    def counted(*work: Any) -> Any:
        visits.append(work)
        return fresh(*work)

    monkeypatch.setattr(sweeps, "_in_fresh_process", counted)
    frame, _ = sweep("output_channels", [3], **QUICK | {"passes": 2})
    assert frame.repeats.tolist() == [10] and len(visits) == 2
    monkeypatch.setattr(sweeps, "_visit", os.getpid)
    assert len({os.getpid(), *(fresh() for _ in range(2))}) == 3


def test_a_point_is_timed_on_as_many_threads_as_it_says(
    threads_while_timing: Callable[[ModuleType], list[int]],
) -> None:
    seen = threads_while_timing(sweeps)
    sweep("output_channels", [3], **QUICK)
    assert seen == [1]


@pytest.mark.parametrize("drift", [1.08, 1.15])
def test_a_speedup_that_drifts_between_passes_is_marked(drift: float) -> None:
    steady = {name: Timing(1.0, 1.0, 1.0, repeats=30, loops=1) for name in sweeps._COLUMNS.values()}
    half = {name: Timing(drift**0.5, drift**0.5, drift**0.5, 30, 1) for name in sweeps._COLUMNS.values()}
    other = half | {"ours": replace(half["ours"], median=drift**-0.5)}
    row = sweeps._row(3, AXES["output_channels"](3), [steady, half, other], PEAKS)
    assert row["noisy"] is row["loop_noisy"] is (drift > 1.1)


@pytest.mark.parametrize(
    ("axis", "value"), [("input_channels", 1), ("filter_size", 1), ("image_size", 3), ("threads", 1)]
)
def test_small_points_of_every_kind(axis: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small = sweeps.replace(sweeps._PAPER, in_channels=8, out_channels=8)
    monkeypatch.setattr(sweeps, "_PAPER", small)
    frame, _ = sweep(axis, [value], **QUICK | {"repeats": 1})
    assert list(frame.value) == [value]


def test_each_axis_moves_its_own_field_only() -> None:
    fields = {
        "input_channels": "in_channels",
        "output_channels": "out_channels",
        "image_size": "size",
        "batch": "batch",
    }
    for axis, field in fields.items():
        one, two = AXES[axis](6), AXES[axis](7)
        assert getattr(two, field) == 7
        assert sweeps.replace(two, **{field: 6}) == one


@pytest.mark.parametrize(("filter_size", "out_size"), [(1, 14), (2, 13), (3, 14), (20, 13)])
def test_filters_keep_the_image_size(filter_size: int, out_size: int) -> None:
    assert AXES["filter_size"](filter_size).out_size == out_size


@pytest.mark.parametrize(
    ("axis", "values", "message"),
    [
        ("colour", [1], "unknown axis 'colour': choose from input_channels"),
        ("input_channels", [], "input_channels: name at least one value"),
        ("input_channels", [8, 0], "input_channels must be at least 1, not 0"),
        ("filter_size", [-3], "filter_size must be at least 1, not -3"),
    ],
)
def test_refused_before_anything_is_timed(
    axis: str, values: list[int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "_time", lambda *_: pytest.fail("timed something"))
    with pytest.raises(ValueError, match=message):
        sweep(axis, values, **QUICK)


def test_no_passes_are_refused() -> None:
    with pytest.raises(ValueError, match="passes must be at least 1, not 0"):
        sweep("batch", [1], **QUICK | {"passes": 0})


def test_a_filter_larger_than_the_image_names_axis_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sweeps.AXES, "filter_size", lambda value: sweeps.replace(sweeps._PAPER, kernel=value, padding=0)
    )
    with pytest.raises(ValueError, match="filter_size 15: kernel 15 is larger than the padded image"):
        sweep("filter_size", [3, 15], **QUICK)


def test_more_threads_than_cores_are_left_out() -> None:
    assert list(sweeps._layers("threads", [1, usable_cores() + 1])) == [1]


def test_ctrl_c_ends_the_other_process_without_a_word_of_its_own(tmp_path: Path) -> None:
    """It comes while that one imports, which takes seconds: there, nobody catches it."""
    slow = "import multiprocessing, time\nif multiprocessing.parent_process():\n    time.sleep(60)\ndef visit(): pass\n"
    (tmp_path / "slow.py").write_text(slow)
    code = "import slow; from xnornet.bench import sweeps; sweeps._visit = slow.visit; sweeps._in_fresh_process()"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    time.sleep(6)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert said.count("Traceback") == 1 and "SpawnProcess" not in said, said

"""Speed-up against one parameter of a layer at a time, as the paper's figures 4b and 4c plot it, beside its laws."""

import logging
import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from xnornet.bench.baselines import BASELINES, LOOP, TORCH_FLOAT32
from xnornet.bench.machine import usable_cores
from xnornet.bench.ours import END_TO_END, KERNEL, PACKING, ours
from xnornet.bench.theory import Peaks, measure_peaks, speedup_law
from xnornet.bench.timing import NOISY, Timing, TimingError, compare, spread, threads, timing_lock
from xnornet.bench.workload import LAYERS, Layer, Problem, line_up

log = logging.getLogger(__name__)

_PAPER = LAYERS["256@14"]
_LENET = replace(LAYERS["lenet-conv"], batch=1)

AXES: Mapping[str, Callable[[int], Layer]] = {
    # Paper, fig. 4b: 256 filters of 3x3 on 14x14, more and more input channels.
    "input_channels": lambda value: replace(_PAPER, in_channels=value),
    # LeNet's binary convolution, 20 channels under 5x5 at 12x12, more and more filters.
    "output_channels": lambda value: replace(_LENET, out_channels=value),
    # Paper, fig. 4c: 256 channels and filters on 14x14. Padding keeps the image size, or one less for an even filter.
    "filter_size": lambda value: replace(_PAPER, kernel=value, padding=(value - 1) // 2),
    "image_size": lambda value: replace(_PAPER, size=value),
    "batch": lambda value: replace(_PAPER, batch=value),
    "threads": lambda value: replace(_PAPER, batch=8),
}

_COLUMNS = {
    "ours": END_TO_END,
    "packing": PACKING,
    "kernel": KERNEL,
    "torch_nchw": TORCH_FLOAT32[0],
    "torch_channels_last": TORCH_FLOAT32[1],
    "float32_loop": LOOP,
}


def sweep(
    axis: str,
    values: Sequence[int],
    *,
    passes: int,
    repeats: int,
    budget_seconds: float,
    peaks: Peaks | None = None,
) -> tuple[pd.DataFrame, Peaks]:
    """Time a layer at each value of one axis: ours and its parts, torch float32, a plain float32 loop.

    axis: one of `AXES`, which say what stays fixed. One thread, but on the axis `threads`, whose values are those of
    ours and torch; the plain loop always has one. passes: how often to visit all values, each time in a fresh process,
    so that what one process or one minute does to its timings shows; 1 stays in this one. repeats, budget_seconds:
    rounds per value and pass, and the time after which they end early, but not before the fifth. peaks: of this
    machine, for the law of its own; measured if not given.

    Returns the rows and the peaks. One row a value, in column `value`. In seconds per call, `X_seconds` (median) and
    `X_iqr`, X being ours (packing and kernel in one), packing, kernel (bits in, float32 out), torch_nchw,
    torch_channels_last, torch (the faster of the two, named in torch_layout) and float32_loop. Speed-ups of ours:
    speedup_torch, speedup_loop; of the kernel alone over torch: speedup_kernel. The laws of `speedup_law`: law_paper,
    law_machine. Then macs (`macs_inside`), macs_with_padding, repeats, noisy (`Timing.noisy` of ours, a part of it or
    the faster torch, or speedup_torch differs by more than 10 % between passes) and loop_noisy (the same of the plain
    loop and speedup_loop).

    More threads than this process may use are left out, with a warning. TimingError, before anything is timed, for an
    unknown axis, an impossible value, none that is left, or no passes.
    """
    layers = _layers(axis, values)
    if passes < 1:
        raise TimingError(f"passes must be at least 1, not {passes}")
    counts = {value: value if axis == "threads" else 1 for value in layers}
    work = (layers, counts, repeats, budget_seconds)
    with timing_lock():
        peaks = peaks or measure_peaks()
        timed = [_visit(*work)] if passes == 1 else [_in_fresh_process(*work) for _ in range(passes)]
    rows = [_row(value, layer, [one[value] for one in timed], peaks) for value, layer in layers.items()]
    return pd.DataFrame(rows), peaks


def _layers(axis: str, values: Sequence[int]) -> dict[int, Layer]:
    if axis not in AXES:
        raise TimingError(f"unknown axis {axis!r}: choose from {', '.join(AXES)}")
    if not values:
        raise TimingError(f"{axis}: name at least one value")
    layers = {}
    for value in values:
        if value < 1:
            raise TimingError(f"{axis} must be at least 1, not {value}")
        if axis == "threads" and value > usable_cores():
            log.warning("threads %d: left out, this process may use %d cores", value, usable_cores())
            continue
        try:
            layers[value] = AXES[axis](value)
        except ValueError as error:
            raise TimingError(f"{axis} {value}: {error}") from None
    if not layers:
        raise TimingError(f"threads: this process may use {usable_cores()} cores: name a value up to that")
    return layers


def _in_fresh_process(*work: Any) -> dict[int, dict[str, Timing]]:
    # Spawned, not forked: a fork would inherit this process's memory, and the locks of its thread pools.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        # Ctrl-C is for this process to report; the other would end in a traceback of its own.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            visit = process.submit(_visit, *work)
        finally:
            signal.signal(signal.SIGINT, handler)
        try:
            return visit.result()
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.kill()
            raise


def _visit(
    layers: Mapping[int, Layer], counts: Mapping[int, int], repeats: int, budget_seconds: float
) -> dict[int, dict[str, Timing]]:
    """One pass over all values: their contestants' timings."""
    timed = {}
    for value, layer in layers.items():
        with threads(counts[value]):
            timed[value] = _time(layer, counts[value], repeats, budget_seconds)
    return timed


def _time(layer: Layer, count: int, repeats: int, budget_seconds: float) -> dict[str, Timing]:
    builders, problem = {**ours(count), **BASELINES}, Problem(layer)
    ready, _ = line_up({name: partial(builders[name], problem) for name in _COLUMNS.values()})
    calls = {name: contestant.call for name, contestant in ready.items()}
    return compare(calls, threads=count, repeats=repeats, budget_seconds=budget_seconds)


def _row(value: int, layer: Layer, passes: Sequence[Mapping[str, Timing]], peaks: Peaks) -> dict[str, Any]:
    timings = {name: Timing.of_passes([one[name] for one in passes]) for name in _COLUMNS.values()}
    seconds: dict[str, Any] = {}
    for column, name in _COLUMNS.items():
        seconds |= {f"{column}_seconds": timings[name].median, f"{column}_iqr": timings[name].iqr}
    layout = min(("nchw", "channels_last"), key=lambda name: seconds[f"torch_{name}_seconds"])
    torch_seconds = seconds[f"torch_{layout}_seconds"]
    torch_name = _COLUMNS[f"torch_{layout}"]

    def disagree(baseline: str) -> bool:
        return spread([one[baseline].median / one[END_TO_END].median for one in passes]) > NOISY

    return {
        "value": value,
        **seconds,
        "torch_seconds": torch_seconds,
        "torch_iqr": seconds[f"torch_{layout}_iqr"],
        "torch_layout": layout,
        "speedup_torch": torch_seconds / seconds["ours_seconds"],
        "speedup_loop": seconds["float32_loop_seconds"] / seconds["ours_seconds"],
        "speedup_kernel": torch_seconds / seconds["kernel_seconds"],
        "law_paper": speedup_law(layer.in_channels, layer.kernel),
        "law_machine": speedup_law(layer.in_channels, layer.kernel, peaks.ratio),
        "macs": layer.macs_inside,
        "macs_with_padding": layer.macs,
        "repeats": min(timing.repeats for timing in timings.values()),
        "noisy": disagree(torch_name) or any(timings[name].noisy for name in (END_TO_END, PACKING, KERNEL, torch_name)),
        "loop_noisy": disagree(LOOP) or timings[LOOP].noisy,
    }

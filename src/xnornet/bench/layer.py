"""Our engine beside every other, layer by layer: `python -m xnornet.bench.layer`.

The layers of ResNet-18's stages and LeNet-5's two binary layers (`LAYERS`). A peer that is missing, or wrong, is left
out and named below the table, with the reason.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from xnornet.bench.baselines import BASELINES, TORCH_BFLOAT16, TORCH_INT8
from xnornet.bench.machine import describe, fingerprint, usable_cores
from xnornet.bench.ours import BITS, CHAIN, CHAIN_RAW, ours
from xnornet.bench.peers import OPENVINO, OPENVINO_CHAIN, OPENVINO_CHAIN_RAW, peers
from xnornet.bench.theory import Peaks, measure_peaks
from xnornet.bench.timing import Timing, compare, timing_lock
from xnornet.bench.timing import threads as use_threads
from xnornet.bench.workload import CHAIN_LENGTH, LAYERS, Layer, Problem, line_up
from xnornet.engine.counter import GROUPS
from xnornet.files import write_csv
from xnornet.layer_table import MEAN_OF, left_out, ratios_table, times_table

CHAINS: Mapping[str, tuple[str, str]] = {CHAIN_RAW: (BITS, CHAIN), OPENVINO_CHAIN_RAW: (OPENVINO, OPENVINO_CHAIN)}
"""Of each contestant of `CHAIN_LENGTH` layers the one of a single layer, and what both show: one inside a chain."""

UNTOLD = "the chain took no longer than a single layer, or that one is left out"
"""Why one inside a chain has no time though the chain has one."""


def measure(
    layers: Mapping[str, Layer], *, threads: int = 1, repeats: int = 30, with_peers: bool = True
) -> tuple[pd.DataFrame, Peaks]:
    """Time every contestant on each layer, interleaved, each verified first. ValueError as for `compare`.

    Returns (rows, peaks of one core). Rows: one per layer and contestant: layer, contestant, threads, seconds (a call;
    NaN for one that was left out), iqr, noisy, starved (see `Timing`), repeats, macs (without those with the padding),
    macs_with_padding, note (why it was left out, or None).
    """
    others = peers(threads) if with_peers else {}
    builders = {**ours(threads), **BASELINES, **others}
    rows: list[dict[str, Any]] = []
    with timing_lock(), use_threads(threads):
        peaks = measure_peaks()
        for name, layer in layers.items():
            problem = Problem(layer)
            bound = {key: partial(build, problem) for key, build in builders.items()}
            ready, skipped = line_up(bound, optional={*others, TORCH_BFLOAT16, TORCH_INT8})
            timed = compare(
                {key: contestant.call for key, contestant in ready.items()}, threads=threads, repeats=repeats
            )
            for key, timing in _in_chains(timed).items():
                rows.append(_row(name, layer, key, timing) | {"note": None if timing else UNTOLD})
            for key, why in skipped.items():
                _, shown = CHAINS.get(key, (None, key))
                rows.append(_row(name, layer, shown, None) | {"note": why})
        peaks = peaks.higher(measure_peaks())  # once more, lest the first time was a slow moment of the machine's
    return pd.DataFrame(rows).assign(threads=threads), peaks


def _in_chains(timed: Mapping[str, Timing]) -> dict[str, Timing | None]:
    """The timings, with those of whole chains made into those of one layer inside; None where they do not tell it."""
    shown: dict[str, Timing | None] = {}
    for key, timing in timed.items():
        if key in CHAINS:
            one, inside = CHAINS[key]
            shown[inside] = chain_timing(timed.get(one), timing)
        else:
            shown[key] = timing
    return shown


def chain_timing(one: Timing | None, many: Timing) -> Timing | None:
    """One layer in a chain, bits in and bits out: (T(m) - T(1)) / (m - 1), with quartiles that add up both spreads.

    None where that of one layer is missing, or the chain took no longer: the machine was too busy to tell.
    """
    if one is None or many.median <= one.median:
        return None
    steps = CHAIN_LENGTH - 1
    median, half = (many.median - one.median) / steps, (many.iqr + one.iqr) / steps / 2
    cores, free = min(one.cores, many.cores), min(one.free, many.free)
    return Timing(median, median - half, median + half, many.repeats, many.loops, cores, free=free)


def _row(name: str, layer: Layer, contestant: str, timing: Timing | None) -> dict[str, Any]:
    return {
        "layer": name,
        "contestant": contestant,
        "seconds": timing.median if timing else math.nan,
        "iqr": timing.iqr if timing else math.nan,
        "noisy": timing is not None and timing.noisy,
        "starved": timing is not None and timing.starved,
        "repeats": timing.repeats if timing else 0,
        "macs": layer.macs_inside,
        "macs_with_padding": layer.macs,
        "note": None,
    }


def present(rows: pd.DataFrame, peaks: Peaks) -> str:
    """The tables as text: microseconds, then ratios and shares of the peaks, then what was left out."""
    parts = [_tabulate(times_table(rows))]
    if rows.noisy.any():
        parts.append("* marks an interquartile range above 10 % of the median, or a core shared with another process.")
    parts += [
        _tabulate(ratios_table(rows, asdict(peaks))),
        "64@56: 64 channels in and out, 56x56 image, 3x3 kernel, batch 1, and so on; lenet-*: LeNet-5's binary layers, "
        "batch 64.",
        f"The mean is that of {', '.join(MEAN_OF)}. Peaks of one core, measured: popcount loop {peaks.popcount:.0f}, "
        f"float32 FMA {peaks.float32:.1f} billion multiply-accumulates a second, ratio {peaks.ratio:.1f}. Shares of a "
        "peak are those of the products with pixels of the image; products with the padding, 9 % at 14x14, need not be "
        "done, and count in the one row that says so, as in most papers.",
    ]
    if GROUPS:
        parts.append(
            "Where a pixel's words, of 32 channels, are a multiple of four (128 channels, 256...), the engine counts "
            "them in groups, with up to an eighth fewer instructions than the popcount loop."
        )
    if rows.threads.max() > 1:
        parts.append("The plain loop ran on one thread, all others on more.")
    if rows.starved.any():
        parts.append("The machine was busy with other work: neither times nor ratios are to be trusted.")
    if missing := left_out(rows):
        parts.append("\n  ".join(["Left out:", *missing]))
    return "\n\n".join(parts)


def _tabulate(table: pd.DataFrame) -> str:
    return tabulate(
        table,
        headers="keys",
        showindex=False,
        disable_numparse=True,
        colalign=["left", *("right" for _ in table.columns[1:])],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m xnornet.bench.layer", description="Time single layers: our engine beside every other installed."
    )
    parser.add_argument("--layers", nargs="+", metavar="NAME", default=list(LAYERS), help=f"of {', '.join(LAYERS)}")
    parser.add_argument("--repeats", type=int, default=30, help="timed blocks of each contestant (default: 30)")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of all but the plain loop, which has one (default: 1)"
    )
    parser.add_argument("--no-peers", action="store_true", help="without ONNX Runtime and OpenVINO")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all timings to this file")
    options = parser.parse_args(arguments)
    for name in options.layers:
        if name not in LAYERS:
            parser.error(f"unknown layer {name!r}: choose from {', '.join(LAYERS)}")
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, not {options.repeats}")
    if not 1 <= options.threads <= usable_cores():
        parser.error(f"--threads must be 1 to {usable_cores()} (the cores it may use), not {options.threads}")
    if options.csv and options.csv.is_dir():
        parser.error(f"--csv {options.csv} is a folder, not a file")
    rows, peaks = measure(
        {name: LAYERS[name] for name in options.layers},
        threads=options.threads,
        repeats=options.repeats,
        with_peers=not options.no_peers,
    )
    count = f"{options.threads} thread{'s' * (options.threads > 1)}"
    print(f"{describe(fingerprint())}; {count}, median of {options.repeats}\n")
    print(present(rows, peaks))
    if options.csv:
        write_csv(options.csv, rows)


if __name__ == "__main__":
    main()

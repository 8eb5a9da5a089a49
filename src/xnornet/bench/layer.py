"""Our engine beside every other, layer by layer: `python -m xnornet.bench.layer`.

The layers of ResNet-18's stages and LeNet-5's two binary layers (`LAYERS`). A peer that is missing, or wrong, is left
out and named below the table, with the reason.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from xnornet.bench.baselines import BASELINES, LOOP, TORCH_BFLOAT16, TORCH_FLOAT32, TORCH_INT8
from xnornet.bench.machine import describe, fingerprint, usable_cores
from xnornet.bench.ours import CHAIN, END_TO_END, KERNEL, ours
from xnornet.bench.peers import (
    ONNXRUNTIME_FLOAT32,
    ONNXRUNTIME_INT8,
    OPENVINO,
    OPENVINO_CHAIN,
    OPENVINO_CHAIN_RAW,
    chain_timing,
    check_bfloat16,
    peers,
)
from xnornet.bench.theory import Peaks, measure_peaks
from xnornet.bench.timing import Timing, compare, timing_lock
from xnornet.bench.timing import threads as use_threads
from xnornet.bench.workload import LAYERS, RESNET_LAYERS, Contestant, Layer, Problem, line_up
from xnornet.files import write_csv


@dataclass(frozen=True)
class Measurement:
    """Timings by layer and contestant, reasons of those left out likewise, and the peaks of one core."""

    layers: Mapping[str, Layer]
    timings: Mapping[str, Mapping[str, Timing]]
    skipped: Mapping[str, Mapping[str, str]]
    peaks: Peaks
    threads: int

    def seconds(self, layer: str, *contestants: str) -> float | None:
        """Median of the fastest of these contestants; None if none of them was timed."""
        timings = self.timings[layer]
        return min((timings[name].median for name in contestants if name in timings), default=None)

    def ratio(self, layer: str, slow: Sequence[str], fast: str) -> float | None:
        """How many times the fastest of `slow` takes what `fast` takes."""
        above, below = self.seconds(layer, *slow), self.seconds(layer, fast)
        return None if above is None or below is None else above / below

    def share_of_peak(
        self, layer: str, contestants: Sequence[str], peak: float, *, with_padding: bool = False
    ) -> float | None:
        """Multiply-accumulates a second over a peak in 10^9 a second and core.

        with_padding: those with the padding counted too, which need not be done.
        """
        seconds = self.seconds(layer, *contestants)
        macs = self.layers[layer].macs if with_padding else self.layers[layer].macs_inside
        return None if seconds is None else macs / seconds / (1e9 * peak * self.threads)

    def rows(self) -> pd.DataFrame:
        """One row a layer and contestant: threads, seconds, iqr, noisy, repeats, gmacs, ours_is_faster_by.

        gmacs: 10^9 `macs_inside` a second; ours_is_faster_by: its time over ours, floats in and out.
        """
        return pd.DataFrame(
            {
                "layer": layer,
                "contestant": name,
                "threads": self.threads,
                "seconds": timing.median,
                "iqr": timing.iqr,
                "noisy": timing.noisy,
                "repeats": timing.repeats,
                "gmacs": self.layers[layer].macs_inside / timing.median / 1e9,
                "ours_is_faster_by": self.ratio(layer, [name], END_TO_END),
            }
            for layer, timings in self.timings.items()
            for name, timing in timings.items()
        )


def measure(
    layers: Mapping[str, Layer], *, threads: int = 1, repeats: int = 30, with_peers: bool = True
) -> Measurement:
    """Time every contestant on each layer, interleaved, each verified first. ValueError as for `compare`."""
    others = peers(threads) if with_peers else {}
    builders = {**ours(threads), **BASELINES, **others, TORCH_BFLOAT16: _bfloat16}
    timings: dict[str, dict[str, Timing]] = {}
    skipped: dict[str, dict[str, str]] = {}
    with timing_lock(), use_threads(threads):
        peaks = measure_peaks()
        for name, layer in layers.items():
            problem = Problem(layer)
            bound = {key: partial(build, problem) for key, build in builders.items()}
            ready, skipped[name] = line_up(bound, optional={*others, TORCH_BFLOAT16, TORCH_INT8})
            timed = compare(
                {key: contestant.call for key, contestant in ready.items()}, threads=threads, repeats=repeats
            )
            chain = chain_timing(timed)
            timed.pop(OPENVINO_CHAIN_RAW, None)
            timings[name] = timed if chain is None else {**timed, OPENVINO_CHAIN: chain}
        peaks = peaks.higher(measure_peaks())  # once more, lest the first time was a slow moment of the machine's
    return Measurement(layers, timings, skipped, peaks, threads)


def _bfloat16(problem: Problem) -> Contestant:
    check_bfloat16()
    return BASELINES[TORCH_BFLOAT16](problem)


_INT8 = (TORCH_INT8, ONNXRUNTIME_INT8)


def present(measurement: Measurement, *, markdown: bool = False) -> str:
    """The tables as text: microseconds, then ratios and shares of the peaks, then what was left out."""
    style = "github" if markdown else "simple"
    names = list(measurement.layers)
    contestants = list(dict.fromkeys(name for timings in measurement.timings.values() for name in timings))
    times = [[name, *(_microseconds(measurement.timings[layer].get(name)) for layer in names)] for name in contestants]
    peaks = measurement.peaks
    marked = any("~" in cell for row in times for cell in row)
    parts = [
        tabulate(times, ["µs per call", *names], tablefmt=style, disable_numparse=True, colalign=_align(names)),
        *(["~ marks an interquartile range above 10 % of the median, or a core shared with another process."] * marked),
        tabulate(_ratios(measurement), ["", *names, "geometric mean"], tablefmt=style, disable_numparse=True,
                 colalign=_align([*names, ""])),
        "64@56: 64 channels in and out, 56x56 image, 3x3 kernel, batch 1, and so on; lenet-*: LeNet-5's binary layers, "
        f"batch 64.\n\nThe mean is that of {', '.join(RESNET_LAYERS)}. Peaks of one core, measured: popcount loop "
        f"{peaks.popcount:.0f}, float32 FMA {peaks.float32:.1f} billion multiply-accumulates a second, "
        f"ratio {peaks.ratio:.1f}. Shares of a peak are those of the products with pixels of the image; products with "
        "the padding, 9 % at 14x14, need not be done, and count in the one row that says so, as in most papers.",
    ]  # fmt: skip
    reasons: dict[str, list[str]] = {}
    for layer, left_out in measurement.skipped.items():
        for name, why in left_out.items():
            shown = OPENVINO_CHAIN if name == OPENVINO_CHAIN_RAW else name
            reasons.setdefault(f"{shown}: {why}", []).append(layer)
    if any(timing.starved for timings in measurement.timings.values() for timing in timings.values()):
        parts.append("The machine was busy with other work: neither times nor ratios are to be trusted.")
    if reasons:
        bullet = "- " if markdown else "  "
        parts.append("Left out:\n" + "\n".join(f"{bullet}{why} ({', '.join(at)})" for why, at in reasons.items()))
    return "\n\n".join(parts)


def _ratios(measurement: Measurement) -> list[list[str]]:
    """Rows of the second table: over whom, how many times faster; and shares of the peaks."""
    versus = {
        "ours over torch float32, better layout": (TORCH_FLOAT32, END_TO_END),
        "ours over ONNX Runtime float32": ((ONNXRUNTIME_FLOAT32,), END_TO_END),
        "ours over the better int8": (_INT8, END_TO_END),
        "ours over OpenVINO binary": ((OPENVINO,), END_TO_END),
        "chain over OpenVINO's chain": ((OPENVINO_CHAIN,), CHAIN),
        "ours over the plain loop": ((LOOP,), END_TO_END),
    }
    popcount, fma = measurement.peaks.popcount, measurement.peaks.float32
    shares = {
        "kernel, of the popcount peak": ((KERNEL,), popcount, False),
        "in a chain, of the popcount peak": ((CHAIN,), popcount, False),
        "the same, padding counted": ((CHAIN,), popcount, True),
        "torch float32, of the FMA peak": (TORCH_FLOAT32, fma, False),
    }
    rows = []
    for title, (slow, fast) in versus.items():
        by_layer = {layer: measurement.ratio(layer, slow, fast) for layer in measurement.layers}
        rows.append([title, *(_format(value, "{:.1f}x") for value in by_layer.values()), _mean(by_layer, "{:.1f}x")])
    for title, (contestants, peak, padding) in shares.items():
        by_layer = {
            layer: measurement.share_of_peak(layer, contestants, peak, with_padding=padding)
            for layer in measurement.layers
        }
        rows.append([title, *(_format(value, "{:.0%}") for value in by_layer.values()), _mean(by_layer, "{:.0%}")])
    return [row for row in rows if any(cell != "-" for cell in row[1:])]


def _mean(by_layer: Mapping[str, float | None], form: str) -> str:
    values = [value for layer in RESNET_LAYERS if (value := by_layer.get(layer)) is not None]
    return _format(statistics.geometric_mean(values) if len(values) == len(RESNET_LAYERS) else None, form)


def _format(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _microseconds(timing: Timing | None) -> str:
    if timing is None:
        return "-"
    decimals = 0 if timing.median >= 100e-6 else 1
    return f"{1e6 * timing.median:.{decimals}f}{'~' * timing.noisy}"


def _align(columns: Sequence[str]) -> list[str]:
    return ["left", *("right" for _ in columns)]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m xnornet.bench.layer", description="Time single layers: our engine beside every other installed."
    )
    parser.add_argument("--layers", nargs="+", metavar="NAME", default=list(LAYERS), help=f"of {', '.join(LAYERS)}")
    parser.add_argument("--repeats", type=int, default=30, help="timed blocks of each contestant (default: 30)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each contestant (default: 1)")
    parser.add_argument("--no-peers", action="store_true", help="without ONNX Runtime and OpenVINO")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
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
    measurement = measure(
        {name: LAYERS[name] for name in options.layers},
        threads=options.threads,
        repeats=options.repeats,
        with_peers=not options.no_peers,
    )
    count = f"{options.threads} thread{'s' * (options.threads > 1)}"
    print(f"{describe(fingerprint())}; {count}, median of {options.repeats}\n")
    print(present(measurement, markdown=options.markdown))
    if options.csv:
        write_csv(options.csv, measurement.rows())


if __name__ == "__main__":
    main()

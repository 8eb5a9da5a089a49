"""What the timings of single layers say: microseconds, how many times faster, and shares of the peaks.

All functions take the rows of `xnornet.bench.layer.measure`, fresh or from plots/layers.csv.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
from scipy.stats import gmean

MEAN_OF = ("64@56", "128@28", "256@14", "512@7")
"""The layers whose geometric mean is taken: those of the four stages of an ImageNet ResNet-18."""

TORCH = ("torch float32", "torch float32, channels last")

OVER: Mapping[str, tuple[Iterable[str], str]] = {
    "ours over torch float32, better layout": (TORCH, "ours"),
    "ours over ONNX Runtime float32": (("ONNX Runtime float32",), "ours"),
    "ours over the better int8": (("torch int8", "ONNX Runtime int8"), "ours"),
    "ours over OpenVINO binary": (("OpenVINO binary, float in/out",), "ours"),
    "chain over OpenVINO's chain": (("OpenVINO binary, in a chain",), "ours, in a chain"),
    "ours over the plain loop": (("plain float32 loop",), "ours"),
}
"""Speed-ups: over whom, of whom the fastest counts, and who is compared."""

SHARES: Mapping[str, tuple[Iterable[str], str, str]] = {
    "kernel, of the popcount peak": (("ours, kernel",), "popcount", "macs"),
    "in a chain, of the popcount peak": (("ours, in a chain",), "popcount", "macs"),
    "the same, padding counted": (("ours, in a chain",), "popcount", "macs_with_padding"),
    "torch float32, of the FMA peak": (TORCH, "float32", "macs"),
}
"""Shares of a peak: whose, of whom the fastest counts, of which peak, and which products are counted."""


def ratios(rows: pd.DataFrame, peaks: Mapping[str, float]) -> pd.DataFrame:
    """Speed-ups (`OVER`) and shares of the peaks of as many cores as threads (`SHARES`, from 0 to 1), float64.

    One row for each that was timed, a column for each layer, NaN where it was not, and a last one with the geometric
    mean of `MEAN_OF`. peaks: "popcount" and "float32", in 10^9 multiply-accumulates a second and core.
    """
    seconds, of_layer = _by_layer(rows, "seconds"), rows.groupby("layer", sort=False).first()
    by_title = {title: _fastest(seconds, slow) / _fastest(seconds, [fast]) for title, (slow, fast) in OVER.items()}
    by_title |= {
        title: of_layer[macs] / _fastest(seconds, names) / (1e9 * peaks[peak] * of_layer.threads)
        for title, (names, peak, macs) in SHARES.items()
    }
    table = pd.DataFrame(by_title).T.dropna(how="all")
    return table.assign(**{"geometric mean": gmean(table.reindex(columns=MEAN_OF), axis=1)})


def times_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Microseconds of every contestant by layer, as text; * behind a noisy one, - where there is none."""
    marks = _by_layer(rows, "noisy").eq(True).map({True: " *", False: ""}.get)
    return _table(_by_layer(rows, "seconds").map(_microseconds) + marks, "µs per call")


def ratios_table(rows: pd.DataFrame, peaks: Mapping[str, float]) -> pd.DataFrame:
    """`ratios` as text."""
    numbers = ratios(rows, peaks)
    forms = {title: "{:.1f}x" if title in OVER else "{:.0%}" for title in numbers.index}
    return _table(numbers.apply(lambda row: row.map(_text(forms[row.name])), axis="columns"), "")


def left_out(rows: pd.DataFrame) -> list[str]:
    """Who was not timed, why, and at which layers: a line for each reason."""
    notes = rows[rows.note.notna()].groupby(["contestant", "note"], sort=False).layer
    return [f"{name}: {note} ({', '.join(layers)})" for (name, note), layers in notes]


def _by_layer(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One column of the rows by contestant and layer, in the order of the rows, without those who were never timed."""
    timed = rows[rows.seconds.notna()]
    table = timed.pivot(index="contestant", columns="layer", values=column)
    return table.reindex(index=timed.contestant.unique(), columns=rows.layer.unique())


def _fastest(seconds: pd.DataFrame, contestants: Iterable[str]) -> pd.Series:
    """Of these contestants, by layer."""
    return seconds.reindex(list(contestants)).min()


def _table(cells: pd.DataFrame, title: str) -> pd.DataFrame:
    """The index as a first column of that title."""
    return cells.rename_axis(index=title, columns=None).reset_index()


def _text(form: str) -> Callable[[float], str]:
    return lambda value: "-" if math.isnan(value) else form.format(value)


def _microseconds(seconds: float) -> str:
    return _text("{:.1f}" if seconds < 100e-6 else "{:.0f}")(1e6 * seconds)

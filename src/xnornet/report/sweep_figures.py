"""The figures about one layer: how its shape decides the speed-up, beside what the arithmetic allows."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from xnornet.report.read import Results
from xnornet.report.style import BLACK, COLOURS, GREEN, GREY, PURPLE, figure, measured_on

# axis: (label of x, title, logarithmic x)
LAWFUL = {
    "input_channels": ("input channels c (14x14 image, 3x3 kernel, 256 filters)", "Speed-up against channels", True),
    "filter_size": ("filter side (256 channels, 14x14 image, 256 filters)", "Speed-up against filter size", False),
    "output_channels": ("filters k (20 channels, 12x12 image, 5x5 kernel)", "Speed-up against filters", True),
}
FLAT = {
    "image_size": ("image side (256 channels, 3x3)", "image size", True),
    "batch": ("images a call (256@14, 3x3)", "batch", True),
    "threads": ("threads (256@14, 3x3, batch 8)", "threads", False),
}


def speedup(results: Results, folder: Path, axis: str) -> None:
    """Speed-up over both float contestants, beside the paper's law and this machine's."""
    rows = results.sweep(axis)
    x_label, title, logarithmic = LAWFUL[axis]
    with figure(folder, f"speedup-{axis}", 8.5, 5.2) as (drawn, axes):
        axes.plot(rows.value, rows.law_paper, color=GREY, linestyle=":", label="paper: 64 n/(n + 64)")
        law = f"this machine: R n/(n + R), R = {results.peaks(axis)['ratio']:.0f}"
        axes.plot(rows.value, rows.law_machine, color=BLACK, linestyle="--", label=law)
        axes.plot(rows.value, rows.speedup_torch, "o-", color=COLOURS["xnor"], label="measured, over torch float32")
        axes.plot(rows.value, rows.speedup_loop, "s-", color=GREEN, label="measured, over a plain float32 loop")
        _mark_noisy(axes, rows[rows.noisy], "speedup_torch", "o")
        _mark_noisy(axes, rows[rows.loop_noisy], "speedup_loop", "s")
        _scales(axes, rows, logarithmic)
        axes.set(xlabel=x_label, ylabel="speed-up (x, logarithmic)", title=f"{title}, one thread, packing included")
        drawn_values = rows[["law_paper", "law_machine", "speedup_torch", "speedup_loop"]].to_numpy()
        low, high = np.floor(np.log2(drawn_values.min())), np.ceil(np.log2(drawn_values.max()))
        axes.set_ylim(2.0**low * 0.93, 2.0**high * 1.07)  # with a tick at either end
        axes.legend(fontsize=10.5, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2)
        measured_on(drawn, results)


def _scales(axes: Axes, rows: pd.DataFrame, logarithmic: bool) -> None:
    """A tick for each value visited, speed-ups by factors of two."""
    if logarithmic:
        axes.set_xscale("log", base=2)
    axes.set_xticks(rows.value, [str(value) for value in rows.value])
    axes.minorticks_off()
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")


def _mark_noisy(axes: Axes, noisy: pd.DataFrame, column: str, marker: str) -> None:
    label = "white centre: noisy point"
    if not noisy.empty:
        named = label in axes.get_legend_handles_labels()[1]
        axes.plot(noisy.value, noisy[column], marker, color="white", markersize=5, markeredgecolor=GREY,
                  markeredgewidth=0.6, label=None if named else label)  # fmt: skip


def flat(results: Results, folder: Path) -> None:
    """Speed-up where the law knows no dependence."""
    with figure(folder, "speedup-flat", 12, 4.2, ncols=len(FLAT), sharey=True) as (drawn, grid):
        for axes, (axis, (x_label, title, logarithmic)) in zip(grid, FLAT.items(), strict=True):
            rows = results.sweep(axis)
            axes.plot(rows.value, rows.speedup_torch, "o-", color=COLOURS["xnor"], label="measured, over torch float32")
            axes.plot(rows.value, rows.law_paper, color=GREY, linestyle=":", label="paper's law")
            axes.plot(rows.value, rows.law_machine, color=BLACK, linestyle="--", label="this machine's law")
            _mark_noisy(axes, rows[rows.noisy], "speedup_torch", "o")
            _scales(axes, rows, logarithmic)
            axes.set(xlabel=x_label, title=title)
        grid[0].set_ylabel("speed-up (x, logarithmic)")
        grid[1].legend(fontsize=10, loc="center", bbox_to_anchor=(0.5, 0.62))
        measured_on(drawn, results)
        drawn.suptitle("What the law leaves out")


def roofline(results: Results, folder: Path) -> None:
    """Rates reached, beside the measured peaks of the two loops."""
    rows, peaks = results.sweep("input_channels"), results.peaks("input_channels")
    with figure(folder, "roofline", 8.5, 5.2) as (drawn, axes):
        for name, label, style, colour in (
            ("kernel", "ours, bits in", "o-", COLOURS["xnor"]),
            ("ours", "ours, packing included", "s--", PURPLE),
            ("torch", "torch float32", "^-", COLOURS["float"]),
        ):
            axes.plot(rows.value, rows.macs / rows[f"{name}_seconds"] / 1e9, style, color=colour, label=label)
        for key, label in (("peak_popcount_gmacs", "popcount loop"), ("peak_float32_gmacs", "float32 FMA loop")):
            axes.axhline(peaks[key], color=BLACK, linestyle=":")
            text = f"measured peak of the {label}: {peaks[key]:,.0f}"
            axes.annotate(text, (rows.value.max(), peaks[key]), (0, 10), textcoords="offset points", ha="right")
        axes.set_xscale("log", base=2)
        axes.set_xticks(rows.value, [str(v) for v in rows.value])
        axes.set(
            yscale="log",
            xlabel=LAWFUL["input_channels"][0],
            ylabel="10⁹ multiply-accumulates a second",
            title="Rates reached and measured peaks, one thread",
        )
        axes.minorticks_off()
        axes.set_ylim(top=peaks["peak_popcount_gmacs"] * 2.2)
        axes.legend(loc="lower right", fontsize=10.5)
        measured_on(drawn, results)


def time_shares(results: Results, folder: Path) -> None:
    """Where the time of a layer goes: what packing adds to the kernel with borders and epilogue."""
    rows = results.sweep("input_channels")
    with figure(folder, "time-shares", 8.5, 4.6) as (drawn, axes):
        x = np.arange(len(rows))
        packing = 100 * (1 - rows.kernel_seconds / rows.ours_seconds).clip(lower=0)
        axes.bar(x, packing, color=PURPLE, label="what packing adds", hatch="..", edgecolor="white")
        axes.bar(x, 100 - packing, bottom=packing, color=COLOURS["xnor"], label="kernel and epilogue")
        for place, seconds in zip(x, rows.ours_seconds, strict=True):
            axes.annotate(f"{1e6 * seconds:.3g} µs", (place, 100), (0, 4), textcoords="offset points", ha="center")
        axes.set_xticks(x, [str(v) for v in rows.value])
        axes.set(
            xlabel=LAWFUL["input_channels"][0],
            ylabel="share of the time (%)",
            ylim=(0, 108),
            title="Where a binary layer's time goes (above: end to end)",
        )
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2)
        measured_on(drawn, results)

"""How every figure looks: sizes, colours that colour-blind readers can tell apart, the same bytes every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from xnornet.files import atomic
from xnornet.report.read import Results

# Okabe and Ito's palette; variants differ in line style or hatch too, for print in grey.
COLOURS = {"float": "#0072B2", "xnor": "#D55E00"}
LABELS = {"float": "float", "xnor": "XNOR"}
GREY, GREEN, PURPLE, SKY, BLACK = "#7F7F7F", "#009E73", "#CC79A7", "#56B4E9", "#000000"

SETTINGS: Any = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "lines.markersize": 7,
    # The same figure gives the same bytes.
    "svg.hashsalt": "xnornet",
    "svg.fonttype": "path",
}


@contextmanager
def figure(folder: Path, name: str, width: float, height: float, **grid: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure and its axes, in inches, as plt.subplots makes them; written as SVG and PNG when the block ends."""
    with plt.rc_context(SETTINGS):
        drawn, axes = plt.subplots(figsize=(width, height), **grid)
        try:
            yield drawn, axes
            for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                with atomic(folder / f"{name}.{suffix}") as part:
                    drawn.savefig(part, metadata=metadata)
        finally:
            plt.close(drawn)


def measured_on(drawn: Figure, results: Results) -> None:
    """Say below the figure which CPU and torch the times are from."""
    machine = results.machine()
    text = f"{results.processor()}, {machine['usable_cores']} cores; torch {machine['libraries']['torch']}"
    drawn.supxlabel(text, fontsize=9, color=GREY)

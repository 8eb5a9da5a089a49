"""Puts the report together: figures, REPORT.md and the card of the packed networks."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from xnornet.files import atomic, write_text
from xnornet.layer_table import MEAN_OF, left_out
from xnornet.report import figures, sweep_figures, tables
from xnornet.report.card import cards
from xnornet.report.discussion import paragraphs
from xnornet.report.read import Results

USUAL_WIDTH = 64
SWEEPS = ("input_channels", "filter_size", "output_channels")


def build(results: Results, folder: Path) -> None:
    """Read everything and draw every figure, then write `folder`/plots/figures, the networks' card and REPORT.md.

    ReportError, before anything is written, if a metric or a plot's data are missing or not numbers, or two networks
    are no twins. Figures of other data sets go.
    """
    results.check_twins()
    text, card = render(results), render_card(results)
    with tempfile.TemporaryDirectory(prefix="xnornet-") as drawn:
        draw(results, Path(drawn))
        made = sorted(Path(drawn).iterdir())
        for figure in made:
            with atomic(folder / "plots/figures" / figure.name) as part:
                shutil.copyfile(figure, part)
        for old in (folder / "plots/figures").iterdir():
            if old.suffix in (".svg", ".png") and old.name not in {new.name for new in made}:
                old.unlink()
    write_text(folder / "models/packed/README.md", card)
    write_text(folder / "REPORT.md", text)


def draw(results: Results, folder: Path) -> None:
    """Every figure, as SVG and PNG."""
    figures.test_error(results, folder)
    for dataset in results.datasets:
        for plot in (
            figures.training_curves,
            figures.confusion,
            figures.memory_by_layer,
            figures.inference,
            figures.weights,
            figures.answers,
            figures.study,
        ):
            plot(results, folder, dataset)
    for axis in SWEEPS:
        sweep_figures.speedup(results, folder, axis)
    for draw_one in (sweep_figures.flat, sweep_figures.roofline, sweep_figures.time_shares):
        draw_one(results, folder)


def render(results: Results) -> str:
    """REPORT.md as text."""
    return _fill(
        "REPORT.md.j2",
        notes=[
            f"{results.title(dataset)}: trained and tested on a copy of the images that went through {encoding}; "
            "accuracies are not comparable with those on the original archive."
            for dataset in results.datasets
            if (encoding := results.lossy(dataset))
        ]
        + [
            f"{results.title(dataset)}: of width {width}, where {USUAL_WIDTH} is usual."
            for dataset in results.datasets
            if (width := results.settings(dataset, "xnor")["model"].get("width", USUAL_WIDTH)) != USUAL_WIDTH
        ],
        first_batch=results.timed(results.datasets[0]).packed.batch,
        datasets=[(dataset, results.title(dataset)) for dataset in results.datasets],
        summary=tables.markdown(tables.summary(results)),
        accuracy=tables.markdown(tables.accuracy(results)),
        memory=tables.markdown(tables.memory(results)),
        training_time=tables.markdown(tables.training_time(results)),
        inference=tables.markdown(tables.inference(results)),
        rounds=_rounds(results),
        agreement=tables.markdown(tables.agreement(results)),
        short={d: _short(results, d) for d in results.datasets},
        study={d: tables.markdown(tables.study(results, d)) for d in results.datasets},
        stages={
            d: tables.markdown(tables.stages(results, d)) if "stages" in results.packed(d) else ""
            for d in results.datasets
        },
        stages_seen={d: results.packed(d).get("stages") for d in results.datasets},
        per_class={d: tables.markdown(tables.per_class(results, d)) for d in results.datasets},
        layer_times=tables.markdown(tables.layer_times(results)),
        layer_ratios=tables.markdown(tables.layer_ratios(results)),
        layers=_layers(results),
        sweeps={axis: tables.markdown(tables.sweep(results, axis)) for axis in SWEEPS},
        flat=tables.markdown(tables.sweeps_together(results, tuple(sweep_figures.FLAT))),
        discussion=paragraphs(results),
        settings=tables.markdown(tables.settings(results)),
        machine=_machine(results),
    )


def render_card(results: Results) -> str:
    """The card of the packed networks as text."""
    return _fill("CARD.md.j2", cards=cards(results))


def _fill(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("xnornet.report"), undefined=StrictUndefined, trim_blocks=True, autoescape=False
    )
    text = environment.get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _short(results: Results, dataset: str) -> str:
    """Length and size of the study's trainings."""
    run = results.study_rows(dataset).iloc[0]
    width = f", width {run.width}" if run.width else ""
    return f"{run.epochs} epochs on {run.image_size}x{run.image_size} images{width}"


def _rounds(results: Results) -> str:
    """In how many rounds inference was timed: fewer where a call takes long."""
    repeats = pd.concat([results.inference_rows(dataset).repeats for dataset in results.datasets]).astype(int)
    return str(repeats.min()) if repeats.min() == repeats.max() else f"{repeats.min()} to {repeats.max()}"


def _layers(results: Results) -> dict[str, Any]:
    """What is said around the tables of single layers."""
    rows, peaks = results.layers()
    return {
        "repeats": rows.repeats.max(),
        "noisy": bool(rows.noisy.any()),
        "left_out": left_out(rows),
        "mean_of": ", ".join(MEAN_OF),
        "popcount": f"{peaks['popcount']:,.0f}",
        "float32": f"{peaks['float32']:.1f}",
        "in_groups": results.counts_in_groups(),
    }


def _machine(results: Results) -> str:
    machine = results.machine()
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if version)
    return (
        f"{results.processor()}, {machine['usable_cores']} cores, "
        f"{machine['memory_gib'] or '?'} GiB, {machine['os']}, Python {machine['python']}; {libraries}. "
        f"Vector instructions: {', '.join(machine['cpu']['vector_flags'])}."
    )

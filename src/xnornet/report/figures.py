"""The figures about networks: what they learned, how they err, what they weigh and how fast they answer."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from sklearn.metrics import confusion_matrix

from xnornet.report.prose import digits, half_up
from xnornet.report.read import VARIANTS, Results
from xnornet.report.style import BLACK, COLOURS, GREEN, GREY, LABELS, PURPLE, SKY, figure, measured_on

SHOWN_IMAGES = 12
PEER_COLOURS = (("packed", COLOURS["xnor"]), ("torch", COLOURS["float"]), ("ONNX", GREEN), ("OpenVINO", PURPLE))


def training_curves(results: Results, folder: Path, dataset: str) -> None:
    """Loss on the training and accuracy on the validation images, by epoch."""
    with figure(folder, f"curves-{dataset}", 9, 4, ncols=2) as (drawn, (left, right)):
        for variant in VARIANTS:
            columns = ["epoch", "train_loss", "validation_accuracy"]
            curve = results.csv(f"plots/curves/{dataset}-{variant}.csv", columns)
            style = {
                "color": COLOURS[variant],
                "label": LABELS[variant],
                "linestyle": "-" if variant == "float" else "--",
            }
            marker = "o" if len(curve) < 12 else None
            mixed = " (on mixed images)" * bool(results.settings(dataset, variant)["optimization"]["cutmix"])
            left.plot(curve.epoch, curve.train_loss, marker=marker, **style | {"label": LABELS[variant] + mixed})
            right.plot(curve.epoch, curve.validation_accuracy, marker=marker, **style)
        left.set(xlabel="epoch", ylabel="training loss (cross-entropy)", yscale="log")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter(NullFormatter())
        right.set(xlabel="epoch", ylabel="validation accuracy (%)")
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
        drawn.suptitle(f"Training: {results.title(dataset)}")


def test_error(results: Results, folder: Path) -> None:
    """Test images that are got wrong, float beside XNOR: every seed, and their mean."""
    with figure(folder, "error", 1 + 3 * len(results.datasets), 4, ncols=len(results.datasets), squeeze=False) as (
        drawn,
        grid,
    ):
        for axes, dataset in zip(grid[0], results.datasets, strict=True):
            highest = 0.0
            for variant, hatch in zip(VARIANTS, (None, "//"), strict=True):
                errors = 100 - results.by_seed(dataset, variant).test_accuracy
                name, mean = LABELS[variant], 100 - results.seeds(dataset, variant)["mean"]
                axes.bar(name, mean, 0.6, color=COLOURS[variant], hatch=hatch, edgecolor="white")
                if len(errors) > 1:
                    axes.plot([name] * len(errors), errors, "o", color="white", markeredgecolor=BLACK, markersize=7)
                place = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
                axes.annotate(f"{100 - float(half_up(100 - mean)):.2f} %", (name, errors.max()), **place)
                highest = max(highest, errors.max())
            axes.set(title=results.title(dataset), ylim=(0, 1.15 * highest or 1))  # room for the numbers
            axes.grid(axis="x", visible=False)
        grid[0][0].set_ylabel("test error (%)")
        drawn.suptitle("What binarization costs in accuracy")


def confusion(results: Results, folder: Path, dataset: str) -> None:
    """How often each class is taken for each other, in percent of the class; errors are coloured, hits are not."""
    with figure(folder, f"confusion-{dataset}", 11, 5.6, ncols=2) as (drawn, both):
        shares = {}
        for variant in VARIANTS:
            answers = results.predictions(dataset, variant)
            classes = sorted(answers.actual.unique())
            shares[variant] = 100 * confusion_matrix(
                answers.actual, answers.predicted, labels=classes, normalize="true"
            )
        darkest = max(1.0, *((share - np.diag(np.diag(share))).max() for share in shares.values()))
        for axes, (variant, share) in zip(both, shares.items(), strict=True):
            errors = share - np.diag(np.diag(share))
            axes.imshow(errors, cmap="Oranges" if variant == "xnor" else "Blues", vmin=0, vmax=darkest)
            for row, column in np.ndindex(share.shape):
                value = share[row, column]
                if value >= 0.05:
                    text = f"{value:.1f}" if value < 99.95 else "100"
                    colour = "white" if errors[row, column] > 0.6 * darkest else BLACK
                    weight = "bold" if row == column else "normal"
                    axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour, weight=weight)
            long = max(map(len, classes)) > 1
            style: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
            axes.set_xticks(range(len(classes)), classes, **style)
            axes.set_yticks(range(len(classes)), classes)
            axes.set(xlabel="answer", ylabel="class", title=LABELS[variant])
            axes.grid(visible=False)
        drawn.suptitle(f"Confusion on the test images (% of the class): {results.title(dataset)}")


def memory_by_layer(results: Results, folder: Path, dataset: str) -> None:
    """Bytes of every layer in the float and in the packed file, as points: logarithmic bars have no start."""
    rows = results.memory_rows(dataset)
    rows = rows[rows.float_bytes + rows.packed_bytes > 100]
    with figure(folder, f"memory-{dataset}", 9, 1.6 + 0.36 * len(rows)) as (_, axes):
        y = np.arange(len(rows))
        ring: Any = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 2}  # seen where both are equal
        for size, label, colour, marker, style in (
            (rows.float_bytes, "float32 file", COLOURS["float"], "o", ring),
            (rows.packed_bytes, "packed file", COLOURS["xnor"], "D", {"markersize": 5}),
        ):
            axes.plot(size.where(size > 0) / 1000, y, marker, color=colour, label=label, **style)
        in_both = ((rows.float_bytes > 0) & (rows.packed_bytes > 0)).to_numpy()
        axes.hlines(
            y[in_both], rows.packed_bytes[in_both] / 1000, rows.float_bytes[in_both] / 1000, color=GREY, zorder=1
        )
        axes.set_yticks(y, rows.layer)
        axes.invert_yaxis()
        axes.set(
            xscale="log", xlabel="kB in the file (logarithmic)", title=f"Memory by layer: {results.title(dataset)}"
        )
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def inference(results: Results, folder: Path, dataset: str) -> None:
    """Time for an image, ours and every contestant, one thread."""
    rows = results.inference_rows(dataset)
    rows = rows[rows.threads == 1]
    batches = sorted(rows.batch.unique())
    height = 1.6 + 0.42 * rows.contestant.nunique()
    with figure(folder, f"inference-{dataset}", 12, height, ncols=len(batches), squeeze=False) as (drawn, grid):
        for axes, batch in zip(grid[0], batches, strict=True):
            chosen = rows[rows.batch == batch].sort_values("milliseconds_per_image")
            times = chosen.milliseconds_per_image
            colours = [next((c for start, c in PEER_COLOURS if n.startswith(start)), GREY) for n in chosen.contestant]
            bars = axes.barh(chosen.contestant, times, color=colours, xerr=chosen.iqr / 2)
            labels = [
                f"{digits(row.milliseconds_per_image, 3)} ms"
                + (f"  ({row.times_packed:.1f}x)" if row.times_packed != 1 else "")
                for row in chosen.itertuples()
            ]
            axes.bar_label(bars, labels, padding=4, fontsize=10)
            axes.invert_yaxis()
            axes.set(xlabel="ms per image", title=f"batch {batch}", xlim=(0, times.max() * 1.7))
            axes.grid(axis="y", visible=False)
        measured_on(drawn, results)
        drawn.suptitle(
            f"Inference on one thread: {results.title(dataset)}\n"
            "(packed: XNOR; the others: its float twin, in the format named)"
        )


def weights(results: Results, folder: Path, dataset: str) -> None:
    """Histograms of the first and the last binary layer: the float twin's weights above, below the latent ones, with
    alpha, for which one bit a weight stands.
    """
    with figure(folder, f"weights-{dataset}", 10, 7, nrows=2, ncols=2) as (drawn, grid):
        for row, variant in zip(grid, VARIANTS, strict=True):
            rows = results.csv(f"plots/weights/{dataset}-{variant}.csv", ["layer", "left", "right", "count", "alpha"])
            layers = list(dict.fromkeys(rows.layer))
            for axes, layer in zip(row, (layers[0], layers[-1]), strict=True):
                part, title = rows[rows.layer == layer], layer.replace("blocks.", "block")  # as in the packed network
                axes.stairs(part["count"], [*part.left, part.right.iloc[-1]], fill=True, color=SKY)
                if variant == "xnor":
                    alpha = part.alpha.iloc[0]
                    title += rf", mean $\alpha$ = {alpha:.3f}"
                    for value in (-alpha, alpha):
                        axes.axvline(value, color=COLOURS["xnor"], linestyle="--")
                named = {"float": "weight of the float twin", "xnor": "latent weight of the XNOR network"}[variant]
                axes.set(xlabel=named, ylabel="number of weights", title=title)
                axes.locator_params(axis="x", nbins=5)
                axes.yaxis.set_major_formatter("{x:,.0f}")
        drawn.suptitle(f"Weights after training, below with the two values that replace them: {results.title(dataset)}")


def study(results: Results, folder: Path, dataset: str) -> None:
    """Validation accuracy of every training, the arms' differences with intervals, and changed signs."""
    rows, arms = results.study_rows(dataset), results.study(dataset)
    y = {arm: place for place, arm in enumerate(arms)}
    with figure(folder, f"study-{dataset}", 13, 2 + 0.42 * len(arms), ncols=3, sharey=True) as (drawn, panels):
        left, middle, right = panels
        left.plot(rows.validation_accuracy, rows.arm.map(y), "o", color=SKY, label="a training")
        left.plot([values["mean"] for values in arms.values()], list(y.values()), "|", color=BLACK, label="mean",
                  markersize=16, markeredgewidth=2.5)  # fmt: skip
        left.set_yticks(list(y.values()), list(arms))
        left.set(xlabel="validation accuracy (%)", ylim=(len(arms) - 0.5, -0.5))
        left.legend(fontsize=10, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)  # where no point can be
        middle.axvline(0, color=GREY)
        for arm, values in arms.items():
            if "difference" in values:
                width = values["high"] - values["difference"]
                decided = values["low"] > 0 or values["high"] < 0
                style = {"color": COLOURS["xnor"] if decided else GREY, "fmt": "D" if decided else "o", "capsize": 4}
                middle.errorbar(values["difference"], y[arm], xerr=width, **style)
        against = results.compared_with(dataset)
        middle.set(xlabel="difference to the arm\nnamed at the right\n(points, 95 % interval)")
        named = middle.secondary_yaxis("right")
        named.set_yticks(
            list(y.values()),
            [against[arm] if "difference" in values else "" for arm, values in arms.items()],
            fontsize=10,
        )
        named.tick_params(length=0)
        right.plot(rows.signs_changed, rows.arm.map(y), "o", color=SKY)
        right.set(
            xlabel="binary weights that\nchange sign in the\nlast epoch (%)",
            xlim=(0, 1.05 * (rows.signs_changed.max() or 1)),
        )
        drawn.suptitle(f"What trains an XNOR network better: {results.title(dataset)}")


def answers(results: Results, folder: Path, dataset: str) -> None:
    """A strip of test images with both networks' answers, mistakes first."""
    sheet = results.samples(dataset)
    both = [results.predictions(dataset, v) for v in VARIANTS]
    answered = both[0].assign(xnor=both[1].predicted)
    pixels = int(results.data(dataset)["shape"].split("x")[0])
    side = sheet.shape[0] // pixels
    answered = answered.iloc[:: len(answered) // side**2].head(side**2).reset_index(drop=True)
    wrong = (answered.predicted != answered.actual).astype(int) + 2 * (answered.xnor != answered.actual).astype(int)
    chosen = wrong.sort_values(ascending=False, kind="stable").index[:SHOWN_IMAGES]
    with figure(folder, f"answers-{dataset}", 12, 5, nrows=2, ncols=SHOWN_IMAGES // 2) as (drawn, grid):
        for axes in grid.flat[len(chosen) :]:
            axes.set_axis_off()
        for axes, index in zip(grid.flat, chosen, strict=False):
            row, column = divmod(int(index), side)
            top, left = row * pixels, column * pixels
            axes.imshow(sheet[top : top + pixels, left : left + pixels], cmap="gray")
            _caption(axes, answered.actual[index], answered.predicted[index], answered.xnor[index])
        order = ", mistakes first" if wrong.any() else ""
        drawn.suptitle(f"Test images and answers{order}: {results.title(dataset)}")


def _caption(axes: Axes, actual: str, by_float: str, by_xnor: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_title(actual, fontsize=12)
    for variant, answer, place in (("float", by_float, -0.02), ("xnor", by_xnor, -0.17)):
        mark = "✓" if answer == actual else "✗"
        weight = "normal" if answer == actual else "bold"
        style: Any = {"ha": "center", "va": "top", "fontsize": 10, "color": COLOURS[variant], "weight": weight}
        axes.text(0.5, place, f"{LABELS[variant]}: {answer} {mark}", transform=axes.transAxes, **style)

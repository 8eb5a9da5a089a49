"""The tables: pandas frames, and what they become in Markdown or on a terminal."""

from typing import Any

import pandas as pd
from sklearn.metrics import precision_recall_fscore_support
from tabulate import tabulate

from xnornet.layer_table import ratios_table, times_table
from xnornet.pairs import Difference, difference
from xnornet.report.prose import digits, half_up, two_digits
from xnornet.report.read import VARIANTS, Results
from xnornet.report.style import LABELS


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table; numbers are formatted already."""
    return tabulate(frame, headers="keys", tablefmt="github", showindex=False, disable_numparse=True, stralign="right")


def layer_times(results: Results) -> pd.DataFrame:
    """Microseconds of single layers."""
    return times_table(results.layers()[0])


def layer_ratios(results: Results) -> pd.DataFrame:
    """How many times faster single layers are, and which shares of the peaks are reached."""
    return ratios_table(*results.layers())


def accuracy(results: Results) -> pd.DataFrame:
    """Accuracy on test and validation images."""
    rows = []
    for dataset in results.datasets:
        both = [results.trained(dataset, variant) for variant in VARIANTS]
        for variant, metrics in zip(VARIANTS, both, strict=True):
            cost = mean_accuracy(results, dataset, "float") - mean_accuracy(results, dataset, variant)
            rows.append(
                {
                    "network": results.title(dataset),
                    "variant": LABELS[variant],
                    "test accuracy": over_seeds(results, dataset, variant),
                    "cost": "" if variant == "float" else f"{half_up(cost)} points",
                    "95 % interval": "" if variant == "float" else _interval(results, dataset),
                    "first seed": f"{metrics['test_accuracy']:.2f} %",
                    "validation accuracy": f"{metrics['validation_accuracy']:.2f} %",
                    "epochs": str(metrics["epochs"]),
                    "images": results.settings(dataset, variant)["images"]["source"],
                }
            )
    return pd.DataFrame(rows)


def _interval(results: Results, dataset: str) -> str:
    """Of the cost, seed by seed; nothing where there is one."""
    cost = cost_by_seed(results, dataset, "test_accuracy")
    return f"{cost.low:.2f} to {cost.high:.2f}" if cost else ""


def cost_by_seed(results: Results, dataset: str, accuracy: str) -> Difference | None:
    """Float less XNOR in a column of accuracies, in points, seed by seed; None where there is one seed."""
    both = [results.by_seed(dataset, variant)[accuracy] for variant in VARIANTS]
    by_float, by_xnor = pd.concat(both, axis=1, join="inner").to_numpy().T
    return difference(by_float, by_xnor) if len(by_float) > 1 else None


def mean_accuracy(results: Results, dataset: str, variant: str) -> float:
    """Mean test accuracy over the seeds, in percent."""
    return results.seeds(dataset, variant)["mean"]


def over_seeds(results: Results, dataset: str, variant: str) -> str:
    """Mean and deviation of the test accuracy over the seeds, and their number; of two both, of a single one that."""
    over = results.seeds(dataset, variant)
    if over["runs"] == 1:
        return f"{half_up(over['mean'])} %"
    both = ", ".join(f"{value:.2f}" for value in results.by_seed(dataset, variant).test_accuracy)
    return f"{half_up(over['mean'])} ± {over['std']:.2f} % ({both if over['runs'] == 2 else over['runs']})"


def training_time(results: Results) -> pd.DataFrame:
    """Seconds an epoch, both variants timed side by side; and where the training that was run took place."""
    rows = []
    for dataset in results.datasets:
        pace = results.pace(dataset)
        for variant in VARIANTS:
            step, times = pace[variant], results.times(dataset, variant)
            precision = results.settings(dataset, variant)["optimization"]["precision"]
            threads = f"{times['threads']} thread{'s' * (times['threads'] > 1)}, {precision}"
            rows.append(
                {
                    "network": results.title(dataset),
                    "variant": LABELS[variant],
                    "an epoch": f"{step['seconds_per_epoch']:.1f} s{_star(step['noisy'])}",
                    "quartiles apart": f"{step['iqr_seconds']:.1f} s",
                    "to float": f"{step['seconds_per_epoch'] / pace['float']['seconds_per_epoch']:.2f}x",
                    "images a second": f"{step['images_per_second']:,.0f}",
                    "timed in": f"{pace['precision']}, {pace['threads']} thread{'s' * (pace['threads'] > 1)}",
                    "trained on": f"{times['device']}, {threads}",
                }
            )
    return pd.DataFrame(rows)


def study(results: Results, dataset: str) -> pd.DataFrame:
    """Each arm's validation accuracy, and its difference to another arm."""
    rows, against = [], results.compared_with(dataset)
    for arm, values in results.study(dataset).items():
        first = "difference" not in values
        interval = "" if first else f"{values['low']:+.2f} to {values['high']:+.2f}"
        rows.append(
            {
                "arm": arm,
                "validation accuracy": f"{values['mean']:.2f} %",
                "deviation": f"{values['std']:.2f}",
                "runs": f"{values['runs']:.0f}",
                "compared with": "" if first else against[arm],
                "difference": "" if first else f"{values['difference']:+.2f} points",
                "95 % interval": interval,
                "signs changed": f"{values['signs_changed']:.1f} %",
            }
        )
    return pd.DataFrame(rows)


def memory(results: Results) -> pd.DataFrame:
    """Bytes on disk."""
    rows = []
    for dataset in results.datasets:
        memory = results.memory(dataset)
        rows.append(
            {
                "network": results.title(dataset),
                "float32 file": f"{memory['float_bytes'] / 1000:,.1f} kB",
                "packed file": f"{memory['packed_bytes'] / 1000:,.1f} kB",
                "ratio": f"{memory['ratio']:.1f}x",
                "binary parameters": f"{memory['binary_share']:.1f} %",
            }
        )
    return pd.DataFrame(rows)


def inference(results: Results) -> pd.DataFrame:
    """Milliseconds an image by batch size and threads: the float twin in torch, and the packed network."""
    rows = []
    for dataset in results.datasets:
        for batch, threads in results.inference_rows(dataset).groupby(["batch", "threads"]).groups:
            packed, in_torch, fastest, rival = results.timed(dataset, threads, batch)
            rows.append(
                {
                    "network": results.title(dataset),
                    "batch": str(batch),
                    "threads": str(threads),
                    "float, torch": f"{digits(in_torch.milliseconds_per_image, 4)} ms{_star(in_torch.noisy)}",
                    "XNOR, packed": f"{digits(packed.milliseconds_per_image, 4)} ms{_star(packed.noisy)}",
                    "speed-up": f"{in_torch.times_packed:.1f}x{_star(in_torch.noisy or packed.noisy)}",
                    "over the fastest float32 engine": f"{fastest.times_packed:.1f}x ({_engine(fastest.contestant)})"
                    + _star(fastest.noisy or packed.noisy),
                    "over the fastest rival": f"{rival.times_packed:.1f}x ({_engine(rival.contestant)})"
                    + _star(rival.noisy or packed.noisy),
                }
            )
    return pd.DataFrame(rows)


def agreement(results: Results) -> pd.DataFrame:
    """How far packed network and torch agree on the test images."""
    rows = []
    for dataset in results.datasets:
        packed = results.packed(dataset)
        rows.append(
            {
                "network": results.title(dataset),
                "test images": f"{packed['images']:,}",
                "same answer": f"{packed['same_answers']:.2f} %",
                "largest difference of a logit": f"{packed['max_logit_difference']:.1e}",
                "test accuracy, packed": f"{packed['test_accuracy']:.2f} %",
            }
        )
    return pd.DataFrame(rows)


def stages(results: Results, dataset: str) -> pd.DataFrame:
    """The XNOR network without what the binary convolutions of one stage add to the residual stream."""
    seen, by_stage = results.stages(dataset)
    rows = [
        {
            "without": f"stage {number}",
            "accuracy": f"{values['accuracy_without']:.1f} %",
            "it costs": f"{seen['accuracy'] - values['accuracy_without']:.1f} points",
            "variance of the stream behind it": two_digits(values["stream_variance"]),
        }
        for number, values in by_stage.items()
    ]
    return pd.DataFrame(rows)


def per_class(results: Results, dataset: str) -> pd.DataFrame:
    """Recall (accuracy within the class) and precision of each class, in percent."""
    columns: dict[str, list[str]] = {}
    for variant in VARIANTS:
        answers = results.predictions(dataset, variant)
        classes = sorted(answers.actual.unique())
        precision, recall, _, _ = precision_recall_fscore_support(
            answers.actual, answers.predicted, labels=classes, zero_division=0.0
        )
        columns.setdefault("class", classes)
        columns[f"{LABELS[variant]}: accuracy"] = [f"{100 * value:.1f} %" for value in recall]
        columns[f"{LABELS[variant]}: precision"] = [f"{100 * value:.1f} %" for value in precision]
    return pd.DataFrame(columns)


def settings(results: Results) -> pd.DataFrame:
    """The parameters of every training, a row a parameter, a column a network."""
    columns = {}
    for dataset in results.datasets:
        for variant in VARIANTS:
            sections = {name: values for name, values in results.settings(dataset, variant).items() if values}
            columns[f"{dataset} {LABELS[variant]}"] = pd.json_normalize(sections).iloc[0].map(_setting)
    names = list(dict.fromkeys(name for column in columns.values() for name in column.index))
    order = list(dict.fromkeys(name.partition(".")[0] for name in names))
    names.sort(key=lambda name: order.index(name.partition(".")[0]))
    frame = pd.DataFrame(columns, names).fillna("")
    frame.loc["images.md5"] = frame.loc["images.md5"].str[:8]  # enough to tell two apart
    return frame.rename_axis("parameter").reset_index()


def _setting(value: Any) -> str:
    """A parameter's value; a list, of restarts, as what each entry says."""
    if isinstance(value, list):
        return "; ".join(", ".join(f"{k} {v}" for k, v in entry.items()) for entry in value)
    return str(value)


def sweep(results: Results, axis: str) -> pd.DataFrame:
    """The points of one sweep, in microseconds."""
    rows = results.sweep(axis)
    padding = {}
    if axis == "filter_size":
        padding = {"in the padding": [f"{share:.0f} %" for share in 100 * padding_share(rows)]}
    return pd.DataFrame(
        {
            axis.replace("_", " "): [f"{row.value}{_star(row.noisy)}" for row in rows.itertuples()],
            **padding,
            "packing": [f"{1e6 * value:,.1f} µs" for value in rows.packing_seconds],
            "kernel": [f"{1e6 * value:,.1f} µs" for value in rows.kernel_seconds],
            "end to end": [f"{1e6 * value:,.1f} µs" for value in rows.ours_seconds],
            "torch float32": [f"{1e6 * value:,.1f} µs" for value in rows.torch_seconds],
            "speed-up": [f"{value:.1f}x" for value in rows.speedup_torch],
            "over a plain loop": [f"{row.speedup_loop:.1f}x{_star(row.loop_noisy)}" for row in rows.itertuples()],
            "machine's law": [f"{value:.1f}x" for value in rows.law_machine],
            "paper's law": [f"{value:.1f}x" for value in rows.law_paper],
        }
    )


def sweeps_together(results: Results, axes: tuple[str, ...]) -> pd.DataFrame:
    """The points of several sweeps, one below the other."""
    frames = [sweep(results, axis).rename(columns={axis.replace("_", " "): "point"}) for axis in axes]
    named = [frame.assign(sweep=axis.replace("_", " ")) for axis, frame in zip(axes, frames, strict=True)]
    return pd.concat(named)[["sweep", *frames[0].columns]]


def padding_share(rows: pd.DataFrame) -> pd.Series:
    """Which share of a layer's products lies in the padding, at each point of a sweep."""
    return 1 - rows.macs / rows.macs_with_padding


def summary(results: Results) -> pd.DataFrame:
    """One line a data set: what binarization costs and gives."""
    rows = []
    for dataset in results.datasets:
        pace = results.pace(dataset)
        seconds = [pace[variant]["seconds_per_epoch"] for variant in ("float", "xnor")]
        packed, in_torch, fastest, rival = results.timed(dataset)
        rows.append(
            {
                "network": results.title(dataset),
                "float": over_seeds(results, dataset, "float"),
                "XNOR": over_seeds(results, dataset, "xnor"),
                "file": f"{results.memory(dataset)['ratio']:.1f}x smaller",
                "inference": f"{in_torch.times_packed:.1f}x faster{_star(in_torch.noisy or packed.noisy)}",
                "over the fastest float32 engine": f"{fastest.times_packed:.1f}x ({_engine(fastest.contestant)})"
                + _star(fastest.noisy or packed.noisy),
                "over the fastest rival": f"{rival.times_packed:.1f}x ({_engine(rival.contestant)})"
                + _star(rival.noisy or packed.noisy),
                "a training step": f"{seconds[1] / seconds[0]:.2f}x as long"
                + _star(any(pace[variant]["noisy"] for variant in VARIANTS)),
            }
        )
    return pd.DataFrame(rows)


def _star(noisy: bool) -> str:
    return " *" if noisy else ""


def _engine(contestant: str) -> str:
    return contestant.replace(" float32", "").replace(", channels last", "")

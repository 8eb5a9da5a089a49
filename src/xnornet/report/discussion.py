"""The report's prose: every sentence that claims something is written by a function that first looks whether it holds.

A claim that the metrics do not support is replaced by what they do support, or left out: see `claim`.
"""

from collections.abc import Callable, Iterator

import pandas as pd
from scipy.stats import false_discovery_control

from xnornet.pairs import difference
from xnornet.report import sweep_discussion, tables
from xnornet.report.prose import HARDLY, claim, half_up, listed, two_digits
from xnornet.report.read import Results

FITS = 99
"""From how many percent of its training images on a network counts as able to fit them."""

LAG = 30
"""From how many points on validation accuracy counts as far below that in training."""

RISK = 0.05
"""Share of chance results among the differences that count as shown."""

WHY = "docs/recipe.md#a-last-stage-that-does-nothing"

LOUD = 1000
"""From which factor on the residual stream's variance counts as out of hand."""

BROKEN = 1.5
"""A training loss that is so many times the lowest so far is that of a training that broke down, if it also"""

LOST = 10
"""has lost so many points of its accuracy."""


def paragraphs(results: Results) -> dict[str, list[str]]:
    """Paragraphs by topic; each topic is a section of the discussion."""

    def each(write: Callable[[Results, str], Iterator[str]]) -> list[Iterator[str]]:
        return [write(results, dataset) for dataset in results.datasets]

    topics = {
        "Accuracy": each(_accuracy),
        "Gradient and other terms": [*each(_study), _caution()],
        "What drives the speed-up": [sweep_discussion.laws(results), sweep_discussion.speedup(results)],
        "Few channels": [sweep_discussion.few_channels(results)],
        "Where the time goes": [sweep_discussion.time_shares(results)],
        "What the law leaves out": [sweep_discussion.flat(results)],
        "Whole networks": each(_network),
        "Memory": each(_memory),
        "Training": [_training(results)],
        "Limits, and advice": [sweep_discussion.advice(results)],
    }
    joined = {topic: [" ".join(filter(None, sentences)) for sentences in all_] for topic, all_ in topics.items()}
    return {topic: list(filter(None, texts)) for topic, texts in joined.items()}


def _accuracy(results: Results, dataset: str) -> Iterator[str]:
    means = [tables.mean_accuracy(results, dataset, v) for v in ("float", "xnor")]
    cost = means[0] - means[1]
    over = claim(results.seeds(dataset, "xnor")["runs"] > 1, ", means over the seeds")
    yield claim(
        cost > 0,
        f"On {results.title(dataset)}, binarization costs {half_up(cost)} points of test accuracy "
        f"({half_up(means[0])} to {half_up(means[1])} %{over}), each network trained by its own recipe.",
        f"On {results.title(dataset)}, binarization costs nothing: {half_up(means[1])} %, float {half_up(means[0])} %{over}.",
    )
    yield from _how_sure(results, dataset)
    packed, recipe = results.packed(dataset), results.settings(dataset, "xnor")["optimization"]
    fitted, right = packed["train_accuracy"], packed["test_accuracy"]
    yield (
        f"Of its training images, as they are, the packed network gets {fitted:.2f} % right, of the test images {right:.2f} %"
        + claim(right < fitted >= FITS, ": what it lacks is not the capacity to fit those that it sees.", ".")
    )
    yield from _dead_stages(results, dataset)
    columns = ["epoch", "learning_rate", "train_loss", "train_accuracy", "validation_accuracy"]
    curve = results.csv(f"plots/curves/{dataset}-xnor.csv", columns)
    # With restarts, the loss is meant to rise; with mixed images, judged by one of their two labels, it does by chance.
    if not recipe.get("restarts") and not recipe["cutmix"]:
        yield from _breakdown(curve)
    yield from _lag(curve)


def _how_sure(results: Results, dataset: str) -> Iterator[str]:
    """How far that depends on the images that were asked for."""
    by_float, by_xnor = (results.right(dataset, v) for v in ("float", "xnor"))
    by_image = difference(100.0 * by_float, 100.0 * by_xnor)
    cost = tables.cost_by_seed(results, dataset, "validation_accuracy")
    yield (
        f"That the {len(by_float):,} test images are some of many makes it uncertain by ±{by_image.high - by_image.mean:.2f} points"
        + claim(cost is not None, ", which an interval over seeds leaves out")
        + f": of the networks of the first seed, only the float one gets {(by_float & ~by_xnor).sum()} of them right, only "
        f"the XNOR one {(by_xnor & ~by_float).sum()}."
    )
    if cost:
        yield (
            f"On the validation images, float less XNOR is {cost.mean:.2f} points in the same pairs of networks (95 % "
            f"interval {cost.low:+.2f} to {cost.high:+.2f})."
        )


def _dead_stages(results: Results, dataset: str) -> Iterator[str]:
    """Stages that the XNOR network does not need."""
    if "stages" not in results.packed(dataset):
        return
    seen, stages = results.stages(dataset)
    dead = results.dead_stages(dataset)
    numbers = listed(list(dead))
    without = listed([f"{v['accuracy_without']:.1f}" for v in dead.values()])
    variances = [v["stream_variance"] for v in stages.values()]
    yield claim(
        bool(dead),
        f"Part of the cost may be this network's own: the binary convolutions of stage{'s' * (len(dead) > 1)} {numbers}, of "
        f"{len(stages)}, contribute nothing. With what they add to the residual stream replaced by its mean, while the float "
        f"shortcut stays, {without} % of {seen['images']:,} validation images are right, as against {seen['accuracy']:.1f} % "
        f"with them ([why]({WHY})).",
    )
    yield claim(
        bool(dead) and variances == sorted(variances) and variances[-1] > LOUD * variances[0],
        f"The variance of the stream grows from {two_digits(variances[0])} to {two_digits(variances[-1])}, which drowns what "
        "they add.",
    )


def _lag(curve: pd.DataFrame) -> Iterator[str]:
    """A network that knows its validation images late, while it learns the others."""
    lag = curve.train_accuracy - curve.validation_accuracy
    if lag.max() <= LAG or lag.iloc[-1] >= lag.max() / 2:
        return
    worst, last = curve.loc[lag.idxmax()], curve[lag > LAG].iloc[-1]
    yield (
        f"Its validation accuracy stays far below that in training ({worst.validation_accuracy:.0f} and "
        f"{worst.train_accuracy:.0f} % in epoch {worst.epoch:.0f}) until epoch {last.epoch:.0f}, when the learning rate is down to "
        f"{100 * last.learning_rate / curve.learning_rate.max():.0f} % of its peak: the running statistics of BatchNorm "
        f"probably do not keep up with weights that move far in every step, and come right in the end ([more]({WHY}))."
    )


def _breakdown(curve: pd.DataFrame) -> Iterator[str]:
    """A training that lost what it had learned, and found it again, or not."""
    best = curve.train_loss.cummin()
    lost = curve.train_accuracy < curve.train_accuracy.cummax() - LOST
    broken = (curve.train_loss > BROKEN * best) & lost
    if not broken.any():
        return
    first = broken.idxmax()
    after = curve[first:]
    found = after[after.train_loss <= best[first]].epoch
    episode = after.loc[: found.index[0]] if len(found) else after
    worst = episode.loc[episode.train_loss.idxmax()]
    learned = curve.train_accuracy[: first + 1].max()
    yield (
        f"The XNOR network's training broke down on the way: its accuracy on the training images fell from {learned:.0f} % to "
        f"{worst.train_accuracy:.0f} % in epoch {worst.epoch:.0f}, and "
        + (
            f"only in epoch {found.iloc[0]:.0f} was the loss back where it had been."
            if len(found)
            else "the loss never came back to where it had been."
        )
    )


def _study(results: Results, dataset: str) -> Iterator[str]:
    first, *others = results.study(dataset).items()
    runs, against = first[1]["runs"], results.compared_with(dataset)
    losses = results.study_rows(dataset).pivot(index="seed", columns="arm", values="train_loss")
    alike = {arm for arm, _ in others if losses[arm].equals(losses[against[arm]])}
    same, lower, higher, open_ = list[str](), list[str](), list[str](), list[str]()
    for arm, v in others:
        difference_to = f'"{arm}" ({v["difference"]:+.2f}'
        if arm in alike:  # what it changes never took effect
            same.append(f'"{arm}"')
        elif v["low"] <= 0 <= v["high"]:
            open_.append(f"{difference_to})")
        else:
            (higher if v["low"] > 0 else lower).append(f"{difference_to} points)")
    verdicts = [
        claim(bool(higher), f"validation accuracy is higher with {listed(higher)}"),
        claim(bool(lower), f"{'it' if higher else 'validation accuracy'} is lower with {listed(lower)}"),
        claim(bool(open_), f"no difference is shown for {listed(open_)}"),
        claim(bool(same), f"exactly the same networks come out {listed(same)}"),
    ]
    whom = sorted({against[arm] for arm, _ in others}, key=list(against).index)
    yield (
        f"On {results.title(dataset)}, {runs:.0f} short trainings an arm, compared seed by seed with "
        + (f'the arm "{first[0]}": ' if whom == [first[0]] else "the arm that the table names: ")
        + "; ".join(filter(None, verdicts))
        + "."
    )
    yield from _corrected(results, dataset, [arm for arm, _ in others if arm not in alike])
    by_change = sorted(results.study(dataset).items(), key=lambda entry: entry[1]["signs_changed"])
    (calm, least), (restless, most) = by_change[0], by_change[-1]
    yield (
        f'Of the binary weights, {least["signs_changed"]:.1f} % end the last epoch with the other sign with "{calm}", the '
        f'fewest, and {most["signs_changed"]:.1f} % with "{restless}", the most.'
    )


def _corrected(results: Results, dataset: str, compared: list[str]) -> Iterator[str]:
    """Which differences remain where it counts how many were looked at."""
    arms, against = results.study(dataset), results.compared_with(dataset)
    decided = [arm for arm in compared if arms[arm]["low"] > 0 or arms[arm]["high"] < 0]
    if not decided or len(compared) < 2:
        return
    by_arm = results.study_rows(dataset).pivot(index="seed", columns="arm", values="validation_accuracy")
    corrected = false_discovery_control([difference(by_arm[arm], by_arm[against[arm]]).chance for arm in compared])
    left = [f'"{arm}"' for arm, chance in zip(compared, corrected, strict=True) if arm in decided and chance < RISK]
    of_these = {0: "none of these differences remains", len(decided): "all of these differences remain"}
    if len(decided) == 1:
        of_these = {0: "the difference does not remain", 1: "the difference remains"}
    some = f"of these differences {listed(left)} remain{'s' * (len(left) == 1)}"
    yield (
        f"Corrected for the {len(compared)} comparisons (Benjamini and Hochberg, a false discovery rate of {100 * RISK:.0f} %), "
        f"{of_these.get(len(left), some)}."
    )


def _caution() -> Iterator[str]:
    yield (
        "Each interval is that of a single comparison: of twenty comparisons without any difference, one on average excludes 0 "
        "by chance. The trainings are short: they say what a term does early on, not what is left of it after a full training."
    )


def _network(results: Results, dataset: str) -> Iterator[str]:
    rows = results.inference_rows(dataset)
    gains, parts = [], []
    for batch in sorted(rows.batch.unique()):
        packed, in_torch, *_ = results.timed(dataset, batch=batch)
        gains.append(in_torch.times_packed)
        parts.append(f"{in_torch.times_packed:.1f}x at batch {batch}{_noisy(packed, in_torch)}")
    yield claim(
        min(gains) > 1,
        f"{results.title(dataset)} as a whole is faster than its float twin in torch by {' and '.join(parts)}, on one thread.",
        f"{results.title(dataset)} as a whole, on one thread and over its float twin in torch, reaches {' and '.join(parts)}.",
    )
    packed, _, fastest, rival = results.timed(dataset)
    yield claim(
        rival.times_packed > 1,
        f"The fastest rival at batch {rival.batch}, {rival.contestant}, takes {rival.times_packed:.1f} times as long"
        f"{_noisy(packed, rival)}.",
        f"At batch {rival.batch}, {rival.contestant} is faster: it takes {rival.times_packed:.2f} of the time"
        f"{_noisy(packed, rival)}.",
    )
    yield claim(
        not fastest.contestant.startswith("torch"),
        f"Over the fastest float32 contestant, {fastest.contestant}, the gain is {fastest.times_packed:.1f}x"
        f"{_noisy(packed, fastest)}.",
    )
    threads = rows.threads.max()
    if threads > 1:
        shared, _, on_all, _ = results.timed(dataset, threads)
        gain = packed.milliseconds_per_image / shared.milliseconds_per_image
        yield claim(
            gain < HARDLY,
            f"{threads} threads do not help at this batch: over the fastest engine that runs the float twin in float32 on as many, "
            f"{on_all.contestant}, the gain is {on_all.times_packed:.1f}x{_noisy(shared, on_all)}.",
            f"With {threads} threads the packed network is {gain:.2f}x as fast{_noisy(packed, shared)}, and over the fastest engine in float32, "
            f"{on_all.contestant}, the gain is {on_all.times_packed:.1f}x{_noisy(shared, on_all)}.",
        )


def _noisy(*timed: pd.Series) -> str:
    """What to add to a ratio of these rows' times."""
    return claim(any(row.noisy for row in timed), " (noisy)")


def _memory(results: Results, dataset: str) -> Iterator[str]:
    memory = results.memory(dataset)
    rows = results.memory_rows(dataset)
    binary = rows[(rows.packed_bytes > 0) & (rows.float_bytes > 8 * rows.packed_bytes)]
    rest = rows.packed_bytes.sum() - binary.packed_bytes.sum()
    yield (
        f"{results.title(dataset)}: {memory['binary_share']:.1f} % of the parameters take one bit each. The file is "
        f"{memory['ratio']:.1f}x smaller rather than 32x: of its {memory['packed_bytes'] / 1000:,.1f} kB, "
        f"{binary.packed_bytes.sum() / 1000:,.1f} are the binary layers, with their scales and thresholds, {rest / 1000:,.1f} "
        "what stays float, and the rest the header."
    )
    shortcuts = rows[rows.layer.str.contains("shortcut")].packed_bytes.sum()
    if shortcuts:
        without = (memory["float_bytes"] - shortcuts) / (memory["packed_bytes"] - shortcuts)
        yield (
            f"The float 1x1 shortcuts alone are {shortcuts / 1000:,.0f} kB; without them in either file, the packed one would "
            f"be {without:.0f}x smaller."
        )


def _training(results: Results) -> Iterator[str]:
    ratios, parts = [], []
    for dataset in results.datasets:
        by_float, by_xnor = (pd.Series(results.pace(dataset)[variant]) for variant in ("float", "xnor"))
        ratios.append(by_xnor.seconds_per_epoch / by_float.seconds_per_epoch)
        marked = claim(by_float.noisy or by_xnor.noisy, ", noisy")
        parts.append(f"{ratios[-1]:.2f} times ({results.title(dataset)}{marked})")
    times = listed(parts)
    yield f"An epoch of the XNOR network takes {times} as long as its float twin's."
    yield claim(
        min(ratios) > 0.95,
        "Training is not faster: it multiplies floats, activations of ±1 by weights of ±α, and keeps latent weights in float32.",
    )

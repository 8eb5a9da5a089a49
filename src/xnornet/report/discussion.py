"""The report's prose: every sentence that claims something is written by a function that first looks whether it holds.

A claim that the metrics do not support is replaced by what they do support, or left out: see `claim`.
"""

from collections.abc import Callable, Iterator

import pandas as pd

from xnornet.report import tables
from xnornet.report.read import Results
from xnornet.report.sweep_figures import FLAT, LAWFUL

HARDLY = 1.1
"""Up to which ratio numbers count as the same: that of a noisy timing."""

LAG = 30
"""From how many points on validation accuracy counts as far below that in training."""

USUAL_EPOCHS = 100
"""From which a training on CIFAR-10 counts as full."""


def claim(holds: bool, sentence: str, otherwise: str = "") -> str:
    """`sentence` if it holds, else `otherwise`."""
    return sentence if holds else otherwise


def paragraphs(results: Results) -> dict[str, list[str]]:
    """Paragraphs by topic; each topic is a section of the discussion."""

    def each(write: Callable[[Results, str], Iterator[str]]) -> list[Iterator[str]]:
        return [write(results, dataset) for dataset in results.datasets]

    topics = {
        "Accuracy": each(_accuracy),
        "Gradient and other terms": [*each(_study), _caution()],
        "What drives the speed-up": [_laws(results), _speedup(results)],
        "Few channels": [_few_channels(results)],
        "Where the time goes": [_time(results)],
        "What the law leaves out": [_flat(results)],
        "Whole networks": each(_network),
        "Memory": each(_memory),
        "Training": [_training(results)],
        "Limits, and advice": [_advice(results)],
    }
    joined = {topic: [" ".join(filter(None, sentences)) for sentences in all_] for topic, all_ in topics.items()}
    return {topic: list(filter(None, texts)) for topic, texts in joined.items()}


def at(rows: pd.DataFrame, value: int) -> pd.Series | None:
    """The point of a sweep at `value`, if it was visited."""
    found = rows[rows.value == value]
    return None if found.empty else found.iloc[0]


def _accuracy(results: Results, dataset: str) -> Iterator[str]:
    by_float, by_xnor = (results.trained(dataset, v) for v in ("float", "xnor"))
    cost = by_float["test_accuracy"] - by_xnor["test_accuracy"]
    yield claim(
        cost > 0,
        f"On {results.title(dataset)}, binarization costs {cost:.2f} points of test accuracy "
        f"({by_float['test_accuracy']:.2f} to {by_xnor['test_accuracy']:.2f} %), each network trained by its own recipe.",
        f"On {results.title(dataset)}, binarization costs nothing: {by_xnor['test_accuracy']:.2f} %, float "
        f"{by_float['test_accuracy']:.2f} %.",
    )
    gap = by_float["train_accuracy"] - by_xnor["train_accuracy"]
    yield claim(
        cost > 0 and gap > 0,
        f"In the last epoch of training, on augmented images, the XNOR network's accuracy is lower too, by {gap:.2f} "
        "points: what is lost is at least in part capacity (activations and weights of one bit) and optimization (a "
        "gradient that is an estimate), not generalization alone.",
    )
    curve = results.csv(f"plots/curves/{dataset}-xnor.csv", ["epoch", "train_accuracy", "validation_accuracy"])
    lag = curve.train_accuracy - curve.validation_accuracy
    worst = curve.loc[lag.idxmax()]
    yield claim(
        lag.max() > LAG and lag.iloc[-1] < lag.max() / 2,
        f"Until its learning rate is near 0, its validation accuracy stays far below that in training ({worst.validation_accuracy:.0f} "
        f"and {worst.train_accuracy:.0f} % in epoch {worst.epoch:.0f}): the running statistics of BatchNorm do not keep up with "
        "weights that move far in every step, and come right in the end ([more](docs/recipe.md)).",
    )
    seeds = {variant: tables.over_seeds(results, dataset, variant) for variant in ("float", "xnor")}
    yield claim(
        all(seeds.values()),
        f"Mean and standard deviation over the seeds, whose number is in brackets: float {seeds['float']}, XNOR "
        f"{seeds['xnor']}.",
    )
    lengths = {"float": by_float["epochs"], "XNOR": by_xnor["epochs"]}
    short = [f"{name} had {n}" for name, n in lengths.items() if n < USUAL_EPOCHS]
    yield claim(
        dataset == "cifar10" and bool(short),
        f"Usual are {USUAL_EPOCHS} epochs and more; {_listed(short)}.",
    )


def _study(results: Results, dataset: str) -> Iterator[str]:
    first, *others = results.study(dataset).items()
    runs, against = first[1]["runs"], results.compared_with(dataset)
    losses = results.study_rows(dataset).pivot(index="seed", columns="arm", values="train_loss")
    alike = {arm for arm, _ in others if losses[arm].equals(losses[against[arm]])}
    same = [f'"{arm}"' for arm, _ in others if arm in alike]
    lower = [f'"{arm}" ({v["difference"]:+.2f} points)' for arm, v in others if v["high"] < 0]
    higher = [f'"{arm}" ({v["difference"]:+.2f} points)' for arm, v in others if v["low"] > 0]
    open_ = [
        f'"{arm}" ({v["difference"]:+.2f})' for arm, v in others if v["low"] <= 0 <= v["high"] and arm not in alike
    ]
    verdicts = [
        claim(bool(higher), f"validation accuracy is higher with {_listed(higher)}"),
        claim(bool(lower), f"{'it' if higher else 'validation accuracy'} is lower with {_listed(lower)}"),
        claim(bool(open_), f"a difference from 0 is not shown for {_listed(open_)}"),
        claim(bool(same), f"the same networks come out with {_listed(same)}, which never took effect"),
    ]
    whom = sorted({against[arm] for arm, _ in others}, key=list(against).index)
    yield (
        f"On {results.title(dataset)}, {runs:.0f} short trainings an arm, compared seed by seed with "
        + (f'the arm "{first[0]}": ' if whom == [first[0]] else "the arm that the table names: ")
        + "; ".join(filter(None, verdicts))
        + "."
    )
    by_change = sorted(results.study(dataset).items(), key=lambda entry: entry[1]["signs_changed"])
    (calm, least), (restless, most) = by_change[0], by_change[-1]
    yield (
        f'Of the binary weights, {least["signs_changed"]:.1f} % end the last epoch with the other sign with "{calm}", the '
        f'fewest, and {most["signs_changed"]:.1f} % with "{restless}", the most.'
    )


def _caution() -> Iterator[str]:
    yield (
        "Each interval is that of a single comparison: of twenty without any difference, one misses 0 by chance. The "
        "trainings are short: they say what a term does early on, not what is left of it after a full training."
    )


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _laws(results: Results) -> Iterator[str]:
    peaks = results.peaks("input_channels")
    ratio = peaks["peak_popcount_gmacs"] / peaks["peak_float32_gmacs"]
    yield (
        "A binary layer replaces a multiplication and an addition by an XNOR and a count of bits. How much faster that is "
        "depends on how many of either the CPU does at a time. The paper counts one float operation against one on a word "
        "of 64 bits, hence at most 64x. A CPU with vector units multiplies many floats at a time too: here one core "
        f"measures {peaks['peak_float32_gmacs']:.0f} billion float32 multiply-accumulates a second and "
        f"{peaks['peak_popcount_gmacs']:,.0f} billion binary ones. Their ratio, R = {ratio:.1f}, is what binarization gains over "
        "a float layer that runs at its own peak; S = R n / (n + R), with n products an output (c channels times the pixels "
        "of a filter), takes the place of S = 64 n / (n + 64)."
    )


def _speedup(results: Results) -> Iterator[str]:
    rows, peaks = results.sweep("input_channels"), results.peaks("input_channels")
    ratio = peaks["peak_popcount_gmacs"] / peaks["peak_float32_gmacs"]
    if (paper := at(rows, 256)) is not None:
        share = paper.speedup_torch / paper.law_machine
        reached = paper.macs / paper.ours_seconds / 1e9 / peaks["peak_popcount_gmacs"]
        by_torch = paper.macs / paper.torch_seconds / 1e9 / peaks["peak_float32_gmacs"]
        yield (
            f"The paper's layer (256 channels, 14x14, 3x3) is {paper.speedup_torch:.1f}x faster than torch float32, packing "
            f"included; the paper's law promises {paper.law_paper:.1f}x, this machine's {paper.law_machine:.1f}x."
        )
        yield claim(
            share > 1 and by_torch < reached,
            f"That it exceeds the machine's law is no wonder: the law has both sides run at their peaks, and torch reaches "
            f"{100 * by_torch:.0f} % of the float32 peak here where the binary layer, packing included, reaches "
            f"{100 * reached:.0f} % of the popcount peak.",
            f"It reaches {100 * share:.0f} % of the machine's law.",
        )
    best = rows.loc[rows.speedup_torch.idxmax()]
    yield f"The highest speed-up of the channel sweep is {best.speedup_torch:.1f}x, at {best.value} channels."
    by_ours = best.macs / best.ours_seconds / 1e9 / peaks["peak_popcount_gmacs"]
    by_torch = best.macs / best.torch_seconds / 1e9 / peaks["peak_float32_gmacs"]
    yield claim(
        best.speedup_torch > ratio,
        f"That is above R, since torch reaches {100 * by_torch:.0f} % of its peak there and the binary layer "
        f"{100 * by_ours:.0f} % of its own.",
    )
    filters = results.sweep("filter_size")
    worst, top = filters.loc[filters.speedup_torch.idxmin()], filters.loc[filters.speedup_torch.idxmax()]
    yield (
        f"Over filter sizes it runs from {worst.speedup_torch:.1f}x ({worst.value}x{worst.value}) to {top.speedup_torch:.1f}x "
        f"({top.value}x{top.value})."
    )
    rates = filters.macs / filters.kernel_seconds / 1e9 / peaks["peak_popcount_gmacs"]
    yield claim(
        bool(worst.value == filters.value.min()) and rates[worst.name] < 0.8 * rates.max(),
        f"The smallest filter gains least: with {worst.macs / (14 * 14 * 256):,.0f} products an output, too little follows what "
        f"each output costs once (start, scale, store), and the kernel reaches {100 * rates[worst.name]:.0f} % of its peak in "
        f"place of up to {100 * rates.max():.0f} %.",
    )


def _few_channels(results: Results) -> Iterator[str]:
    rows = results.sweep("input_channels").sort_values("value")
    first, last = rows.iloc[0], rows.iloc[-1]
    yield claim(
        first.speedup_torch < last.speedup_torch / 2,
        f"With {first.value} input channel{'s' * int(first.value > 1)} the binary layer takes "
        f"{1 / first.speedup_torch:.2f} times as long as torch's float one; with {last.value}, torch takes "
        f"{last.speedup_torch:.1f} times as long."
        if first.speedup_torch < 1
        else f"With {first.value} input channel{'s' * int(first.value > 1)} the speed-up is {first.speedup_torch:.1f}x, with "
        f"{last.value} it is {last.speedup_torch:.1f}x.",
        f"Between {first.value} and {last.value} input channels the speed-up changes only from {first.speedup_torch:.1f}x to "
        f"{last.speedup_torch:.1f}x.",
    )
    shared = rows[3 * rows.value < 64]
    if len(shared) > 1:
        spread = shared.kernel_seconds.max() / shared.kernel_seconds.min()
        yield claim(
            spread < HARDLY,
            "Channels are packed 64 to a word; where there are fewer, the columns of a filter share words, so that a 3x3 "
            f"filter reads 3 words up to 21 channels, 6 up to 42, and 9 up to 64. Hence from {shared.value.min()} to "
            f"{shared.value.max()} channels the kernel's time hardly changes, while the float convolution's falls with "
            "the work.",
        )
    yield (
        "This is one reason why the first layer, with one or three channels, stays float; the other is that its input is "
        "the image itself, of which a sign keeps little."
    )


def _time(results: Results) -> Iterator[str]:
    rows = results.sweep("input_channels")
    near = claim("avx512_vpopcntdq" in results.machine()["cpu"]["vector_flags"], "registers", "registers or in L1")
    if (paper := at(rows, 256)) is not None:
        added = paper.ours_seconds - paper.kernel_seconds
        yield (
            f"In a call of its own, the kernel of the paper's layer takes {1e6 * paper.kernel_seconds:.1f} µs, and packing "
            f"the float input {1e6 * paper.packing_seconds:.1f} µs."
        )
        yield claim(
            0 < added < paper.packing_seconds,
            f"In one call with it, packing adds {1e6 * added:.1f} µs, {100 * added / paper.ours_seconds:.0f} % of the whole: "
            "the rest is what a call costs.",
        )
        peak = results.peaks("input_channels")["peak_popcount_gmacs"]
        rate = paper.macs / paper.kernel_seconds / 1e9
        yield (
            f"The kernel runs at {rate:,.0f} billion multiply-accumulates a second, {100 * rate / peak:.0f} % of the "
            "popcount loop's peak."
        )
    yield (
        "Products with the padding, 9 % with a 3x3 filter at 14x14, are left out: pixels at a border pass the kernel "
        "together, with the taps that lie inside; where some padding is counted all the same, its known part is subtracted. The "
        f"epilogue (scale, bias, residual, threshold) works on counts that are still in {near}. Inside a network there is "
        "no packing at all, since each layer writes the bits that the next one reads."
    )


def _flat(results: Results) -> Iterator[str]:
    for axis, name in (("image_size", "image size"), ("batch", "batch size"), ("threads", "number of threads")):
        rows = results.sweep(axis)
        low, high = rows.speedup_torch.min(), rows.speedup_torch.max()
        if len(rows) > 1:
            yield claim(
                high / low < HARDLY,
                f"As the law has it, the {name} hardly matters: {low:.1f}x to {high:.1f}x.",
                f"The law does not know the {name}, but the measurement depends on it: {low:.1f}x to {high:.1f}x.",
            )
    threads = results.sweep("threads").sort_values("value")
    if len(threads) > 1:
        first, last = threads.iloc[0], threads.iloc[-1]
        yield f"{last.value} threads run the layer {first.ours_seconds / last.ours_seconds:.2f}x as fast as {first.value}."


def _network(results: Results, dataset: str) -> Iterator[str]:
    times = results.inference(dataset)
    alone = [(batch, by["threads1"]["speedup"]) for batch, by in times.items() if "threads1" in by]
    parts = [f"{speedup:.1f}x at batch {batch.removeprefix('batch')}" for batch, speedup in alone]
    yield claim(
        min(speedup for _, speedup in alone) > 1,
        f"{results.title(dataset)} as a whole is faster than its float twin in torch by {' and '.join(parts)}, on one thread.",
        f"{results.title(dataset)} as a whole, on one thread and over its float twin in torch, reaches {' and '.join(parts)}.",
    )
    others = results.one_image(dataset).query("contestant != 'packed'")
    if not others.empty:
        nearest = others.loc[others.times_packed.idxmin()]
        yield claim(
            nearest.times_packed > 1,
            f"The nearest contestant at batch {nearest.batch}, {nearest.contestant}, takes {nearest.times_packed:.1f} times "
            "as long.",
            f"At batch {nearest.batch}, {nearest.contestant} is faster: it takes {nearest.times_packed:.2f} of the time.",
        )
    fastest = results.fastest_float32(dataset)
    yield claim(
        not fastest.contestant.startswith("torch"),
        f"Over the fastest float32 contestant, {fastest.contestant}, the gain is {fastest.times_packed:.1f}x.",
    )
    rows = results.inference_rows(dataset)
    threads = rows.threads.max()
    if threads > 1:
        packed = rows[(rows.batch == rows.batch.min()) & (rows.contestant == "packed")].set_index("threads")
        gain = packed.milliseconds_per_image[1] / packed.milliseconds_per_image[threads]
        on_all = results.fastest_float32(dataset, threads)
        yield claim(
            gain < HARDLY,
            f"{threads} threads are hardly any faster at this batch, where other engines gain: over the fastest of them in "
            f"float32, {on_all.contestant}, {on_all.times_packed:.1f}x are left.",
            f"With {threads} threads the packed network is {gain:.2f}x as fast, and over the fastest engine in float32, "
            f"{on_all.contestant}, the gain is {on_all.times_packed:.1f}x.",
        )


def _memory(results: Results, dataset: str) -> Iterator[str]:
    memory = results.memory(dataset)
    rows = results.csv(f"plots/memory/{dataset}.csv", ["layer", "float_bytes", "packed_bytes"])
    binary = rows[(rows.packed_bytes > 0) & (rows.float_bytes > 8 * rows.packed_bytes)]
    rest = rows.packed_bytes.sum() - binary.packed_bytes.sum()
    yield (
        f"{results.title(dataset)}: {memory['binary_share']:.1f} % of the parameters become one bit, and the file "
        f"{memory['ratio']:.1f}x smaller, not 32x: {rest / 1000:.1f} of its {memory['packed_bytes'] / 1000:.1f} kB are what "
        "stays float."
    )
    shortcuts = rows[rows.layer.str.contains("shortcut")].packed_bytes.sum()
    if shortcuts:
        without = (memory["float_bytes"] - shortcuts) / (memory["packed_bytes"] - shortcuts)
        yield (
            f"The float 1x1 shortcuts alone are {shortcuts / 1000:.0f} kB; without them in either file, the packed one would "
            f"be {without:.0f}x smaller."
        )


def _training(results: Results) -> Iterator[str]:
    ratios = []
    for dataset in results.datasets:
        both = [results.pace(dataset)[variant]["seconds_per_epoch"] for variant in ("float", "xnor")]
        ratios.append(both[1] / both[0])
        yield f"An epoch of the XNOR network takes {ratios[-1]:.2f} times as long as its float twin's ({results.title(dataset)})."
    yield claim(
        min(ratios) > 0.95,
        "Training is not faster: it multiplies floats, activations of ±1 by weights of ±α, and keeps latent weights in float32.",
    )


def _advice(results: Results) -> Iterator[str]:
    rows = results.sweep("input_channels")
    worthwhile = rows[rows.speedup_torch >= rows.speedup_torch.max() / 2].value
    yield (
        f"Binarize layers with many channels: on this machine half of the best speed-up is reached from {worthwhile.min()} input "
        "channels on. Choose channels as multiples of 64, which fill the words that the engine packs them into. Keep the "
        "first and the last layer float, as here and in the paper. Measure the network, not the layer, and on the CPU that it "
        "will run on: R is a property of the machine."
    )
    noisy, points = (
        sum(int(f(results.sweep(axis))) for axis in (*LAWFUL, *FLAT)) for f in (lambda rows: rows.noisy.sum(), len)
    )
    yield claim(
        noisy > 0,
        f"{noisy} of the {points} points of the sweeps are marked (* in tables, a white centre in figures), because their "
        "quartiles, or the medians of separate passes, lie more than 10 % apart: read them with care.",
    )
    noisy, points = (
        sum(int(f(results.sweep(axis))) for axis in LAWFUL) for f in (lambda rows: rows.loop_noisy.sum(), len)
    )
    yield claim(noisy > 0, f"Marked too are {noisy} of the {points} speed-ups over the plain loop.")

"""The report's prose about single layers, from the sweeps."""

from collections.abc import Iterator

import pandas as pd

from xnornet.report.prose import HARDLY, between, claim, listed
from xnornet.report.read import Results
from xnornet.report.sweep_figures import FLAT, LAWFUL
from xnornet.report.tables import padding_share

MUCH = 0.2
"""From which share on the products with the padding explain a speed-up."""

PADDING = "docs/avx512.md#what-torch-does-with-the-padding"

PAPERS = {"input_channels": 256, "filter_size": 3, "image_size": 14, "batch": 1}
"""Where the sweeps meet: the layer that the paper's figures start from."""


def laws(results: Results) -> Iterator[str]:
    """The paper's law, and the one with this machine's peaks."""
    peaks = results.peaks("input_channels")
    how = claim(
        results.counts_in_groups(),
        "it counts word by word; where a pixel's words, of 32 channels, are a multiple of four, the engine counts them in "
        "groups, with up to an eighth fewer instructions, and can pass this peak, and the law below, by up to a seventh",
        "it counts as the engine does on this CPU",
    )
    yield (
        "A binary layer replaces a multiplication and an addition by an XNOR and a count of bits. How much faster that is "
        "depends on how many of either the CPU does at a time. The paper counts one float operation against one on a word "
        "of 64 bits, hence at most 64x. A CPU with vector units multiplies many floats at a time too: here one core "
        f"measures {peaks['peak_float32_gmacs']:.0f} billion float32 multiply-accumulates a second and "
        f"{peaks['peak_popcount_gmacs']:,.0f} billion binary ones, in loops that do what the kernels must and nothing else (the "
        f"popcount loop: {how}). Their ratio, R = {peaks['ratio']:.0f}, is what binarization gains over "
        "a float layer that runs at its own peak; S = R n / (n + R), with n products an output (c channels times the pixels "
        "of a filter), takes the place of S = 64 n / (n + 64)."
    )


def speedup(results: Results) -> Iterator[str]:
    """How fast a layer gets, by channels and by filter size."""
    yield from _papers_layer(results)
    rows, peaks = results.sweep("input_channels"), results.peaks("input_channels")
    best = rows.loc[rows.speedup_torch.idxmax()]
    made = best.speedup_torch * (1 - padding_share(rows)[best.name])
    yield (
        f"The highest speed-up of the channel sweep is {best.speedup_torch:.1f}x, at {best.value} channels, product for product "
        f"{made:.1f}x or more."
    )
    ours, by_torch = _peak_shares(results, "input_channels")
    yield claim(
        made > peaks["ratio"],
        f"That is above R, since torch reaches {by_torch[best.name]:.0f} % of its peak there and the binary layer "
        f"{ours[best.name]:.0f} % of its own.",
    )
    filters = results.sweep("filter_size")
    worst, top = filters.loc[filters.speedup_torch.idxmin()], filters.loc[filters.speedup_torch.idxmax()]
    yield (
        f"Over filter sizes it runs from {worst.speedup_torch:.1f}x ({worst.value}x{worst.value}) to {top.speedup_torch:.1f}x "
        f"({top.value}x{top.value})."
    )
    padded = padding_share(filters)[top.name]
    yield claim(
        padded > MUCH,
        f"But {100 * padded:.0f} % of the products of that layer lie in the padding. The engine leaves out most of these, "
        f"torch a part: product for product, it is {top.speedup_torch * (1 - padded):.1f}x or more.",
    )
    kernel = filters[["kernel_seconds", "ours_seconds"]].min(axis=1)  # the whole call cannot be shorter but by scatter
    rates = filters.macs / kernel / 1e9 / results.peaks("filter_size")["peak_popcount_gmacs"]
    places = dict.fromkeys([rates.idxmax(), filters.value.idxmax()])  # once, where they are one
    reached = [f"{100 * rates[worst.name]:.0f} % of the popcount peak there"]
    reached += [f"{100 * rates[place]:.0f} % at {filters.value[place]}x{filters.value[place]}" for place in places]
    inside = claim(padded > MUCH, " (in products inside of the image; with large filters it makes others, too)")
    yield claim(
        bool(worst.value == filters.value.min()) and rates[worst.name] < 0.8 * rates.max(),
        f"The smallest filter gains least: {256 * worst.value**2:,} products an output are too few to pay for what each "
        f"output costs once (start, scale, store), and packing adds {100 * (1 - worst.kernel_seconds / worst.ours_seconds):.0f} % of "
        f"the time. The kernel reaches {listed(reached)}{inside}.",
    )


def _papers_layer(results: Results) -> Iterator[str]:
    """The layer where several sweeps meet: how fast, and how much of that may be the padding that torch multiplies."""
    sweeps = {axis: results.sweep(axis) for axis in PAPERS}
    met = {axis: point for axis, value in PAPERS.items() if (point := _at(sweeps[axis], value)) is not None}
    if not met:
        return
    points = pd.DataFrame(list(met.values()))
    axis, first = next(iter(met.items()))
    low, high = points.speedup_torch.min(), points.speedup_torch.max()
    times = 1e6 * points.torch_seconds
    several = (
        f" (in {len(points)} sweeps, in which torch takes {times.min():,.0f} to {times.max():,.0f} µs)"
        if len(points) > 1
        else ""
    )
    yield (
        f"The paper's layer (256 channels, 14x14, 3x3) is {between(low, high)} faster than torch float32, packing "
        f"included{several}; the paper's law promises {first.law_paper:.1f}x, this machine's {first.law_machine:.1f}x. "
        f"Over the plain loop it is {between(points.speedup_loop.min(), points.speedup_loop.max())} faster; the paper has 58x by its "
        "own code, memory allocation and access left out, and does not say over which float code."
    )
    counted = 1 - padding_share(sweeps[axis])[first.name]
    ours, by_torch = (shares[first.name] for shares in _peak_shares(results, axis))
    at_least = between(counted * low, counted * high)
    yield (
        f"But {100 * (1 - counted):.0f} % of the products lie in the padding. The engine leaves out most of these, torch "
        f"a part ([measured]({PADDING}))."
    )
    if counted * high < first.law_machine:
        yield f"Product for product it is {at_least} or more, less than the law, which has both run at their peaks:"
    else:
        yield f"Product for product it is still {at_least} or more:"
    yield (
        f"with products inside of the image, the binary layer reaches {ours:.0f} % of its peak, torch {by_torch:.0f} % of its own."
    )


def _peak_shares(results: Results, axis: str) -> tuple[pd.Series, pd.Series]:
    """Percent of the peaks that the whole binary layer and torch reach, in products with pixels of the image."""
    rows, peaks = results.sweep(axis), results.peaks(axis)
    ours = rows.macs / rows.ours_seconds / peaks["peak_popcount_gmacs"] / 1e7
    return ours, rows.macs / rows.torch_seconds / peaks["peak_float32_gmacs"] / 1e7


def few_channels(results: Results) -> Iterator[str]:
    """What becomes of it where there are few channels."""
    rows = results.sweep("input_channels").sort_values("value")
    first, last = rows.iloc[0], rows.iloc[-1]
    gains = first.speedup_torch < last.speedup_torch / 2
    with_first = f"With {first.value} input channel{'s' * int(first.value > 1)}"
    changes = "only " * bool(rows.speedup_torch.max() < 2 * rows.speedup_torch.min())
    if gains and first.speedup_torch < 1:
        yield (
            f"{with_first} the binary layer takes {1 / first.speedup_torch:.2f} times as long as torch's float one; with "
            f"{last.value}, torch takes {last.speedup_torch:.1f} times as long."
        )
    elif gains:
        yield (
            f"{with_first} the speed-up is {first.speedup_torch:.1f}x, with {last.value} it is {last.speedup_torch:.1f}x."
        )
    elif len(rows) > 1:
        yield (
            f"Between {first.value} and {last.value} input channels the speed-up changes {changes}from "
            f"{first.speedup_torch:.1f}x to {last.speedup_torch:.1f}x."
        )
    word = results.word()
    shared = rows[3 * rows.value < word]
    if len(shared) > 1:
        spread = shared.kernel_seconds.max() / shared.kernel_seconds.min()
        yield claim(
            spread < HARDLY < shared.torch_seconds.iloc[-1] / shared.torch_seconds.iloc[0]
            and not results.looks_up(),  # which goes by bytes
            f"Words of {word} channels are counted; where there are fewer, the columns of a filter share words, so that a 3x3 "
            f"filter reads 3 words up to {word // 3} channels, 6 up to {2 * word // 3}, and 9 up to {word}. Hence from {shared.value.min()} to "
            f"{shared.value.max()} channels the kernel's time hardly changes, while the float convolution's falls with "
            "the work.",
        )
    yield claim(
        gains,
        "This is one reason why the first layer, with one or three channels, stays float; the other is that its input is "
        "the image itself, of which a sign keeps little.",
        "The first layer stays float since its input is the image itself, of which a sign keeps little.",
    )


def time_shares(results: Results) -> Iterator[str]:
    """Packing and kernel."""
    rows = results.sweep("input_channels")
    near = claim(results.looks_up(), "registers or in L1", "registers")
    if (paper := _at(rows, 256)) is not None:
        added = paper.ours_seconds - paper.kernel_seconds
        yield (
            f"In a call of its own, the kernel of the paper's layer takes {1e6 * paper.kernel_seconds:.1f} µs, and packing "
            f"the float input {1e6 * paper.packing_seconds:.1f} µs."
        )
        yield claim(
            0 < added < paper.packing_seconds,
            f"In one call with it, packing adds {1e6 * added:.1f} µs, {100 * added / paper.ours_seconds:.0f} % of the whole.",
        )
        peak = results.peaks("input_channels")["peak_popcount_gmacs"]
        rate = paper.macs / paper.kernel_seconds / 1e9
        yield (
            f"The kernel runs at {rate:,.0f} billion multiply-accumulates a second, {100 * rate / peak:.0f} % of the "
            "popcount loop's peak."
        )
    yield (
        "Of the products with the padding, 9 % of all with a 3x3 filter at 14x14, most are left out: pixels at a border pass the kernel "
        "together, with the rows, or the columns, of the filter that lie inside; of the padding that is counted all the same, "
        "the known part is subtracted. The "
        f"epilogue (scale, bias, residual, threshold) works on counts that are still in {near}. Inside a network "
        "packing is no step of its own: each layer's epilogue writes the bits that the next one reads."
    )


def flat(results: Results) -> Iterator[str]:
    """What the law says nothing of: image size, batch, threads."""
    for axis, name in (("image_size", "image size"), ("batch", "batch size"), ("threads", "number of threads")):
        rows = results.sweep(axis)
        marked = claim(bool(rows.noisy.any()), " (noisy points among them)")
        low, high = rows.speedup_torch.min(), rows.speedup_torch.max()
        if len(rows) > 1:
            yield claim(
                high / low < HARDLY,
                f"As the law has it, the {name} hardly matters: {between(low, high)}{marked}.",
                f"The law does not know the {name}, but the measurement depends on it: {between(low, high)}{marked}.",
            )
        if high / low >= HARDLY and axis != "threads":
            ours, by_torch = _peak_shares(results, axis)
            yield (
                f"Torch runs at {by_torch.min():.0f} to {by_torch.max():.0f} % of its peak there ({by_torch.iloc[0]:.0f} % at "
                f"{rows.value.iloc[0]}, {by_torch.iloc[-1]:.0f} % at {rows.value.iloc[-1]}), the binary layer at "
                f"{ours.min():.0f} to {ours.max():.0f} % of its own."
            )
    threads = results.sweep("threads").sort_values("value")
    if len(threads) > 1:
        first, last = threads.iloc[0], threads.iloc[-1]
        yield (
            f"{last.value} threads run the layer {first.ours_seconds / last.ours_seconds:.2f}x as fast as {first.value}, its "
            f"kernel alone {first.kernel_seconds / last.kernel_seconds:.2f}x"
            f"{claim(bool(first.noisy or last.noisy), ' (noisy)')}."
        )


def advice(results: Results) -> Iterator[str]:
    """When to binarize, and what to be careful with."""
    rows = results.sweep("input_channels").sort_values("value")
    short_of = rows[rows.speedup_torch < rows.speedup_torch.max() / 2].value
    enough = rows.value[rows.value > (0 if short_of.empty else short_of.max())].min()
    yield claim(
        bool(enough > 0),  # not NaN: the widest layer is not among the slow ones
        f"Binarize layers with many channels: on this machine half of the best speed-up is reached from {enough} input "
        "channels on.",
    )
    yield claim(
        results.looks_up(),
        "Choose output channels as multiples of 128, or at least of 32, so many of which the engine counts at a time on this "
        "CPU, and input channels as multiples of 8, which fill its bytes.",
        claim(
            results.counts_in_groups(),
            "Choose input channels as multiples of 256, or at least of 128, whose words the engine counts in groups on this "
            "CPU, and output channels as multiples of 32: it counts 16 or 32 of them at a time.",
            "Choose channels as multiples of 64, which fill the words that the engine packs them into.",
        ),
    )
    best = rows.value[rows.speedup_torch.idxmax()]
    yield claim(
        results.counts_in_groups() and best % 128 != 0,
        "That is for the engine's own time; the speed-up over torch, which is highest at "
        f"{best} input channels here, depends on torch as well.",
    )
    yield (
        "Keep the first and the last layer float, as here and in the paper. Measure the network, not the layer, and on the CPU "
        "that it will run on: R belongs to the machine and to the way of counting."
    )
    points = pd.concat([results.sweep(axis) for axis in (*LAWFUL, *FLAT)])
    noisy, loop_noisy = int(points.noisy.sum()), int(points.loop_noisy.sum())
    yield claim(
        noisy + loop_noisy > 0,
        f"Of the {len(points)} speed-ups over torch in the sweeps, {noisy or 'none'} {'is' if noisy < 2 else 'are'} noisy, and "
        f"{loop_noisy or 'none'} of those over the plain loop (* in tables, a white centre in figures): quartiles, or the "
        "medians of separate passes, lie more than 10 % apart. Read them with care.",
    )


def _at(rows: pd.DataFrame, value: int) -> pd.Series | None:
    """The point of a sweep at `value`, if it was visited."""
    found = rows[rows.value == value]
    return None if found.empty else found.iloc[0]

"""Made-up times of single layers, and what the tables say of them."""

from typing import Any

import pandas as pd
import pytest

from xnornet.bench.baselines import BASELINES, TORCH_FLOAT32
from xnornet.bench.layer import CHAINS
from xnornet.bench.ours import ours
from xnornet.bench.peers import peers
from xnornet.bench.workload import LAYERS
from xnornet.layer_table import MEAN_OF, OVER, SHARES, TORCH, left_out, ratios, ratios_table, times_table

PEAKS = {"popcount": 600.0, "float32": 30.0}
TORCH_RATIO = "ours over torch float32, better layout"


def row(layer: str, contestant: str, microseconds: float | None, **others: Any) -> dict[str, Any]:
    macs = {"macs": LAYERS[layer].macs_inside, "macs_with_padding": LAYERS[layer].macs}
    seconds = None if microseconds is None else 1e-6 * microseconds
    same = {"layer": layer, "contestant": contestant, "seconds": seconds, "noisy": False, "note": None, "threads": 1}
    return same | macs | others


def table(**microseconds: float) -> pd.DataFrame:
    """The same times for each of ResNet-18's layers."""
    names = {"ours": "ours", "nchw": TORCH[0], "last": TORCH[1], "chain": "ours, in a chain"}
    return pd.DataFrame([row(layer, names[key], time) for layer in MEAN_OF for key, time in microseconds.items()])


def test_every_name_is_that_of_a_contestant_or_a_layer() -> None:
    contestants = {*ours(), *BASELINES, *peers(), *(shown for _, shown in CHAINS.values())}
    named = {name for slow, fast in OVER.values() for name in (*slow, fast)}
    named |= {name for names, _, _ in SHARES.values() for name in names}
    assert named <= contestants
    assert TORCH == TORCH_FLOAT32
    assert set(MEAN_OF) <= set(LAYERS)


@pytest.mark.parametrize(("last", "ratio"), [(1200, 20), (800, 16)])
def test_the_better_memory_format_is_the_headline(last: float, ratio: float) -> None:
    assert ratios(table(ours=50, nchw=1000, last=last), PEAKS).at[TORCH_RATIO, "256@14"] == pytest.approx(ratio)


@pytest.mark.parametrize("threads", [1, 2])
def test_share_of_the_peak(threads: int) -> None:
    """256 -> 256 channels, 3x3 on 14x14: 104.9 million products, 115.6 with the padding; 524 and 578 GMAC/s."""
    shares = ratios(table(ours=1, chain=200).assign(threads=threads), PEAKS)["256@14"] * threads
    assert shares["in a chain, of the popcount peak"] == pytest.approx(256 * 256 * 40**2 / 200e-6 / 600e9)
    assert shares["in a chain, of the popcount peak"] == pytest.approx(0.874, abs=1e-3)
    assert shares["the same, padding counted"] == pytest.approx(256 * 256 * 42**2 / 200e-6 / 600e9)
    assert shares["the same, padding counted"] == pytest.approx(0.963, abs=1e-3)


def test_the_mean_is_geometric_and_of_the_four_layers_only() -> None:
    times = dict(zip(MEAN_OF, (10, 20, 40, 80), strict=True))
    rows = [row(layer, TORCH[0], time) for layer, time in times.items()] + [row(layer, "ours", 1) for layer in times]
    rows += [row("lenet-conv", TORCH[0], 1000), row("lenet-conv", "ours", 1)]
    assert ratios(pd.DataFrame(rows), PEAKS).at[TORCH_RATIO, "geometric mean"] == pytest.approx(800**0.5)
    without = pd.DataFrame(rows[1:])  # of the first layer only ours was timed: no mean of three
    assert pd.isna(ratios(without, PEAKS).at[TORCH_RATIO, "geometric mean"])


def test_what_was_not_timed_is_a_dash_and_who_never_was_has_no_row() -> None:
    rows = table(ours=50, nchw=1000)
    rows = pd.concat([rows, pd.DataFrame([row("256@14", TORCH[1], 900), row("64@56", "torch int8", None, note="no")])])
    times = times_table(rows).set_index("µs per call")
    assert list(times) == list(MEAN_OF)
    assert list(times.loc[TORCH[1]]) == ["-", "-", "900", "-"]
    assert list(times.loc["ours"]) == ["50.0"] * 4
    assert "torch int8" not in times.index
    text = ratios_table(rows, PEAKS).set_index("")
    assert list(text.loc[TORCH_RATIO]) == ["20.0x", "20.0x", "18.0x", "20.0x", "19.5x"]
    assert "ours over the better int8" not in text.index


def test_noisy_times_are_marked() -> None:
    rows = table(ours=50, nchw=1000).assign(noisy=[True, False] * 4)
    times = times_table(rows).set_index("µs per call")
    assert set(times.loc["ours"]) == {"50.0 *"} and set(times.loc[TORCH[0]]) == {"1000"}


def test_reasons_are_named_once_with_their_layers() -> None:
    rows = [row(layer, "torch int8", None, note="no VNNI") for layer in MEAN_OF[:2]] + [row("64@56", "ours", 1)]
    assert left_out(pd.DataFrame(rows)) == ["torch int8: no VNNI (64@56, 128@28)"]
    assert left_out(table(ours=1)) == []

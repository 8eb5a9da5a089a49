import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import get_args

import pandas as pd
import pytest
import torch

from xnornet.bench import layer as layer_module
from xnornet.bench.layer import _in_chains, chain_timing, main, measure, present
from xnornet.bench.ours import BITS, CHAIN, CHAIN_RAW
from xnornet.bench.peers import OPENVINO, OPENVINO_CHAIN, OPENVINO_CHAIN_RAW
from xnornet.bench.theory import Peaks
from xnornet.bench.timing import Timing
from xnornet.bench.workload import CHAIN_LENGTH, LAYERS, Layer
from xnornet.params import LayerName

from .cpu import VNNI

PEAKS = Peaks(popcount=600.0, float32=30.0)
TINY = {"conv": Layer(8, 8, size=6), "odd": Layer(20, 10, kernel=5, size=8, padding=0), "dense": Layer.dense(40, 30)}


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_module, "measure_peaks", lambda: PEAKS)


def test_the_parameters_know_every_layer() -> None:
    assert set(get_args(LayerName)) == set(LAYERS)


def test_measure_times_and_names_everything() -> None:
    rows, peaks = measure(TINY, repeats=2)
    assert peaks == PEAKS
    assert set(rows.layer) == set(TINY)
    timed = rows[rows.note.isna()]
    for name in TINY:
        of_layer = set(timed[timed.layer == name].contestant)
        assert {"ours", "ours, packing", "ours, kernel", "ours, bits in and out", "torch float32"} <= of_layer
    assert (timed.seconds > 0).all() and (timed.repeats == 2).all()
    assert not rows.contestant.str.contains("9 layers").any()
    assert rows[rows.note.notna()].seconds.isna().all()
    wrong = rows[rows.note.notna() & rows.note.str.startswith("wrong")]
    assert wrong[~wrong.contestant.str.contains("int8") | VNNI].empty
    text = present(rows, peaks)
    assert "Left out:" in text
    assert all(name in text for name in rows.contestant)


def test_one_layer_in_a_chain_is_the_difference_of_both_lengths() -> None:
    one = Timing(median=10.0, q1=9.0, q3=11.0, repeats=30, loops=1)
    many = Timing(median=10.0 + 3.0 * (CHAIN_LENGTH - 1), q1=30.0, q3=36.0, repeats=30, loops=1)
    step = chain_timing(one, many)
    assert step is not None
    assert step.median == pytest.approx(3.0)
    assert step.iqr == pytest.approx((2.0 + 6.0) / (CHAIN_LENGTH - 1))
    assert not step.starved
    busy = chain_timing(one, replace(many, free=0.4))
    assert busy is not None and busy.starved
    assert chain_timing(None, many) is None
    assert chain_timing(many, one) is None


def test_whole_chains_are_shown_as_one_layer_inside() -> None:
    def taking(median: float) -> Timing:
        return Timing(median, median, median, repeats=30, loops=1)

    timed = {"ours": taking(9.0), BITS: taking(5.0), CHAIN_RAW: taking(29.0), "torch float32": taking(90.0)}
    shown = _in_chains(timed | {OPENVINO: taking(20.0), OPENVINO_CHAIN_RAW: taking(60.0)})
    assert {name: timing and timing.median for name, timing in shown.items()} == pytest.approx(
        {"ours": 9.0, BITS: 5.0, CHAIN: 3.0, "torch float32": 90.0, OPENVINO: 20.0, OPENVINO_CHAIN: 5.0}
    )
    assert list(shown).index(CHAIN) == 2  # where the whole chain was
    assert _in_chains({OPENVINO_CHAIN_RAW: taking(60.0)}) == {OPENVINO_CHAIN: None}


def test_why_there_is_no_time_in_a_chain_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_module, "chain_timing", lambda one, many: None)
    rows, _ = measure({"square": Layer(8, 8, size=6), "other": Layer(8, 16, size=6)}, repeats=1, with_peers=False)
    ours = rows[rows.contestant == "ours, in a chain"].set_index("layer")
    assert ours.note["other"] == "a chain needs a layer whose output is shaped like its input"
    assert ours.note["square"].startswith("the chain took no longer than a single layer")
    assert ours.seconds.isna().all()


@pytest.mark.parametrize(("capabilities", "timed"), [({}, False), ({"avx512_bf16": True}, True)])
def test_bfloat16_is_left_out_where_the_cpu_imitates_it(
    capabilities: dict[str, bool], timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    text = present(*measure({"dense": TINY["dense"]}, repeats=1, with_peers=False))
    assert ("torch bfloat16: this CPU has no bfloat16" in text) is not timed
    assert text.count("torch bfloat16") == 1


def test_layers_are_timed_on_as_many_threads_as_asked_for(
    threads_while_timing: Callable[[ModuleType], list[int]],
) -> None:
    seen = threads_while_timing(layer_module)
    measure({"dense": TINY["dense"]}, repeats=1, with_peers=False)
    assert seen == [1]


def test_peaks_are_the_higher_of_two_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = iter([Peaks(500.0, 31.0), Peaks(600.0, 30.0)])
    monkeypatch.setattr(layer_module, "measure_peaks", lambda: next(turns))
    assert measure({"dense": TINY["dense"]}, repeats=2, with_peers=False)[1] == Peaks(600.0, 31.0)


def test_a_busy_machine_is_said_to_be_one() -> None:
    rows, _ = measure({"dense": TINY["dense"]}, repeats=1, with_peers=False)
    calm = rows.assign(noisy=False, starved=False)
    assert not re.search(r"busy|\* marks", present(calm, PEAKS))
    assert "one thread" not in present(calm, PEAKS)
    assert "The plain loop ran on one thread" in present(calm.assign(threads=2), PEAKS)
    busy = rows.assign(noisy=True, starved=True)
    assert re.search(r"\* marks .*The machine was busy", present(busy, PEAKS), re.DOTALL)


@pytest.mark.parametrize("groups", [(8, 4), ()])
def test_that_the_engine_may_count_faster_than_the_loop_is_said(groups: tuple[int, ...], monkeypatch) -> None:
    monkeypatch.setattr(layer_module, "GROUPS", groups)
    rows, _ = measure({"dense": TINY["dense"]}, repeats=1, with_peers=False)
    assert ("fewer instructions than the popcount loop" in present(rows, PEAKS)) == bool(groups)


def test_command_line_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(layer_module, "LAYERS", TINY)
    main(["--layers", "conv", "--repeats", "1", "--no-peers", "--csv", str(tmp_path / "table.csv")])
    printed = capsys.readouterr().out
    assert "µs per call" in printed
    assert "1 thread, median of 1" in printed
    assert "ONNX" not in printed
    table = pd.read_csv(tmp_path / "table.csv")
    assert set(table.layer) == {"conv"}
    assert set(table.threads) == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "1024@1"], "unknown layer '1024@1': choose from 64@56"),
        (["--repeats", "0"], "--repeats must be at least 1, not 0"),
        (["--repeats", "many"], "invalid int value: 'many'"),
        (["--threads", "0"], "--threads must be 1 to"),
        (["--threads", "10000"], "--threads must be 1 to"),
        (["--csv", "."], "--csv . is a folder"),
        (["--layer-table"], "unrecognized arguments"),
    ],
)
def test_bad_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err

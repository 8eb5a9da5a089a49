from pathlib import Path

import pandas as pd
import pytest
import torch

from xnornet.bench import layer as layer_module
from xnornet.bench.layer import Measurement, main, measure, present
from xnornet.bench.theory import Peaks
from xnornet.bench.timing import Timing
from xnornet.bench.workload import LAYERS, RESNET_LAYERS, Layer

from .cpu import VNNI

PEAKS = Peaks(popcount=600.0, float32=30.0)
TINY = {"conv": Layer(8, 8, size=6), "odd": Layer(20, 10, kernel=5, size=8, padding=0), "dense": Layer.dense(40, 30)}


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_module, "measure_peaks", lambda: PEAKS)


def exactly(seconds: float) -> Timing:
    return Timing(seconds, seconds, seconds, 30, 1)


def made_up(**microseconds: float) -> Measurement:
    names = {
        "ours": "ours",
        "nchw": "torch float32",
        "last": "torch float32, channels last",
        "chain": "ours, in a chain",
    }
    timings = {names[name]: exactly(value * 1e-6) for name, value in microseconds.items()}
    layers = {name: LAYERS[name] for name in RESNET_LAYERS}
    return Measurement(layers, dict.fromkeys(layers, timings), {name: {} for name in layers}, PEAKS, 1)


def test_measure_times_and_names_everything() -> None:
    result = measure(TINY, repeats=2)
    rows = result.rows()
    assert set(rows.layer) == set(TINY)
    assert {"ours", "ours, packing", "ours, kernel", "ours, in a chain", "torch float32"} <= set(rows.contestant)
    assert (rows.seconds > 0).all()
    for name in TINY:
        of_layer = rows[rows.layer == name].set_index("contestant")
        assert of_layer.ours_is_faster_by["ours"] == 1
        wrong = {who: why for who, why in result.skipped[name].items() if why.startswith("wrong")}
        assert not {who: why for who, why in wrong.items() if VNNI or "int8" not in who}
    text = present(result)
    assert "Left out:" in text
    assert all(name in text for name in rows.contestant)


@pytest.mark.parametrize(("capabilities", "timed"), [({}, False), ({"avx512_bf16": True}, True)])
def test_bfloat16_is_left_out_where_the_cpu_imitates_it(
    capabilities: dict[str, bool], timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    text = present(measure({"dense": TINY["dense"]}, repeats=1, with_peers=False))
    assert ("torch bfloat16: this CPU has no bfloat16" in text) is not timed
    assert text.count("torch bfloat16") == 1


def test_peaks_are_the_higher_of_two_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = iter([Peaks(500.0, 31.0), Peaks(600.0, 30.0)])
    monkeypatch.setattr(layer_module, "measure_peaks", lambda: next(turns))
    assert measure({"dense": TINY["dense"]}, repeats=2, with_peers=False).peaks == Peaks(600.0, 31.0)


def test_the_better_memory_format_is_the_headline() -> None:
    assert made_up(ours=50, nchw=1000, last=1200).ratio("256@14", layer_module.TORCH_FLOAT32, "ours") == pytest.approx(
        20
    )
    assert made_up(ours=50, nchw=1000, last=800).ratio("256@14", layer_module.TORCH_FLOAT32, "ours") == pytest.approx(
        16
    )


def test_share_of_the_peak() -> None:
    """256 -> 256 channels, 3x3 on 14x14: 104.9 million products, 115.6 with the padding; 524 and 578 GMAC/s."""
    measured, chain = made_up(ours=1, chain=200), ["ours, in a chain"]
    share = measured.share_of_peak("256@14", chain, PEAKS.popcount)
    assert share == pytest.approx(256 * 256 * 40**2 / 200e-6 / 600e9)
    assert share == pytest.approx(0.874, abs=1e-3)
    with_padding = measured.share_of_peak("256@14", chain, PEAKS.popcount, with_padding=True)
    assert with_padding == pytest.approx(256 * 256 * 42**2 / 200e-6 / 600e9)
    assert with_padding == pytest.approx(0.963, abs=1e-3)


def test_what_was_not_timed_is_a_dash() -> None:
    text = present(made_up(ours=50, nchw=1000), markdown=True)
    line = next(line for line in text.splitlines() if "ours over torch float32" in line)
    assert line.count("20.0x") == len(RESNET_LAYERS) + 1  # and the geometric mean
    assert "OpenVINO" not in text


def test_a_busy_machine_is_said_to_be_one() -> None:
    measurement = made_up(ours=50, nchw=1000)
    assert "busy" not in present(measurement)
    shared = Timing(1e-3, 1e-3, 1e-3, 30, 1, cores=0.4)
    assert "~" not in present(measurement)
    busy = Measurement(measurement.layers, {name: {"ours": shared} for name in measurement.layers}, {}, PEAKS, 1)
    assert "busy" in present(busy)
    assert "1000~" in present(busy)


def test_command_line_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(layer_module, "LAYERS", TINY)
    main(["--layers", "conv", "--repeats", "1", "--no-peers", "--markdown", "--csv", str(tmp_path / "table.csv")])
    printed = capsys.readouterr().out
    assert "| µs per call" in printed
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

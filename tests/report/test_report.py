"""The report: complete, the same every time, true to the metrics, and loud where they are missing."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from xnornet.report import ReportError, Results, build
from xnornet.report.build import render, render_card
from xnornet.report.prose import digits


def prose(results: Results) -> str:
    """The report without its line breaks."""
    return " ".join(render(results).split())


def test_it_draws_every_figure_that_it_shows_and_numbers_them(results: Results, tmp_path: Path) -> None:
    build(results, tmp_path / "out")
    text = (tmp_path / "out/REPORT.md").read_text()
    shown = re.findall(r"!\[.*\]\((.*)\)", text)
    drawn = {f"plots/figures/{path.name}" for path in (tmp_path / "out/plots/figures").glob("*.svg")}
    assert set(shown) == drawn and len(shown) == len(drawn)
    assert [int(n) for n in re.findall(r"\*Figure (\d+)\.", text)] == list(range(1, len(shown) + 1))
    for svg in drawn:
        with Image.open(tmp_path / "out" / svg.replace(".svg", ".png")) as picture:
            assert len(picture.convert("L").getcolors()) > 10, "an empty picture"


def test_figures_of_other_data_sets_go(results: Results, tmp_path: Path) -> None:
    (tmp_path / "plots/figures").mkdir(parents=True)
    (tmp_path / "plots/figures/curves-other.svg").touch()
    build(results, tmp_path)
    assert not (tmp_path / "plots/figures/curves-other.svg").exists()
    assert (tmp_path / "plots/figures/curves-mnist.svg").exists()


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        (
            "runtime",
            {"seed": 5},
            "mnist: runtime.seed of the float network is 0, of the XNOR network 5: train both alike",
        ),
        ("data", {"validation": 5000, "seed": 7}, "data.seed of the float network is None, of the XNOR network 7"),
        ("training", {"augment": {"crop": 1, "flip": True}}, "training.augment of the float network is"),
    ],
)
def test_networks_that_are_no_twins_are_not_compared(
    section: str, value: dict[str, Any], message: str, results: Results, change: Callable[..., None], tmp_path: Path
) -> None:
    change("metrics/settings/mnist-xnor.json", **{section: value})
    with pytest.raises(ReportError, match=message):
        build(results, tmp_path)
    assert not list(tmp_path.rglob("*.md"))


def test_the_same_results_give_the_same_bytes(results: Results, tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(results, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) > 20
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_digits_are_kept() -> None:
    assert [digits(value, 3) for value in (0.08, 1.506, 146.2, 999.6, 1460.4)] == [
        "0.0800",
        "1.51",
        "146",
        "1,000",
        "1,460",
    ]


def test_tables_hold_the_numbers(results: Results) -> None:
    text = render(results)
    for number in ("99.40 %", "99.10 %", "0.75 points", "20.0x", "98.5 %", "0.02000 ms", "30.0x", "1.0e-06"):
        assert number in text, number


def test_a_claim_goes_when_the_metrics_stop_supporting_it(results: Results, change: Callable[..., None]) -> None:
    before = prose(results)
    assert "costs 0.75 points of test accuracy (99.25 to 98.50 %, means over the seeds)" in before
    assert "Training is not faster" in before
    change("metrics/seeds/mnist-xnor.json", "mnist", "xnor", "seeds", mean=99.6, runs=1)
    change("metrics/pace/mnist.json", "mnist", "pace", "xnor", seconds_per_epoch=5.0)
    after = prose(results)
    assert "binarization costs nothing: 99.60 %, float 99.25 %." in after
    assert "points of test accuracy" not in after and "Training is not faster" not in after


def test_claims_about_sweeps_are_looked_up(results: Results) -> None:
    path = results.root / "plots/sweeps/image_size.csv"
    assert "As the law has it, the image size hardly matters" in prose(results)
    rows = pd.read_csv(path)
    rows.loc[0, "speedup_torch"] *= 3
    rows.to_csv(path, index=False)
    assert "The law does not know the image size, but the measurement depends on it: 17.0x to 51.0x" in prose(results)


def test_noisy_points_of_every_sweep_are_counted(results: Results) -> None:
    assert "are marked (*" not in prose(results)
    for axis in ("threads", "filter_size"):
        path = results.root / f"plots/sweeps/{axis}.csv"
        rows = pd.read_csv(path)
        rows.loc[0, "noisy"] = True
        rows.to_csv(path, index=False)
    assert "Of the 14 points of the sweeps, 2 are marked" in prose(results)
    assert "over the plain loop." not in prose(results)
    path = results.root / "plots/sweeps/filter_size.csv"
    pd.read_csv(path).assign(loop_noisy=True).to_csv(path, index=False)
    assert "Marked too are 2 of the 8 speed-ups over the plain loop." in prose(results)


def test_the_fastest_float_engine_is_named_where_it_is_not_torch(results: Results) -> None:
    assert "Over the fastest float32 contestant" not in prose(results)
    path = results.root / "plots/inference/mnist.csv"
    rows = pd.read_csv(path)
    rows.loc[2, ["contestant", "milliseconds_per_image", "times_packed"]] = ["ONNX Runtime float32", 0.2, 10.0]
    rows.to_csv(path, index=False)
    assert "Over the fastest float32 contestant, ONNX Runtime float32, the gain is 10.0x" in prose(results)


def test_several_seeds_have_a_mean_and_a_deviation(results: Results, change: Callable[..., None]) -> None:
    glance = render(results).split("## At a glance")[1].split("## Accuracy")[0]
    assert "| 99.25 ± 0.05 % (4) | 98.50 ± 0.05 % (4) |" in glance
    for variant in ("float", "xnor"):
        change(f"metrics/seeds/mnist-{variant}.json", "mnist", variant, "seeds", runs=1, std=None)
    assert ", means over the seeds)" not in prose(results)
    glance = render(results).split("## At a glance")[1].split("## Accuracy")[0]
    assert "± 0" not in glance and "% (1)" not in glance


def test_the_cost_has_an_interval_over_the_seeds_that_both_have(results: Results) -> None:
    # Differences 0.7, 0.8, 0.8, 0.7: mean 0.75, deviation 0.05774, and t(3) = 3.1824 for 95 %.
    assert re.search(r"\| 0\.75 points \| +0\.66 to 0\.84 \|", render(results))
    path = results.root / "plots/seeds/mnist-xnor.csv"
    pd.read_csv(path).query("seed == 2").to_csv(path, index=False)
    assert re.search(r"\| 0\.75 points \| +\|", render(results))


STAGES = {
    "images": 100,
    "accuracy": 84.6,
    **{f"stage{n}": {"accuracy_without": 20.0, "stream_variance": 10.0**n} for n in (1, 2, 3)},
}


def test_a_stage_that_does_nothing_is_named(results: Results, change: Callable[..., None]) -> None:
    assert "What each stage" not in render(results)
    change("metrics/packed/mnist.json", "mnist", "packed", stages=STAGES)
    assert re.search(r"\| +stage 3 \| +20\.0 % \| +64\.6 points \| +1,000 \|", render(results))
    assert "contribute nothing" not in prose(results)
    change("metrics/packed/mnist.json", "mnist", "packed", "stages", "stage3", accuracy_without=84.5)
    after = prose(results)
    assert "the binary convolutions of stage 3, of 3, contribute nothing" in after
    assert "84.5 % of 100 validation images are right, as against 84.6 % with them" in after
    assert "The variance of the stream" not in after
    change("metrics/packed/mnist.json", "mnist", "packed", "stages", "stage3", stream_variance=1e6)
    assert "The variance of the stream grows from 10 to 1,000,000" in prose(results)
    change("metrics/packed/mnist.json", "mnist", "packed", "stages", "stage2", accuracy_without=90.0)
    assert "the binary convolutions of stages 2 and 3, of 3, contribute nothing" in prose(results)
    assert "The binary convolutions of its stage 2 and 3 contribute nothing" in render_card(results)


def test_a_training_that_broke_down_says_so(results: Results) -> None:
    path = results.root / "plots/curves/mnist-xnor.csv"
    curve = {
        "epoch": [1, 2, 3, 4, 5],
        "learning_rate": 0.1,
        "train_loss": [1.5, 1.0, 2.0, 1.2, 0.9],
        "train_accuracy": [30.0, 64.0, 23.0, 50.0, 70.0],
        "validation_accuracy": 50.0,
    }
    pd.DataFrame(curve).to_csv(path, index=False)
    fell = "broke down on the way: its accuracy on the training images fell from 64 % to 23 % in epoch 3"
    assert f"{fell}, and only in epoch 5 was the loss back where it had been." in prose(results)
    pd.DataFrame(curve | {"train_loss": [1.5, 1.0, 2.0, 1.2, 1.1]}).to_csv(path, index=False)
    assert f"{fell}, and the loss never came back to where it had been." in prose(results)
    pd.DataFrame(curve | {"train_loss": [1.5, 1.0, 1.4, 1.2, 1.1]}).to_csv(path, index=False)
    assert "broke down" not in prose(results)


def test_images_that_are_cut_out_in_one_training_alone_are_mentioned(
    results: Results, change: Callable[..., None]
) -> None:
    assert "set to 0 for" not in prose(results)
    change("metrics/settings/mnist-xnor.json", "optimization", cutout=0)
    words = "(with a square of 4x4 pixels set to 0 for the float network, whole for the XNOR network)"
    assert words in prose(results)


def test_products_with_the_padding_explain_a_large_filter(results: Results) -> None:
    path = results.root / "plots/sweeps/filter_size.csv"
    rows = pd.read_csv(path)
    assert "of that layer lie in the padding" not in prose(results)
    rows.assign(macs=rows.macs_with_padding // 2).to_csv(path, index=False)
    assert "But 50 % of the products of that layer lie in the padding" in prose(results)
    assert "product for product, it is 8.5x" in prose(results)


def test_the_layer_in_which_sweeps_meet_has_a_range(results: Results) -> None:
    # 256 channels: 5 + 0.05 x 256 = 17.8x; the sweeps of filters and batches have 17.0x, that of image sizes no 14.
    before = prose(results)
    assert "is 17.0x to 17.8x faster than torch float32, packing included (in 3 sweeps" in before
    assert "But 10 % of the products lie in the padding" in before
    assert "Product for product it is 15.3x to 16.0x, less than the law" in before
    path = results.root / "plots/sweeps/input_channels.csv"
    pd.read_csv(path).assign(law_machine=10.0).to_csv(path, index=False)
    assert "Product for product, without those that lie in the padding, it is 15.3x to 16.0x" in prose(results)


def test_half_of_the_best_speedup_is_where_it_stays_above(results: Results) -> None:
    path = results.root / "plots/sweeps/input_channels.csv"
    rows = pd.read_csv(path)
    for speedups, start in (([5.0, 6.0, 12.0, 20.0], 64), ([12.0, 3.0, 4.0, 20.0], 256), ([12.0, 13.0, 14.0, 20.0], 1)):
        rows.assign(speedup_torch=speedups).to_csv(path, index=False)
        assert f"half of the best speed-up is reached from {start} input channels on" in prose(results)


def test_the_study_s_verdicts_are_looked_up(results: Results, change: Callable[..., None]) -> None:
    assert 'validation accuracy is lower with "paper" (-0.50 points)' in prose(results)
    change("metrics/study/mnist.json", "mnist", "study", "paper", difference=-0.1, low=-0.3, high=0.1)
    assert 'with "paper", the fewest, and 12.5 % with "corrected", the most' in prose(results)
    change("metrics/study/mnist.json", "mnist", "study", "paper", signs_changed=20.0)
    after = prose(results)
    assert 'with "corrected", the fewest, and 20.0 % with "paper", the most' in after
    assert 'no difference is shown for "paper" (-0.10)' in after and "lower with" not in after
    change("metrics/study/mnist.json", "mnist", "study", "paper", difference=0.0, low=0.0, high=0.0)
    assert 'no difference is shown for "paper" (+0.00)' in prose(results)  # equal accuracies alone can be chance
    path = results.root / "plots/study/mnist.csv"
    rows = pd.read_csv(path)
    rows["train_loss"] = [0.10, 0.11, 0.12] * 2
    rows.to_csv(path, index=False)
    after = prose(results)
    assert 'exactly the same networks come out "paper"' in after and "no difference" not in after


def test_validation_that_lags_behind_training_is_explained(results: Results) -> None:
    assert "running statistics" not in prose(results)
    path = results.root / "plots/curves/mnist-xnor.csv"
    rows = pd.read_csv(path)
    rows["validation_accuracy"] = [50.0, 99.0]
    rows.to_csv(path, index=False)
    words = (
        "validation accuracy stays far below that in training (50 and 97 % in epoch 1) until epoch 1, when the learning"
    )
    assert f"{words} rate is down to 100 % of its peak" in prose(results)
    assert "{" not in prose(results)  # every name is filled in
    rows["validation_accuracy"] = 50.0  # it never comes right: that is no lag
    rows.to_csv(path, index=False)
    assert "running statistics" not in prose(results)


def test_noisy_times_are_marked_at_a_glance(results: Results, change: Callable[..., None]) -> None:
    glance = "\n".join(render(results).split("## At a glance")[1].split("## Accuracy")[0].split("**")[2:])
    assert "faster |" in glance and "*" not in glance
    change("metrics/pace/mnist.json", "mnist", "pace", "float", noisy=True)
    path = results.root / "plots/inference/mnist.csv"
    rows = pd.read_csv(path)
    rows.loc[rows.contestant == "packed", "noisy"] = True
    rows.to_csv(path, index=False)
    glance = render(results).split("## At a glance")[1].split("## Accuracy")[0]
    assert "faster * |" in glance and "1.00x as long * |" in glance


def test_an_unusual_width_is_said(results: Results, change: Callable[..., None]) -> None:
    assert "is usual." not in render(results)
    change("metrics/settings/mnist-xnor.json", model={"name": "resnet18", "width": 32})
    assert "MNIST, ResNet-18: of width 32, where 64 is usual." in render(results)


def test_the_card_holds_the_numbers(results: Results, change: Callable[..., None]) -> None:
    text = render_card(results)
    accuracies = ["99.10 % of the test images", "the float twin 99.40 %"]
    recipe = [
        "2 epochs of adam; learning rate 0.1",
        "again after 1 epochs, up to 0.05",
        "augmentation crop 1, cutout 4 |",
    ]
    recipe += ["gradient corrected; BatchNorm behind binary layers (`output_norm`); ReLU on what they add"]
    for words in ["mnist.safetensors`, 0.2 kB (float32: 4.0 kB)", *accuracies, *recipe]:
        assert words in text, words
    assert "label smoothing 0.1" in text
    assert "JPEG" not in text
    change("metrics/data/mnist.json", "mnist", "data", encoding="jpeg")
    assert "lossy JPEG" in render_card(results)


def test_networks_on_jpeg_copies_say_so(results: Results, change: Callable[..., None]) -> None:
    assert "JPEG" not in render(results)
    change("metrics/data/mnist.json", "mnist", "data", encoding="jpeg", source="MNIST, JPEG copy")
    assert "trained and tested on a copy of the images that went through lossy JPEG" in render(results)


def all_inputs() -> list[str]:
    names = ["metrics/machine.json"]
    names += [f"metrics/{kind}/mnist.json" for kind in ("data", "packed", "memory", "inference", "pace", "study")]
    names += [
        f"metrics/{kind}/mnist-{v}.json" for kind in ("train", "time", "settings", "seeds") for v in ("float", "xnor")
    ]
    names += [f"plots/{kind}/mnist-{v}.csv" for kind in ("curves", "predictions") for v in ("float", "xnor")]
    names += [f"plots/{kind}/mnist.csv" for kind in ("memory", "inference", "study")]
    names += [
        "plots/weights/mnist-xnor.csv",
        "plots/samples/mnist.png",
        "plots/sweeps/input_channels.csv",
        "metrics/sweeps/input_channels.json",
    ]
    return names


@pytest.mark.parametrize("path", all_inputs())
def test_a_missing_file_is_named(path: str, results: Results, tmp_path: Path) -> None:
    (results.root / path).unlink()
    with pytest.raises(ReportError, match=re.escape(f"{path} is missing: make it with `dvc repro`")):
        build(results, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "written before all was read"


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("metrics/pace/mnist.json", ("mnist", "pace", "precision")),
        ("metrics/pace/mnist.json", ("mnist", "pace", "xnor", "iqr_seconds")),
        ("metrics/study/mnist.json", ("mnist", "study", "paper", "low")),
        ("metrics/machine.json", ("usable_cores",)),
        ("metrics/packed/mnist.json", ("mnist", "packed", "same_answers")),
    ],
)
def test_a_missing_key_is_named(path: str, keys: tuple[str, ...], results: Results) -> None:
    content = block = json.loads((results.root / path).read_text())
    for key in keys[:-1]:
        block = block[key]
    del block[keys[-1]]
    (results.root / path).write_text(json.dumps(content))
    with pytest.raises(ReportError, match=re.escape(f"{path} has no {'.'.join(keys)}: delete it and run `dvc repro`")):
        render(results)


@pytest.mark.parametrize("column", ["milliseconds_per_image", "iqr", "times_packed"])
def test_a_missing_column_of_times_is_named(column: str, results: Results) -> None:
    path = results.root / "plots/inference/mnist.csv"
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(ReportError, match=f"plots/inference/mnist.csv has no column {column}"):
        render(results)


def test_wrong_values_are_named_with_file_and_key(results: Results, change: Callable[..., None]) -> None:
    change("metrics/train/mnist-xnor.json", "mnist", "xnor", test_accuracy=float("nan"))
    with pytest.raises(ReportError, match=r"metrics/train/mnist-xnor\.json: mnist\.xnor\.test_accuracy is nan"):
        render(results)
    (results.root / "metrics/train/mnist-xnor.json").write_text('{"mnist": {}}')
    with pytest.raises(ReportError, match=r"mnist-xnor\.json has no mnist\.xnor"):
        render(results)
    (results.root / "metrics/train/mnist-xnor.json").write_text("{")
    with pytest.raises(ReportError, match="is not JSON"):
        render(results)


CURVE = "epoch,learning_rate,train_loss,train_accuracy,validation_accuracy\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch,learning_rate,train_loss,train_accuracy\n1,0.1,0.5,99\n", "has no column validation_accuracy"),
        (f"{CURVE}1,0.1,,99,99\n", "column train_loss has an empty or infinite cell"),
        (f"{CURVE}1,0.1,inf,99,99\n", "column train_loss has an empty or infinite cell"),
        (CURVE, "has no rows"),
        ("", "is not a table"),
    ],
)
def test_wrong_tables_are_named(content: str, message: str, results: Results, tmp_path: Path) -> None:
    (results.root / "plots/curves/mnist-xnor.csv").write_text(content)
    with pytest.raises(ReportError, match=rf"plots/curves/mnist-xnor\.csv.*{message}"):
        build(results, tmp_path / "out")

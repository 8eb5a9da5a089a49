"""The report: complete, the same every time, true to the metrics, and loud where they are missing."""

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
from xnornet.report.tables import per_class


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
        ("split", {"validation": 5000, "seed": 7}, "split.seed of the float network is None, of the XNOR network 7"),
        ("training", {"augment": {"crop": 1, "flip": True}}, "training.augment of the float network is"),
        (
            "images",
            {"source": "MNIST", "encoding": "original", "md5": "4567"},
            "mnist: images.md5 of the float network is 0123, of the XNOR network 4567",
        ),
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


def test_several_seeds_have_a_mean_and_a_deviation(results: Results, change: Callable[..., None]) -> None:
    glance = render(results).split("## At a glance")[1].split("## Accuracy")[0]
    assert "| 99.25 ± 0.05 % (4) | 98.50 ± 0.05 % (4) |" in glance
    path = results.root / "plots/seeds/mnist-xnor.csv"
    pd.read_csv(path)[:2].to_csv(path, index=False)
    change("metrics/seeds/mnist-xnor.json", "mnist", "xnor", "seeds", runs=2)
    assert "| 98.50 ± 0.05 % (98.50, 98.50) |" in render(results)
    for variant in ("float", "xnor"):
        change(f"metrics/seeds/mnist-{variant}.json", "mnist", variant, "seeds", runs=1, std=None)
    assert ", means over the seeds)" not in " ".join(render(results).split())
    glance = render(results).split("## At a glance")[1].split("## Accuracy")[0]
    assert "± 0" not in glance and "% (1)" not in glance


def test_the_cost_has_an_interval_over_the_seeds_that_both_have(results: Results) -> None:
    # Differences 0.7, 0.8, 0.8, 0.7: mean 0.75, deviation 0.05774, and t(3) = 3.1824 for 95 %.
    assert re.search(r"\| 0\.75 points \| +0\.66 to 0\.84 \|", render(results))
    path = results.root / "plots/seeds/mnist-xnor.csv"
    pd.read_csv(path).query("seed == 2").to_csv(path, index=False)
    assert re.search(r"\| 0\.75 points \| +\|", render(results))


def test_the_summary_is_of_one_image_on_one_thread(results: Results) -> None:
    glance = render(results).split("## At a glance")[1].split("## Accuracy")[0]
    gains = r"20\.0x smaller \| +30\.0x faster \| +15\.0x \(ONNX Runtime\) \| +5\.0x \(ONNX Runtime int8\) \|"
    assert re.search(gains, glance)


def test_accuracy_within_a_class_is_no_precision(results: Results) -> None:
    answers = pd.DataFrame({"actual": [0] * 20 + [1] * 20, "predicted": [0] * 15 + [1] * 25})
    for variant in ("float", "xnor"):
        answers.to_csv(results.root / f"plots/predictions/mnist-{variant}.csv", index=False)
    seen = per_class(results, "mnist").set_index("class")
    assert seen["XNOR: accuracy"].tolist() == ["75.0 %", "100.0 %"]
    assert seen["XNOR: precision"].tolist() == ["100.0 %", "80.0 %"]


def test_means_of_two_accuracies_are_rounded_alike(results: Results, change: Callable[..., None]) -> None:
    """92.145 and 88.355 in floats: the one is a little less, the other a little more."""
    for variant, each in (("float", [91.95, 92.34]), ("xnor", [88.34, 88.37])):
        over = {"mean": round(sum(each) / 2, 4), "std": 0.1, "runs": 2}
        change(f"metrics/seeds/mnist-{variant}.json", "mnist", variant, seeds=over)
    text = " ".join(render(results).split())
    assert "92.15 ± 0.10 %" in text and "88.36 ± 0.10 %" in text and "3.79 points" in text
    assert "(92.15 to 88.36 %, means over the seeds)" in text


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
        "augmentation crop 1, cutout 4, cutmix 0.5 |",
    ]
    recipe += ["gradient corrected (under `output_norm`, that of a constant α); BatchNorm behind binary layers"]
    recipe += ["(`residual_relu`); 1x1 shortcuts of the normalised input (`normed_shortcut`); augmentation"]
    for words in ["mnist.safetensors`, 0.2 kB (float32: 4.0 kB)", *accuracies, *recipe]:
        assert words in text, words
    assert "label smoothing 0.1" in text
    assert "JPEG" not in text
    change("metrics/settings/mnist-xnor.json", "images", encoding="jpeg")
    assert "lossy JPEG" in render_card(results)


def test_networks_on_jpeg_copies_say_so(results: Results, change: Callable[..., None]) -> None:
    assert "JPEG" not in render(results)
    change("metrics/data/mnist.json", "mnist", "data", encoding="jpeg", source="MNIST, JPEG copy")
    assert "JPEG" not in render(results), "prepared since, not learned"
    for variant in ("float", "xnor"):
        images = {"encoding": "jpeg", "source": "MNIST, JPEG copy"}
        change(f"metrics/settings/mnist-{variant}.json", "images", **images)
    assert "trained and tested on a copy of the images that went through lossy JPEG" in render(results)


def test_other_files_among_the_figures_are_left_alone(results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "out/plots/figures"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / "speedup-old.svg").touch()
    build(results, tmp_path / "out")
    assert (folder / ".ipynb_checkpoints").is_dir() and not (folder / "speedup-old.svg").exists()

"""A small set of made-up results, so that a test can change one number and see what the report makes of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xnornet.layer_table import MEAN_OF
from xnornet.report import Results

CLASSES = list("0123456789")
CONTESTANTS = ("packed", "torch float32", "ONNX Runtime float32", "ONNX Runtime int8", "peer")
AXES = ("input_channels", "output_channels", "filter_size", "image_size", "batch", "threads")


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def dump_csv(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Results of one data set, mnist."""
    _networks(tmp_path)
    for axis in AXES:
        values = {"threads": [1, 2], "batch": [1, 4]}.get(axis, [1, 3, 64, 256] if axis == "input_channels" else [3, 5])
        _sweep(tmp_path, axis, values)
    _layers(tmp_path)
    libraries = {"torch": "2.14.1", "openvino": None}
    cpu = {"name": "A CPU", "vendor": "A vendor", "family": 1, "model": 2, "vector_flags": ["avx2"]}
    machine = {"cpu": cpu, "usable_cores": 2, "memory_gib": 8, "os": "Linux", "python": "3.11", "libraries": libraries}
    dump(tmp_path / "metrics/machine.json", machine)
    return Results(tmp_path, ["mnist"])


def _networks(root: Path) -> None:
    rng = np.random.default_rng(0)
    data = {"source": "MNIST", "encoding": "original", "train_images": 60000, "test_images": 200}
    data |= {"classes": 10, "shape": "28x28x1"}
    dump(root / "metrics/data/mnist.json", {"mnist": {"data": data}})
    labels = np.arange(200) % 10
    for variant, accuracy in (("float", 99.4), ("xnor", 99.1)):
        name = f"mnist-{variant}"
        trained = {
            "test_accuracy": accuracy,
            "validation_accuracy": 99.0,
            "train_accuracy": accuracy + 0.1,
            "epochs": 2,
        }
        dump(root / f"metrics/train/{name}.json", {"mnist": {variant: trained}})
        time = {
            "seconds_per_epoch": 10.0,
            "images_per_second": 5500.0,
            "total_seconds": 21.0,
            "device": "A CPU",
            "threads": 2,
        }
        dump(root / f"metrics/time/{name}.json", {"mnist": {variant: time}})
        how = {
            "epochs": 2,
            "precision": "float32",
            "optimizer": "adam",
            "learning_rate": 0.1,
            "schedule": "cosine",
            "warmup_epochs": 1.0,
            "weight_decay": 0.0,
            "label_smoothing": 0.1,
            "cutout": 4,
            "cutmix": 0.5,
            "batch_size": 128,
            "restarts": [{"after": 1, "learning_rate": 0.05}],
            "gradient": "corrected",
            "output_norm": True,
            "residual_relu": True,
            "normed_shortcut": True,
        }
        training = {"augment": {"crop": 1, "flip": False}}
        images = {"source": "MNIST", "encoding": "original", "md5": "0123"}
        settings = {"images": images, "model": {"name": "lenet5"}, "optimization": how, "training": training}
        settings |= {"data": {}, "split": {"validation": 5000}, "runtime": {"seed": 0}}
        dump(root / f"metrics/settings/{name}.json", settings)
        curve = {
            "epoch": [1, 2],
            "learning_rate": [0.1, 0.01],
            "train_loss": [0.5, 0.1],
            "train_accuracy": [97.0, 99.5],
            "validation_accuracy": [98.0, 99.0],
        }
        dump_csv(root / f"plots/curves/{name}.csv", pd.DataFrame(curve))
        predicted = np.where(rng.random(200) < 0.9, labels, (labels + 1) % 10)
        dump_csv(root / f"plots/predictions/{name}.csv", pd.DataFrame({"actual": labels, "predicted": predicted}))
        edges = np.linspace(-1, 1, 6)
        bins = {"layer": "conv2", "left": edges[:-1], "right": edges[1:], "count": [1, 4, 9, 4, 1], "alpha": 0.3}
        dump_csv(root / f"plots/weights/{name}.csv", pd.DataFrame(bins))
    step = {"iqr_seconds": 0.1, "images_per_second": 5500.0, "noisy": False}
    pace = {variant: {"seconds_per_epoch": 10.0, **step} for variant in ("float", "xnor")}
    dump(
        root / "metrics/pace/mnist.json",
        {"mnist": {"pace": {**pace, "threads": 2, "precision": "float32", "images": 55000}}},
    )
    for variant, each in (("float", [99.2, 99.3, 99.2, 99.3]), ("xnor", [98.5, 98.5, 98.4, 98.6])):
        over = {"mean": float(np.mean(each)), "std": 0.051, "runs": 4}
        dump(root / f"metrics/seeds/mnist-{variant}.json", {"mnist": {variant: {"seeds": over}}})
        by_seed = pd.DataFrame({"seed": range(4), "test_accuracy": each, "validation_accuracy": each})
        dump_csv(root / f"plots/seeds/mnist-{variant}.csv", by_seed)
    worse = {"mean": 97.5, "std": 0.1, "runs": 3, "signs_changed": 7.5, "difference": -0.5, "low": -0.7, "high": -0.3}
    arms = {"corrected": {"mean": 98.0, "std": 0.1, "runs": 3, "signs_changed": 12.5}, "paper": worse}
    dump(root / "metrics/study/mnist.json", {"mnist": {"study": arms}})
    runs = {
        "arm": ["corrected"] * 3 + ["paper"] * 3,
        "against": "corrected",
        "seed": [0, 1, 2] * 2,
        "epochs": 2,
        "image_size": 28,
        "width": 0,
    }
    runs |= {"validation_accuracy": [97.9, 98.0, 98.1, 97.4, 97.6, 97.5], "signs_changed": 10.0}
    runs["train_loss"] = [0.10, 0.11, 0.12, 0.20, 0.21, 0.22]
    dump_csv(root / "plots/study/mnist.csv", pd.DataFrame(runs))
    packed = {"images": 200, "same_answers": 100.0, "max_logit_difference": 1e-6, "test_accuracy": 99.1}
    packed |= {"train_accuracy": 99.5}
    dump(root / "metrics/packed/mnist.json", {"mnist": {"packed": packed}})
    memory = {"float_bytes": 4000, "packed_bytes": 200, "ratio": 20.0, "binary_share": 98.5}
    dump(root / "metrics/memory/mnist.json", {"mnist": {"memory": memory}})
    layers = {"layer": ["conv1", "conv2"], "float_bytes": [120, 3880], "packed_bytes": [120, 80]}
    dump_csv(root / "plots/memory/mnist.csv", pd.DataFrame(layers))
    _inference(root)
    sheet = root / "plots/samples/mnist.png"
    sheet.parent.mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (280, 280), np.uint8)).save(sheet)


def _inference(root: Path) -> None:
    rows = []
    for batch, threads, packed_ms, times in (
        (1, 1, 0.020, (30.0, 15.0, 5.0)),
        (1, 2, 0.016, (24.0, 12.5, 6.5)),
        (64, 1, 0.015, (10.0, 8.0, 6.0)),
        (64, 2, 0.008, (11.0, 8.5, 7.0)),
    ):
        for name, ratio in zip(CONTESTANTS, (1.0, *times, None), strict=True):
            row = {"batch": batch, "threads": threads, "contestant": name, "times_packed": ratio}
            rows.append(row | {"milliseconds_per_image": ratio and ratio * packed_ms})
    timed = pd.DataFrame(rows).assign(iqr=0.001, noisy=False, repeats=30)
    dump_csv(root / "plots/inference/mnist.csv", timed)


def _sweep(root: Path, axis: str, values: list[int]) -> None:
    value = np.array(values)
    seconds = 1e-5 * value if axis == "input_channels" else np.full(len(value), 1e-4)
    speedup = 5 + 0.05 * value if axis == "input_channels" else np.full(len(value), 17.0)
    frame = {
        "value": value, "ours_seconds": seconds, "packing_seconds": seconds / 10, "kernel_seconds": seconds,
        "torch_seconds": speedup * seconds, "float32_loop_seconds": 2 * speedup * seconds, "speedup_torch": speedup,
        "speedup_loop": 2 * speedup, "law_paper": 62.0, "law_machine": 21.0, "noisy": False,
        "macs": 90_000_000, "macs_with_padding": 100_000_000, "loop_noisy": False,
    }  # fmt: skip
    dump_csv(root / f"plots/sweeps/{axis}.csv", pd.DataFrame(frame))
    peaks = {"peak_popcount_gmacs": 1260.0, "peak_float32_gmacs": 60.0, "noisy_points": 0, "speedup": {}}
    dump(root / f"metrics/sweeps/{axis}.json", {"sweep": {axis: peaks}})


def _layers(root: Path) -> None:
    microseconds = {"ours": 50.0, "torch float32": 1000.0, "torch int8": None}
    rows = [
        {"layer": layer, "contestant": name, "seconds": value and 1e-6 * value, "iqr": 0.0, "noisy": False}
        for layer in MEAN_OF
        for name, value in microseconds.items()
    ]
    same = {"starved": False, "repeats": 30, "macs": 100_000_000, "macs_with_padding": 110_000_000, "threads": 1}
    frame = pd.DataFrame(rows).assign(**same)
    frame["note"] = frame.seconds.map(lambda seconds: "no such layer" if np.isnan(seconds) else None)
    dump_csv(root / "plots/layers.csv", frame)
    peaks = {"peak_popcount_gmacs": 1260.0, "peak_float32_gmacs": 60.0, "noisy_times": 0}
    dump(root / "metrics/layers.json", {"layers": peaks})


@pytest.fixture
def change(results: Results) -> Callable[..., None]:
    """Set one value of a JSON file: change("metrics/train/mnist-xnor.json", "mnist", "xnor", test_accuracy=99.5)."""

    def apply(path: str, *keys: str, **values: Any) -> None:
        content = json.loads((results.root / path).read_text())
        block = content
        for key in keys:
            block = block[key]
        block |= values
        (results.root / path).write_text(json.dumps(content))

    return apply

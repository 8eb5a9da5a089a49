"""What metrics/ and plots/ say, by name: which file it stands in, and what must stand there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from xnornet.report.files import AGAIN, ReportError, ResultFiles

VARIANTS = ("float", "xnor")
NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "lenet5": "LeNet-5", "resnet18": "ResNet-18"}

DEAD = 1
"""A stage without which fewer points are lost contributes nothing: so much is chance in a thousand images."""

OPTIMIZATION = ("precision", "optimizer", "schedule")
OPTIMIZATION_NUMBERS = (
    *("epochs", "batch_size", "learning_rate", "warmup_epochs"),
    *("weight_decay", "label_smoothing", "cutout", "cutmix"),
)
"""What the pages say of a recipe."""

PEAKS = ("peak_popcount_gmacs", "peak_float32_gmacs")


class Timed(NamedTuple):
    """Rows of inference times: the packed network's, and the fastest of torch in float32, of all in float32, of all."""

    packed: pd.Series
    in_torch: pd.Series
    float32: pd.Series
    rival: pd.Series


class Results(ResultFiles):
    """The results of one `dvc repro`, under `root`."""

    def __init__(self, root: str | Path, datasets: Sequence[str]) -> None:
        super().__init__(root)
        self.datasets = tuple(datasets)

    def check_twins(self) -> None:
        """ReportError if a data set's networks are not twins: one was trained later, with something else."""
        for dataset in self.datasets:
            ours, theirs = (self.settings(dataset, variant) for variant in VARIANTS)
            for section in ("images", "model", "data", "split", "training", "runtime"):
                for name in sorted(ours[section].keys() | theirs[section].keys()):
                    values = [settings[section].get(name) for settings in (ours, theirs)]
                    if values[0] != values[1]:
                        raise ReportError(
                            f"{dataset}: {section}.{name} of the float network is {values[0]}, of the XNOR network "
                            f"{values[1]}: train both alike (params.yaml: variants) before they are compared"
                        )
            tested = [self.predictions(dataset, variant).actual for variant in VARIANTS]
            if not tested[0].equals(tested[1]):
                raise ReportError(
                    f"plots/predictions/{dataset}-float.csv and -xnor.csv are not of the same test images: train both "
                    "anew"
                )

    def title(self, dataset: str) -> str:
        """Data set and network, as people write them."""
        model = self.settings(dataset, "xnor")["model"]["name"]
        return f"{NAMES.get(dataset, dataset)}, {NAMES[model]}"

    def data(self, dataset: str) -> dict[str, Any]:
        """Shape of a data set's images, and counts."""
        numbers = ("train_images", "test_images", "classes")
        return self.json(f"metrics/data/{dataset}.json", dataset, "data", wanted=("shape",), numbers=numbers)

    def lossy(self, dataset: str) -> str:
        """Through which lossy format the images went that it learned; empty if they are the original pixels."""
        encoding = self.settings(dataset, "xnor")["images"]["encoding"]
        return {"original": "", "jpeg": "lossy JPEG"}.get(encoding, "a lossy format")

    def trained(self, dataset: str, variant: str) -> dict[str, Any]:
        """Accuracies and sizes of one network."""
        numbers = ("test_accuracy", "validation_accuracy", "train_accuracy", "epochs")
        return self.json(f"metrics/train/{dataset}-{variant}.json", dataset, variant, numbers=numbers)

    def seeds(self, dataset: str, variant: str) -> dict[str, Any]:
        """Mean test accuracy over seeds, its deviation (if there are several), and how many there are."""
        path, keys = f"metrics/seeds/{dataset}-{variant}.json", (dataset, variant, "seeds")
        several = self.json(path, *keys, numbers=("mean", "runs"))["runs"] > 1
        return self.json(path, *keys, numbers=("std",) if several else ())

    def by_seed(self, dataset: str, variant: str) -> pd.DataFrame:
        """Test and validation accuracy of each seed's network."""
        columns = ["seed", "test_accuracy", "validation_accuracy"]
        return self.one_each(f"plots/seeds/{dataset}-{variant}.csv", columns, ["seed"]).set_index("seed")

    def right(self, dataset: str, variant: str) -> NDArray[np.bool_]:
        """Which test images the network of the first seed gets right."""
        answers = self.predictions(dataset, variant)
        return (answers.actual == answers.predicted).to_numpy()

    def predictions(self, dataset: str, variant: str) -> pd.DataFrame:
        """The class of each test image, and the network's answer."""
        return self.csv(f"plots/predictions/{dataset}-{variant}.csv", ["actual", "predicted"])

    def times(self, dataset: str, variant: str) -> dict[str, Any]:
        """Training time of one network."""
        path = f"metrics/time/{dataset}-{variant}.json"
        return self.json(path, dataset, variant, wanted=("device",), numbers=("threads",))

    def pace(self, dataset: str) -> dict[str, Any]:
        """What a training step takes, both variants timed side by side."""
        path = f"metrics/pace/{dataset}.json"
        for variant in VARIANTS:
            numbers = ("seconds_per_epoch", "iqr_seconds", "images_per_second")
            self.json(path, dataset, "pace", variant, wanted=("noisy",), numbers=numbers)
        return self.json(path, dataset, "pace", wanted=("precision",), numbers=("threads",))

    def study(self, dataset: str) -> dict[str, dict[str, float]]:
        """Mean and deviation of each arm of the study, and its difference to another."""
        path = f"metrics/study/{dataset}.json"
        arms = self.json(path, dataset, "study")
        if not arms or not isinstance(arms, dict):
            raise ReportError(f"{path} has no arms: {AGAIN}")
        for place, arm in enumerate(arms):
            numbers = ("mean", "std", "runs", "signs_changed", *(("difference", "low", "high") if place else ()))
            self.json(path, dataset, "study", arm, numbers=numbers)
        return arms

    def study_rows(self, dataset: str) -> pd.DataFrame:
        """The study's trainings, one a row."""
        path = f"plots/study/{dataset}.csv"
        columns = ["arm", "against", "seed", "validation_accuracy", "train_loss", "signs_changed"]
        rows = self.one_each(path, [*columns, "epochs", "image_size", "width"], ["arm", "seed"])
        if other := set(rows.arm) ^ self.study(dataset).keys():
            raise ReportError(f"{path} and metrics/study/{dataset}.json have not the same arms ({min(other)}): {AGAIN}")
        return rows

    def compared_with(self, dataset: str) -> dict[str, str]:
        """The arm that each arm of the study is compared with, the first with itself."""
        rows = self.study_rows(dataset)
        return dict(zip(rows.arm, rows.against, strict=True))

    def settings(self, dataset: str, variant: str) -> dict[str, Any]:
        """The images and the parameters that one network was trained with."""
        path = f"metrics/settings/{dataset}-{variant}.json"
        self.json(path, "images", wanted=("source", "encoding", "md5"))
        self.json(path, "model", wanted=("name",))
        self.json(path, "training", wanted=("augment",))
        of_xnor = ("gradient",) if variant == "xnor" else ()
        self.json(path, "optimization", wanted=(*OPTIMIZATION, *of_xnor), numbers=OPTIMIZATION_NUMBERS)
        self.json(path, "split", numbers=("validation",))
        for section in ("data", "runtime"):
            if not isinstance(self.json(path, section), dict):
                raise ReportError(f"{path}: {section} is no object: {AGAIN}")
        return self.json(path)

    def packed(self, dataset: str) -> dict[str, Any]:
        """Agreement of packed network and torch."""
        numbers = ("images", "same_answers", "max_logit_difference", "test_accuracy", "train_accuracy")
        return self.json(f"metrics/packed/{dataset}.json", dataset, "packed", numbers=numbers)

    def stages(self, dataset: str) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
        """How the XNOR network did with all its stages and on how many images, and without each, by number."""
        path, keys = f"metrics/packed/{dataset}.json", (dataset, "packed", "stages")
        seen = self.json(path, *keys, numbers=("images", "accuracy"))
        names = [name for name in seen if name.startswith("stage")]
        for name in names:
            self.json(path, *keys, name, numbers=("accuracy_without", "stream_variance"))
        return seen, {name.removeprefix("stage"): seen[name] for name in names}

    def dead_stages(self, dataset: str) -> dict[str, dict[str, float]]:
        """Those without which it does as well."""
        if "stages" not in self.packed(dataset):
            return {}
        seen, stages = self.stages(dataset)
        return {number: v for number, v in stages.items() if seen["accuracy"] - v["accuracy_without"] < DEAD}

    def memory(self, dataset: str) -> dict[str, Any]:
        """Bytes of float and packed file."""
        numbers = ("float_bytes", "packed_bytes", "ratio", "binary_share")
        return self.json(f"metrics/memory/{dataset}.json", dataset, "memory", numbers=numbers)

    def memory_rows(self, dataset: str) -> pd.DataFrame:
        """The same, by layer."""
        return self.csv(f"plots/memory/{dataset}.csv", ["layer", "float_bytes", "packed_bytes"])

    def inference_rows(self, dataset: str) -> pd.DataFrame:
        """The times of every contestant that ran."""
        rows = self.csv(
            f"plots/inference/{dataset}.csv",
            ["batch", "threads", "contestant", "noisy", "repeats"],
            partly=["milliseconds_per_image", "iqr", "times_packed"],  # nothing where a contestant did not run
        )
        return rows[rows.milliseconds_per_image.notna()]

    def timed(self, dataset: str, threads: int = 1, batch: int | None = None) -> Timed:
        """Of those times, those of one batch size, the smallest if not given, on so many threads. ReportError."""
        rows = self.inference_rows(dataset).sort_values("milliseconds_per_image")
        rows = rows[(rows.threads == threads) & (rows.batch == (rows.batch.min() if batch is None else batch))]
        packed = rows.contestant == "packed"
        float32 = rows.contestant.str.contains("float32")
        in_torch = rows.contestant.str.startswith("torch float32")
        if not (packed.any() and in_torch.any()):
            raise ReportError(
                f"plots/inference/{dataset}.csv has no time of the packed network or of torch in float32, on {threads} "
                f"thread{'s' * (threads > 1)}: {AGAIN}"
            )
        return Timed(*(rows[chosen].iloc[0] for chosen in (packed, in_torch, float32, ~packed)))

    def samples(self, dataset: str) -> NDArray[np.uint8]:
        """The sheet of test images, (H, W) or (H, W, 3)."""
        path = f"plots/samples/{dataset}.png"
        try:
            return np.asarray(Image.open(self.root / path))
        except FileNotFoundError:
            raise ReportError(f"{path} is missing: make it with `dvc repro`") from None
        except (OSError, ValueError, SyntaxError):  # whatever Pillow says of a file that is cut short or altered
            raise ReportError(f"{path} is no picture: {AGAIN}") from None

    def sweep(self, axis: str) -> pd.DataFrame:
        """The points of one sweep."""
        columns = [
            *("value", "ours_seconds", "packing_seconds", "kernel_seconds", "torch_seconds", "float32_loop_seconds"),
            *(
                "speedup_torch",
                "speedup_loop",
                "law_paper",
                "law_machine",
                "macs",
                "macs_with_padding",
                "noisy",
                "loop_noisy",
            ),
        ]
        return self.csv(f"plots/sweeps/{axis}.csv", columns)

    def peaks(self, axis: str) -> dict[str, Any]:
        """Peak rates measured with one sweep, in 10^9 multiply-accumulates a second, and their `ratio`, R."""
        peaks = self.json(f"metrics/sweeps/{axis}.json", "sweep", axis, numbers=PEAKS)
        return peaks | {"ratio": peaks["peak_popcount_gmacs"] / peaks["peak_float32_gmacs"]}

    def layers(self) -> tuple[pd.DataFrame, dict[str, float]]:
        """The times of single layers (see `xnornet.layer_table`), and the peaks of one core measured with them."""
        columns = ["layer", "contestant", "threads", "noisy", "repeats", "macs", "macs_with_padding"]
        rows = self.csv("plots/layers.csv", columns, partly=["seconds", "note"])
        peaks = self.json("metrics/layers.json", "layers", numbers=PEAKS)
        return rows, {"popcount": peaks["peak_popcount_gmacs"], "float32": peaks["peak_float32_gmacs"]}

    def looks_up(self) -> bool:
        """Whether that machine's engine looks counts up: it has AVX2, but no popcount of vectors (docs/avx2.md)."""
        flags = self.machine()["cpu"]["vector_flags"]
        return "avx2" in flags and "avx512_vpopcntdq" not in flags

    def word(self) -> int:
        """How many channels it counts at a time where it has few: a lane of AVX-512's popcount, or a packed word."""
        return 32 if "avx512_vpopcntdq" in self.machine()["cpu"]["vector_flags"] else 64

    def counts_in_groups(self) -> bool:
        """Whether it counts some words together, with fewer instructions than the peak's loop (docs/avx512.md)."""
        cpu = self.machine()["cpu"]
        return cpu["vendor"] == "AuthenticAMD" and "avx512_vpopcntdq" in cpu["vector_flags"]

    def machine(self) -> dict[str, Any]:
        """The fingerprint of the machine that the timings come from."""
        self.json("metrics/machine.json", "cpu", wanted=("name", "vendor", "family", "model", "vector_flags"))
        wanted = ("memory_gib", "os", "python", "libraries")
        return self.json("metrics/machine.json", wanted=wanted, numbers=("usable_cores",))

    def processor(self) -> str:
        """Its CPU, as far as known: vendors give quite different ones the same name."""
        cpu = self.machine()["cpu"]
        vectors = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}
        parts = [
            *(f"{key} {cpu[key]}" for key in ("family", "model") if cpu[key] is not None),
            *[name for flag, name in vectors.items() if flag in cpu["vector_flags"]][:1],
        ]
        return f"{cpu['name']} ({', '.join(parts)})" if parts else cpu["name"]

"""The prepared form of a data set: one safetensors file, uint8 images and labels, the same bytes every time."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from xnornet.files import atomic


class DataError(RuntimeError):
    """A data set is missing, incomplete or altered."""


@dataclass(frozen=True)
class Images:
    """Images uint8 (N, H, W, C) and their labels uint8 (N,), indices into a list of classes."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(f"images must be uint8 (N, H, W, C), not {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != np.uint8 or self.labels.shape != self.images.shape[:1]:
            raise DataError(f"labels must be uint8 ({len(self.images)},), not {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> "Images":
        """The images at `indices`, in that order."""
        return Images(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Prepared:
    """A data set ready to train on.

    source: where the images come from, and encoding: whether they are the original pixels ("original") or went
    through a lossy format ("jpeg", or "lossy" for others); both are shown wherever an accuracy is.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]
    source: str
    encoding: str

    def __post_init__(self) -> None:
        for name, part in (("train", self.train), ("test", self.test)):
            missing = sorted(set(range(len(self.classes))) - set(np.unique(part.labels).tolist()))
            if missing:
                raise DataError(f"the {name} images have none of class {self.classes[missing[0]]!r}")
            if part.labels.max() >= len(self.classes):
                raise DataError(f"a {name} label is {part.labels.max()}, but there are {len(self.classes)} classes")

    def split(self, validation: int, seed: int) -> tuple[Images, Images]:
        """Divide the training images at random into (training, validation) images; DataError if none would be left."""
        if validation >= len(self.train):
            raise DataError(
                f"{validation} validation images asked for (split.validation, or study.validation of a study), but the "
                f"training set has {len(self.train)}"
            )
        order = np.random.default_rng(seed).permutation(len(self.train))
        return self.train.take(np.sort(order[validation:])), self.train.take(np.sort(order[:validation]))

    def save_samples(self, path: str | Path) -> None:
        """Write 10 x 10 test images (fewer if there are fewer), evenly spaced in their order, as one PNG."""
        side = min(10, math.isqrt(len(self.test)))
        chosen = self.test.images[:: len(self.test) // side**2][: side**2]
        _, height, width, channels = chosen.shape
        sheet = chosen.reshape(side, side, height, width, channels).swapaxes(1, 2)
        with atomic(path) as part:
            Image.fromarray(sheet.reshape(side * height, side * width, channels).squeeze()).save(part)

    def save(self, path: str | Path) -> None:
        """Write the file, atomically."""
        tensors = {
            "train_images": np.ascontiguousarray(self.train.images),
            "train_labels": self.train.labels,
            "test_images": np.ascontiguousarray(self.test.images),
            "test_labels": self.test.labels,
        }
        about = {"classes": self.classes, "source": self.source, "encoding": self.encoding}
        with atomic(path) as part:
            # One metadata key: safetensors writes several in an order that changes from run to run.
            # Written by Python, whose errors (disk full) are OSErrors.
            part.write_bytes(serialize(tensors, {"about": json.dumps(about)}))

    @staticmethod
    def load(path: str | Path) -> "Prepared":
        """Read the file; DataError if it is missing, damaged or not one of ours."""
        try:
            # safe_open calls every file that it cannot open missing, one without permission too: let Python say it.
            with Path(path).open("rb"), safe_open(path, "numpy") as file:
                about = json.loads(file.metadata()["about"])
                train = Images(file.get_tensor("train_images"), file.get_tensor("train_labels"))
                test = Images(file.get_tensor("test_images"), file.get_tensor("test_labels"))
            return Prepared(train, test, tuple(about["classes"]), about["source"], about["encoding"])
        except FileNotFoundError:
            raise DataError(f"{path} not found: make it with `python stages/prepare.py {Path(path).stem}`") from None
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path} is no prepared data set ({error}): delete it and prepare it again") from None

"""MNIST and CIFAR-10: downloaded and verified by torchvision, or read from a folder that already has them."""

import os
import socket
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import numpy as np
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from xnornet.data.prepared import DataError, Images, Prepared
from xnornet.files import md5

FOLDER_VARIABLE = "XNORNET_DATA"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_IMAGES = {"train": 5000, "test": 1000}  # of each class
LOSSLESS = {".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"}  # any other format may have changed the pixels
# torchvision verifies the archives it downloads; these are the unpacked files, which it takes as they are.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
STALL_SECONDS = 30.0
ATTEMPTS = 3
PAUSE_SECONDS = 2.0


def mnist(downloads: Path) -> Prepared:
    """MNIST's 60,000 and 10,000 images, 28x28x1."""
    folder = given_folder()
    root = folder or downloads
    raw = root / "MNIST" / "raw"
    if folder is None:
        for name, wanted in MNIST_MD5.items():  # torchvision takes unpacked files as they are
            if (raw / name).is_file() and md5(raw / name) != wanted:
                (raw / name).unlink()
        download("mnist", lambda: datasets.MNIST(str(root), download=True))
    for name, wanted in MNIST_MD5.items():
        _verify(raw / name, wanted)
    # Not by datasets.MNIST, which prefers what old versions of it have pickled beside the raw files, unverified.
    train, test = (
        Images(
            read_image_file(str(raw / f"{part}-images-idx3-ubyte")).numpy()[..., None],
            read_label_file(str(raw / f"{part}-labels-idx1-ubyte")).numpy().astype(np.uint8),
        )
        for part in ("train", "t10k")
    )
    return Prepared(train, test, tuple("0123456789"), "MNIST", "original")


def cifar10(downloads: Path) -> Prepared:
    """CIFAR-10's 50,000 and 10,000 images, 32x32x3; from the official archive, or from one folder a class."""
    folder = given_folder()
    if folder is not None and (folder / "cifar10").is_dir():
        return _class_folders(folder / "cifar10")
    root = folder or downloads
    if folder is None:
        download("cifar10", lambda: datasets.CIFAR10(str(root), download=True))
    parts = []
    for train in (True, False):
        try:
            # It unpickles, but only files whose md5 it has checked.
            data = datasets.CIFAR10(str(root), train=train, download=False)
        except RuntimeError:
            raise DataError(
                f"{root} has neither cifar10/{{train,test}}/<class>/ nor an intact {datasets.CIFAR10.base_folder}/: "
                f"correct {FOLDER_VARIABLE}, or unset it to download CIFAR-10"
            ) from None
        parts.append(Images(data.data, np.array(data.targets, np.uint8)))
    return Prepared(parts[0], parts[1], CIFAR10_CLASSES, "CIFAR-10", "original")


def given_folder() -> Path | None:
    """The folder named by XNORNET_DATA, None if it is unset; DataError if it does not exist."""
    name = os.environ.get(FOLDER_VARIABLE)
    if not name:
        return None
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{FOLDER_VARIABLE}={name} is no folder ({folder.absolute()}): correct it, or unset it to download"
        )
    return folder


def download(name: str, fetch: Callable[[], object]) -> None:
    """Call torchvision's `fetch`, which verifies what it gets, up to three times; DataError with both ways out.

    A connection that stalls for 30 s counts as failed. torchvision takes up an intact archive and fetches a damaged
    one again.
    """
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                fetch()
                return
            # EOFError, ValueError: an archive that ends early. RuntimeError: torchvision, when nothing matches its md5.
            # HTTPException: a reply that is cut short or is none, as a proxy may send.
            except (OSError, EOFError, RuntimeError, ValueError, HTTPException) as error:
                if attempt == ATTEMPTS:
                    reason = " ".join(str(error).split())
                    raise DataError(
                        f"{name} could not be downloaded in {ATTEMPTS} attempts ({reason}). Ways out: connect this "
                        f"machine to the network and try again, or set {FOLDER_VARIABLE} to a folder that already has "
                        "the data"
                    ) from error
                time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
    finally:
        socket.setdefaulttimeout(timeout)


def _verify(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise DataError(f"{path} is missing: correct {FOLDER_VARIABLE}, or unset it to download MNIST")
    if (seen := md5(path)) != wanted:
        raise DataError(
            f"{path} is truncated or altered: its md5 is {seen}, MNIST's is {wanted}; delete it and get it again"
        )


def _class_folders(folder: Path) -> Prepared:
    parts, suffixes = [], set()
    for name, wanted in CIFAR10_IMAGES.items():
        for label in CIFAR10_CLASSES:
            if not any((folder / name / label).glob("*.*")):
                raise DataError(f"{folder / name / label} is missing or empty: CIFAR-10 has one folder a class")
        try:
            data = datasets.ImageFolder(str(folder / name))
        except OSError as error:
            raise DataError(f"{folder / name}: {error}") from None
        if tuple(data.classes) != CIFAR10_CLASSES:
            extra = sorted(set(data.classes) - set(CIFAR10_CLASSES))
            raise DataError(f"{folder / name} has classes that CIFAR-10 has not: {', '.join(extra)}")
        for label, count in zip(CIFAR10_CLASSES, np.bincount(data.targets, minlength=len(data.classes)), strict=True):
            if count != wanted:
                raise DataError(
                    f"{folder / name / label} has {count} images, but CIFAR-10 {wanted}: complete the folder"
                )
        images = np.empty((len(data), 32, 32, 3), np.uint8)
        for index, (path, _) in enumerate(data.samples):
            try:
                pixels = np.asarray(data.loader(path))
            except (OSError, ValueError, SyntaxError) as error:  # whatever Pillow says of a damaged file
                raise DataError(f"{path} cannot be read as an image: {error}") from None
            if pixels.shape != images.shape[1:]:
                raise DataError(f"{path} is {pixels.shape[1]}x{pixels.shape[0]} pixels; CIFAR-10's images are 32x32")
            images[index] = pixels
        suffixes |= {Path(path).suffix.lower() for path, _ in data.samples}
        parts.append(Images(images, np.array(data.targets, np.uint8)))
    lossy = suffixes - LOSSLESS
    copy = "JPEG" if lossy <= {".jpg", ".jpeg"} else "lossy"
    source = "CIFAR-10" + (f", {copy} copy" if lossy else "")
    return Prepared(parts[0], parts[1], CIFAR10_CLASSES, source, copy.lower() if lossy else "original")

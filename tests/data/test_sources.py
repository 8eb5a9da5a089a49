"""Downloads from a real local server, whole and damaged, and folders that already have the data."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xnornet.data import DataError, sources
from xnornet.data.prepare import prepare
from xnornet.params import Data, ParamsError

from .conftest import Server

AS_IT_COMES = Data()
NAMES = ["mnist", "cifar10"]


def altered(body: bytes) -> tuple[int, bytes]:
    return 200, body[:100] + bytes([body[100] ^ 1]) + body[101:]


def truncated(body: bytes) -> tuple[int, bytes]:
    return 200, body[: len(body) // 2]


def failing(_: bytes) -> tuple[int, bytes]:
    return 500, b""


def missing(_: bytes) -> tuple[int, bytes]:
    return 404, b""


def whole(body: bytes) -> tuple[int, bytes]:
    """For the first request, with which torchvision only asks whether it is sent elsewhere."""
    return 200, body


def broken_off(_: bytes) -> bytes:
    """In chunks, of which the second is shorter than it says."""
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n400\r\nabcd"


def no_reply(_: bytes) -> bytes:
    return b"PROXY: not today\r\n\r\n"


def stalling(_: bytes) -> tuple[int, None]:
    return 200, None


@pytest.mark.parametrize("name", NAMES)
def test_download(name: str, server: Server, tmp_path: Path) -> None:
    data = prepare(name, AS_IT_COMES, tmp_path)
    assert (data.train.images.shape[1:], data.encoding) == (
        {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}[name],
        "original",
    )
    requests = len(server.requests)
    again = prepare(name, AS_IT_COMES, tmp_path)
    assert len(server.requests) == requests, "an intact download is not fetched again"
    assert np.array_equal(again.train.images, data.train.images)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", [altered, truncated, failing, missing, broken_off, no_reply])
def test_a_damaged_download_is_fetched_again(name: str, fault: object, server: Server, tmp_path: Path) -> None:
    server.faults = [whole, fault]
    assert len(prepare(name, AS_IT_COMES, tmp_path).test) == 20
    assert not server.faults


@pytest.mark.parametrize("size", [0, 16, 1000])
def test_a_damaged_unpacked_file_is_unpacked_again(size: int, server: Server, tmp_path: Path) -> None:
    data = prepare("mnist", AS_IT_COMES, tmp_path)
    path, requests = tmp_path / "MNIST/raw/train-images-idx3-ubyte", len(server.requests)
    path.write_bytes(path.read_bytes()[:size])
    assert np.array_equal(prepare("mnist", AS_IT_COMES, tmp_path).train.images, data.train.images)
    assert len(server.requests) == requests, "its archive was intact"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", [altered, truncated, failing, missing, broken_off, no_reply])
def test_a_download_that_stays_damaged_is_an_error(name: str, fault: object, server: Server, tmp_path: Path) -> None:
    server.faults = [fault] * 20
    with pytest.raises(DataError, match=rf"{name} could not be downloaded in 3 attempts .*set XNORNET_DATA"):
        prepare(name, AS_IT_COMES, tmp_path)


def test_a_stalled_download_times_out(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "STALL_SECONDS", 0.2)
    server.faults = [whole, stalling]
    start = time.monotonic()
    assert len(prepare("cifar10", AS_IT_COMES, tmp_path).train) == 100
    assert time.monotonic() - start < 10, "the server sends nothing for twice as long"


@pytest.mark.parametrize("name", NAMES)
def test_no_network_and_no_folder_names_both_ways_out(name: str, server: Server, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(DataError, match="connect this machine to the network and try again, or set XNORNET_DATA"):
        prepare(name, AS_IT_COMES, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_given_folder_is_read_and_never_downloaded_into(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded = prepare(name, AS_IT_COMES, tmp_path)
    monkeypatch.setenv("XNORNET_DATA", str(tmp_path))
    requests = len(server.requests)
    assert np.array_equal(prepare(name, AS_IT_COMES, tmp_path / "unused").test.images, downloaded.test.images)
    assert len(server.requests) == requests and not (tmp_path / "unused").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("XNORNET_DATA", str(empty))
    with pytest.raises(DataError, match="correct XNORNET_DATA"):
        prepare(name, AS_IT_COMES, tmp_path)
    assert not any(empty.iterdir())
    monkeypatch.setenv("XNORNET_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere is no folder"):
        prepare(name, AS_IT_COMES, tmp_path)


def test_an_altered_file_in_a_given_folder_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("mnist", AS_IT_COMES, tmp_path)
    monkeypatch.setenv("XNORNET_DATA", str(tmp_path))
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is truncated or altered"):
        prepare("mnist", AS_IT_COMES, tmp_path)


def test_what_old_versions_pickled_beside_mnist_s_files_is_left_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = prepare("mnist", AS_IT_COMES, tmp_path)
    monkeypatch.setenv("XNORNET_DATA", str(tmp_path))
    old = tmp_path / "MNIST/processed"
    old.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(40, 28, 28, dtype=torch.uint8), torch.zeros(40, dtype=torch.int64)), old / name)
    assert np.array_equal(prepare("mnist", AS_IT_COMES, tmp_path).train.images, wanted.train.images)


def test_cifar10_that_was_tampered_with_is_not_unpickled(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("cifar10", AS_IT_COMES, tmp_path)
    monkeypatch.setenv("XNORNET_DATA", str(tmp_path))
    evil = b"cos\nmkdir\n(S'" + str(tmp_path / "owned").encode() + b"'\ntR."  # would make a folder if unpickled
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(evil)
    with pytest.raises(DataError, match="intact"):
        prepare("cifar10", AS_IT_COMES, tmp_path)
    assert not (tmp_path / "owned").exists()


@pytest.fixture
def class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(2)
    monkeypatch.setattr(sources, "CIFAR10_IMAGES", {"train": 3, "test": 2})
    for part, count in sources.CIFAR10_IMAGES.items():
        for name in sources.CIFAR10_CLASSES:
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i:04}.png")
    monkeypatch.setenv("XNORNET_DATA", str(tmp_path))
    return tmp_path / "cifar10"


def test_class_folders(class_folders: Path, tmp_path: Path) -> None:
    data = prepare("cifar10", AS_IT_COMES, tmp_path)
    assert (len(data.train), len(data.test), data.encoding, data.source) == (30, 20, "original", "CIFAR-10")
    assert data.classes[data.train.labels[3]] == "automobile"
    expected = np.asarray(Image.open(class_folders / "train/automobile/0000.png"))
    assert np.array_equal(data.train.images[3], expected)
    (class_folders / "train/cat/0002.png").unlink()
    Image.fromarray(expected).save(class_folders / "train/cat/9999.jpg")
    data = prepare("cifar10", AS_IT_COMES, tmp_path)
    assert (data.encoding, data.source) == ("jpeg", "CIFAR-10, JPEG copy")


def test_an_incomplete_folder_is_refused(class_folders: Path, tmp_path: Path) -> None:
    (class_folders / "test/frog/0001.png").unlink()
    with pytest.raises(DataError, match="test/frog has 1 images, but CIFAR-10 2: complete the folder"):
        prepare("cifar10", AS_IT_COMES, tmp_path)


def test_class_folders_that_are_not_cifar10_are_refused(class_folders: Path, tmp_path: Path) -> None:
    cat = class_folders / "test/cat"
    cat.rename(class_folders / "test/tiger")
    with pytest.raises(DataError, match=r"test/cat is missing or empty"):
        prepare("cifar10", AS_IT_COMES, tmp_path)
    (class_folders / "test/tiger").rename(cat)
    (cat / "0000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0000\.png cannot be read as an image"):
        prepare("cifar10", AS_IT_COMES, tmp_path)
    Image.new("RGB", (33, 32)).save(cat / "0000.png")
    with pytest.raises(DataError, match=r"33x32 pixels; CIFAR-10's images are 32x32"):
        prepare("cifar10", AS_IT_COMES, tmp_path)


def test_sizes_belong_to_the_sets_that_need_them() -> None:
    with pytest.raises(ParamsError, match=r"digits\.data\.seed: missing"):
        prepare("digits", Data(test=397))
    with pytest.raises(ParamsError, match=r"digits\.data\.test: missing"):
        prepare("digits", Data(seed=0))
    with pytest.raises(ParamsError, match=r"mnist\.data\.test: mnist is taken as it comes"):
        prepare("mnist", Data(test=3))

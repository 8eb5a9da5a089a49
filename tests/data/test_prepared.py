"""The prepared form: round trip, the same bytes every time, damaged files refused; the sets that need no network."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as serialize

from xnornet.data import DataError, Images, Prepared
from xnornet.data.prepare import prepare
from xnornet.params import Data

DIGITS = Data(seed=0, test=397)
SHAPES = Data(seed=0, train=100, test=50)


@pytest.mark.parametrize(("name", "params"), [("digits", DIGITS), ("shapes", SHAPES)])
def test_round_trip_and_same_bytes(name: str, params: Data, tmp_path: Path) -> None:
    data = prepare(name, params)
    for file in ("a", "b"):
        prepare(name, params).save(tmp_path / file)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = Prepared.load(tmp_path / "a")
    assert (loaded.classes, loaded.source, loaded.encoding) == (data.classes, data.source, data.encoding)
    for part in ("train", "test"):
        assert np.array_equal(getattr(loaded, part).images, getattr(data, part).images)
        assert np.array_equal(getattr(loaded, part).labels, getattr(data, part).labels)


def test_digits_are_real_and_divided_evenly() -> None:
    data = prepare("digits", DIGITS)
    assert data.train.images.shape == (1400, 28, 28, 1) and len(data.test) == 397
    assert data.train.images.max() == 255
    assert np.ptp(np.bincount(data.test.labels)) <= 3


def test_shapes_differ_by_seed_and_between_train_and_test() -> None:
    data = prepare("shapes", SHAPES)
    other = prepare("shapes", SHAPES.model_copy(update={"seed": 1}))
    assert not np.array_equal(data.train.images, other.train.images)
    assert not np.array_equal(data.train.images[:50], data.test.images)
    assert np.bincount(data.test.labels).tolist() == [5] * 10


def test_split_divides_by_seed() -> None:
    data = prepare("digits", DIGITS)
    train, validation = data.split(200, seed=3)
    assert (len(train), len(validation)) == (1200, 200)
    both = np.sort(np.concatenate([train.images, validation.images]).reshape(1400, -1).sum(1))
    assert np.array_equal(both, np.sort(data.train.images.reshape(1400, -1).sum(1)))
    assert np.array_equal(data.split(200, seed=3)[1].images, validation.images)
    assert not np.array_equal(data.split(200, seed=4)[1].labels, validation.labels)
    with pytest.raises(DataError, match=r"^1400 validation images asked for \(split\..* training set has 1400$"):
        data.split(1400, seed=0)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "digits.safetensors"
    with pytest.raises(DataError, match=r"stages/prepare\.py digits"):
        Prepared.load(path)
    prepare("digits", DIGITS).save(path)
    whole = path.read_bytes()
    deep = serialize({"x": np.zeros(1)}, {"about": "[" * 100_000})
    for damaged in (whole[:1000], b"", whole[:8] + b"x" + whole[9:], deep):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="delete it and prepare it again"):
            Prepared.load(path)


def test_contents_are_checked() -> None:
    images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 0, 1], np.uint8)
    good = Images(images, labels)
    with pytest.raises(DataError, match="the test images have none of class 'b'"):
        Prepared(good, Images(images, labels * 0), ("a", "b"), "", "")
    with pytest.raises(DataError, match="a train label is 1, but there are 1 classes"):
        Prepared(good, good, ("a",), "", "")
    with pytest.raises(DataError, match="uint8"):
        Images(images.astype(np.float32), labels)
    with pytest.raises(DataError, match=r"labels must be uint8 \(4,\)"):
        Images(images, labels[:3])

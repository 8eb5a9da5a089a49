"""The file: round trip, atomic, and safe whatever it holds."""

import json
import os
import pickle
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.numpy

from tests.engine import mutations, networks
from xnornet.engine import FormatError, PackedNetwork, file, nodes

DAMAGED, EDITED = 20_000, 3_000


@pytest.fixture(scope="module")
def network():
    return networks.build()


@pytest.fixture(scope="module")
def data(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "network.safetensors"
    network.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("nodes", [networks.RESIDUAL, networks.SCALED], ids=["residual", "scaled"])
def test_round_trip(nodes, tmp_path):
    network = networks.build(nodes)
    network.save(tmp_path / "a")
    loaded = PackedNetwork.load(tmp_path / "a")
    assert mutations.same(network, loaded)
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), dtype=np.uint8)
    assert np.array_equal(loaded(images), network(images))
    loaded.save(str(tmp_path / "b"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_about_is_what_json_makes_of_it(network, tmp_path):
    labels = {number: f"class {number}" for number in range(11)}  # as numbers 2 stands before 10, as names after it
    named = PackedNetwork(network.graph, network.tensors, {"labels": labels, "size": (3, 4)})
    named.save(tmp_path / "named")
    loaded = PackedNetwork.load(tmp_path / "named")
    assert loaded.about == named.about == {"labels": {str(k): v for k, v in labels.items()}, "size": [3, 4]}
    for wrong in ({"epochs": np.int64(3)}, {"loss": float("nan")}, {1: "one", "1": set()}):
        with pytest.raises(ValueError, match="about must hold plain values"):
            PackedNetwork(network.graph, network.tensors, wrong)
    with pytest.raises(ValueError, match="put less into about"):
        PackedNetwork(network.graph, network.tensors, {"log": "x" * (1 << 22)}).save(tmp_path / "long")
    assert not (tmp_path / "long").exists()


def test_a_network_that_ran_can_be_pickled(network):
    images = np.zeros((2, *network.image_shape), np.uint8)
    wanted = network(images)
    copy = pickle.loads(pickle.dumps(network))
    assert "_program" not in vars(copy) and np.array_equal(copy(images), wanted)


def test_every_safetensors_reader_can_read_it(data, network):
    tensors = safetensors.numpy.load(data)
    assert set(tensors) == set(network.tensors)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content = json.loads(header["__metadata__"][file.ENTRY])
    assert content["about"] == {"dataset_md5": "0" * 32}
    assert content["format"] == 1
    assert "least significant bit" in content["bit_order"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(network, tmp_path, monkeypatch):
    path = tmp_path / "network"
    network.save(path)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        networks.build(seed=1).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["network"]


def test_threads_that_save_to_one_place_do_not_disturb_each_other(data, tmp_path):
    path, network = tmp_path / "network", PackedNetwork.parse(data)
    network.save(path)
    with ThreadPoolExecutor(3) as threads:
        saves = [threads.submit(network.save, path) for _ in range(60)]
        while not all(save.done() for save in saves):
            assert path.read_bytes() == data  # one of the whole files
        for save in saves:
            save.result()
    assert [entry.name for entry in tmp_path.iterdir()] == ["network"]


def test_a_missing_folder_is_named(network, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no such folder: '{tmp_path}/models'"):
        network.save(tmp_path / "models/network")


def test_a_file_that_no_memory_could_hold_is_not_read_whole(data, tmp_path):
    path = tmp_path / "network"
    for start, message in ((safetensors.numpy.save({"a": np.zeros(3)}), "metadata"), (data, "larger than a packed")):
        path.write_bytes(start)
        os.truncate(path, 1 << 40)  # a hole behind it
        with pytest.raises(FormatError, match=message):
            PackedNetwork.load(path)


def test_errors_name_the_file_and_what_is_wrong(data, tmp_path):
    path = tmp_path / "network"
    for content, words in (
        (b"", "too short"),
        (data[:100], "too short"),
        (data[:-1], "safetensors"),
        (data[:-1] + bytes([data[-1] ^ 1]), "checksum"),
        (safetensors.numpy.save({"a": np.zeros(3)}), "metadata"),
    ):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=f"{path}.*{words}"):
            PackedNetwork.load(path)
    with pytest.raises(FileNotFoundError):
        PackedNetwork.load(tmp_path / "nothing")


@pytest.mark.parametrize("shape", [[1] * 65, [0, 2**63], [0, 2**40, 2**40]])
def test_shapes_that_numpy_does_not_have_are_refused(data, shape, tmp_path):
    """A tensor of one value, or of none, may have any in a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    end, count = len(body), int(0 not in shape)
    header["more"] = {"dtype": "U8", "shape": shape, "data_offsets": [end, end + count]}
    text = json.dumps(header).encode()
    path = tmp_path / "network"
    path.write_bytes(len(text).to_bytes(8, "little") + text + body + b"1" * count)
    with pytest.raises(FormatError, match=f"{path}.*more: "):
        PackedNetwork.load(path)


def test_another_version_is_refused(network, tmp_path, monkeypatch):
    monkeypatch.setattr(file, "VERSION", 2)
    network.save(tmp_path / "network")
    monkeypatch.undo()
    with pytest.raises(FormatError, match=r"format 2.*knows format 1"):
        PackedNetwork.load(tmp_path / "network")


def test_damaged_files_are_refused_or_load_to_the_same_network(network, data):
    rng = random.Random(0)
    seen = Counter(mutations.survive(network, mutations.damaged(data, rng)) for _ in range(DAMAGED))
    assert seen["refused"] > 0.99 * DAMAGED


def test_every_truncation_of_the_header_is_refused(data):
    for length in range(8 + int.from_bytes(data[:8], "little")):
        with pytest.raises(FormatError):
            PackedNetwork.parse(data[:length])


def test_edited_files_with_a_right_digest_are_refused_or_run(network, data, monkeypatch):
    """What is consistent is a network, though another one; it must run as NumPy runs it, within bounds."""
    monkeypatch.setattr(nodes, "LIMIT_WORK", 1 << 24)  # the time of the test's NumPy
    rng = random.Random(1)
    seen = Counter(mutations.survive_edit(network, mutations.edited(data, rng)) for _ in range(EDITED))
    assert seen["refused"] > EDITED / 4
    assert seen["ran"] > EDITED / 50  # edits that get through do occur

"""Packed networks: the program against NumPy, node by node, and what a graph must not say."""

import os
import signal
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from tests.engine import networks
from xnornet.engine import FormatError, Graph, Node, PackedNetwork, bits, network
from xnornet.engine.builder import build_program
from xnornet.engine.geometry import Shape


def images(count: int, shape: tuple[int, int, int] = (9, 8, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("nodes", networks.NETWORKS.values(), ids=networks.NETWORKS)
@pytest.mark.parametrize("seed", range(8))
def test_logits_are_those_of_the_graph_in_numpy(nodes, seed):
    network = networks.build(nodes, seed)
    batch = images(7, seed=seed)
    logits = network(batch)
    assert logits.dtype == np.float32
    assert np.allclose(logits, networks.run(network, batch), rtol=1e-4, atol=1e-4)
    assert np.ptp(logits, axis=0).min() > 0  # they depend on the image


@pytest.mark.parametrize("channels", [1, 8, 9, 16, 24, 25, 32])
def test_any_number_of_channels(channels):
    """Around those of a panel of a float convolution, and of half of one."""
    stem = replace(networks.RESIDUAL[1], channels=channels)
    add = Node(
        op="binary_conv", name="a", input="sb", output="d", residual="s", channels=channels, kernel=(3, 3), padding=1
    )
    network = networks.build((networks.RESIDUAL[0], stem, add, *networks.RESIDUAL[-2:]), channels)
    batch = images(3)
    assert np.allclose(network(batch), networks.run(network, batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [(9, 8), (16, 16), (13, 30)])
def test_other_image_sizes(side):
    network = networks.build(networks.RESIDUAL, 3, (*side, 2))
    batch = images(3, (*side, 2))
    assert np.allclose(network(batch), networks.run(network, batch), rtol=1e-4, atol=1e-4)


def test_batches_and_threads_give_the_same_bits():
    network = networks.build()
    batch = images(33)
    alone = np.concatenate([network(batch[i : i + 1]) for i in range(33)])
    for threads in (1, np.int64(2), 3, 50):
        assert np.array_equal(network(batch, threads=threads), alone)
    assert np.array_equal(network(batch[::-2]), alone[::-2])
    assert network(batch[:0]).shape == (0, 5)


def test_wrong_images_are_named():
    network = networks.build()
    for wrong, words in (
        (images(1).astype(np.float32), "uint8.*float32"),
        (images(1)[0], r"\(N, 9, 8, 3\).*\(9, 8, 3\)"),
        (images(1).transpose(0, 3, 1, 2), r"\(1, 3, 9, 8\)"),
    ):
        with pytest.raises(ValueError, match=words):
            network(wrong)
    with pytest.raises(ValueError, match="threads"):
        network(images(1), threads=0)


def test_summary_lists_every_operation_and_the_totals():
    network = networks.build()
    lines = network.summary().splitlines()
    assert all(any(line.startswith(f"{node.name} ({node.op})") for line in lines) for node in network.graph.nodes)
    assert f"{37 * 9 * 20 + 20 * 9 * 37 + 9 * 4 * 20:,}" in lines[-1]
    assert f"{sum(tensor.nbytes for tensor in network.tensors.values()):,}" in lines[-1]
    assert sum(network.layer_bytes().values()) == sum(tensor.nbytes for tensor in network.tensors.values())


def test_description_round_trip():
    for nodes in networks.NETWORKS.values():
        graph = networks.build(nodes).graph
        assert Graph.parse(graph.describe()) == graph


def edited(position: int, **changes: Any) -> tuple[Node, ...]:
    nodes = list(networks.RESIDUAL)
    nodes[position] = replace(nodes[position], **changes)
    return tuple(nodes)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (edited(2, input="nothing"), "nothing"),
        (edited(2, input="s"), "bits value"),
        (edited(2, input="rb"), "made before"),
        (edited(2, stride=1), "result of 9x8x20"),
        (edited(2, bits=None), "no result"),
        (edited(2, relu=True), "bits, whose threshold does it"),
        (edited(4, relu=True, residual=None), "bits, whose threshold does it"),
        (edited(2, padding=4), "wider than the kernel"),
        (edited(2, kernel=(20, 3)), "smaller than the kernel"),
        (edited(3, padding=1), "cannot be padded"),
        (edited(3, name="a"), "two nodes"),
        (edited(3, output="ab"), "made twice"),
        (edited(4, residual="x"), "must be a result"),
        (edited(4, residual="s"), "result of 5x4x20"),
        (edited(7, input="x"), "float_conv only"),
        (edited(7, input="y"), "made before"),
        (edited(8, output="z"), "logits"),
        (edited(8, input="d"), "one pixel"),
        ((*networks.RESIDUAL, Node(op="average", name="more", input="y", output="z")), "no node may read"),
        (edited(0, padding=1), "a normalize node has just op, name, input, output"),
        (edited(2, stride=0), "stride must be an integer from 1"),
        (edited(2, op="define"), "an op, one of"),
        ((), "1 to 1000 nodes, not 0"),
    ],
)
def test_graphs_that_contradict_themselves_are_refused(nodes, words):
    with pytest.raises(FormatError, match=words):
        Graph(Shape(9, 8, 3), nodes, "y")


def test_graphs_that_would_take_all_memory_or_time_are_refused():
    with pytest.raises(FormatError, match="bytes"):
        Graph(Shape(8192, 8192, 3), networks.RESIDUAL, "y")
    with pytest.raises(FormatError, match="image must be an integer from 1 to 8192"):
        Graph(Shape(1 << 20, 1, 3), networks.RESIDUAL, "y")
    pooling = Node(op="pool_floats", name="p", input="s", output="q", kernel=(1000, 1000))
    with pytest.raises(FormatError, match="products"):
        Graph(Shape(2000, 2000, 1), (*edited(1, channels=1)[:2], pooling), "q")


@pytest.mark.parametrize("image", [Shape(np.int16(9), 8, 3), Shape(9.0, 8, 3), Shape(9, True, 3), (9, 8, 3), None])
def test_an_image_s_sides_are_python_s_integers(image):
    """NumPy's would overflow where bytes are counted, and buffers be too small."""
    with pytest.raises(FormatError, match="image must be"):
        Graph(image, networks.RESIDUAL, "y")


def test_many_pixels_are_averaged_exactly():
    nodes = (
        Node(op="normalize", name="in", input="image", output="x"),
        Node(op="float_conv", name="stem", input="x", output="s", channels=3),
        Node(op="average", name="mean", input="s", output="y"),
    )
    graph = Graph(Shape(1000, 1000, 1), nodes, "y")
    ones = {name: np.ones(shape, dtype) for name, (shape, dtype) in graph.tensors.items()}
    network = PackedNetwork(graph, ones | {"in.mean": np.zeros(1, np.float32), "mean.bias": np.zeros(3, np.float32)})
    x = images(1, (1000, 1000, 1))
    np.testing.assert_allclose(network(x), np.full((1, 3), x.mean() / 255), rtol=1e-6)


def test_nan_inside_a_network_is_minus_1():
    """As in torch, where NaN >= 0 is false, however many channels are packed at a time."""
    for channels in (63, 64, 65):
        nodes = (
            Node(op="normalize", name="in", input="image", output="x"),
            Node(op="float_conv", name="stem", input="x", output="s", channels=channels),
            Node(op="batch_norm", name="bn", input="s", output="n", bits="b"),
            Node(op="binary_conv", name="a", input="b", output="y", channels=1),
        )
        graph = Graph(Shape(1, 1, 1), nodes, "y")
        tensors = networks.random_tensors(graph, 0) | {
            "in.mean": np.zeros(1, np.float32),
            "in.std": np.full(1, 1e-3, np.float32),
            "stem.weight": np.full((channels, 1, 1, 1), 3e38, np.float32),  # times 1000: infinite
            "bn.scale": np.zeros(channels, np.float32),
            "a.weight": bits.pack_rows(np.ones((1, channels), bool)),
            "a.scale": np.ones(1, np.float32),
        }
        assert PackedNetwork(graph, tensors)(np.full((1, 1, 1, 1), 255, np.uint8)) == -channels


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_while_another_network_is_built(monkeypatch):
    first, second, x = networks.build(seed=1), networks.build(seed=2), images(1)
    second_again = networks.build(seed=2)
    wanted, began, go = second_again(x), Event(), Event()

    def slow(*arguments):
        began.set()
        go.wait(60)
        return build_program(*arguments)

    monkeypatch.setattr(network, "build_program", slow)
    builder = Thread(target=first, args=(x,))
    builder.start()
    began.wait(60)
    monkeypatch.undo()
    child = os.fork()
    if not child:
        signal.alarm(30)
        os._exit(not np.array_equal(second(x), wanted))
    assert os.waitpid(child, 0)[1] == 0
    go.set()
    builder.join()


def test_bits_cannot_be_made_from_the_logits():
    """They would be packed from where the caller's array is thought to be: from the images, as floats."""
    bits_of_logits = Node(op="batch_norm", name="bn", input="s", output="y", bits="b")
    stem = Node(op="float_conv", name="stem", input="x", output="s", channels=64)
    with pytest.raises(FormatError, match="no bits may be made from them"):
        Graph(Shape(1, 1, 1), (networks.RESIDUAL[0], stem, bits_of_logits), "y")


def test_the_memory_of_folded_images_counts():
    stem = replace(networks.RESIDUAL[1], bits="sb", output=None, channels=16, kernel=(1, 1), padding=0)
    wide = Node(op="binary_conv", name="a", input="sb", output="d", channels=1, kernel=(11, 4096), stride=22)
    nodes = (networks.RESIDUAL[0], stem, wide, Node(op="average", name="mean", input="d", output="y"))
    with pytest.raises(FormatError, match="what one image needs takes more"):
        Graph(Shape(1250, 8192, 1), nodes, "y")


def test_the_memory_of_a_copy_of_bits_counts():
    """Of 128 channels, a pixel's words and their running xors take 32 of 49 bytes that an image needs a pixel."""
    stem = replace(networks.RESIDUAL[1], bits="b", output=None, channels=128, kernel=(1, 1), padding=0)
    read = Node(op="binary_conv", name="read", input="b", output="d", channels=1, kernel=(60, 60), stride=60)
    nodes = (networks.RESIDUAL[0], stem, read, Node(op="average", name="mean", input="d", output="y"))
    Graph(Shape(2300, 2300, 1), nodes, "y")
    with pytest.raises(FormatError, match="what one image needs takes more"):  # without the copy, 2600 would pass too
        Graph(Shape(2600, 2600, 1), nodes, "y")


def test_the_memory_of_weights_counts():
    """A panel has room for 16 channels: one channel's weights take 16 times what they take in the file."""
    vast = Node(op="float_conv", name="vast", input="x", output="y", channels=1, kernel=(1800, 1800))
    with pytest.raises(FormatError, match="what one image needs takes more"):
        Graph(Shape(1800, 1800, 1), (networks.RESIDUAL[0], vast), "y")
    one = Node(op="binary_conv", name="one", input="b", output="y", channels=1, kernel=(2000, 2000))
    stem = Node(op="float_conv", name="stem", input="x", bits="b", channels=1)
    with pytest.raises(FormatError, match="what one image needs takes more"):
        Graph(Shape(2000, 2000, 1), (networks.RESIDUAL[0], stem, one), "y")


def test_tensors_need_not_be_contiguous():
    network = networks.build(networks.SCALED)
    spread = {name: np.repeat(tensor, 2, axis=0)[::2] for name, tensor in network.tensors.items()}
    assert not spread["bn.scale"].flags.c_contiguous
    x = images(2)
    assert np.array_equal(PackedNetwork(network.graph, spread)(x), network(x))


def test_what_a_program_has_in_it_cannot_be_changed():
    network = networks.build(networks.SCALED)
    mine = {name: tensor.copy() for name, tensor in network.tensors.items()}
    again = PackedNetwork(network.graph, mine)
    mine["bn.scale"][:] = 0
    assert np.array_equal(again(images(2)), network(images(2)))
    with pytest.raises(ValueError, match="read-only"):
        again.tensors["bn.scale"][:] = 0
    with pytest.raises(TypeError):
        again.tensors["bn.scale"] = mine["bn.scale"]


def test_tensors_must_be_those_of_the_graph():
    network = networks.build()

    def refuse(words: str, **changes: np.ndarray | None) -> None:
        tensors = {**network.tensors, **{name.replace("_", "."): value for name, value in changes.items()}}
        with pytest.raises(FormatError, match=words):
            PackedNetwork(network.graph, {name: value for name, value in tensors.items() if value is not None})

    refuse("missing.*a.flip", a_flip=None)
    refuse("unknown.*a.other", a_other=np.zeros(1))
    refuse("a.threshold must be int32", a_threshold=np.zeros(37, np.float32))
    refuse("b.scale must be", b_scale=np.zeros(19, np.float32))
    refuse("a.threshold must be int32.*list", a_threshold=[0] * 37)
    refuse("NaN", b_scale=np.full(20, np.nan, np.float32))
    refuse("NaN", b_threshold=np.full(20, np.nan, np.float32))
    refuse("std must be positive", in_std=np.zeros(3, np.float32))
    weight = network.tensors["b.weight"].copy()
    weight[:, -1] |= 0x80  # 9 * 37 bits leave 3 bits of the last byte
    refuse("beyond its last weight", b_weight=weight)
    refuse("beyond its last channel", a_flip=np.full(5, 255, np.uint8))


def test_thresholds_may_be_infinite():
    """A dead channel's bit does not depend on its value: threshold -inf."""
    network = networks.build()
    tensors = {**network.tensors, "stem.threshold": np.full(20, -np.inf, np.float32)}
    constant = PackedNetwork(network.graph, tensors)
    assert np.allclose(constant(images(2)), networks.run(constant, images(2)), rtol=1e-4, atol=1e-4)

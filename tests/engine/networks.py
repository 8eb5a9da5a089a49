"""Small networks without torch, that between them have every operation, and their meaning in plain NumPy."""

from dataclasses import replace
from typing import Any

import numpy as np

from tests.engine import reference
from xnornet.engine import Graph, Node, PackedNetwork
from xnornet.engine.bits import pack_rows
from xnornet.engine.geometry import Shape

RESIDUAL = (
    Node(op="normalize", name="in", input="image", output="x"),
    Node(
        op="float_conv",
        name="stem",
        input="x",
        output="s",
        bits="sb",
        channels=20,
        kernel=(3, 3),
        padding=1,
    ),
    Node(op="binary_conv", name="a", input="sb", bits="ab", channels=37, kernel=(3, 3), padding=1, stride=2),
    Node(op="float_conv", name="skip", input="s", output="k", channels=20, kernel=(1, 1), stride=2),
    Node(
        op="binary_conv",
        name="b",
        input="ab",
        output="r",
        bits="rb",
        residual="k",
        channels=20,
        kernel=(3, 3),
        padding=1,
        bias=True,
    ),
    Node(op="pool_bits", name="p", input="rb", bits="pb", kernel=(2, 2), stride=2),
    Node(op="binary_conv", name="c", input="pb", output="d", channels=9, kernel=(2, 2), padding=1, relu=True),
    Node(op="average", name="mean", input="d", output="m"),
    Node(op="float_conv", name="out", input="m", output="y", channels=5, bias=True),
)

SCALED = (
    Node(op="normalize", name="in", input="image", output="x"),
    Node(op="float_conv", name="stem", input="x", output="s", channels=6, kernel=(5, 5), bias=True, relu=True),
    Node(op="batch_norm", name="bn", input="s", output="n", bits="nb"),
    Node(op="input_scale", name="K", input="n", output="K", kernel=(3, 3), padding=1),
    Node(
        op="binary_conv",
        name="a",
        input="nb",
        output="r",
        residual="s",
        scale_map="K",
        channels=6,
        kernel=(3, 3),
        padding=1,
        bias=True,
    ),
    Node(op="pool_floats", name="p", input="r", output="q", kernel=(3, 2), stride=2),
    Node(op="average", name="mean", input="q", output="m"),
    Node(op="float_conv", name="out", input="m", output="y", channels=3),
)


def with_channels(nodes: tuple[Node, ...], **channels: int) -> tuple[Node, ...]:
    """The same nodes, those named with so many output channels."""
    return tuple(replace(node, channels=channels.get(node.name, node.channels)) for node in nodes)


RESIDUAL_RELU, SCALED_RELU = (
    tuple(replace(node, relu=True) if node.residual else node for node in nodes) for nodes in (RESIDUAL, SCALED)
)

MANY_CHANNELS = with_channels(RESIDUAL_RELU, stem=128, a=256, skip=97, b=97)
MANY_SCALED = with_channels(SCALED, stem=256, a=256)
"""With so many that the input's words are counted in groups, where the CPU does that: see `engine.running`."""

NETWORKS = {
    "residual": RESIDUAL,
    "scaled": SCALED,
    "many channels": MANY_CHANNELS,
    "scaled, many channels": MANY_SCALED,
    "residual with relu": RESIDUAL_RELU,
    "scaled with relu": SCALED_RELU,
    "residual with relu, no bits": (
        *(replace(node, bits=None) if node.residual else node for node in RESIDUAL_RELU[:5]),
        Node(op="average", name="mean", input="r", output="m"),
        RESIDUAL[-1],
    ),
}

POINT = (
    Node(op="normalize", name="in", input="image", output="x"),
    Node(op="float_conv", name="stem", input="x", output="s", channels=70, kernel=(9, 8)),
    Node(op="batch_norm", name="bn", input="s", output="y"),
)
"""Ends in a node that may make bits too, but not from the logits."""


def build(nodes: tuple[Node, ...] = RESIDUAL, seed: int = 0, image: tuple[int, int, int] = (9, 8, 3)) -> PackedNetwork:
    """A network with random tensors."""
    graph = Graph(Shape(*image), nodes, "y")
    return PackedNetwork(graph, random_tensors(graph, seed), {"dataset_md5": "0" * 32})


def random_tensors(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """Tensors that fit a graph. Thresholds are such that bits of both kinds come out."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, (shape, dtype) in graph.tensors.items():
        values: Any = rng.standard_normal(shape)
        if dtype == np.uint8:
            values = np.zeros(shape)
        elif dtype == np.int32:
            values = 10 * values
        elif name.endswith((".std", ".scale")):
            values = abs(values) + 0.1
        tensors[name] = values.astype(dtype)
    for node in graph.nodes:
        if node.op == "binary_conv":
            depth = graph.values[node.input].shape.depth
            tensors[f"{node.name}.weight"] = pack_rows(rng.random((node.channels, *node.kernel, depth)) < 0.5)
        if f"{node.name}.flip" in tensors:
            channels = graph.values[str(node.bits)].shape.depth
            tensors[f"{node.name}.flip"] = np.packbits(rng.random(channels) < 0.3, bitorder="little")
    return tensors


def run(network: PackedNetwork, images: np.ndarray) -> np.ndarray:
    """The logits, node by node in NumPy. Bits are +-1 here."""
    return run_and_doubt(network, images)[0]


def run_and_doubt(network: PackedNetwork, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logits, and whether an image has a float so near its threshold that rounding may decide the bit: (N,)."""
    values: dict[str, np.ndarray] = {"image": images}
    doubt = np.zeros(len(images), bool)
    for node in network.graph.nodes:
        _run_node(network, node, values, doubt)
    return values[network.graph.logits][:, 0, 0], doubt


def _run_node(network: PackedNetwork, node: Node, values: dict[str, np.ndarray], doubt: np.ndarray) -> None:  # noqa: PLR0912
    x = values[node.input]
    tensors = {key.rpartition(".")[2]: v for key, v in network.tensors.items() if key.rpartition(".")[0] == node.name}
    (height, width), stride, padding = node.kernel, node.stride, node.padding
    flip = None
    if "flip" in tensors:
        depth = network.graph.values[str(node.bits)].shape.depth
        flip = np.unpackbits(tensors["flip"], count=depth, bitorder="little").astype(bool)
    bias = tensors.get("bias", np.float32(0))
    if node.op == "normalize":
        y = (x.astype(np.float32) / np.float32(255) - tensors["mean"]) / tensors["std"]
    elif node.op == "float_conv":
        patches = reference.windows(x, height, width, stride, padding).astype(np.float64)
        y = (np.einsum("nhwckl,oklc->nhwo", patches, tensors["weight"].astype(np.float64)) + bias).astype(np.float32)
    elif node.op == "binary_conv":
        count = x.shape[3] * height * width
        bits = np.unpackbits(tensors["weight"], axis=1, count=count, bitorder="little")
        weight = np.where(bits, 1.0, -1.0).reshape(-1, height, width, x.shape[3]).transpose(0, 3, 1, 2)
        y = reference.binary_conv(x, weight, stride, padding)
        if not node.counts:
            y = y.astype(np.float32) * tensors["scale"]
            y = y if node.scale_map is None else y * values[node.scale_map]
            y = y + bias
    elif node.op == "pool_bits":
        patches = reference.windows(x, height, width, stride, 0)
        y = np.where(flip, -patches.max(axis=(4, 5)), patches.max(axis=(4, 5)))
        values[str(node.bits)] = y
        return
    elif node.op == "pool_floats":
        y = reference.windows(x, height, width, stride, 0).max(axis=(4, 5))
    elif node.op == "input_scale":
        y = reference.input_scale(x, height, width, stride, padding).astype(np.float32)
    else:
        y = x * tensors["scale"] + bias
        if node.op == "average":
            y = np.maximum(y, 0).mean(axis=(1, 2), keepdims=True)
    if node.relu:
        y = np.maximum(y, 0)
    if node.residual is not None:
        y = values[node.residual] + y
    if node.output is not None:
        values[node.output] = y
    if node.bits is not None:
        threshold = tensors.get("threshold", np.float32(0))
        above = y >= threshold
        if not node.counts and not (node.op == "batch_norm" and node.relu):  # counts are exact, and so is ReLU's 0
            doubt |= (abs(y - threshold) < 2e-6 * abs(y).max()).any(axis=(1, 2, 3))
        values[node.bits] = np.where(above if flip is None else above ^ flip, 1, -1)

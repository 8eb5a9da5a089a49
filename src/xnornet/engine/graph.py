"""What a packed network is: a plain description of its operations, checked completely before anything is built from it.

Values are images, float32 or packed bits, each named and made once, by a node that stands before those that read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from xnornet.engine import nodes as limits
from xnornet.engine.arguments import array_kind
from xnornet.engine.geometry import Shape
from xnornet.engine.nodes import (
    IMAGE,
    FormatError,
    Node,
    ValueInfo,
    check_keys,
    check_node,
    json_sizes,
    name_of,
    parse_node,
)
from xnornet.engine.steps import folded_bytes
from xnornet.engine.weights import MOST_PRODUCTS, float_panel_bytes, folds, panel_bytes

TensorSpec = tuple[tuple[int, ...], np.dtype]


@dataclass(frozen=True)
class Graph:
    """Nodes in order of execution. `values` and `tensors`: all that they imply; made, and checked, at construction."""

    image: Shape
    nodes: tuple[Node, ...]
    logits: str
    values: dict[str, ValueInfo] = field(init=False, compare=False)
    tensors: dict[str, TensorSpec] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        checker = _Checker(self)
        object.__setattr__(self, "values", checker.values)
        object.__setattr__(self, "tensors", checker.tensors)

    @property
    def classes(self) -> int:
        return self.values[self.logits].shape.depth

    def describe(self) -> dict[str, Any]:
        """As plain values for JSON."""
        image = [self.image.height, self.image.width, self.image.depth]
        return {"image": image, "nodes": [node.describe() for node in self.nodes], "logits": self.logits}

    @classmethod
    def parse(cls, description: Any) -> "Graph":
        """The inverse of `describe`, for input from anywhere. FormatError says what is wrong."""
        check_keys("network", description, {"image", "nodes", "logits"})
        image = Shape(*json_sizes("image", description["image"], 3))
        nodes = description["nodes"]
        if not isinstance(nodes, list):
            raise FormatError(f"nodes must be a list, not {nodes!r:.100}")
        return cls(image, tuple(parse_node(node) for node in nodes), name_of("logits", description["logits"]))


class _Checker:
    """Infers every value and tensor of a graph, and refuses the graph where two statements disagree."""

    def __init__(self, graph: Graph) -> None:
        self.values: dict[str, ValueInfo] = {}
        self.tensors: dict[str, TensorSpec] = {}
        self.makers: dict[str, str] = {}
        self.names: set[str] = set()
        self.logits = name_of("logits", graph.logits)
        self.total = self.work = self.folded = 0
        if not isinstance(graph.image, Shape):
            raise FormatError(f"image must be a Shape, not {graph.image!r:.100}")
        json_sizes("image", [graph.image.height, graph.image.width, graph.image.depth], 3)
        if not 0 < len(graph.nodes) <= limits.LIMIT_NODES:
            raise FormatError(f"a network has 1 to {limits.LIMIT_NODES} nodes, not {len(graph.nodes)}")
        self.define(IMAGE, "uint8", graph.image, "")
        for node in graph.nodes:
            check_node(node)
            if node.name in self.names:
                raise FormatError(f"two nodes are called {node.name!r}")
            self.names.add(node.name)
            getattr(self, node.op)(node)  # the method of that name: there is one for each op of `FIELDS`
        # One copy of bits at a time, folded or, where the CPU counts words in groups, with their running xors.
        self.grow(max([self.folded, *(value.size for value in self.values.values() if value.kind == "bits")]))
        if graph.logits in {name for node in graph.nodes for name in (node.input, node.residual, node.scale_map)}:
            raise FormatError(f"the logits, {graph.logits!r}, go to the caller: no node may read them")
        logits = self.values.get(graph.logits)
        if logits is None or logits.kind != "float32" or logits.shape.pixels != 1 or logits.padding:
            raise FormatError(f"logits must name a float32 value of one pixel, not {graph.logits!r}")

    def define(self, name: str | None, kind: Literal["uint8", "float32", "bits"], shape: Shape, maker: str) -> None:
        if name is None:
            return
        if name in self.values:
            raise FormatError(f"the value {name!r} is made twice")
        self.values[name] = ValueInfo(kind, shape)
        self.makers[name] = maker
        self.grow(self.values[name].size)

    def grow(self, size: int) -> None:
        self.total += size
        if self.total > limits.LIMIT_BYTES:
            raise FormatError(f"what one image needs takes more than {limits.LIMIT_BYTES} bytes")

    def read(self, node: Node, name: str, kind: str, padding: int = 0) -> Shape:
        """The shape of a value that exists, is of this kind, and has, or can be given, this padding."""
        value = self.values.get(name)
        if value is None or value.kind != kind:
            seen = "no value" if value is None else value.kind
            raise FormatError(f"{node.name}: {name!r} must be a {kind} value made before, not {seen}")
        paddable = kind == "bits" or self.makers[name] == "normalize"
        if padding > value.padding:
            if not paddable:
                raise FormatError(f"{node.name}: {name!r} cannot be padded, only bits and normalized images can")
            self.values[name] = ValueInfo(value.kind, value.shape, padding)
            self.grow(self.values[name].size - value.size)
        return value.shape

    def windowed(self, node: Node, shape: Shape, channels: int) -> Shape:
        if node.padding > max(node.kernel):
            raise FormatError(f"{node.name}: a padding of {node.padding} is wider than the kernel, {node.kernel}")
        try:
            out = Shape(*node.window.output(shape.height, shape.width), channels)
        except ValueError as error:
            raise FormatError(f"{node.name}: {error}") from None
        products = node.kernel[0] * node.kernel[1] * (shape.depth if "conv" in node.op else 1)
        self.work += out.pixels * channels * products
        if self.work > limits.LIMIT_WORK:
            raise FormatError(f"{node.name}: an image takes more than {limits.LIMIT_WORK} products")
        # Tables of a convolution: 3 numbers a pixel, and a row for each way of padding to cut the kernel, of which
        # some ten numbers of 4 bytes are needed to compute one.
        cuts = min(out.height, 2 * node.padding + 1) * min(out.width, 2 * node.padding + 1)
        self.grow(12 * out.pixels + 40 * cuts * channels)
        return out

    def tensor(self, node: Node, name: str, shape: tuple[int, ...], dtype: type) -> None:
        self.tensors[f"{node.name}.{name}"] = (shape, np.dtype(dtype))

    def results(self, node: Node, shape: Shape) -> None:
        if node.output is None and node.bits is None:
            raise FormatError(f"{node.name}: it has no result")
        self.define(node.output, "float32", shape, node.op)
        self.define(node.bits, "bits", shape, node.op)

    def relu(self, node: Node) -> None:
        if node.relu and node.bits is not None and node.residual is None:
            raise FormatError(f"{node.name}: relu does not go together with bits, whose threshold does it")

    def thresholds(self, node: Node, channels: int, dtype: type) -> None:
        if node.bits is not None:
            self.tensor(node, "threshold", (channels,), dtype)
            self.tensor(node, "flip", (-(-channels // 8),), np.uint8)

    def normalize(self, node: Node) -> None:
        shape = self.read(node, node.input, "uint8")
        self.tensor(node, "mean", (shape.depth,), np.float32)
        self.tensor(node, "std", (shape.depth,), np.float32)
        self.results(node, shape)

    def float_conv(self, node: Node) -> None:
        self.relu(node)
        shape = self.read(node, node.input, "float32", node.padding)
        out = self.windowed(node, shape, node.channels)
        self.tensor(node, "weight", (node.channels, *node.kernel, shape.depth), np.float32)
        self.grow(float_panel_bytes(node.channels, node.kernel, shape.depth))
        if node.bias:
            self.tensor(node, "bias", (node.channels,), np.float32)
        self.thresholds(node, node.channels, np.float32)
        self.results(node, out)

    def binary_conv(self, node: Node) -> None:
        self.relu(node)
        shape = self.read(node, node.input, "bits", node.padding)
        out = self.windowed(node, shape, node.channels)
        row = node.kernel[0] * node.kernel[1] * shape.depth
        if row >= MOST_PRODUCTS:
            raise FormatError(f"{node.name}: an output of {row} products; float32 counts exactly below {MOST_PRODUCTS}")
        self.tensor(node, "weight", (node.channels, -(-row // 8)), np.uint8)
        self.grow(panel_bytes(node.channels, node.kernel, shape.depth))
        if node.counts:
            if node.bias or node.relu or node.residual is not None or node.scale_map is not None:
                raise FormatError(
                    f"{node.name}: bits alone: bias, relu, residual and scale_map belong into the threshold"
                )
        else:
            self.tensor(node, "scale", (node.channels,), np.float32)
            if node.bias:
                self.tensor(node, "bias", (node.channels,), np.float32)
            if node.bits is not None and node.scale_map is not None:
                raise FormatError(f"{node.name}: a layer with a scale_map makes floats alone")
        for name, depth in ((node.residual, node.channels), (node.scale_map, 1)):
            if name is None:
                continue
            if self.makers.get(name) == "normalize" or self.read(node, name, "float32") != Shape(
                out.height, out.width, depth
            ):
                raise FormatError(f"{node.name}: {name!r} must be a result of {out.height}x{out.width}x{depth}")
        if folds(node.channels, node.kernel, shape.depth):
            self.folded = max(self.folded, folded_bytes(shape, node.window))
        self.thresholds(node, node.channels, np.int32 if node.counts else np.float32)
        self.results(node, out)

    def pool_bits(self, node: Node) -> None:
        shape = self.read(node, node.input, "bits")
        self.tensor(node, "flip", (-(-shape.depth // 8),), np.uint8)
        self.results(node, self.windowed(node, shape, shape.depth))

    def pool_floats(self, node: Node) -> None:
        shape = self.unpadded(node)
        self.results(node, self.windowed(node, shape, shape.depth))

    def batch_norm(self, node: Node) -> None:
        shape = self.unpadded(node)
        if node.output is None:
            raise FormatError(f"{node.name}: must make floats")
        if node.bits is not None and node.output == self.logits:
            raise FormatError(f"{node.name}: the logits go to the caller: no bits may be made from them")
        self.affine(node, shape)
        self.results(node, shape)

    def input_scale(self, node: Node) -> None:
        shape = self.unpadded(node)
        self.results(node, self.windowed(node, shape, 1))

    def average(self, node: Node) -> None:
        shape = self.unpadded(node)
        self.affine(node, shape)
        self.results(node, Shape(1, 1, shape.depth))

    def affine(self, node: Node, shape: Shape) -> None:
        self.tensor(node, "scale", (shape.depth,), np.float32)
        self.tensor(node, "bias", (shape.depth,), np.float32)

    def unpadded(self, node: Node) -> Shape:
        if self.makers.get(node.input) == "normalize":
            raise FormatError(f"{node.name}: a normalized image can go to a float_conv only")
        return self.read(node, node.input, "float32")


def check_tensors(specs: Mapping[str, TensorSpec], tensors: Mapping[str, np.ndarray]) -> None:
    """Refuse tensors that are not exactly those that the graph wants, or hold what the kernels cannot work with."""
    if set(specs) != set(tensors):
        missing, unknown = sorted(set(specs) - set(tensors)), sorted(set(tensors) - set(specs))
        raise FormatError(f"tensors do not fit the network: missing {missing[:5]}, unknown {unknown[:5]}")
    for name, (shape, dtype) in specs.items():
        tensor = tensors[name]
        if not isinstance(tensor, np.ndarray) or tensor.shape != shape or tensor.dtype != dtype:
            raise FormatError(f"{name} must be {dtype} {shape}, not {array_kind(tensor)}")
        if dtype == np.float32:
            finite = np.isfinite(tensor)
            if name.endswith(".threshold"):  # -inf and inf stand for always and never
                finite = ~np.isnan(tensor)
            if not finite.all():
                raise FormatError(f"{name} holds NaN or infinity")

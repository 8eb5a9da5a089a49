"""From the graph of a network to its program: kernels, buffers, tables."""

from collections.abc import Iterator, Mapping

import numpy as np

from xnornet.engine import bits
from xnornet.engine.geometry import Shape
from xnornet.engine.graph import Graph
from xnornet.engine.nodes import IMAGE, Node
from xnornet.engine.op import Kind, Mode
from xnornet.engine.program import Buffer, Program, Value, row_units
from xnornet.engine.steps import (
    Epilogue,
    add_binary_conv,
    add_float_conv,
    add_input_scale,
    add_pack,
)
from xnornet.engine.weights import BinaryWeights, FloatWeights, without_flips

BATCH = 1
"""Images a pass. One at a time keeps the values of a ResNet-18 in L2."""


def build_program(graph: Graph, tensors: Mapping[str, np.ndarray]) -> Program:
    """The program of a graph, whose tensors have been checked."""
    return _Builder(graph, tensors).build()


class _Builder:
    """Makes the program of a graph. A buffer takes the next value as soon as nobody reads the last any more."""

    def __init__(self, graph: Graph, tensors: Mapping[str, np.ndarray]) -> None:
        self.graph, self.tensors = graph, tensors
        self.program = Program(BATCH)
        self.buffers: dict[str, Buffer | None] = {IMAGE: None, graph.logits: None}
        self.free: dict[tuple, list[Buffer]] = {}

    def build(self) -> Program:
        """Node after node, as the graph has them."""
        graph = self.graph
        last_reader = {name: node.name for node in graph.nodes for name in self.inputs(node)}
        for node in graph.nodes:
            self.node = node
            # The sum with a residual may go where the residual lies, if this is its last reader: one stream in L2.
            in_place = (
                node.residual
                and node.output
                and last_reader[node.residual] == node.name
                and graph.logits not in (node.output, node.residual)  # which lie in the caller's array
            )
            if in_place:
                self.buffers[str(node.output)] = self.buffers[str(node.residual)]
            getattr(self, node.op)(node)  # the method of that name: there is one for each op of `nodes.FIELDS`
            for name in self.inputs(node):
                if last_reader[name] == node.name and not (in_place and name == node.residual):
                    self.release(name)
        return self.program

    @staticmethod
    def inputs(node: Node) -> Iterator[str]:
        return (name for name in (node.input, node.residual, node.scale_map) if name is not None)

    def tensor(self, name: str) -> np.ndarray | None:
        return self.tensors.get(f"{self.node.name}.{name}")

    def need(self, name: str) -> np.ndarray:
        return self.tensors[f"{self.node.name}.{name}"]

    def shape(self, name: str | None) -> Shape:
        return self.graph.values[str(name)].shape

    def padding(self, name: str | None) -> int:
        return self.graph.values[str(name)].padding

    def key(self, name: str) -> tuple:
        """Values may follow each other in a buffer if they have the same layout: zeros around them stay zeros."""
        value = self.graph.values[name]
        return value.kind, value.shape, value.padding

    def buffer(self, name: str | None) -> Buffer | None:
        """Where a value lies; allotted when first asked for."""
        assert name is not None
        if name not in self.buffers:
            free = self.free.get(self.key(name))
            self.buffers[name] = free.pop() if free else Buffer(self.graph.values[name].size * BATCH)
        return self.buffers[name]

    def release(self, name: str) -> None:
        buffer = self.buffers.pop(name, None)
        if buffer is not None:
            self.free.setdefault(self.key(name), []).append(buffer)

    def flip(self) -> np.ndarray | None:
        packed = self.tensor("flip")
        return None if packed is None else bits.unpack_row(packed, self.shape(self.node.bits).depth)

    def add(self, kind: Kind, rows: int = 1, **extra: Value) -> None:
        """An operation that is no convolution: sizes from its input and its result. rows: that threads may share."""
        node = self.node
        shape, made = self.shape(node.input), node.output or node.bits
        out = self.graph.values[str(made)]
        fields: dict[str, Value] = {
            "source": self.buffer(node.input),
            "target": self.buffer(made),
            "height": shape.height,
            "width": shape.width,
            "depth": shape.depth,
            "count": shape.pixels,
            "out_height": out.shape.height,
            "out_width": out.shape.width,
            "kernel_height": node.kernel[0],
            "kernel_width": node.kernel[1],
            "stride": node.stride,
            "relu": int(node.relu),
            "source_padding": self.padding(node.input),
            "target_padding": out.padding,
            "source_bytes": self.graph.values[node.input].size,
            "target_bytes": out.size,
        }
        self.program.add(kind, units=row_units(rows), **(fields | extra))

    def epilogue(self, mode: Mode | int) -> Epilogue:
        node = self.node
        return Epilogue(
            mode,
            scale=self.tensor("scale"),
            bias=self.tensor("bias"),
            threshold=self.tensor("threshold"),
            flip=self.flip(),
            target=self.buffer(node.output) if node.output else None,
            residual=self.buffer(node.residual) if node.residual else None,
            scale_map=self.buffer(node.scale_map) if node.scale_map else None,
            bits=self.buffer(node.bits) if node.bits else None,
            bits_padding=self.padding(node.bits) if node.bits else 0,
        )

    def normalize(self, node: Node) -> None:
        # In float32 and in this order, as the torch model computes it.
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        with np.errstate(over="ignore"):  # an extreme mean or std gives infinities, as in torch
            table = (levels - self.need("mean")[:, None]) / self.need("std")[:, None]
        depth = self.shape(IMAGE).depth
        parts = np.tile(256 * np.arange(depth), self.shape(IMAGE).width)  # of each value of a row: its channel's
        self.add(Kind.NORMALIZE, self.shape(IMAGE).height, table=np.ascontiguousarray(table), offsets=parts)

    def float_conv(self, node: Node) -> None:
        mode = (Mode.STORE if node.output else 0) | (Mode.BITS if node.bits else 0) | (Mode.RELU if node.relu else 0)
        weights, padding = FloatWeights(self.need("weight")), self.padding(node.input)
        add_float_conv(
            self.program,
            weights,
            self.buffer(node.input),
            self.shape(node.input),
            padding,
            node.window,
            self.epilogue(mode),
        )

    def binary_conv(self, node: Node) -> None:
        mode = Mode.COUNTS if node.counts else Mode.STORE | (Mode.BITS if node.bits else 0)
        mode |= (Mode.RESIDUAL if node.residual else 0) | (Mode.SCALE if node.scale_map else 0)
        mode |= Mode.RELU if node.relu else 0
        shape = self.shape(node.input)
        words = bits.unpack_rows(self.need("weight"), (*node.kernel, shape.depth))
        weights, epilogue = BinaryWeights(words, shape.depth), self.epilogue(mode)
        if mode == Mode.COUNTS:
            flip = np.asarray(self.flip(), bool)
            weights, epilogue.threshold = without_flips(weights, self.need("threshold"), flip)
        add_binary_conv(
            self.program,
            weights,
            self.buffer(node.input),
            shape,
            self.padding(node.input),
            node.window,
            epilogue,
        )

    def pool_bits(self, node: Node) -> None:
        shape = self.shape(node.input)
        flip = bits.pack_bits(np.asarray(self.flip(), bool))
        self.add(Kind.POOL_BITS, self.shape(node.bits).height, flip=flip, depth=bits.word_count(shape.depth))

    def pool_floats(self, node: Node) -> None:
        self.add(Kind.POOL_FLOATS, self.shape(node.output).height)

    def batch_norm(self, node: Node) -> None:
        self.add(Kind.BATCH_NORM, self.shape(node.input).height, scale=self.need("scale"), bias=self.need("bias"))
        if node.bits:
            floats, packed = self.buffer(node.output), self.buffer(node.bits)
            add_pack(self.program, floats, packed, self.shape(node.bits), self.padding(node.bits))

    def input_scale(self, node: Node) -> None:
        add_input_scale(
            self.program, self.buffer(node.input), self.buffer(node.output), self.shape(node.input), node.window
        )

    def average(self, node: Node) -> None:
        self.add(Kind.AVERAGE, scale=self.need("scale"), bias=self.need("bias"))

"""A whole network on packed words: one program of fused operations on buffers that are allocated once."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnornet.engine import bits, file
from xnornet.engine.graph import IMAGE, FormatError, Graph, Node, check_tensors
from xnornet.engine.op import Kind, Mode
from xnornet.engine.program import (
    Buffer,
    Epilogue,
    Program,
    Shape,
    Value,
    add_binary_conv,
    add_float_conv,
    add_fold,
    add_input_scale,
    add_pack,
    folded_bytes,
)
from xnornet.engine.weights import BinaryWeights, FloatWeights

BATCH = 1
"""Images a pass. One at a time keeps the values of a ResNet-18 in L2."""


class PackedNetwork:
    """A network that runs on packed bits, with float first and last layers; made by `xnornet.export.pack` or `load`.

    graph: its operations; tensors: theirs, by name, as `graph.tensors` wants them (FormatError if not); about: plain
    values that travel with the file, such as the md5 of the training data.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any] | None = None) -> None:
        check_tensors(graph.tensors, tensors)
        self.graph = graph
        self.tensors = dict(tensors)
        self.about = dict(about or {})
        self._check_bits()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images."""
        image = self.graph.image
        return image.height, image.width, image.depth

    @property
    def classes(self) -> int:
        return self.graph.classes

    def __call__(self, images: NDArray[np.uint8], threads: int = 1) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) -> float32 logits (N, classes). ValueError for another dtype or shape.

        threads: share out the images; the result has the same bits.
        """
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            raise ValueError(f"images must be a uint8 array, not {getattr(images, 'dtype', type(images).__name__)}")
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images must have the shape (N, {', '.join(map(str, self.image_shape))}), not {images.shape}"
            )
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be an integer of at least 1, not {threads!r}")
        images = np.ascontiguousarray(images)
        logits = np.empty((images.shape[0], self.classes), np.float32)
        self._program(images, logits, len(images), threads)
        return logits

    def save(self, path: str | PathLike[str]) -> None:
        """Write the network as one safetensors file, atomically: `path` is either the old file or the whole new one."""
        file.write(path, self.graph.describe(), self.tensors, self.about)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "PackedNetwork":
        """Read what `save` wrote. FormatError, before anything is built, if the file is not exactly that."""
        try:
            return cls.parse(Path(path).read_bytes())
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error

    @classmethod
    def parse(cls, data: bytes) -> "PackedNetwork":
        """The network of a file's bytes; FormatError as in `load`."""
        description, tensors, about = file.parse(data)
        return cls(Graph.parse(description), tensors, about)

    def summary(self) -> str:
        """A table to print: each operation, what it makes, its weights of one bit, and its bytes in the file."""
        rows = [("operation", "makes", "binary weights", "bytes")]
        for node in self.graph.nodes:
            made = [(name, self.graph.values[name]) for name in (node.output, node.bits) if name is not None]
            shapes = " + ".join(f"{v.kind} {v.shape.height}x{v.shape.width}x{v.shape.depth}" for _, v in made)
            rows.append(
                (f"{node.name} ({node.op})", shapes, f"{self._binary_weights(node):,}", f"{self._bytes(node):,}")
            )
        nodes = self.graph.nodes
        total = f"{sum(map(self._binary_weights, nodes)):,}", f"{sum(map(self._bytes, nodes)):,}"
        rows.append(("total", f"{self.classes} logits", *total))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
            for row in rows
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:-1], "-" * len(lines[0]), lines[-1]])

    def layer_bytes(self) -> dict[str, int]:
        """Bytes of each node's tensors in the file."""
        return {node.name: self._bytes(node) for node in self.graph.nodes}

    def _bytes(self, node: Node) -> int:
        return sum(self.tensors[name].nbytes for name in self.graph.tensors if name.rpartition(".")[0] == node.name)

    def _binary_weights(self, node: Node) -> int:
        if node.op != "binary_conv":
            return 0
        return node.channels * node.kernel[0] * node.kernel[1] * self.graph.values[node.input].shape.depth

    def _check_bits(self) -> None:
        """Bits that only fill up a byte must be 0, and no standard deviation may be."""
        for node in self.graph.nodes:
            if node.op == "binary_conv":
                rows = self.tensors[f"{node.name}.weight"]
                used = self._binary_weights(node) // node.channels % 8
                if used and (rows[:, -1] >> used).any():
                    raise FormatError(f"{node.name}.weight has bits beyond its last weight")
            if (flip := self.tensors.get(f"{node.name}.flip")) is not None:
                used = self.graph.values[str(node.bits)].shape.depth % 8
                if used and flip[-1] >> used:
                    raise FormatError(f"{node.name}.flip has bits beyond its last channel")
            if node.op == "normalize" and not (self.tensors[f"{node.name}.std"] > 0).all():
                raise FormatError(f"{node.name}.std must be positive")

    @cached_property
    def _program(self) -> Program:
        return _Builder(self.graph, self.tensors).program


class _Builder:
    """Makes the program of a graph. A buffer takes the next value as soon as nobody reads the last any more."""

    def __init__(self, graph: Graph, tensors: Mapping[str, np.ndarray]) -> None:
        self.graph, self.tensors = graph, tensors
        self.program = Program(BATCH, shares_pixels=False)
        self.buffers: dict[str, Buffer | None] = {IMAGE: None, graph.logits: None}
        self.free: dict[tuple, list[Buffer]] = {}
        last_reader = {name: node.name for node in graph.nodes for name in self.inputs(node)}
        for node in graph.nodes:
            self.node = node
            # The sum with a residual may go where the residual lies, if this is its last reader: one stream in L2.
            in_place = node.residual and node.output and last_reader[node.residual] == node.name
            if in_place and graph.logits not in (node.output, node.residual):
                self.buffers[str(node.output)] = self.buffers[str(node.residual)]
            getattr(self, node.op)(node)
            for name in self.inputs(node):
                if last_reader[name] == node.name and not (in_place and name == node.residual):
                    self.release(name)

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
        return (
            None if packed is None else np.unpackbits(packed, bitorder="little", count=self.shape(self.node.bits).depth)
        )

    def add(self, kind: Kind, **extra: Value) -> None:
        """An operation that is no convolution: sizes from its input and its result."""
        node = self.node
        shape, made = self.shape(node.input), node.output or node.bits
        out = self.graph.values[str(made)]
        self.program.add(
            kind,
            source=self.buffer(node.input),
            target=self.buffer(made),
            height=shape.height,
            width=shape.width,
            depth=shape.depth,
            count=shape.pixels,
            out_height=out.shape.height,
            out_width=out.shape.width,
            kernel_height=node.kernel[0],
            kernel_width=node.kernel[1],
            stride=node.stride,
            relu=int(node.relu),
            source_padding=self.padding(node.input),
            target_padding=out.padding,
            source_bytes=self.graph.values[node.input].size,
            target_bytes=out.size,
            **extra,
        )

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
        self.add(Kind.NORMALIZE, table=np.ascontiguousarray(table))

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
        shape, padding = self.shape(node.input), self.padding(node.input)
        words = unpack_rows(self.need("weight"), (*node.kernel, shape.depth))
        weights, source = BinaryWeights(words, shape.depth), self.buffer(node.input)
        if weights.folded:
            folded = Buffer(folded_bytes(weights, shape, node.window) * BATCH)
            add_fold(self.program, weights, source, folded, shape, padding, node.window)
            source, padding = folded, node.padding
        add_binary_conv(self.program, weights, source, shape, padding, node.window, self.epilogue(mode))

    def pool_bits(self, node: Node) -> None:
        shape = self.shape(node.input)
        flip = bits.pack_bits(np.asarray(self.flip(), bool))
        self.add(Kind.POOL_BITS, flip=flip)
        self.program.steps[-1]["depth"] = bits.word_count(shape.depth)

    def pool_floats(self, node: Node) -> None:
        self.add(Kind.POOL_FLOATS)

    def batch_norm(self, node: Node) -> None:
        self.add(Kind.BATCH_NORM, scale=self.need("scale"), bias=self.need("bias"))
        if node.bits:
            floats, packed = self.buffer(node.output), self.buffer(node.bits)
            add_pack(self.program, floats, packed, self.shape(node.bits), self.padding(node.bits))

    def input_scale(self, node: Node) -> None:
        add_input_scale(
            self.program, self.buffer(node.input), self.buffer(node.output), self.shape(node.input), node.window
        )

    def average(self, node: Node) -> None:
        self.add(Kind.AVERAGE, scale=self.need("scale"), bias=self.need("bias"))


def pack_rows(signs: np.ndarray) -> NDArray[np.uint8]:
    """Truth values (O, kh, kw, C) as the file has them: a row of bits an output channel, filled up to a byte."""
    return np.packbits(signs.reshape(signs.shape[0], -1), axis=1, bitorder="little")


def unpack_rows(rows: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint64]:
    """Rows of the file as packed words (O, kh, kw, ceil(C / 64)); shape: (kh, kw, C)."""
    if shape[2] % bits.WORD == 0:
        return np.ascontiguousarray(rows).view(np.uint64).reshape(rows.shape[0], *shape[:2], -1)
    count = int(np.prod(shape))
    return bits.pack_bits(np.unpackbits(rows, axis=1, count=count, bitorder="little").reshape(-1, *shape))

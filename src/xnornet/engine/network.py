"""A whole network on packed words: one program of fused operations on buffers that are allocated once."""

from collections.abc import Mapping
from os import PathLike
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnornet.engine import file
from xnornet.engine.arguments import array_kind, thread_count
from xnornet.engine.builder import build_program
from xnornet.engine.graph import Graph, check_tensors
from xnornet.engine.nodes import FormatError, Node
from xnornet.engine.program import Program


class PackedNetwork:
    """A network that runs on packed bits, with a float first layer; made by `xnornet.export.pack` or `load`.

    graph: its operations; tensors: theirs, by name, as `graph.tensors` wants them (FormatError if not); about: plain
    values that travel with the file, such as the md5 of the training data (ValueError for what JSON does not have).
    The tensors are copied, and read-only: a program has them in it.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any] | None = None) -> None:
        check_tensors(graph.tensors, tensors)
        self.graph = graph
        self.tensors = MappingProxyType({name: _frozen(tensor) for name, tensor in tensors.items()})
        self.about = file.plain(about or {})
        self._check_bits()
        self._built: Program | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, and what another process unpickles, is built anew: a program holds addresses of its own memory."""
        return type(self), (self.graph, dict(self.tensors), self.about)

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

        threads: share out the images or, of a single image that takes long enough, the work, on no more than the cores
        (or NUMBA_NUM_THREADS); the result has the same bits.
        """
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            raise ValueError(f"images must be a uint8 array, not {array_kind(images)}")
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images must have the shape (N, {', '.join(map(str, self.image_shape))}), not {images.shape}"
            )
        threads = thread_count(threads)
        images = np.ascontiguousarray(images)
        logits = np.empty((images.shape[0], self.classes), np.float32)
        self._program(images, logits, threads)
        return logits

    def save(self, path: str | PathLike[str]) -> None:
        """Write the network as one safetensors file, atomically: `path` is either the old file or the whole new one."""
        file.write(path, self.graph.describe(), self.tensors, self.about)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "PackedNetwork":
        """Read what `save` wrote. FormatError, before anything is built, if the file is not exactly that."""
        try:
            return cls.parse(file.read(path))
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

    @property
    def _program(self) -> Program:
        # Not a cached_property: up to Python 3.11 these share a lock, which a fork would find held. Threads that make
        # the first call at a time each build one.
        if self._built is None:
            self._built = build_program(self.graph, self.tensors)
        return self._built


def _frozen(tensor: np.ndarray) -> np.ndarray:
    """A contiguous copy, as programs read it by its address, that nobody can write to."""
    copy = np.array(tensor, order="C")
    copy.flags.writeable = False
    return copy

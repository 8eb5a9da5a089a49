"""Layers of torch, one by one, as the nodes and tensors of a packed network."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from xnornet.engine import Graph, Node, PackedNetwork
from xnornet.engine.bits import pack_row, pack_rows
from xnornet.engine.geometry import Shape
from xnornet.engine.nodes import IMAGE, FormatError
from xnornet.export.thresholds import ChannelFunction, Sign
from xnornet.nn.layers import BatchNorm, Binary, Normalize, affine

LOGITS = "logits"
"""The name of a network's result."""


class PackError(ValueError):
    """A network that cannot be packed as it is; the message says why."""


def scaled(layer: Binary) -> ChannelFunction:
    """What the layer makes of its integer counts, in its own arithmetic."""
    return partial(_scaled, *layer.scale_and_bias())


def _scaled(scale: Tensor, bias: Tensor | None, count: Tensor) -> Tensor:
    y = count * scale.view(1, -1, 1, 1)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


class Writer:
    """Collects the nodes of a network and their tensors. Weights come as torch has them, (O, C, kh, kw)."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, np.ndarray] = {}

    def network(self, image: Shape, about: Any) -> PackedNetwork:
        """What was collected, checked. PackError for what the engine does not have."""
        try:
            return PackedNetwork(Graph(image, tuple(self.nodes), LOGITS), self.tensors, about)
        except FormatError as error:
            raise PackError(f"the engine does not have this: {error}") from error

    def add(
        self, op: str, name: str, source: str, tensors: Mapping[str, np.ndarray] | None = None, **fields: Any
    ) -> None:
        """A node with its tensors, which are copied, and its fields."""
        self.nodes.append(Node(op=op, name=name, input=source, **fields))
        self.tensors |= {f"{name}.{key}": np.array(value) for key, value in (tensors or {}).items()}

    def normalize(self, module: Normalize) -> str:
        """The image as floats; returns their name."""
        tensors = {"mean": module.mean.numpy(), "std": module.std.numpy()}
        self.add("normalize", "normalize", IMAGE, tensors, output="normalized")
        return "normalized"

    def float_conv(
        self,
        name: str,
        source: str,
        weight: Tensor,
        bias: Tensor | None,
        *,
        threshold: Sign | None = None,
        **options: Any,
    ) -> None:
        """A float convolution, or a dense layer as one. threshold: of its bits, on its floats."""
        last = weight.permute(0, 2, 3, 1).numpy()
        tensors = {"weight": last}
        if threshold is not None:
            tensors |= _compared(*threshold.of_floats())
        if bias is not None:
            tensors["bias"] = bias.numpy()
        options |= {"channels": len(last), "kernel": last.shape[1:3], "bias": bias is not None}
        self.add("float_conv", name, source, tensors, **options)

    def binary_conv(
        self,
        name: str,
        source: str,
        layer: Binary,
        weight: Tensor,
        *,
        threshold: Sign | None = None,
        **options: Any,
    ) -> None:
        """A binary layer. threshold: of its bits, on its counts or, if it has an `output`, on these floats."""
        signs = (weight >= 0).permute(0, 2, 3, 1).numpy()
        tensors = {"weight": pack_rows(signs)}
        floats = options.get("output") is not None
        if threshold is not None:
            tensors |= _compared(*(threshold.of_floats() if floats else threshold.of_counts(weight[0].numel())))
        if floats:
            scale, bias = layer.scale_and_bias()
            tensors["scale"] = scale.numpy()
            if bias is not None:
                tensors["bias"] = bias.numpy()
        options |= {"channels": len(signs), "kernel": signs.shape[1:3], "bias": "bias" in tensors}
        self.add("binary_conv", name, source, tensors, **options, **stride_and_padding(layer))

    def pool_bits(self, name: str, source: str, kernel: tuple[int, int], stride: int, flip: np.ndarray) -> None:
        """An OR of bits over a window; flip: one of `Sign.flips`."""
        self.add("pool_bits", name, source, _packed(flip), bits=name, kernel=kernel, stride=stride)

    def batch_norm(
        self, name: str, source: str, bn: BatchNorm | None, channels: int, *, op: str = "batch_norm", **options: Any
    ) -> None:
        """A BatchNorm of floats, or nothing but what `options` ask for behind it. op: `batch_norm` or `average`."""
        slope, intercept = (np.ones(channels, np.float32), np.zeros(channels, np.float32))
        if bn is not None:
            slope, intercept = (value.numpy() for value in affine(bn))
        self.add(op, name, source, {"scale": slope, "bias": intercept}, **{"output": name} | options)

    def input_scale(self, layer_name: str, source: str, layer: Binary, weight: Tensor) -> str:
        """K of a binary layer, of the floats whose signs it takes; returns its name."""
        name, kernel = f"{layer_name}.K", (weight.shape[2], weight.shape[3])
        self.add("input_scale", name, source, output=name, kernel=kernel, **stride_and_padding(layer))
        return name


def _compared(threshold: np.ndarray, flip: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors of a comparison, by their names."""
    return {"threshold": threshold} | _packed(flip)


def _packed(flip: np.ndarray) -> dict[str, np.ndarray]:
    return {"flip": pack_row(flip)}


def stride_and_padding(layer: nn.Module) -> dict[str, Any]:
    """Stride and padding of a convolution; those of a dense layer are the nodes' own."""
    if not isinstance(layer, nn.Conv2d):
        return {}
    return {"stride": int(layer.stride[0]), "padding": int(layer.padding[0])}

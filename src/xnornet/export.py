"""A trained torch network -> the engine's packed network: the one place that knows both.

A BatchNorm behind a layer becomes its scale and bias, BatchNorm and sign become thresholds. These are not computed from
the BatchNorm's formula but found by bisection over the torch modules themselves, so that a bit of the engine is the bit
of torch for every value that can occur: with rounding, dead channels (gamma = 0), negative gamma and tiny variances.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import isqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnornet.engine import Graph, Node, PackedNetwork
from xnornet.engine.builder import pack_rows
from xnornet.engine.nodes import IMAGE
from xnornet.engine.program import Shape
from xnornet.nn.layers import Normalize, XnorConv2d, XnorLinear, affine
from xnornet.nn.models import Block, LeNet5, ResNet18

ChannelFunction = Callable[[Tensor], Tensor]
"""Float32 (1, C, 1, 1) -> the same shape, monotone in each channel."""


def pack(model: nn.Module, about: Mapping[str, Any] | None = None, *, image_size: int | None = None) -> PackedNetwork:
    """Pack a trained XNOR network, as it is in eval mode, into words; the model is not changed.

    about: plain values for JSON that travel with the file, such as the md5 of the training data. image_size: side of
    the images in pixels, the model's own if not given; a ResNet takes smaller ones too. TypeError for another kind of
    model, ValueError for a float twin or a size that the model does not take.
    """
    if not isinstance(model, LeNet5 | ResNet18):
        raise TypeError(f"model must be a LeNet5 or a ResNet18, not {type(model).__name__}")
    if not all(layer.binary for layer in model.modules() if isinstance(layer, XnorConv2d | XnorLinear)):
        raise ValueError("model is a float twin: only XNOR networks can be packed")
    side = image_size or model.image_size
    if not model.smallest_image <= side <= model.image_size:
        raise ValueError(f"image_size must be {model.smallest_image} to {model.image_size} pixels, not {side}")
    training = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            export = _Export()
            export.normalize(model.cpu().eval().normalize)
            if isinstance(model, LeNet5):
                _lenet5(model, export)
            else:
                _resnet18(model, export)
    finally:
        model.to(device)
        for module, mode in training.items():
            module.training = mode
    image = Shape(side, side, len(model.normalize.mean))
    return PackedNetwork(Graph(image, tuple(export.nodes), "logits"), export.tensors, about)


def _lenet5(model: LeNet5, export: "_Export") -> None:
    conv1, conv2, fc1, fc2 = model.conv1, model.conv2, model.fc1, model.fc2
    # fc1 sees pixels flattened channels first: it is a convolution whose kernel is the whole image.
    side = isqrt(fc1.in_features // conv2.out_channels)
    dense = fc1.weight.view(fc1.out_features, conv2.out_channels, side, side)
    if conv2.input_scaling:
        # K needs the values that the signs are taken of, so nothing but bits will not do.
        export.float_conv("conv1", "normalized", conv1.weight, conv1.bias, output="conv1")
        export.add("batch_norm", "bn1", "conv1", output="bn1", relu=True, **_affine(model.bn1))
        export.add("pool_floats", "pool1", "bn1", output="pool1", kernel=(2, 2), stride=2)
        export.scaled_conv("bn2", model.bn2, "conv2", "pool1", conv2, conv2.weight, relu=True)
        export.add("pool_floats", "pool2", "conv2", output="pool2", kernel=(2, 2), stride=2)
        export.scaled_conv("bn3", model.bn3, "fc1", "pool2", fc1, dense, relu=True)
    else:
        # Pooling commutes with what is monotone: a maximum is above a threshold if any of the values is.
        stem_bits = _PooledSign(lambda x: F.relu(model.bn1(x)), model.bn2)
        export.float_conv("conv1", "normalized", conv1.weight, conv1.bias, bits="conv1", threshold=stem_bits)
        export.pool_bits("pool1", "conv1", stem_bits)
        conv2_bits = _PooledSign(lambda count: F.relu(_scaled(conv2, count)), model.bn3)
        export.binary_conv("conv2", "pool1", conv2, conv2.weight, bits="conv2", threshold=conv2_bits)
        export.pool_bits("pool2", "conv2", conv2_bits)
        export.binary_conv("fc1", "pool2", fc1, dense, output="fc1", relu=True)
    export.float_conv("fc2", "fc1", fc2.weight[:, :, None, None], fc2.bias, output="logits")


def _resnet18(model: ResNet18, export: "_Export") -> None:
    blocks: list[Block] = list(model.blocks)  # type: ignore[arg-type]
    following = [_Sign(block.bn1) for block in blocks[1:]]
    scaled = blocks[0].conv1.input_scaling
    stem: dict[str, Any] = {} if scaled else {"bits": "bits0", "threshold": _Sign(blocks[0].bn1)}
    export.float_conv("stem", "normalized", model.stem.weight, None, padding=1, output="x0", **stem)
    for index, block in enumerate(blocks):
        name, x, after = f"block{index}", f"x{index}", f"x{index + 1}"
        skip = x
        if isinstance(block.shortcut, nn.Conv2d):
            skip = f"skip{index}"
            stride = block.shortcut.stride[0]
            export.float_conv(f"{name}.shortcut", x, block.shortcut.weight, None, stride=stride, output=skip)
        inner = f"inner{index}"
        first_skip, second_skip = (skip, inner) if block.skip_each else (None, skip)
        if scaled:
            for n, source, skip_n, made in ((1, x, first_skip, inner), (2, inner, second_skip, after)):
                bn, conv = getattr(block, f"bn{n}"), getattr(block, f"conv{n}")
                export.scaled_conv(f"{name}.bn{n}", bn, f"{name}.conv{n}", source, conv, residual=skip_n, output=made)
            continue
        bits, middle = f"bits{index}", f"middle{index}"
        if block.skip_each:
            first: dict[str, Any] = {"residual": skip, "output": inner, "threshold": _Sign(block.bn2)}
        else:
            first = {"threshold": _Sign(block.bn2, before=partial(_scaled, block.conv1))}
        export.binary_conv(f"{name}.conv1", bits, block.conv1, block.conv1.weight, bits=middle, **first)
        last: dict[str, Any] = (
            {"bits": f"bits{index + 1}", "threshold": following[index]} if index < len(following) else {}
        )
        export.binary_conv(
            f"{name}.conv2", middle, block.conv2, block.conv2.weight, residual=second_skip, output=after, **last
        )
    export.add("average", "bn", f"x{len(blocks)}", output="pooled", **_affine(model.bn))
    export.float_conv("fc", "pooled", model.fc.weight[:, :, None, None], model.fc.bias, output="logits")


def _scaled(layer: XnorConv2d | XnorLinear, count: Tensor) -> Tensor:
    """What the layer makes of its integer counts, (1, O, 1, 1), in its own arithmetic."""
    scale, bias = layer.scale_and_bias()
    y = count * scale.view(1, -1, 1, 1)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def _affine(bn: nn.BatchNorm2d) -> dict[str, np.ndarray]:
    slope, intercept = affine(bn)
    return {"scale_": slope.numpy(), "bias_": intercept.numpy()}


@dataclass(frozen=True)
class _Sign:
    """sign(bn(before(x))) as a threshold on x."""

    bn: nn.BatchNorm2d
    before: ChannelFunction = field(default=lambda x: x)

    def bit(self, x: Tensor) -> Tensor:
        """x: (C,) -> truth values (C,)."""
        return self.bn(self.before(x.view(1, -1, 1, 1))).view(-1) >= 0

    def of_counts(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """(threshold, flip) for integers from -most to most: the bit is (x >= threshold) xor flip."""
        channels = self.bn.num_features
        edge = torch.full((channels,), most, dtype=torch.int64)
        threshold, flip, constant = _bisect(lambda count: self.bit(count.to(torch.float32)), -edge, edge)
        threshold[constant] = -(2**31)
        return threshold.numpy().astype(np.int32), flip.numpy()

    def of_floats(self) -> tuple[np.ndarray, np.ndarray]:
        """(threshold, flip) for float32: the bit is (x >= threshold) xor flip."""
        highest = torch.full((self.bn.num_features,), torch.finfo(torch.float32).max)
        edge = highest.view(torch.int32).to(torch.int64)
        threshold, flip, constant = _bisect(lambda rank: self.bit(_float_of_rank(rank)), -edge, edge)
        limits = _float_of_rank(threshold)
        limits[constant] = -torch.inf
        return limits.numpy(), flip.numpy()


class _PooledSign(_Sign):
    """sign(bn(maximum over a window of before(x))): a threshold on x, an OR over the window, a flip.

    Where the BatchNorm's slope is negative, the bit says that all values are small enough: not any of them is not.
    """

    def __init__(self, before: ChannelFunction, bn: nn.BatchNorm2d) -> None:
        super().__init__(bn, before)

    @property
    def flip_after(self) -> np.ndarray:
        return (self.bn.weight < 0).numpy()

    def of_counts(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        threshold, flip = super().of_counts(most)
        return threshold, flip ^ self.flip_after

    def of_floats(self) -> tuple[np.ndarray, np.ndarray]:
        threshold, flip = super().of_floats()
        return threshold, flip ^ self.flip_after


def _float_of_rank(rank: Tensor) -> Tensor:
    """The float32 values in order, numbered by int64: 0 is 0.0, 1 the next above it, -1 the next below."""
    magnitude = rank.abs().to(torch.int32).view(torch.float32)
    return torch.where(rank < 0, -magnitude, magnitude)


def _bisect(bit: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(first, flip, constant) of a bit per channel that changes at most once from `low` to `high`, int64 (C,).

    first: the lowest integer with the bit of `high`; flip: that bit is 0; constant: it never changes.
    """
    flip = ~bit(high)
    constant = bit(low) == ~flip
    while (high - low > 1).any():
        # low has the one bit, high the other
        middle = (low + high).div(2, rounding_mode="floor")
        above = bit(middle) == ~flip
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high, flip, constant


class _Export:
    """Collects the nodes of a network and their tensors. Weights come as torch has them, (O, C, kh, kw)."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, np.ndarray] = {}

    def add(self, op: str, name: str, source: str, **entries: Any) -> None:
        """A node: entries that are arrays are its tensors, the others fields; `bias_` is a tensor, `bias` a field."""
        tensors = {key.rstrip("_"): value for key, value in entries.items() if isinstance(value, np.ndarray)}
        options = {key: value for key, value in entries.items() if not isinstance(value, np.ndarray)}
        self.nodes.append(Node(op=op, name=name, input=source, **options))
        self.tensors |= {f"{name}.{key}": np.array(value) for key, value in tensors.items()}

    def normalize(self, module: Normalize) -> None:
        self.add("normalize", "normalize", IMAGE, output="normalized", mean=module.mean.numpy(), std=module.std.numpy())

    def float_conv(
        self,
        name: str,
        source: str,
        weight: Tensor,
        bias: Tensor | None,
        *,
        threshold: _Sign | None = None,
        **options: Any,
    ) -> None:
        if threshold is not None:
            options["threshold"], flip = threshold.of_floats()
            options["flip"] = np.packbits(flip, bitorder="little")
        if bias is not None:
            options |= {"bias": True, "bias_": bias.numpy()}
        last = weight.permute(0, 2, 3, 1).numpy()
        kernel = (last.shape[1], last.shape[2])
        self.add("float_conv", name, source, channels=len(last), kernel=kernel, weight=last, **options)

    def binary_conv(
        self,
        name: str,
        source: str,
        layer: XnorConv2d | XnorLinear,
        weight: Tensor,
        *,
        threshold: _Sign | None = None,
        **options: Any,
    ) -> None:
        floats = options.get("output") is not None
        if threshold is not None:
            options["threshold"], flip = threshold.of_floats() if floats else threshold.of_counts(weight[0].numel())
            options["flip"] = np.packbits(flip, bitorder="little")
        if floats:
            scale, bias = layer.scale_and_bias()
            options["scale_"] = scale.numpy()
            if bias is not None:
                options |= {"bias": True, "bias_": bias.numpy()}
        if isinstance(layer, XnorConv2d):
            options |= {"stride": layer.stride[0], "padding": int(layer.padding[0])}
        signs = (weight >= 0).permute(0, 2, 3, 1).numpy()
        kernel = (signs.shape[1], signs.shape[2])
        self.add("binary_conv", name, source, channels=len(signs), kernel=kernel, weight=pack_rows(signs), **options)

    def pool_bits(self, name: str, source: str, sign: _PooledSign) -> None:
        flip = np.packbits(sign.flip_after, bitorder="little")
        self.add("pool_bits", name, source, bits=name, kernel=(2, 2), stride=2, flip=flip)

    def scaled_conv(
        self,
        bn_name: str,
        bn: nn.BatchNorm2d,
        name: str,
        source: str,
        layer: XnorConv2d | XnorLinear,
        weight: Tensor | None = None,
        *,
        output: str | None = None,
        **options: Any,
    ) -> None:
        """BatchNorm, sign and a binary layer with input scaling; K needs the values of the BatchNorm too."""
        weight = layer.weight if weight is None else weight
        bits, scale_map = f"{bn_name}.bits", f"{name}.K"
        self.add("batch_norm", bn_name, source, output=bn_name, bits=bits, **_affine(bn))
        window: dict[str, Any] = {"kernel": (weight.shape[2], weight.shape[3])}
        if isinstance(layer, XnorConv2d):
            window |= {"stride": layer.stride[0], "padding": int(layer.padding[0])}
        self.add("input_scale", scale_map, bn_name, output=scale_map, **window)
        self.binary_conv(name, bits, layer, weight, scale_map=scale_map, output=output or name, **options)

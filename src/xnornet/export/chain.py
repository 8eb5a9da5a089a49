"""Layers one after the other as nodes: LeNet-5, and whatever else is an `nn.Sequential`.

Each layer with weights takes with it what follows up to the next one. Where that takes signs, a threshold on what the
layer makes stands for all of it, poolings are an OR of bits, and no floats are stored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xnornet.engine.nodes import IMAGE, LIMIT_BYTES
from xnornet.export.thresholds import ChannelFunction, Sign
from xnornet.export.writer import LOGITS, PackError, Writer, scaled, stride_and_padding
from xnornet.nn.layers import BatchNorm, Binary, Normalize, XnorConv2d, XnorLinear
from xnornet.nn.models import LeNet5

Named = tuple[str, nn.Module]

WEIGHTED = (nn.Conv2d, nn.Linear, XnorConv2d, XnorLinear)
BETWEEN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d)
SILENT = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)
"""They need no node: a dense layer takes an image as it is, as a convolution whose kernel is as large."""

RESERVED = {IMAGE, "normalize", "normalized", LOGITS}
"""Names that the writer gives to nodes and values of its own."""


def lenet5(model: LeNet5) -> list[Named]:
    """The layers of LeNet-5 in order, and what its `forward` does between them."""
    return [
        *((name, getattr(model, name)) for name in ("normalize", "conv1", "bn1")),
        ("relu1", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        *((name, getattr(model, name)) for name in ("bn2", "conv2")),
        ("relu2", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        ("bn3", model.bn3),
        ("flatten", nn.Flatten()),
        ("fc1", model.fc1),
        ("relu3", nn.ReLU()),
        ("fc2", model.fc2),
    ]


def layers(model: nn.Sequential, prefix: str = "") -> Iterator[Named]:
    """Its layers and those of sequences inside, in order, by their names in the state dict."""
    for name, module in model._modules.items():  # named_children leaves out what stands there twice
        assert module is not None
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            yield from layers(module, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}" + "_" * (f"{prefix}{name}" in RESERVED), module


class _Value(NamedTuple):
    """What a layer takes: floats, or bits and, if it wants it, K."""

    name: str
    scale_map: str | None = None


@dataclass(frozen=True)
class _Stage:
    """A layer with weights (O, C, kh, kw), and what follows it up to the next one."""

    name: str
    layer: nn.Module
    weight: Tensor
    tail: list[Named] = field(default_factory=list)

    @property
    def binary(self) -> bool:
        return isinstance(self.layer, Binary)

    @property
    def with_scale(self) -> bool:
        return isinstance(self.layer, Binary) and self.layer.input_scaling

    @property
    def channels(self) -> int:
        return len(self.weight)

    def gives_bits(self, following: "_Stage | None") -> bool:
        """Whether thresholds on what the layer makes give what the next one takes."""
        if following is None or not following.binary or following.with_scale or self.with_scale:
            return False
        return not any(isinstance(module, nn.AdaptiveAvgPool2d) for _, module in self.tail)


def write_chain(named: Sequence[Named], writer: Writer, side: int) -> None:
    """All layers, from images of `side` x `side` pixels to the logits. TypeError or PackError names what cannot be."""
    if not named or type(named[0][1]) is not Normalize:
        raise PackError("a network must begin with xnornet.nn.Normalize: a packed one takes uint8 images")
    normalize = named[0][1]
    stages = _stages(normalize, named[1:], side)
    source = _Value(writer.normalize(normalize))
    for stage, following in pairwise([*stages, None]):
        assert stage is not None
        if stage.gives_bits(following):
            source = _to_bits(writer, stage, source)
        else:
            source = _to_floats(writer, stage, source, following)


def _stages(normalize: Normalize, named: Sequence[Named], side: int) -> list[_Stage]:
    """The layers by stages; each is run once, so that shapes, and refusals, are torch's own."""
    x = torch.zeros(1, len(normalize.mean), side, side, dtype=torch.float32)
    if x.nbytes > LIMIT_BYTES:
        raise PackError(f"images of {side}x{side} pixels are too large: they take more than {LIMIT_BYTES} bytes")
    image = x.shape[1:]  # that the features of x are, flattened or not
    stages: list[_Stage] = []
    for name, module in named:
        _check(name, module, stages)
        layer = _described(name, module)
        if isinstance(module, nn.Linear) and x.dim() != 2:
            raise PackError(f"{layer}: a dense layer needs a Flatten before it")
        if isinstance(module, nn.BatchNorm1d) and image[1:] != (1, 1):
            raise PackError(f"{layer}: a BatchNorm1d of images of {image[1]}x{image[2]} pixels cannot be packed")
        try:
            x = module(x)
        except (RuntimeError, ValueError) as error:
            raise PackError(f"{layer}: does not fit here, with images of {side}x{side} pixels: {error}") from error
        if isinstance(module, nn.Flatten) and x.dim() != 2:
            raise PackError(f"{layer}: a Flatten must leave a row of features an image, not {tuple(x.shape[1:])}")
        if isinstance(module, WEIGHTED):
            weight = module.weight.view(-1, *image) if isinstance(module, nn.Linear) else module.weight
            stages.append(_Stage(name, module, weight))
        elif isinstance(module, BETWEEN):
            stages[-1].tail.append((name, module))
        if isinstance(module, WEIGHTED) or x.dim() == 4:
            image = x.view(*x.shape, *[1] * (4 - x.dim())).shape[1:]
    if not stages:
        raise PackError("a network must have a layer with weights")
    if x.shape[1:].numel() != x.shape[1]:
        raise PackError(f"a network must end with a row of logits for an image, not with {tuple(x.shape[1:])}")
    return stages


def _check(name: str, module: nn.Module, stages: list[_Stage]) -> None:
    """TypeError for a layer that has no node, PackError for options that no node has."""
    layer = _described(name, module)
    if type(module) not in (*WEIGHTED, *BETWEEN, *SILENT):
        known = ", ".join(kind.__name__ for kind in (*WEIGHTED, *BETWEEN, *SILENT))
        raise TypeError(f"{layer} cannot be packed, only {known}")
    if not stages and isinstance(module, (*BETWEEN, XnorConv2d, XnorLinear)):
        raise PackError(f"{layer}: the first layer behind Normalize must be a float Conv2d or Linear")
    if isinstance(module, nn.Conv2d):
        plain = module.groups == 1 and _side(module.dilation) == 1 and module.padding_mode == "zeros"
        if not plain or _side(module.stride) is None or _side(module.padding) is None:
            raise PackError(
                f"{layer}: a convolution must have groups=1, dilation=1, the same stride both ways and, as padding, "
                "the same number of zeros at all sides"
            )
        if stages and not isinstance(module, XnorConv2d) and _side(module.padding):
            raise PackError(f"{layer}: a float convolution behind the first layer cannot be padded")
    if isinstance(module, Binary) and module.norm is not None:
        if not isinstance(module.norm, BatchNorm):
            raise PackError(f"{name}.norm is what output_norm puts there, or None, not {type(module.norm).__name__}")
        _check_batch_norm(f"{name}.norm", module.norm)
    if isinstance(module, nn.MaxPool2d):
        plain = _side(module.padding) == 0 and _side(module.dilation) == 1
        if not plain or module.ceil_mode or module.return_indices or _side(module.stride) is None:
            raise PackError(f"{layer}: a MaxPool2d must have padding=0, dilation=1, ceil_mode=False and one stride")
    if isinstance(module, nn.AdaptiveAvgPool2d):
        tail = stages[-1].tail
        if _side(module.output_size) != 1 or not tail or not isinstance(tail[-1][1], nn.ReLU):
            raise PackError(f"{layer}: an AdaptiveAvgPool2d must make one pixel, directly behind a ReLU")
    if isinstance(module, BatchNorm):
        _check_batch_norm(name, module)


def _described(name: str, module: nn.Module) -> str:
    """For messages: in a Sequential the name alone may be a bare number."""
    return f"layer {name} ({type(module).__name__})"


def _check_batch_norm(name: str, module: BatchNorm) -> None:
    if module.running_mean is None or not module.affine:
        raise PackError(f"{_described(name, module)}: a BatchNorm needs its running statistics, gamma and beta")


def _pair(value: Any) -> tuple[int, int]:
    """An option of torch's, one number or a sequence, as it stands for height and width."""
    height, width = (*value, *value)[:2] if isinstance(value, tuple | list) else (value, value)
    return int(height), int(width)


def _side(value: Any) -> int | None:
    """An option that is the same for height and width, else None."""
    if isinstance(value, str):
        return None
    height, width = _pair(value)
    return height if height == width else None


def _add_layer(writer: Writer, stage: _Stage, source: _Value, **options: Any) -> None:
    """The layer itself."""
    if isinstance(stage.layer, Binary):
        options["scale_map"] = source.scale_map
        writer.binary_conv(stage.name, source.name, stage.layer, stage.weight, **options)
    else:
        bias = stage.layer.bias
        assert bias is None or isinstance(bias, Tensor)
        writer.float_conv(stage.name, source.name, stage.weight, bias, **stride_and_padding(stage.layer), **options)


def _to_bits(writer: Writer, stage: _Stage, source: _Value) -> _Value:
    """A layer whose tail becomes a threshold; returns the bits."""
    parts: list[list[ChannelFunction]] = [[scaled(stage.layer)] if isinstance(stage.layer, Binary) else []]
    pools: list[tuple[str, nn.MaxPool2d]] = []
    for name, module in stage.tail:
        if isinstance(module, nn.MaxPool2d):
            pools.append((name, module))
            parts.append([])
        else:
            parts[-1].append(module)
    sign = Sign(stage.channels, *parts)
    _add_layer(writer, stage, source, bits=stage.name, threshold=sign)
    bits = stage.name
    for (name, pool), flip in zip(pools, sign.flips, strict=True):
        writer.pool_bits(name, bits, _pair(pool.kernel_size), _pair(pool.stride)[0], flip)
        bits = name
    return _Value(bits)


@dataclass
class _Step:
    """A node that makes floats of floats: `pool_floats`; `batch_norm`, if only for the ReLU in it; or `average`."""

    op: str
    name: str
    module: BatchNorm | nn.MaxPool2d | None = None
    relu: bool = False


def _float_steps(tail: Sequence[Named]) -> list[_Step]:
    """The nodes of a tail: a ReLU goes into the BatchNorm before it, and an average has both in it."""
    made: list[_Step] = []
    for name, module in tail:
        last = made[-1] if made and made[-1].op == "batch_norm" else None
        if isinstance(module, BatchNorm):
            made.append(_Step("batch_norm", name, module))
        elif isinstance(module, nn.MaxPool2d):
            made.append(_Step("pool_floats", name, module))
        elif isinstance(module, nn.ReLU):
            if last is None:
                last = _Step("batch_norm", name)
                made.append(last)
            last.relu = True
        elif last is not None:
            last.op = "average"
        else:
            made.append(_Step("average", name))
    return made


def _to_floats(writer: Writer, stage: _Stage, source: _Value, following: _Stage | None) -> _Value:
    """A layer and its tail, node by node; returns what the next one takes, floats or bits made of them."""
    relu = bool(stage.tail) and isinstance(stage.tail[0][1], nn.ReLU)
    todo = _float_steps(stage.tail[relu:])
    signs = following is not None and following.binary
    if signs and not (todo and todo[-1].op == "batch_norm" and not todo[-1].relu):
        todo.append(_Step("batch_norm", f"{stage.name}.sign"))
    outputs = [stage.name, *(step.name for step in todo)]
    if following is None:
        outputs[-1] = LOGITS
    _add_layer(writer, stage, source, output=outputs[0], relu=relu)
    for step, (value, output) in zip(todo, pairwise(outputs), strict=True):
        if isinstance(step.module, nn.MaxPool2d):
            kernel, stride = _pair(step.module.kernel_size), _pair(step.module.stride)[0]
            writer.add("pool_floats", step.name, value, output=output, kernel=kernel, stride=stride)
            continue
        options: dict[str, Any] = {"relu": step.relu} if step.op == "batch_norm" else {}
        if signs and step is todo[-1]:
            options["bits"] = f"{step.name}.bits"
        writer.batch_norm(step.name, value, step.module, stage.channels, op=step.op, output=output, **options)
    if following is None or not isinstance(following.layer, Binary):
        return _Value(outputs[-1])
    scale_map = None
    if following.with_scale:
        scale_map = writer.input_scale(following.name, outputs[-1], following.layer, following.weight)
    return _Value(f"{outputs[-1]}.bits", scale_map)

"""Layers one after the other as nodes: LeNet-5, and whatever else is an `nn.Sequential`.

Each layer with weights takes with it what follows up to the next one. Where that takes signs, a threshold on what the
layer makes stands for all of it, a pooling is an OR of bits, and no floats are stored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xnornet.export.thresholds import ChannelFunction, PooledSign, Sign
from xnornet.export.writer import LOGITS, BatchNorm, Writer, scaled, steps
from xnornet.nn.layers import Normalize, XnorConv2d, XnorLinear
from xnornet.nn.models import LeNet5

Named = tuple[str, nn.Module]

WEIGHTED = (nn.Conv2d, nn.Linear, XnorConv2d, XnorLinear)
BETWEEN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d)
SILENT = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)
"""Nothing to do for them: a dense layer takes an image as it is, as a convolution whose kernel is as large."""


def lenet5(model: LeNet5) -> list[Named]:
    """The layers of LeNet-5 in order, and what its `forward` does between them."""
    return [
        *((name, getattr(model, name)) for name in ("normalize", "conv1", "bn1")),
        ("relu1", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        *((name, getattr(model, name)) for name in ("bn2", "conv2")),
        ("relu2", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        *((name, getattr(model, name)) for name in ("bn3", "fc1")),
        ("relu3", nn.ReLU()),
        ("fc2", model.fc2),
    ]


def layers(model: nn.Sequential, prefix: str = "") -> Iterator[Named]:
    """Its layers and those of sequences inside, in order, by their names in the state dict."""
    for name, module in model._modules.items():  # named_children leaves out what stands there twice
        assert module is not None
        if type(module) is nn.Sequential:
            yield from layers(module, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", module


@dataclass(frozen=True)
class _Stage:
    """A layer with weights (O, C, kh, kw), and what follows it up to the next one."""

    name: str
    layer: nn.Module
    weight: Tensor
    tail: list[Named] = field(default_factory=list)

    @property
    def binary(self) -> bool:
        return isinstance(self.layer, XnorConv2d | XnorLinear)

    @property
    def with_scale(self) -> bool:
        return isinstance(self.layer, XnorConv2d | XnorLinear) and self.layer.input_scaling

    @property
    def channels(self) -> int:
        return len(self.weight)

    @property
    def pools(self) -> list[tuple[str, nn.MaxPool2d]]:
        return [(name, module) for name, module in self.tail if isinstance(module, nn.MaxPool2d)]

    def gives_bits(self, following: "_Stage | None") -> bool:
        """Whether a threshold on what the layer makes gives what the next one takes."""
        if following is None or not following.binary or following.with_scale or self.with_scale:
            return False
        return len(self.pools) <= 1 and not any(isinstance(module, nn.AdaptiveAvgPool2d) for _, module in self.tail)


def write_chain(named: Sequence[Named], writer: Writer, side: int) -> None:
    """All layers, from images of `side` x `side` pixels to the logits. TypeError or ValueError names what cannot be."""
    stages = _stages(named, side)
    normalize = named[0][1]
    assert isinstance(normalize, Normalize)
    source = writer.normalize(normalize)
    for stage, following in zip(stages, [*stages[1:], None], strict=True):
        source = (_to_bits if stage.gives_bits(following) else _to_floats)(writer, stage, source, following)


def _stages(named: Sequence[Named], side: int) -> list[_Stage]:
    """The layers by stages; each is run once, so that the shapes are torch's own."""
    if not named or type(named[0][1]) is not Normalize:
        raise ValueError("a network must begin with xnornet.nn.Normalize: a packed one takes uint8 images")
    x = torch.zeros(1, len(named[0][1].mean), side, side)
    stages: list[_Stage] = []
    for name, module in named[1:]:
        _check(name, module, stages)
        if isinstance(module, nn.Linear) and x.numel() != module.in_features:
            size = f"{side}x{side} pixels"
            raise ValueError(f"{name}: takes {module.in_features} features, {x.numel()} come from images of {size}")
        if isinstance(module, nn.BatchNorm1d) and x.shape[2:] != (1, 1):
            raise ValueError(f"{name}: a BatchNorm1d of images of {x.shape[2]}x{x.shape[3]} pixels cannot be packed")
        if isinstance(module, WEIGHTED):
            weight = module.weight.view(-1, *x.shape[1:]) if isinstance(module, nn.Linear) else module.weight
            stages.append(_Stage(name, module, weight))
        elif isinstance(module, BETWEEN):
            stages[-1].tail.append((name, module))
        try:
            x = _run(module, x)
        except RuntimeError as error:
            raise ValueError(f"{name}: does not fit images of {side}x{side} pixels: {error}") from error
    if not stages:
        raise ValueError("a network must have a layer with weights")
    return stages


def _run(module: nn.Module, x: Tensor) -> Tensor:
    """What the module makes of an image, or of features as an image of one pixel; images are never flattened."""
    if isinstance(module, nn.Linear | nn.BatchNorm1d):
        return module(x.flatten(1))[:, :, None, None]
    return x if isinstance(module, SILENT) else module(x)


def _check(name: str, module: nn.Module, stages: list[_Stage]) -> None:
    """TypeError for a layer that has no node, ValueError for options that no node has."""
    if type(module) not in (*WEIGHTED, *BETWEEN, *SILENT):
        known = ", ".join(kind.__name__ for kind in (*WEIGHTED, *BETWEEN, *SILENT))
        raise TypeError(f"{name}: a {type(module).__name__} cannot be packed, only {known}")
    if isinstance(module, BETWEEN) and not stages:
        raise ValueError(f"{name}: the first layer after Normalize must be a Conv2d or a Linear")
    if isinstance(module, XnorConv2d | XnorLinear) and not stages:
        raise ValueError(f"{name}: the first layer must be float, a Conv2d or a Linear: the engine packs no images")
    if isinstance(module, nn.Conv2d):
        plain = module.groups == 1 and set(_pair(module.dilation)) == {1} and module.padding_mode == "zeros"
        square = not isinstance(module.padding, str) and all(
            len(set(_pair(value))) == 1 for value in (module.stride, module.padding)
        )
        if not (plain and square):
            raise ValueError(
                f"{name}: convolutions have groups=1, dilation=1, zeros as padding, one number of them and one stride"
            )
    if isinstance(module, nn.MaxPool2d):
        plain = set(_pair(module.padding)) == {0} and set(_pair(module.dilation)) == {1} and not module.ceil_mode
        if not plain or len(set(_pair(module.stride))) > 1 or module.return_indices:
            raise ValueError(f"{name}: poolings have padding=0, dilation=1, ceil_mode=False and one stride")
    if isinstance(module, nn.AdaptiveAvgPool2d):
        tail = stages[-1].tail
        if set(_pair(module.output_size)) != {1} or not tail or not isinstance(tail[-1][1], nn.ReLU):
            raise ValueError(f"{name}: an AdaptiveAvgPool2d must make one pixel, directly behind a ReLU")
    if isinstance(module, BatchNorm) and (module.running_mean is None or not module.affine):
        raise ValueError(f"{name}: a BatchNorm needs its running statistics, gamma and beta")
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        raise ValueError(f"{name}: a Flatten goes from dimension 1 to the last")


def _pair(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)


def _add_layer(writer: Writer, stage: _Stage, source: str, **options: Any) -> None:
    """The layer itself; the K that it may want has the name that `_to_floats` gave it."""
    if isinstance(stage.layer, XnorConv2d | XnorLinear):
        if stage.with_scale:
            options["scale_map"] = f"{stage.name}.K"
        writer.binary_conv(stage.name, source, stage.layer, stage.weight, **options)
    else:
        bias = stage.layer.bias
        assert bias is None or isinstance(bias, Tensor)
        writer.float_conv(stage.name, source, stage.weight, bias, **steps(stage.layer), **options)


def _to_bits(writer: Writer, stage: _Stage, source: str, _: _Stage | None) -> str:
    """A layer whose tail becomes a threshold. Returns the name of the bits."""
    start: list[ChannelFunction] = [scaled(stage.layer)] if isinstance(stage.layer, XnorConv2d | XnorLinear) else []
    modules = [module for _, module in stage.tail]
    if not stage.pools:
        sign = Sign(stage.channels, *start, *modules)
        _add_layer(writer, stage, source, bits=stage.name, threshold=sign)
        return stage.name
    ((name, pool),) = stage.pools
    place = modules.index(pool)
    pooled = PooledSign(stage.channels, [*start, *modules[:place]], modules[place + 1 :])
    _add_layer(writer, stage, source, bits=stage.name, threshold=pooled)
    writer.pool_bits(name, stage.name, pooled, *_window(pool))
    return name


def _window(pool: nn.MaxPool2d) -> tuple[tuple[int, int], int]:
    """Kernel and stride."""
    return _pair(pool.kernel_size), _pair(pool.stride)[0]


@dataclass
class _Step:
    """A node that makes floats of floats: `pool_floats`; `batch_norm`, if only for the ReLU in it; or `average`."""

    op: str
    name: str
    module: BatchNorm | nn.MaxPool2d | None = None
    relu: bool = False


def _float_steps(tail: Sequence[Named]) -> list[_Step]:
    """The nodes of a tail that does not begin with a ReLU."""
    made: list[_Step] = []
    for name, module in tail:
        if isinstance(module, BatchNorm):
            made.append(_Step("batch_norm", name, module))
        elif isinstance(module, nn.MaxPool2d):
            made.append(_Step("pool_floats", name, module))
        elif not (made and made[-1].op == "batch_norm"):
            made.append(_Step("batch_norm" if isinstance(module, nn.ReLU) else "average", name, relu=True))
        elif isinstance(module, nn.ReLU):
            made[-1].relu = True
        else:  # the average has a BatchNorm and a ReLU in it
            made[-1].op = "average"
    return made


def _to_floats(writer: Writer, stage: _Stage, source: str, following: _Stage | None) -> str:
    """A layer and its tail, node by node. Returns the name of what the next one takes: floats or, of these, bits."""
    relu = bool(stage.tail) and isinstance(stage.tail[0][1], nn.ReLU)
    todo = _float_steps(stage.tail[relu:])
    signs = following is not None and following.binary
    if signs and not (todo and todo[-1].op == "batch_norm" and not todo[-1].relu):
        todo.append(_Step("batch_norm", f"{stage.name}.sign"))
    names = [stage.name, *(step.name for step in todo)]
    outputs = [*names[:-1], LOGITS if following is None else names[-1]]
    _add_layer(writer, stage, source, output=outputs[0], relu=relu)
    for step, value, output in zip(todo, outputs, outputs[1:], strict=False):
        if isinstance(step.module, nn.MaxPool2d):
            kernel, stride = _window(step.module)
            writer.add("pool_floats", step.name, value, output=output, kernel=kernel, stride=stride)
            continue
        options: dict[str, Any] = {"relu": step.relu} if step.op == "batch_norm" else {}
        if signs and step is todo[-1]:
            options["bits"] = f"{step.name}.bits"
        writer.batch_norm(step.name, value, step.module, stage.channels, op=step.op, output=output, **options)
    if following is None or not signs:
        return outputs[-1]
    if following.with_scale:
        assert isinstance(following.layer, XnorConv2d | XnorLinear)
        writer.input_scale(following.name, outputs[-1], following.layer, following.weight)
    return f"{names[-1]}.bits"

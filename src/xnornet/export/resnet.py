"""ResNet-18 as nodes: the residual stream in float, everything else in bits."""

from typing import Any

import torch
from torch import nn

from xnornet.export.thresholds import Sign
from xnornet.export.writer import LOGITS, Writer, scaled
from xnornet.nn.layers import Normalize, XnorConv2d
from xnornet.nn.models import Block, ResNet18

OPTIONS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "padding_mode",
        "groups",
    ),
    nn.BatchNorm2d: ("num_features", "affine", "track_running_stats"),
    nn.Linear: ("in_features", "out_features"),
}
OPTIONS[XnorConv2d] = (*OPTIONS[nn.Conv2d], "input_scaling")
"""Of layers: what `write_resnet18` takes for granted."""


def check_resnet18(model: ResNet18) -> None:
    """TypeError names a layer that is not what ResNet18 puts there, which `write_resnet18` takes for granted."""
    layers = list(model.modules())
    first = next((layer for layer in layers if isinstance(layer, XnorConv2d)), None)
    with torch.device("meta"):
        built = ResNet18(
            in_channels=len(model.normalize.mean) if isinstance(model.normalize, Normalize) else 1,
            num_classes=getattr(model.fc, "out_features", 1),
            width=getattr(model.stem, "out_channels", 1),
            shortcut="conv" if any(isinstance(layer, Block) and layer.skip_each for layer in layers) else "block",
            input_scaling=first is not None and first.input_scaling,
            output_norm=any(isinstance(layer, XnorConv2d) and layer.norm is not None for layer in layers),
        )
    wanted, seen = dict(built.named_modules()), dict(model.named_modules())
    for name in sorted(wanted.keys() | seen.keys()):
        ours, theirs = wanted.get(name), seen.get(name)
        if name and (ours is None or theirs is None or _description(ours) != _description(theirs)):
            raise TypeError(f"{name}: a ResNet18 has {_shown(ours)} there, not {_shown(theirs)}: it cannot be packed")


def _description(layer: nn.Module) -> tuple[Any, ...]:
    """Its type, and what it does beside its weights."""
    options = (getattr(layer, option) for option in OPTIONS.get(type(layer), ()))
    return type(layer), getattr(layer, "bias", None) is not None, *options


def _shown(layer: nn.Module | None) -> str:
    return "nothing" if layer is None else repr(layer).partition("\n")[0]


def write_resnet18(model: ResNet18, writer: Writer) -> None:
    """All of it, from the image to the logits. The residual stream before each block is x0, x1, ..."""
    blocks: list[Block] = list(model.blocks)  # type: ignore[arg-type]
    with_scale = blocks[0].conv1.input_scaling
    signs = [_sign(block.bn1) for block in blocks]
    stem: dict[str, Any] = {} if with_scale else {"bits": "bits0", "threshold": signs[0]}
    normalized = writer.normalize(model.normalize)
    writer.float_conv("stem", normalized, model.stem.weight, None, padding=1, output="x0", **stem)
    for index, block in enumerate(blocks):
        skip = f"x{index}"
        if isinstance(block.shortcut, nn.Conv2d):
            source, skip = skip, f"skip{index}"
            stride = block.shortcut.stride[0]
            writer.float_conv(f"block{index}.shortcut", source, *block.shortcut_of_stream(), stride=stride, output=skip)
        if with_scale:
            _write_scaled_block(writer, index, block, skip)
        else:
            following = signs[index + 1] if index + 1 < len(signs) else None
            _write_block(writer, index, block, skip, following)
    writer.batch_norm("bn", f"x{len(blocks)}", model.bn, model.bn.num_features, op="average", output="pooled")
    writer.float_conv("fc", "pooled", model.fc.weight[:, :, None, None], model.fc.bias, output=LOGITS)


def _write_block(writer: Writer, index: int, block: Block, skip: str, following: Sign | None) -> None:
    """Two convolutions, bits in, and bits out for the sign that follows; after the last block none does."""
    name, inner, middle = f"block{index}", f"inner{index}", f"middle{index}"
    if block.skip_each:
        first: dict[str, Any] = {"output": inner, "threshold": _sign(block.bn2), **_added(block, skip)}
    else:
        first = {"threshold": Sign(block.bn2.num_features, [scaled(block.conv1), block.bn2])}
    writer.binary_conv(f"{name}.conv1", f"bits{index}", block.conv1, block.conv1.weight, bits=middle, **first)
    last: dict[str, Any] = {"output": f"x{index + 1}", **_added(block, inner if block.skip_each else skip)}
    if following is not None:
        last |= {"bits": f"bits{index + 1}", "threshold": following}
    writer.binary_conv(f"{name}.conv2", middle, block.conv2, block.conv2.weight, **last)


def _write_scaled_block(writer: Writer, index: int, block: Block, skip: str) -> None:
    """The same with K, for which each convolution takes the float values, not bits of the one before."""
    name, inner = f"block{index}", f"inner{index}"
    first_skip, second_skip = (skip, inner) if block.skip_each else (None, skip)
    first, second = _added(block, first_skip), _added(block, second_skip)
    _add_scaled(writer, f"{name}.bn1", block.bn1, f"{name}.conv1", f"x{index}", block.conv1, output=inner, **first)
    _add_scaled(writer, f"{name}.bn2", block.bn2, f"{name}.conv2", inner, block.conv2, output=f"x{index + 1}", **second)


def _added(block: Block, skip: str | None) -> dict[str, Any]:
    """The fields of a convolution that adds to the stream `skip`, if it does."""
    return {} if skip is None else {"residual": skip, "relu": block.residual_relu}


def _sign(bn: nn.BatchNorm2d) -> Sign:
    return Sign(bn.num_features, [bn])


def _add_scaled(
    writer: Writer, bn_name: str, bn: nn.BatchNorm2d, name: str, source: str, conv: XnorConv2d, **options: Any
) -> None:
    """BatchNorm, sign and a convolution with input scaling; K needs the values of the BatchNorm too."""
    bits = f"{bn_name}.bits"
    writer.batch_norm(bn_name, source, bn, bn.num_features, bits=bits)
    scale_map = writer.input_scale(name, bn_name, conv, conv.weight)
    writer.binary_conv(name, bits, conv, conv.weight, scale_map=scale_map, **options)

"""ResNet-18 as nodes: the residual stream in float, everything else in bits."""

from typing import Any

from torch import nn

from xnornet.export.thresholds import Sign
from xnornet.export.writer import LOGITS, Writer, scaled
from xnornet.nn.layers import XnorConv2d
from xnornet.nn.models import Block, ResNet18


def write_resnet18(model: ResNet18, writer: Writer) -> None:
    """All of it, from the image to the logits."""
    blocks: list[Block] = list(model.blocks)  # type: ignore[arg-type]
    with_scale = blocks[0].conv1.input_scaling
    following = [_sign(block.bn1) for block in blocks[1:]]
    stem: dict[str, Any] = {} if with_scale else {"bits": "bits0", "threshold": _sign(blocks[0].bn1)}
    normalized = writer.normalize(model.normalize)
    writer.float_conv("stem", normalized, model.stem.weight, None, padding=1, output="x0", **stem)
    for index, block in enumerate(blocks):
        name, x, after = f"block{index}", f"x{index}", f"x{index + 1}"
        skip = x
        if isinstance(block.shortcut, nn.Conv2d):
            skip = f"skip{index}"
            stride = block.shortcut.stride[0]
            writer.float_conv(f"{name}.shortcut", x, *block.shortcut_of_stream(), stride=stride, output=skip)
        inner = f"inner{index}"
        first_skip, second_skip = (skip, inner) if block.skip_each else (None, skip)
        if with_scale:
            for n, source, skip_n, made in ((1, x, first_skip, inner), (2, inner, second_skip, after)):
                bn, conv = getattr(block, f"bn{n}"), getattr(block, f"conv{n}")
                added = _added(block, skip_n)
                _add_scaled(writer, f"{name}.bn{n}", bn, f"{name}.conv{n}", source, conv, output=made, **added)
            continue
        bits, middle = f"bits{index}", f"middle{index}"
        if block.skip_each:
            first: dict[str, Any] = {"output": inner, "threshold": _sign(block.bn2), **_added(block, skip)}
        else:
            first = {"threshold": Sign(block.bn2.num_features, [scaled(block.conv1), block.bn2])}
        writer.binary_conv(f"{name}.conv1", bits, block.conv1, block.conv1.weight, bits=middle, **first)
        last: dict[str, Any] = {"output": after, **_added(block, second_skip)}
        if index < len(following):
            last |= {"bits": f"bits{index + 1}", "threshold": following[index]}
        writer.binary_conv(f"{name}.conv2", middle, block.conv2, block.conv2.weight, **last)
    writer.batch_norm("bn", f"x{len(blocks)}", model.bn, model.bn.num_features, op="average", output="pooled")
    writer.float_conv("fc", "pooled", model.fc.weight[:, :, None, None], model.fc.bias, output=LOGITS)


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

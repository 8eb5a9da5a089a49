"""A trained torch network -> the engine's packed network: the one place that knows both.

A BatchNorm behind a layer becomes its scale and bias, BatchNorm and sign become thresholds. These are not computed from
the BatchNorm's formula but found by bisection over the torch modules themselves, so that a bit of the engine is the bit
of torch for every value that can occur: with rounding, dead channels (gamma = 0), negative gamma and tiny variances.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from xnornet.engine import PackedNetwork
from xnornet.engine.program import Shape
from xnornet.export.chain import layers, lenet5, write_chain
from xnornet.export.resnet import write_resnet18
from xnornet.export.writer import Writer
from xnornet.nn.layers import Normalize, XnorConv2d, XnorLinear
from xnornet.nn.models import LeNet5, ResNet18

__all__ = ["pack"]


def pack(model: nn.Module, about: Mapping[str, Any] | None = None, *, image_size: int | None = None) -> PackedNetwork:
    """Pack a trained XNOR network, as it is in eval mode, into words; the model is not changed.

    model: a LeNet5, a ResNet18, or an nn.Sequential of your own: Normalize, a float layer, then Conv2d, Linear,
    XnorConv2d, XnorLinear with BatchNorm, ReLU, MaxPool2d, Flatten, Dropout between them, and AdaptiveAvgPool2d(1)
    behind a ReLU. about: plain values for JSON that travel with the file, such as the md5 of the training data.
    image_size: side of the images in pixels, the model's own if not given; a ResNet takes smaller ones too, and a
    Sequential needs it. TypeError for another kind of model or layer, ValueError for a float twin, a size that the
    model does not take, or a layer's options that the engine does not have.
    """
    if not isinstance(model, LeNet5 | ResNet18 | nn.Sequential):
        raise TypeError(f"model must be a LeNet5, a ResNet18 or an nn.Sequential, not {type(model).__name__}")
    if not all(layer.binary for layer in model.modules() if isinstance(layer, XnorConv2d | XnorLinear)):
        raise ValueError("model is a float twin: only XNOR networks can be packed")
    side = _side(model, image_size)
    training = {module: module.training for module in model.modules()}
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with torch.inference_mode():
            writer = Writer()
            model.cpu().eval()
            if isinstance(model, ResNet18):
                write_resnet18(model, writer)
            else:
                write_chain(lenet5(model) if isinstance(model, LeNet5) else list(layers(model)), writer, side)
    finally:
        model.to(device)
        for module, mode in training.items():
            module.training = mode
    channels = next(len(module.mean) for module in model.modules() if isinstance(module, Normalize))
    return writer.network(Shape(side, side, channels), about)


def _side(model: LeNet5 | ResNet18 | nn.Sequential, image_size: int | None) -> int:
    """Of the images, checked as far as the model knows it."""
    if isinstance(model, nn.Sequential):
        if image_size is None or image_size < 1:
            raise ValueError(f"image_size must be the side of the images in pixels, not {image_size}")
        return image_size
    side = image_size or model.image_size
    if not model.smallest_image <= side <= model.image_size:
        raise ValueError(f"image_size must be {model.smallest_image} to {model.image_size} pixels, not {side}")
    return side

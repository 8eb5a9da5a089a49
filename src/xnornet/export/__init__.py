"""A trained torch network -> the engine's packed network: the one place that knows both.

A BatchNorm behind a layer becomes its scale and bias, BatchNorm and sign become thresholds. These are not computed from
the BatchNorm's formula but found by bisection over the torch modules themselves, so that where a threshold stands for
them, a bit of the engine is the bit of torch for every value that can occur: with rounding, dead channels (gamma = 0),
negative gamma and tiny variances. (K wants the BatchNorm's floats, and signs are then taken of the engine's own.)
"""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from torch import nn

from xnornet.engine import PackedNetwork
from xnornet.engine.geometry import Shape
from xnornet.engine.nodes import LIMIT_SIDE
from xnornet.export.chain import layers, lenet5, write_chain
from xnornet.export.resnet import check_resnet18, write_resnet18
from xnornet.export.writer import PackError, Writer
from xnornet.nn.layers import Binary, Normalize
from xnornet.nn.models import LeNet5, ResNet18

__all__ = ["PackError", "pack"]

KINDS = (LeNet5, ResNet18, nn.Sequential)


def pack(model: nn.Module, about: Mapping[str, Any] | None = None, *, image_size: int | None = None) -> PackedNetwork:
    """Pack a trained XNOR network, as it is in eval mode, into words; the model is not changed.

    model: a LeNet5, a ResNet18, or an nn.Sequential of your own: Normalize, a float layer, then Conv2d, Linear,
    XnorConv2d, XnorLinear with BatchNorm, ReLU, MaxPool2d, Flatten, Identity, Dropout between them, and
    AdaptiveAvgPool2d(1) behind a ReLU; of the float convolutions, only the first may be padded. about: plain values for
    JSON that travel with the file, such as the md5 of the training data; a list of `classes` names each logit.
    image_size: side of the images, squares, in pixels; the model's own if not given; a ResNet takes smaller ones too,
    and a Sequential needs it. TypeError for another kind of model or layer, PackError for a float twin, a size that the
    model does not take, weights that are not finite, too many or too few classes, or what the engine does not have.
    """
    _check(model)
    side = _image_side(model, image_size)
    training = {module: module.training for module in model.modules()}
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    try:
        with torch.inference_mode(), torch.device("cpu"):
            writer = Writer()
            model.cpu().eval()
            if isinstance(model, ResNet18):
                write_resnet18(model, writer)
            else:
                assert isinstance(model, LeNet5 | nn.Sequential)
                write_chain(lenet5(model) if isinstance(model, LeNet5) else list(layers(model)), writer, side)
    finally:
        model.to(device)
        for module, mode in training.items():
            module.training = mode
    channels = next(len(module.mean) for module in model.modules() if isinstance(module, Normalize))
    network = writer.network(Shape(side, side, channels), about)
    classes = network.about.get("classes")
    if isinstance(classes, list) and len(classes) != network.classes:
        raise PackError(f"about names {len(classes)} classes, but the network has {network.classes} logits")
    return network


def _check(model: nn.Module) -> None:
    """TypeError or PackError for a model that does more than its layers say, or is not float32 on one device."""
    kind = next((kind for kind in KINDS if isinstance(model, kind)), None)
    if kind is None:
        raise TypeError(f"model must be a LeNet5, a ResNet18 or an nn.Sequential, not {type(model).__name__}")
    if type(model).forward is not kind.forward:
        raise TypeError(f"{type(model).__name__} has a forward of its own: only {kind.__name__}'s is known")
    if isinstance(model, ResNet18):
        check_resnet18(model)
    for name, module in model.named_modules():
        if "forward" in vars(module):
            raise TypeError(f"{name or 'model'} has been given a forward of its own: it cannot be packed")
        if isinstance(module, Binary) and not module.binary:
            raise PackError(f"{name} is the layer of a float twin (binary=False): only XNOR networks can be packed")
        if module._forward_hooks or module._forward_pre_hooks:
            raise PackError(f"{name or 'model'} has forward hooks, which a packed network cannot have")
    devices = set()
    for name, tensor in model.state_dict().items():
        devices.add(tensor.device)
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise PackError(f"{name} is {tensor.dtype}: only float32 can be packed, see model.float()")
        if tensor.is_floating_point() and not tensor.is_meta and not tensor.isfinite().all():
            raise PackError(f"{name} holds NaN or infinity: the training has diverged")
    if len(devices) > 1 or torch.device("meta") in devices:
        raise PackError(f"model must be on one device that has data, not on {', '.join(sorted(map(str, devices)))}")


def _image_side(model: nn.Module, image_size: int | None) -> int:
    """The side of the images, checked as far as the model knows it."""
    side, least, most = image_size, 1, LIMIT_SIDE
    if isinstance(model, LeNet5 | ResNet18):
        least, most = model.smallest_image, model.image_size
        side = most if image_size is None else image_size
    if not isinstance(side, Integral) or not least <= side <= most:
        raise PackError(f"image_size must be {least} to {most} pixels, not {side!r}")
    return int(side)

"""Layers that activate their input and weigh it: binary (sign of both) or, as float twins, ReLU and float weights."""

from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnornet.nn.binarize import alpha, scaled_sign, sign, sign_ste
from xnornet.params import Gradient


class _Xnor:
    """What both binary layers share: the options, and the effective weights of a forward pass."""

    weight: Tensor
    training: bool

    def __init__(
        self,
        *args: Any,
        binary: bool = True,
        gradient: Gradient = "corrected",
        input_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if gradient not in get_args(Gradient):
            raise ValueError(f"unknown gradient {gradient!r}: choose from {', '.join(get_args(Gradient))}")
        self.binary = binary
        self.gradient: Gradient = gradient
        self.input_scaling = input_scaling

    def extra_repr(self) -> str:
        options = f", gradient={self.gradient}, input_scaling={self.input_scaling}" if self.binary else ""
        return f"{super().extra_repr()}, binary={self.binary}{options}"  # type: ignore[misc]


class XnorConv2d(_Xnor, nn.Conv2d):
    """Binary convolution: (sign(x) conv sign(W)) alpha + bias; the float twin, `binary=False`: relu(x) conv W + bias.

    x: (N, C, H, W). Zero padding after the sign: a padded tap adds 0, not -1. `input_scaling` multiplies by K, mean|x|
    over the channels under a box filter (Rastegari et al. 2016, eq. 11). Arguments of nn.Conv2d, and `gradient`, see
    `scaled_sign`. ValueError for groups, dilation or padding modes, which the packed engine does not have.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.groups != 1 or self.dilation != (1, 1) or self.padding_mode != "zeros" or isinstance(self.padding, str):
            raise ValueError("XnorConv2d takes groups=1, dilation=1 and a number of zeros as padding")

    def forward(self, x: Tensor) -> Tensor:
        if not self.binary:
            return F.conv2d(F.relu(x), self.weight, self.bias, self.stride, self.padding)
        if self.training and not self.input_scaling:
            return F.conv2d(sign_ste(x), scaled_sign(self.weight, self.gradient), self.bias, self.stride, self.padding)
        if self.training:
            y = F.conv2d(sign_ste(x), scaled_sign(self.weight, self.gradient), None, self.stride, self.padding)
        else:
            # The same product with alpha outside the sum: sums of +-1 are exact in float32, so the packed engine, which
            # counts, can agree with it bit for bit.
            y = F.conv2d(sign(x), sign(self.weight), None, self.stride, self.padding) * alpha(self.weight).view(
                1, -1, 1, 1
            )
        if self.input_scaling:
            y = y * self._input_scale(x)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)

    def _input_scale(self, x: Tensor) -> Tensor:
        """K: (N, C, H, W) -> (N, 1, H', W') (Rastegari et al. 2016, eq. 11)."""
        height, width = self.kernel_size
        box = x.new_full((1, 1, height, width), 1 / (height * width))
        return F.conv2d(x.abs().mean(dim=1, keepdim=True), box, None, self.stride, self.padding)


class XnorLinear(_Xnor, nn.Linear):
    """Binary dense layer: (sign(x) . sign(W)) alpha + bias; the float twin, `binary=False`: relu(x) . W + bias.

    x: (N, F). `input_scaling` multiplies by K = mean|x| over the features. Arguments of nn.Linear, and `gradient`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.binary:
            return F.linear(F.relu(x), self.weight, self.bias)
        if self.training:
            y = F.linear(sign_ste(x), scaled_sign(self.weight, self.gradient))
        else:
            y = F.linear(sign(x), sign(self.weight)) * alpha(self.weight).view(1, -1)
        if self.input_scaling:
            y = y * x.abs().mean(dim=1, keepdim=True)
        return y if self.bias is None else y + self.bias


def binary_layers(model: nn.Module) -> list[XnorConv2d | XnorLinear]:
    """The layers of `model` that are binarized, in order of definition; none in a float twin."""
    return [layer for layer in model.modules() if isinstance(layer, XnorConv2d | XnorLinear) and layer.binary]


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(all trainable parameters, those of them that are one bit each when packed)."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return total, sum(layer.weight.numel() for layer in binary_layers(model))


class Normalize(nn.Module):
    """Images to zero mean and unit variance per channel: (N, C, H, W), uint8 0 to 255 or float 0 to 1, -> float32.

    `mean` and `std` (C,) are of the training images on the scale 0 to 1; buffers, so that they travel with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.to(torch.float32) / 255
        return (images - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)

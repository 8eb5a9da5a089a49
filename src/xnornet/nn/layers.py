"""Layers that activate their input and weigh it: binary (sign of both) or, as float twins, ReLU and float weights."""

from inspect import signature
from typing import Any, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnornet.nn.binarize import alpha, scaled_sign, sign, sign_ste
from xnornet.params import Gradient

BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d


class _Xnor:
    """What both binary layers share: the options, and what becomes of a binary product.

    `output_norm` puts a BatchNorm behind a binary layer, in place of its bias. The layer's scale is then learned by the
    BatchNorm, and no longer by alpha, which cancels in it. Without, training sets the scale by moving all latent
    weights of a channel away from 0 or towards it: where they grow, signs hardly change any more, and where they
    shrink, they change with every step. In evaluation it costs nothing: it is in the scale and the bias.
    """

    weight: Tensor
    bias: Any
    training: bool
    norm_type: type[BatchNorm]

    def __init__(
        self,
        *args: Any,
        binary: bool = True,
        gradient: Gradient = "corrected",
        input_scaling: bool = False,
        output_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        norm = binary and output_norm
        if norm:  # no bias, given by place or by name
            given = signature(super().__init__).bind(*args, **kwargs)
            given.arguments["bias"] = False
            args, kwargs = given.args, given.kwargs
        super().__init__(*args, **kwargs)
        if gradient not in get_args(Gradient):
            raise ValueError(f"unknown gradient {gradient!r}: choose from {', '.join(get_args(Gradient))}")
        self.binary = binary
        self.gradient: Gradient = gradient
        self.input_scaling = input_scaling
        weight = self.weight
        self.norm = self.norm_type(len(weight), device=weight.device, dtype=weight.dtype) if norm else None

    def extra_repr(self) -> str:
        options = f", gradient={self.gradient}, input_scaling={self.input_scaling}" if self.binary else ""
        return f"{super().extra_repr()}, binary={self.binary}{options}"  # type: ignore[misc]

    def scale_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """What the integer sums of +-1 are multiplied by in evaluation, and what is then added: both (O,)."""
        scale, bias = alpha(self.weight).view(-1), self.bias
        if self.norm is None:
            return scale, bias
        slope, intercept = affine(self.norm)
        return scale * slope, intercept

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Signs, weights and bias to multiply and add in one call.

        In evaluation signs alone: sums of +-1 are exact in float32, so the packed engine, which counts, can agree with
        them bit for bit. ValueError for inputs of another rank than documented: of them, training would compute
        something else than evaluation.
        """
        if x.dim() != self.weight.dim():
            raise ValueError(f"x must have {self.weight.dim()} dimensions, but its shape is {tuple(x.shape)}")
        if not self.training:
            return sign(x), sign(self.weight), None
        return sign_ste(x), scaled_sign(self.weight, self.gradient), None if self.input_scaling else self.bias

    def finish(self, y: Tensor, x: Tensor) -> Tensor:
        """What follows the product y of the signs of x: scale, K, and bias or BatchNorm, if not in it already."""
        channels = (1, -1) + (1,) * (y.dim() - 2)
        if self.training:
            if self.input_scaling:
                y = y * self.input_scale(x)
                if self.bias is not None:  # which `operands` gave to the product where there is no K
                    y = y + self.bias.view(channels)
            return y if self.norm is None else self.norm(y)
        scale, bias = self.scale_and_bias()
        y = y * scale.view(channels)
        if self.input_scaling:
            y = y * self.input_scale(x)
        return y if bias is None else y + bias.view(channels)

    def input_scale(self, x: Tensor) -> Tensor:
        """K (Rastegari et al. 2016, eq. 11)."""
        raise NotImplementedError


class XnorConv2d(_Xnor, nn.Conv2d):
    """Binary convolution: (sign(x) conv sign(W)) alpha + bias; the float twin, `binary=False`: relu(x) conv W + bias.

    x: (N, C, H, W). Zero padding after the sign: a padded tap adds 0, not -1. `input_scaling` multiplies by K, mean|x|
    over the channels under a box filter (Rastegari et al. 2016, eq. 11). Arguments of nn.Conv2d, `gradient`, see
    `scaled_sign`, and `output_norm`: a BatchNorm in place of the bias, see `_Xnor`. ValueError for groups, dilation or
    padding modes, which the packed engine does not have.
    """

    norm_type = nn.BatchNorm2d

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.groups != 1 or self.dilation != (1, 1) or self.padding_mode != "zeros" or isinstance(self.padding, str):
            raise ValueError("XnorConv2d takes groups=1, dilation=1 and a number of zeros as padding")

    def forward(self, x: Tensor) -> Tensor:
        if not self.binary:
            return F.conv2d(F.relu(x), self.weight, self.bias, self.stride, self.padding)
        return self.finish(F.conv2d(*self.operands(x), self.stride, self.padding), x)

    def input_scale(self, x: Tensor) -> Tensor:
        """K: (N, C, H, W) -> (N, 1, H', W') (Rastegari et al. 2016, eq. 11)."""
        height, width = self.kernel_size
        box = x.new_full((1, 1, height, width), 1 / (height * width))
        return F.conv2d(x.abs().mean(dim=1, keepdim=True), box, None, self.stride, self.padding)


class XnorLinear(_Xnor, nn.Linear):
    """Binary dense layer: (sign(x) . sign(W)) alpha + bias; the float twin, `binary=False`: relu(x) . W + bias.

    x: (N, F). `input_scaling` multiplies by K = mean|x| over the features. Arguments of nn.Linear, and those of
    `XnorConv2d`.
    """

    norm_type = nn.BatchNorm1d

    def forward(self, x: Tensor) -> Tensor:
        if not self.binary:
            return F.linear(F.relu(x), self.weight, self.bias)
        return self.finish(F.linear(*self.operands(x)), x)

    def input_scale(self, x: Tensor) -> Tensor:
        """K = mean|x| over the features: (N, F) -> (N, 1)."""
        return x.abs().mean(dim=1, keepdim=True)


Binary: TypeAlias = XnorConv2d | XnorLinear


def affine(bn: BatchNorm) -> tuple[Tensor, Tensor]:
    """Slope and intercept of a BatchNorm in eval mode, (C,) each: slope x + intercept is torch's but for rounding."""
    assert bn.running_mean is not None and bn.running_var is not None
    slope = 1 / torch.sqrt(bn.running_var + bn.eps) * bn.weight
    return slope, bn.bias - bn.running_mean * slope


def binary_layers(model: nn.Module) -> list[Binary]:
    """The layers of `model` that are binarized, in order of definition; none in a float twin."""
    return [layer for layer in model.modules() if isinstance(layer, Binary) and layer.binary]


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

"""LeNet-5 and ResNet-18, each one definition for the XNOR network and its float twin.

The twin has ReLU in place of sign, float weights, and none of `output_norm`, `residual_relu` and `normed_shortcut`.
"""

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from xnornet.nn.layers import Normalize, XnorConv2d, XnorLinear, affine
from xnornet.params import SIZES, Gradient, Variant


class LeNet5(nn.Module):
    """LeNet-5 for 28x28 images, as the XNOR-Net reference implementations have it; first and last layer stay float.

    Images (N, C, 28, 28), uint8 or float 0 to 1 -> logits (N, num_classes). 431,260 parameters for MNIST
    (431,810 with `output_norm`).
    """

    smallest_image, image_size = SIZES["lenet5"]

    def __init__(self, *, in_channels: int, num_classes: int, **xnor: Any) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalize = Normalize(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.bn1 = nn.BatchNorm2d(20)
        self.bn2 = nn.BatchNorm2d(20)
        self.conv2 = XnorConv2d(20, 50, 5, **xnor)
        self.bn3 = nn.BatchNorm2d(50)
        self.fc1 = XnorLinear(50 * 4 * 4, 500, **xnor)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)  # (N, 20, 12, 12)
        x = F.max_pool2d(F.relu(self.conv2(self.bn2(x))), 2)  # (N, 50, 4, 4)
        x = F.relu(self.fc1(self.bn3(x).flatten(1)))  # (N, 500)
        return self.fc2(x)


class Block(nn.Module):
    """Two pre-activation 3x3 convolutions, (N, C, H, W) -> (N, O, H/stride, W/stride).

    `shortcut="block"`: one skip around both. `"conv"`: one around each (Liu et al. 2018, Bi-Real Net), so that the
    float stream passes every sign. Where the shape changes, the skip is a float 1x1 convolution of the stream. The
    rest is of XNOR networks alone. `output_norm`: where a convolution adds to the stream; any other is followed by a
    BatchNorm as it is. `residual_relu`: what a convolution adds to the stream passes a ReLU first. `normed_shortcut`:
    the 1x1 convolution is of the normalised input, so that what one such convolution amplifies the next one does not
    amplify again.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut: Literal["block", "conv"],
        residual_relu: bool,
        normed_shortcut: bool,
        **xnor: Any,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        first = xnor if shortcut == "conv" else xnor | {"output_norm": False}
        self.conv1 = XnorConv2d(in_channels, out_channels, 3, stride, padding=1, bias=False, **first)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = XnorConv2d(out_channels, out_channels, 3, padding=1, bias=False, **xnor)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.skip_each = shortcut == "conv"
        self.residual_relu = residual_relu and self.conv1.binary
        self.normed_shortcut = normed_shortcut and self.conv1.binary and isinstance(self.shortcut, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.bn1(x)
        skip = self.skip(x, normed)
        y = self.conv1(normed)
        if self.skip_each:
            y = skip = skip + self.added(y)
        return skip + self.added(self.conv2(self.bn2(y)))

    def skip(self, x: Tensor, normed: Tensor) -> Tensor:
        """What goes around the convolutions, of the stream x and of the same normalised.

        In evaluation always of the stream, with the BatchNorm in the 1x1 convolution, as the packed engine does it: a
        sum in another order could end on the other side of a threshold.
        """
        if not self.normed_shortcut:
            return self.shortcut(x)
        if self.training:
            return self.shortcut(normed)
        return F.conv2d(x, *self.shortcut_of_stream(), self.conv1.stride)

    def shortcut_of_stream(self) -> tuple[Tensor, Tensor | None]:
        """Weight (O, C, 1, 1) and bias (O,) of the 1x1 convolution in evaluation, on the stream as it is."""
        weight = self.shortcut.weight
        assert isinstance(weight, Tensor)
        if not self.normed_shortcut:
            return weight, None
        slope, intercept = affine(self.bn1)
        return weight * slope.view(1, -1, 1, 1), weight[:, :, 0, 0] @ intercept

    def added(self, y: Tensor) -> Tensor:
        """What the stream gets of a convolution's result."""
        return F.relu(y) if self.residual_relu else y


class ResNet18(nn.Module):
    """Pre-activation ResNet-18 for 32x32 images (He et al. 2016): 3x3 stem without pooling, four stages of two blocks.

    Images (N, C, 32, 32), uint8 or float 0 to 1 -> logits (N, num_classes). `width`: channels of the first stage; the
    others have 2, 4 and 8 times as many. 11.17 M parameters at width 64, 98.3 % of them binarized.
    """

    smallest_image, image_size = SIZES["resnet18"]

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        width: int = 64,
        shortcut: Literal["block", "conv"] = "block",
        residual_relu: bool = False,
        normed_shortcut: bool = False,
        **xnor: Any,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width}")
        if shortcut not in ("block", "conv"):
            raise ValueError(f"unknown shortcut {shortcut!r}: choose from block, conv")
        self.num_classes = num_classes
        self.normalize = Normalize(in_channels)
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        blocks, channels = [], width
        for stage in range(4):
            for position in range(2):
                stride = 2 if stage > 0 and position == 0 else 1
                out_channels = width * 2**stage
                blocks.append(Block(channels, out_channels, stride, shortcut, residual_relu, normed_shortcut, **xnor))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(self.normalize(images))  # (N, width, 32, 32)
        x = self.blocks(x)  # (N, 8 width, 4, 4)
        x = F.relu(self.bn(x)).mean(dim=(2, 3))  # (N, 8 width)
        return self.fc(x)


_MODELS: dict[str, type[LeNet5] | type[ResNet18]] = {"lenet5": LeNet5, "resnet18": ResNet18}


def build_model(
    name: str,
    variant: Variant,
    *,
    in_channels: int,
    num_classes: int,
    gradient: Gradient = "corrected",
    input_scaling: bool = False,
    output_norm: bool = False,
    **options: Any,
) -> LeNet5 | ResNet18:
    """Make a network: `name` lenet5 or resnet18, `variant` float or xnor.

    gradient, input_scaling, output_norm: see `XnorConv2d`. options: `width`, `shortcut`, `residual_relu` and
    `normed_shortcut` of ResNet-18, see `Block`. All but `width` and `shortcut` are without effect in the float twin.
    ValueError for an unknown name or variant or a wrong value; TypeError for an unknown option.
    """
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}: choose from {', '.join(_MODELS)}")
    if variant not in ("float", "xnor"):
        raise ValueError(f"unknown variant {variant!r}: choose from float, xnor")
    return _MODELS[name](
        in_channels=in_channels,
        num_classes=num_classes,
        binary=variant == "xnor",
        gradient=gradient,
        input_scaling=input_scaling,
        output_norm=output_norm,
        **options,
    )

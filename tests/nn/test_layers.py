"""Binary layers against sums written out, and networks against the numbers they are known by."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnornet.nn import XnorConv2d, XnorLinear, binary_layers, build_model, count_parameters, scaled_sign, sign_ste
from xnornet.nn.layers import Normalize
from xnornet.params import RESIDUAL, Gradient


def test_convolution_pads_with_zeros_after_the_sign() -> None:
    layer = XnorConv2d(2, 3, 3, padding=1, bias=False)
    x = torch.randn(1, 2, 4, 4)
    signs, weight = torch.where(x >= 0, 1.0, -1.0), torch.where(layer.weight >= 0, 1.0, -1.0)
    expected = torch.zeros(1, 3, 4, 4)
    for o in range(3):
        for row in range(4):
            for column in range(4):
                for dy in range(3):
                    for dx in range(3):
                        y, z = row + dy - 1, column + dx - 1
                        if 0 <= y < 4 and 0 <= z < 4:  # a padded tap adds 0
                            expected[0, o, row, column] += (signs[0, :, y, z] * weight[o, :, dy, dx]).sum()
        expected[0, o] *= layer.weight[o].abs().mean()
    for mode in (layer.train(), layer.eval()):
        torch.testing.assert_close(mode(x), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("input_scaling", [True, False])
def test_training_and_evaluation_are_the_same_function(bias: bool, input_scaling: bool) -> None:
    conv = XnorConv2d(20, 50, 5, stride=2, padding=2, bias=bias, input_scaling=input_scaling)
    linear = XnorLinear(80, 50, bias=bias, input_scaling=input_scaling)
    for layer, x in ((conv, torch.randn(2, 20, 9, 9)), (linear, torch.randn(2, 80))):
        torch.testing.assert_close(layer.train()(x), layer.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("input_scaling", [True, False])
def test_output_norm_is_a_batch_norm_behind_the_layer(input_scaling: bool) -> None:
    options: dict[str, Any] = {"input_scaling": input_scaling, "output_norm": True}
    conv = XnorConv2d(20, 50, 5, stride=2, padding=2, **options)
    for layer, x in ((conv, torch.randn(9, 20, 9, 9)), (XnorLinear(80, 50, **options), torch.randn(99, 80))):
        assert layer.norm is not None and layer.bias is None
        layer.norm.weight.data.normal_()
        layer.norm.bias.data.normal_()
        layer.norm.momentum = 1.0  # the statistics of evaluation are those of the last batch, but for n / (n - 1)
        y = layer.train()(x)
        mean, variance = y.transpose(0, 1).flatten(1).mean(1), y.transpose(0, 1).flatten(1).var(1, correction=0)
        torch.testing.assert_close(mean, layer.norm.bias, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(variance, layer.norm.weight.square(), rtol=1e-2, atol=1e-4)
        torch.testing.assert_close(layer.eval()(x), y, rtol=2e-2, atol=2e-2)


def test_behind_a_batch_norm_alpha_gets_no_gradient() -> None:
    """Multiplied weights give the same output there, so what the corrected gradient has through alpha is 0."""
    x, target, weight = torch.randn(16, 8, 6, 6), torch.randn(16, 4, 4, 4), torch.randn(4, 8, 3, 3) / 4

    def gradient_of(gradient: Gradient, output_norm: bool) -> Tensor:
        layer = XnorConv2d(8, 4, 3, bias=False, gradient=gradient, output_norm=output_norm).train()
        layer.weight.data.copy_(weight)
        (layer(x) * target).sum().backward()
        assert layer.weight.grad is not None
        return layer.weight.grad

    for output_norm in (True, False):
        corrected, detached = (gradient_of(name, output_norm) for name in ("corrected", "detached"))
        through_alpha = (corrected - detached).norm() / detached.norm()
        assert (through_alpha < 1e-3) if output_norm else (through_alpha > 0.01), through_alpha


@pytest.mark.parametrize(("shortcut", "first"), [("block", False), ("conv", True)])
def test_output_norms_are_where_no_batch_norm_follows(shortcut: str, first: bool) -> None:
    options: dict[str, Any] = {"in_channels": 3, "num_classes": 10, "width": 8, "shortcut": shortcut}
    blocks = build_model("resnet18", "xnor", output_norm=True, **options).blocks
    assert all((block.conv1.norm is not None) == first and block.conv2.norm is not None for block in blocks)  # type: ignore[union-attr]


def test_output_norm_takes_the_place_of_a_bias_given_by_position_and_follows_dtype_and_device() -> None:
    dense = XnorLinear(8, 5, True, output_norm=True, dtype=torch.float64)
    assert dense.bias is None and dense(torch.randn(4, 8, dtype=torch.float64)).dtype == torch.float64
    conv = XnorConv2d(3, 4, 3, 1, 0, 1, 1, True, output_norm=True, device="meta")
    assert conv.bias is None and conv(torch.empty(2, 3, 5, 5, device="meta")).shape == (2, 4, 3, 3)


def test_the_float_twin_has_no_output_norm() -> None:
    twins = [XnorConv2d(3, 2, 3, binary=False, output_norm=norm) for norm in (False, True)]
    assert twins[0].state_dict().keys() == twins[1].state_dict().keys()


def test_evaluation_counts_exactly() -> None:
    """Before alpha, every value is a whole number: what lets a packed network agree bit for bit."""
    layer = XnorConv2d(64, 8, 3, padding=1, bias=False).eval()
    layer.weight.data = torch.where(layer.weight >= 0, 1.0, -1.0)  # alpha = 1
    y = layer(torch.randn(2, 64, 8, 8))
    assert torch.equal(y, y.round()) and y.abs().max() > 10


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("layer", "shape"), [(XnorLinear(6, 4), (2, 4, 6)), (XnorLinear(6, 4), (6,)), (XnorConv2d(3, 4, 3), (3, 8, 8))]
)
def test_inputs_of_another_rank_are_refused(layer: nn.Module, shape: tuple[int, ...], training: bool) -> None:
    with pytest.raises(ValueError, match=re.escape(f"dimensions, but its shape is {shape}")):
        layer.train(training)(torch.randn(shape))


def test_input_scaling_is_equation_11() -> None:
    layer = XnorConv2d(3, 2, 3, padding=1, bias=False, input_scaling=True)
    x = torch.randn(1, 3, 5, 5)
    mean = F.pad(x.abs().mean(dim=1), (1, 1, 1, 1))
    K = torch.stack([torch.stack([mean[0, i : i + 3, j : j + 3].mean() for j in range(5)]) for i in range(5)])
    expected = F.conv2d(sign_ste(x), scaled_sign(layer.weight), padding=1) * K
    torch.testing.assert_close(layer(x), expected)


def test_float_twin_is_relu_and_plain_convolution() -> None:
    twin = XnorConv2d(3, 2, 3, binary=False)
    x = torch.randn(1, 3, 5, 5)
    assert torch.equal(twin(x), F.conv2d(x.clamp(min=0), twin.weight, twin.bias))


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2}, {"padding": "same"}, {"padding_mode": "reflect"}])
def test_what_the_engine_lacks_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="groups=1, dilation=1"):
        XnorConv2d(4, 4, 3, **options)


@pytest.mark.parametrize(
    ("name", "channels", "size", "total", "binary"),
    [("lenet5", 1, 28, 431_260, 425_000), ("resnet18", 3, 32, 11_172_170, 10_985_472)],
)
def test_networks_have_the_size_they_are_known_by(name: str, channels: int, size: int, total: int, binary: int) -> None:
    twins = [build_model(name, variant, in_channels=channels, num_classes=10) for variant in ("float", "xnor")]
    assert [count_parameters(model) for model in twins] == [(total, 0), (total, binary)]
    assert twins[0].state_dict().keys() == twins[1].state_dict().keys()
    images = torch.randint(0, 256, (2, channels, size, size), dtype=torch.uint8)
    for model in twins:
        assert model(images).shape == (2, 10)


@pytest.mark.parametrize("shortcut", ["block", "conv"])
@pytest.mark.parametrize("output_norm", [False, True])
def test_every_parameter_of_an_xnor_network_gets_a_gradient(shortcut: str, output_norm: bool) -> None:
    options: dict[str, Any] = {"in_channels": 3, "num_classes": 10, "width": 4, "shortcut": shortcut}
    model = build_model("resnet18", "xnor", output_norm=output_norm, **options)
    F.cross_entropy(model(torch.rand(8, 3, 32, 32)), torch.arange(8)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert len(binary_layers(model)) == 16


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("position", [0, 2], ids=["same shape", "other shape"])
def test_what_a_shortcut_takes_and_spans(position: int, normed: bool, training: bool) -> None:
    for shortcut in ("block", "conv"):
        options: dict[str, Any] = {"width": 4, "shortcut": shortcut, "normed_shortcut": normed}
        model = build_model("resnet18", "xnor", in_channels=3, num_classes=10, **options)
        block: Any = model.blocks[position].train(training)  # type: ignore[union-attr]
        block.bn1.running_mean.fill_(0.5)
        x = torch.randn(2, 4, 8, 8)
        skip, first = block.shortcut(block.bn1(x) if normed and position else x), block.conv1(block.bn1(x))
        if shortcut == "conv":
            first = first + skip
            wanted = first + block.conv2(block.bn2(first))
        else:
            wanted = skip + block.conv2(block.bn2(first))
        torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize("shortcut", ["block", "conv"])
def test_what_a_convolution_adds_passes_a_relu(shortcut: str) -> None:
    options: dict[str, Any] = {"width": 4, "shortcut": shortcut, "residual_relu": True}
    model = build_model("resnet18", "xnor", in_channels=3, num_classes=10, output_norm=True, **options)
    block: Any = model.blocks[2]  # type: ignore[union-attr]
    x = torch.randn(2, 4, 8, 8)
    skip, first = block.shortcut(x), block.conv1(block.bn1(x))
    if shortcut == "conv":
        skip = first = skip + first.clamp(min=0)
    wanted = skip + block.conv2(block.bn2(first)).clamp(min=0)
    torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize("option", RESIDUAL)
def test_the_float_twin_has_a_stream_as_it_is(option: str) -> None:
    torch.manual_seed(0)
    plain = build_model("resnet18", "float", in_channels=3, num_classes=10, width=4)
    options: dict[str, Any] = {"width": 4, option: True}
    twin = build_model("resnet18", "float", in_channels=3, num_classes=10, **options)
    twin.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(twin.train()(images), plain.train()(images))


def test_normalize_takes_bytes_and_floats() -> None:
    normalize = Normalize(3)
    normalize.mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
    normalize.std.copy_(torch.tensor([0.5, 0.25, 0.2]))
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    expected = (pixels.double() / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.25, 0.2]
    ).view(3, 1, 1)
    torch.testing.assert_close(normalize(pixels).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(normalize(pixels.float() / 255), normalize(pixels))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("alexnet", "xnor"), "unknown model 'alexnet': choose from lenet5, resnet18"),
        (("lenet5", "ternary"), "unknown variant 'ternary': choose from float, xnor"),
    ],
)
def test_unknown_names_are_named(arguments: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(*arguments, in_channels=1, num_classes=10)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"width": 0}, {"shortcut": "none"}, {"gradient": "exact"}])
def test_wrong_options_are_named(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        build_model("resnet18", "xnor", in_channels=3, num_classes=10, **options)  # type: ignore[arg-type]

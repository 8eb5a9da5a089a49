"""Export: a packed network is its torch model, bit for bit where bits are."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.engine import mutations
from tests.export.networks import assert_same_logits, channels_last, images, trained_like
from xnornet.engine import PackedConv2d, PackedLinear, PackedNetwork
from xnornet.export import pack
from xnornet.nn import build_model
from xnornet.nn.layers import XnorConv2d, XnorLinear

NETWORKS = {
    "lenet5": ("lenet5", {}),
    "lenet5-K": ("lenet5", {"input_scaling": True}),
    "resnet18": ("resnet18", {"width": 8}),
    "resnet18-conv": ("resnet18", {"width": 12, "shortcut": "conv"}),
    "resnet18-K": ("resnet18", {"width": 8, "input_scaling": True}),
    "resnet18-conv-K": ("resnet18", {"width": 8, "shortcut": "conv", "input_scaling": True}),
    "lenet5-norm": ("lenet5", {"output_norm": True}),
    "lenet5-norm-K": ("lenet5", {"output_norm": True, "input_scaling": True}),
    "resnet18-norm": ("resnet18", {"width": 8, "output_norm": True}),
    "resnet18-normed": ("resnet18", {"width": 12, "normed_shortcut": True}),
    "resnet18-conv-normed-K": (
        "resnet18",
        {"width": 8, "shortcut": "conv", "normed_shortcut": True, "input_scaling": True},
    ),
    "resnet18-conv-norm": ("resnet18", {"width": 12, "shortcut": "conv", "output_norm": True}),
    "resnet18-norm-relu": ("resnet18", {"width": 8, "output_norm": True, "residual_relu": True}),
    "resnet18-conv-normed-relu": (
        "resnet18",
        {"width": 12, "shortcut": "conv", "normed_shortcut": True, "output_norm": True, "residual_relu": True},
    ),
    "resnet18-conv-relu-K": (
        "resnet18",
        {"width": 8, "shortcut": "conv", "residual_relu": True, "input_scaling": True},
    ),
    "resnet18-conv-norm-K": ("resnet18", {"width": 8, "shortcut": "conv", "output_norm": True, "input_scaling": True}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def model(request):
    name, options = NETWORKS[request.param]
    return trained_like(name, **options)


@pytest.mark.parametrize("side", [8, 28])
def test_a_resnet_takes_smaller_images(side):
    model = trained_like("resnet18", width=8, output_norm=True)
    assert_same_logits(model, pack(model, image_size=side), side)
    for wrong in (7, 33):
        with pytest.raises(ValueError, match=f"image_size must be 8 to 32 pixels, not {wrong}"):
            pack(model, image_size=wrong)


def test_logits_are_those_of_torch(model):
    assert_same_logits(model, pack(model), model.image_size)


def test_packing_leaves_the_model_as_it_is(model):
    model.train()
    before = copy.deepcopy(model.state_dict())
    pack(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()


def test_round_trip_through_the_file(model, tmp_path):
    network = pack(model, {"dataset_md5": "d41d8cd98f00b204e9800998ecf8427e"})
    network.save(tmp_path / "network")
    loaded = PackedNetwork.load(tmp_path / "network")
    assert mutations.same(network, loaded)
    assert loaded.about["dataset_md5"].startswith("d41d8")
    batch = channels_last(images(model, 3, model.image_size))
    assert np.array_equal(loaded(batch), network(batch))


@pytest.mark.parametrize("output_norm", [False, True])
@pytest.mark.parametrize(("name", "options"), [("lenet5", {}), ("resnet18", {"width": 64, "shortcut": "conv"})])
def test_the_file_is_a_twentieth_of_the_float_model(name, options, output_norm, tmp_path):
    options = options | {"in_channels": 1 if name == "lenet5" else 3, "num_classes": 10}
    pack(build_model(name, "xnor", output_norm=output_norm, **options)).save(tmp_path / "network")
    float_bytes = 4 * sum(parameter.numel() for parameter in build_model(name, "float", **options).parameters())
    assert (tmp_path / "network").stat().st_size <= float_bytes / 20


@pytest.mark.parametrize("input_scaling", [False, True])
@torch.no_grad()
def test_single_layers_are_those_of_torch(input_scaling):
    conv = XnorConv2d(33, 20, 3, stride=2, padding=1, input_scaling=input_scaling).eval()
    x = torch.randn(4, 33, 9, 10)
    layer = PackedConv2d(conv.weight.numpy(), stride=2, padding=1, bias=conv.bias.numpy())
    y = layer(channels_last(x), input_scale=input_scaling)
    assert np.allclose(y, channels_last(conv(x)), rtol=1e-5, atol=1e-5)
    linear = XnorLinear(100, 30, input_scaling=input_scaling).eval()
    x = torch.randn(7, 100)
    y = PackedLinear(linear.weight.numpy(), bias=linear.bias.numpy())(x.numpy(), input_scale=input_scaling)
    assert np.allclose(y, linear(x).numpy(), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_packed_is_named():
    with pytest.raises(TypeError, match=r"a LeNet5, a ResNet18 or an nn\.Sequential, not Linear"):
        pack(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="float twin"):
        pack(build_model("lenet5", "float", in_channels=1, num_classes=10))

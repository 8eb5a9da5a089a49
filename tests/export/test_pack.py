"""Export: a packed network is its torch model, bit for bit where bits are."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.engine import mutations
from tests.export.networks import assert_same_logits, channels_last, images, trained_like
from xnornet.engine import PackedConv2d, PackedLinear, PackedNetwork
from xnornet.export import PackError, pack
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
        with pytest.raises(PackError, match=f"image_size must be 8 to 32 pixels, not {wrong}"):
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


class Doubled(XnorConv2d):
    def forward(self, x):
        return 2 * super().forward(x)


CHANGES = {
    "stem: a ResNet18 has Conv2d.*bias=False.* there, not Conv2d.*: it cannot be packed": (
        "stem",
        nn.Conv2d(3, 8, 3, padding=1),
    ),
    "stem: .*not Conv2d.*padding_mode=reflect": (
        "stem",
        nn.Conv2d(3, 8, 3, padding=1, bias=False, padding_mode="reflect"),
    ),
    "blocks.2.shortcut: .*not AvgPool2d": ("blocks.2.shortcut", nn.AvgPool2d(2)),
    "blocks.2.shortcut: .*not Conv2d": ("blocks.2.shortcut", nn.Conv2d(8, 16, 1, 2)),
    "blocks.1.conv1: .*not Doubled": ("blocks.1.conv1", Doubled(8, 8, 3, padding=1, bias=False)),
    "blocks.1.conv1: .*not XnorConv2d": (
        "blocks.1.conv1",
        XnorConv2d(8, 8, 3, padding=1, bias=False, input_scaling=True),
    ),
    "blocks.1.bn1: .*not Identity": ("blocks.1.bn1", nn.Identity()),
    "bn: .*track_running_stats=False": ("bn", nn.BatchNorm2d(64, track_running_stats=False)),
    "blocks.8: .*has nothing there, not Identity": ("blocks.8", nn.Identity()),
    "fc: .*not Sequential": ("fc", nn.Sequential(nn.Dropout(), nn.Linear(64, 10))),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_resnet_with_other_layers_is_not_taken_for_one(message):
    place, layer = CHANGES[message]
    network = build_model("resnet18", "xnor", in_channels=3, num_classes=10, width=8)
    parent, _, name = place.rpartition(".")
    network.get_submodule(parent).add_module(name, layer)
    with pytest.raises(TypeError, match=message):
        pack(network)


def test_what_is_changed_in_a_network_itself_is_not_overlooked():
    network = build_model("lenet5", "xnor", in_channels=1, num_classes=10)
    network.fc2.forward = lambda x: x
    with pytest.raises(TypeError, match="fc2 has been given a forward of its own"):
        pack(network)
    network = build_model("lenet5", "xnor", in_channels=1, num_classes=10)
    network.bn3.running_var[3] = float("nan")
    with pytest.raises(PackError, match=r"bn3\.running_var holds NaN or infinity: the training has diverged"):
        pack(network)


def test_what_cannot_be_packed_is_named():
    with pytest.raises(TypeError, match=r"a LeNet5, a ResNet18 or an nn\.Sequential, not Linear"):
        pack(nn.Linear(1, 1))
    with pytest.raises(PackError, match="float twin"):
        pack(build_model("lenet5", "float", in_channels=1, num_classes=10))

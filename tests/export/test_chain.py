"""Networks of one's own, layers one after the other, packed."""

import random
import re
from collections import OrderedDict

import pytest
import torch
from torch import nn

from tests.engine import mutations
from tests.export.networks import assert_same_logits, settled
from xnornet.export import PackError, pack
from xnornet.nn import Normalize, XnorConv2d, XnorLinear

SIDE = 12
RELU = nn.ReLU()
START = (Normalize(3), nn.Conv2d(3, 8, 3))

CHAINS = {
    "bits from end to end": lambda: [
        *(Normalize(3), nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)),
        *(XnorConv2d(16, 24, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(24)),
        *(XnorConv2d(24, 40, 3, stride=2, padding=1, output_norm=True), nn.ReLU(), nn.BatchNorm2d(40)),
        *(XnorConv2d(40, 70, 1), nn.BatchNorm2d(70), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(70, 10)),
    ],
    "dense": lambda: [
        *(Normalize(1), nn.Flatten(), nn.Linear(144, 50), nn.BatchNorm1d(50), XnorLinear(50, 40)),
        *(nn.BatchNorm1d(40), nn.ReLU(), nn.Dropout(), nn.BatchNorm1d(40), XnorLinear(40, 30, bias=False)),
        *(nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 10)),
    ],
    "poolings between BatchNorms": lambda: [
        *(Normalize(3), nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(3, 2), nn.BatchNorm2d(20)),
        *(XnorConv2d(20, 33, 2), nn.BatchNorm2d(33), nn.MaxPool2d((1, 2), 1), nn.ReLU(), nn.BatchNorm2d(33)),
        *(XnorConv2d(33, 20, (3, 2)), nn.BatchNorm2d(20), nn.Flatten(), XnorLinear(20, 10)),
    ],
    "several poolings, and an average that signs are taken of": lambda: [
        *(Normalize(3), nn.Conv2d(3, 12, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(12), nn.MaxPool2d(2)),
        *(XnorConv2d(12, 30, 2), nn.MaxPool2d(2, 1), nn.ReLU(), nn.MaxPool2d(1), nn.BatchNorm2d(30), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d((1, 1)), nn.BatchNorm2d(30), nn.Flatten(), XnorLinear(30, 10), nn.BatchNorm1d(10)),
    ],
    "BatchNorms and poolings in a row": lambda: [
        *(Normalize(3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8), XnorConv2d(8, 16, 3)),
        *(nn.MaxPool2d(2), nn.BatchNorm2d(16), nn.MaxPool2d(2), nn.BatchNorm2d(16), XnorConv2d(16, 20, 1)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(80, 10)),
    ],
    "options as lists": lambda: [
        *(Normalize(3), nn.Conv2d(3, 16, [3, 3], stride=[2, 2]), nn.BatchNorm2d(16), nn.MaxPool2d([2, 2])),
        *(nn.BatchNorm2d(16), XnorConv2d(16, 20, 2, padding=[1, 1]), nn.ReLU(), nn.AdaptiveAvgPool2d([1, 1])),
        *(nn.Flatten(), nn.Linear(20, 10)),
    ],
    "K": lambda: [
        *(Normalize(3), nn.Conv2d(3, 16, 3), nn.ReLU(), nn.BatchNorm2d(16)),
        *(XnorConv2d(16, 24, 3, padding=1, input_scaling=True), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(24)),
        *(XnorConv2d(24, 20, 3, bias=False), nn.BatchNorm2d(20), nn.ReLU(), nn.Flatten()),
        *(XnorLinear(180, 30, input_scaling=True), nn.Linear(30, 10)),
    ],
    "no BatchNorm at all, and the same module twice": lambda: [
        *(Normalize(3), nn.Conv2d(3, 16, 3), XnorConv2d(16, 20, 3), XnorConv2d(20, 24, 3, padding=2), RELU),
        *(nn.Identity(), nn.Conv2d(24, 30, 1), RELU, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(750, 10)),
    ],
}


@pytest.mark.parametrize("name", CHAINS)
def test_logits_are_those_of_torch(name):
    torch.manual_seed(0)
    model = settled(nn.Sequential(*CHAINS[name]()), SIDE)
    assert_same_logits(model, pack(model, image_size=SIDE), SIDE)


def drawn(seed):
    """Layers drawn at random: tails in any order, poolings, K, dense or convolutional, of few channels."""
    draw = random.Random(seed)
    side, channels = SIDE, draw.choice([4, 9, 20])
    layers = [Normalize(3), nn.Conv2d(3, channels, draw.choice([1, 3]), padding=1)]
    for _ in range(draw.randint(1, 3)):
        with torch.no_grad():
            side = nn.Sequential(*layers).eval()(torch.zeros(1, 3, SIDE, SIDE)).shape[2]
        norm, pool = nn.BatchNorm2d(channels), nn.MaxPool2d(2, draw.choice([1, 2]))
        tail = draw.choice([[norm], [pool, norm], [RELU, norm], [RELU, pool, norm], [norm, pool], [norm, RELU, pool]])
        tail = tail if side > 3 else [norm]
        if RELU in tail and tail[-1] is not norm:
            tail.append(nn.BatchNorm2d(channels))  # the signs of what a ReLU makes are all the same
        made, with_scale = draw.choice([8, 17, 33]), draw.random() < 0.2
        kernel = draw.choice([1, 2, 3]) if side > 5 else 1
        layers += [*tail, XnorConv2d(channels, made, kernel, padding=kernel // 2, input_scaling=with_scale)]
        channels = made
    last = draw.choice([[RELU, nn.AdaptiveAvgPool2d(1)], [nn.BatchNorm2d(channels)], [RELU]])
    with torch.no_grad():
        features = nn.Sequential(*layers, *last).eval()(torch.zeros(1, 3, SIDE, SIDE)).numel()
    if isinstance(last[-1], nn.BatchNorm2d) and draw.random() < 0.5:
        return [*layers, *last, nn.Flatten(), XnorLinear(features, 12), nn.BatchNorm1d(12), nn.Linear(12, 5)]
    return [*layers, *last, nn.Flatten(), nn.Linear(features, 5)]


@pytest.mark.parametrize("seed", range(20))
def test_drawn_chains_too(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(*drawn(seed))
    network = pack(settled(model, SIDE), image_size=SIDE)
    assert_same_logits(model, network, SIDE)


def test_packing_leaves_the_model_as_it_is():
    model = nn.Sequential(*CHAINS["dense"]())
    model[3].eval().requires_grad_(False)
    model[2](torch.zeros(1, 144)).sum().backward()
    before = [(p, p.data_ptr(), p.requires_grad, p.grad, p.detach().clone()) for p in model.parameters()]
    flags = [module.training for module in model.modules()]
    pack(model, image_size=SIDE)
    assert flags == [module.training for module in model.modules()]
    for parameter, (same, place, asked, grad, values) in zip(model.parameters(), before, strict=True):
        assert parameter is same and (parameter.data_ptr(), parameter.requires_grad) == (place, asked)
        assert parameter.grad is grad and torch.equal(parameter, values)


def test_other_defaults_of_torch_change_nothing():
    model = settled(nn.Sequential(*CHAINS["several poolings, and an average that signs are taken of"]()), SIDE)
    wanted = pack(model, image_size=SIDE)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        got = pack(model, image_size=SIDE)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert mutations.same(wanted, got)


def test_between_binary_layers_nothing_but_bits_passes():
    network = pack(nn.Sequential(*CHAINS["bits from end to end"]()), image_size=SIDE)
    made = [(node.op, node.output is not None, node.bits is not None) for node in network.graph.nodes[1:6]]
    assert made == [
        ("float_conv", False, True),
        ("binary_conv", False, True),
        ("pool_bits", False, True),
        ("binary_conv", False, True),
        ("binary_conv", True, False),
    ]


class Block(nn.Sequential):
    """With a name of its own, but not with a forward."""


def test_layers_keep_their_names():
    inner = Block(OrderedDict(conv=XnorConv2d(8, 8, 3), norm=nn.BatchNorm2d(8)))
    layers = [Normalize(3), nn.Conv2d(3, 8, 3), inner, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, 10)]
    network = pack(nn.Sequential(*layers), image_size=SIDE)
    assert [node.name for node in network.graph.nodes] == ["normalize", "1", "2.conv", "2.norm", "5"]
    names = ("normalize", "image", "normalized", "conv", "logits", "norm")  # but for those that have another meaning
    layers = OrderedDict(zip(names, [*START, nn.BatchNorm2d(8), XnorConv2d(8, 10, 10), RELU], strict=False))
    network = pack(nn.Sequential(layers), image_size=SIDE)
    assert [node.name for node in network.graph.nodes] == ["normalize", "image_", "conv"]


def with_norm(norm):
    layer = XnorConv2d(8, 10, 3, output_norm=True)
    layer.norm = norm
    return layer


def hooked(layer):
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([nn.Conv2d(3, 8, 3)], PackError, "must begin with xnornet.nn.Normalize"),
        ([Normalize(3)], PackError, "must have a layer with weights"),
        ([Normalize(3), XnorConv2d(3, 8, 3)], PackError, "layer 1 (XnorConv2d): the first layer behind"),
        (
            [Normalize(3), nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)],
            PackError,
            "layer 1 (BatchNorm2d): the first layer behind",
        ),
        ([*START, nn.GELU()], TypeError, "layer 2 (GELU) cannot be packed, only Conv2d, Linear, XnorConv2d"),
        ([*START, nn.BatchNorm2d(8, affine=False)], PackError, "layer 2 (BatchNorm2d): a BatchNorm needs its"),
        ([*START, nn.BatchNorm2d(9)], PackError, "layer 2 (BatchNorm2d): does not fit here"),
        ([*START, nn.AdaptiveAvgPool2d(1)], PackError, "layer 2 (AdaptiveAvgPool2d): an AdaptiveAvgPool2d must make"),
        (
            [*START, nn.ReLU(), nn.AdaptiveAvgPool2d(2)],
            PackError,
            "layer 3 (AdaptiveAvgPool2d): an AdaptiveAvgPool2d must make",
        ),
        ([*START, nn.MaxPool2d(3, padding=1)], PackError, "layer 2 (MaxPool2d): a MaxPool2d must have padding=0"),
        ([*START, nn.Conv2d(8, 8, 3, groups=2)], PackError, "layer 2 (Conv2d): a convolution must have groups=1"),
        (
            [*START, XnorConv2d(8, 8, 3, padding=(1, 0))],
            PackError,
            "layer 2 (XnorConv2d): a convolution must have groups=1",
        ),
        ([*START, nn.Conv2d(8, 8, 3, padding=1)], PackError, "layer 2 (Conv2d): a float convolution behind"),
        (
            [Normalize(3), nn.Conv2d(3, 8, 3, padding=5), nn.Flatten(), nn.Linear(3200, 10)],
            PackError,
            "the engine does not have this: 1: a padding of 5",
        ),
        (
            [*START, nn.Flatten(), nn.BatchNorm1d(800)],
            PackError,
            "layer 3 (BatchNorm1d): a BatchNorm1d of images of 10x10",
        ),
        (
            [*START, nn.Flatten(), nn.Linear(80, 10)],
            PackError,
            "layer 3 (Linear): does not fit here, with images of 12x12 pixels: mat1",
        ),
        ([Normalize(3), nn.Linear(432, 10)], PackError, "layer 1 (Linear): a dense layer needs a Flatten before it"),
        (
            [*START, nn.Flatten(1, 2)],
            PackError,
            "layer 2 (Flatten): a Flatten must leave a row of features an image, not (80, 10)",
        ),
        ([*START, nn.Flatten(), XnorConv2d(8, 10, 10)], PackError, "layer 3 (XnorConv2d): does not fit here"),
        (
            [Normalize(3), nn.Flatten(), nn.Linear(432, 10), nn.BatchNorm2d(10)],
            PackError,
            "layer 3 (BatchNorm2d): does not fit here",
        ),
        ([*START, XnorConv2d(8, 10, 3).double()], PackError, "2.weight is torch.float64: only float32 can be packed"),
        ([*START, nn.Conv2d(8, 10, 3, device="meta")], PackError, "one device that has data, not on cpu, meta"),
        ([*START, hooked(nn.Conv2d(8, 10, 3))], PackError, "2 has forward hooks"),
        ([*START, nn.Conv2d(8, 10, 3)], PackError, "must end with a row of logits for an image, not with (10, 8, 8)"),
        ([*START, XnorConv2d(8, 10, 3, binary=False)], PackError, "float twin"),
        ([*START, with_norm(nn.Identity())], PackError, "2.norm is what output_norm puts there, or None, not Identity"),
        (
            [*START, with_norm(nn.BatchNorm2d(10, affine=False))],
            PackError,
            "layer 2.norm (BatchNorm2d): a BatchNorm needs",
        ),
    ],
)
def test_what_cannot_be_packed_is_named(layers, error, message):
    with pytest.raises(error, match=re.escape(message)):
        pack(nn.Sequential(*layers), image_size=SIDE)


class Twice(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_forward_of_its_own_is_not_overlooked():
    with pytest.raises(TypeError, match=r"Twice has a forward of its own: only Sequential's is known"):
        pack(Twice(*START), image_size=SIDE)
    with pytest.raises(TypeError, match=r"layer 2 \(Twice\) cannot be packed"):
        pack(nn.Sequential(*START, Twice(RELU)), image_size=SIDE)


def test_as_many_classes_are_named_as_there_are_logits():
    model = nn.Sequential(Normalize(3), nn.Flatten(), nn.Linear(432, 3))
    assert pack(model, {"classes": ["cat", "dog", "frog"]}, image_size=SIDE).about["classes"][2] == "frog"
    with pytest.raises(PackError, match="about names 2 classes, but the network has 3 logits"):
        pack(model, {"classes": ("cat", "dog")}, image_size=SIDE)


@pytest.mark.parametrize("size", [None, 0, 12.0, "12", (12, 12), 8193])
def test_the_size_of_the_images_is_asked_for(size):
    with pytest.raises(PackError, match="image_size must be 1 to 8192 pixels, not "):
        pack(nn.Sequential(*START), image_size=size)
    with pytest.raises(PackError, match="images of 8192x8192 pixels are too large"):
        pack(nn.Sequential(*START), image_size=8192)

"""Export: a packed network is its torch model, bit for bit where bits are."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.engine import mutations
from xnornet.engine import PackedConv2d, PackedLinear, PackedNetwork
from xnornet.export import _PooledSign, _Sign, pack
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
    "resnet18-conv-norm": ("resnet18", {"width": 12, "shortcut": "conv", "output_norm": True}),
    "resnet18-conv-norm-K": ("resnet18", {"width": 8, "shortcut": "conv", "output_norm": True, "input_scaling": True}),
}


def trained_like(name, seed=0, **options):
    """A network with BatchNorms of both slopes, dead channels and tiny variances, and statistics that fit."""
    torch.manual_seed(seed)
    channels = 1 if name == "lenet5" else 3
    model = build_model(name, "xnor", in_channels=channels, num_classes=10, **options)
    model.normalize.mean.uniform_(0.2, 0.5)
    model.normalize.std.uniform_(0.2, 0.4)
    with torch.no_grad():
        for bn in model.modules():
            if isinstance(bn, nn.BatchNorm1d | nn.BatchNorm2d):
                bn.weight.normal_()
                bn.bias.normal_(std=0.3)
        model.train()
        for _ in range(30):
            model(images(model, 8, seed=_))
        for path, bn in model.named_modules():
            if isinstance(bn, nn.BatchNorm1d | nn.BatchNorm2d):
                bn.weight[0] = 0
                # Not behind layers with K: what they make would grow from layer to layer to infinity.
                if not (path.endswith(".norm") and options.get("input_scaling")):
                    bn.running_var[1] = 1e-12
    return model.eval()


def images(model, count, seed=0):
    """uint8 (N, C, H, W) for torch."""
    shape = (count, len(model.normalize.mean), model.image_size, model.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def channels_last(x):
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())


@pytest.fixture(scope="module", params=NETWORKS)
def model(request):
    name, options = NETWORKS[request.param]
    return trained_like(name, **options)


@pytest.mark.parametrize("side", [8, 28])
def test_a_resnet_takes_smaller_images(side):
    model = trained_like("resnet18", width=8, output_norm=True)
    batch = images(model, 16, seed=100)[:, :, :side, :side].contiguous()
    with torch.no_grad():
        wanted = model(batch).numpy()
    network = pack(model, image_size=side)
    assert np.allclose(network(channels_last(batch)), wanted, rtol=1e-4, atol=1e-3)
    for wrong in (7, 33):
        with pytest.raises(ValueError, match=f"image_size must be 8 to 32 pixels, not {wrong}"):
            pack(model, image_size=wrong)


def test_logits_are_those_of_torch(model):
    batch = images(model, 64, seed=100)
    with torch.no_grad():
        wanted = model(batch).numpy()
    logits = pack(model)(channels_last(batch))
    # One wrong bit moves a logit by about 1e-2: there is none. (With K, a tiny variance makes logits of 1e12.)
    assert np.allclose(logits, wanted, rtol=1e-4, atol=max(1e-3, 1e-5 * np.abs(wanted).max()))
    assert np.array_equal(logits.argmax(axis=1), wanted.argmax(axis=1))
    assert np.ptp(wanted, axis=0).max() > 1e-2


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
    batch = channels_last(images(model, 3))
    assert np.array_equal(loaded(batch), network(batch))


@pytest.mark.parametrize("output_norm", [False, True])
@pytest.mark.parametrize(("name", "options"), [("lenet5", {}), ("resnet18", {"width": 64, "shortcut": "conv"})])
def test_the_file_is_a_twentieth_of_the_float_model(name, options, output_norm, tmp_path):
    options = options | {"in_channels": 1 if name == "lenet5" else 3, "num_classes": 10}
    pack(build_model(name, "xnor", output_norm=output_norm, **options)).save(tmp_path / "network")
    float_bytes = 4 * sum(parameter.numel() for parameter in build_model(name, "float", **options).parameters())
    assert (tmp_path / "network").stat().st_size <= float_bytes / 20


def batch_norm(gamma, beta, mean, var):
    bn = nn.BatchNorm2d(len(gamma)).eval()
    for tensor, values in ((bn.weight, gamma), (bn.bias, beta), (bn.running_mean, mean), (bn.running_var, var)):
        tensor.data.copy_(torch.as_tensor(values))
    return bn


@pytest.fixture(scope="module")
def hard_batch_norm():
    """Random channels, and the hard ones: dead, dead with beta 0 and -0.0, tiny and huge variances and slopes."""
    generator = torch.Generator().manual_seed(0)
    gamma, beta, mean = (torch.randn(200, generator=generator) for _ in range(3))
    var = torch.rand(200, generator=generator) + 1e-3
    gamma[:6] = torch.tensor([0.0, 0.0, 0.0, -0.0, 1e-30, -1e-30])
    beta[:6] = torch.tensor([0.5, -0.5, 0.0, -0.0, 1.0, 0.0])
    var[6:30] = 10.0 ** -torch.arange(24)
    gamma[30:40] *= 1e20
    mean[40:50] *= 1e6
    return batch_norm(gamma, beta, mean, var)


@torch.no_grad()
def test_count_thresholds_give_torchs_bit_for_every_count(hard_batch_norm):
    conv = XnorConv2d(10, 200, 3, bias=True)
    scale = conv.weight.abs().mean(dim=(1, 2, 3)).view(1, -1, 1, 1)
    scale[:, 50:100] *= -1  # a BatchNorm behind the layer can do that, or silence it
    scale[:, 100] = 0

    def before(count):
        return torch.relu(count * scale + conv.bias.view(1, -1, 1, 1))

    counts = torch.arange(-90, 91, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 200, 1, 1)
    for sign in (_Sign(hard_batch_norm), _Sign(hard_batch_norm, before)):
        threshold, flip = sign.of_counts(90)
        wanted = hard_batch_norm(sign.before(counts)).view(-1, 200).numpy() >= 0
        assert np.array_equal((counts.view(-1, 200).numpy() >= threshold) ^ flip, wanted)
        assert 0.2 < wanted.mean() < 0.8


@torch.no_grad()
def test_float_thresholds_give_torchs_bit_next_to_the_threshold_and_far_from_it(hard_batch_norm):
    threshold, flip = _Sign(hard_batch_norm).of_floats()
    near = [np.nextafter(threshold, np.float32(way), dtype=np.float32) for way in (-np.inf, np.inf)]
    values = [threshold, *near, *(np.full(200, v, np.float32) for v in (0.0, -0.0, 1e-45, 1, -1, 1e6, -1e6, 3e38))]
    x = np.stack([np.clip(v, -3e38, 3e38) for v in values])
    wanted = hard_batch_norm(torch.from_numpy(x)[:, :, None, None])[:, :, 0, 0].numpy() >= 0
    assert np.array_equal((x >= threshold) ^ flip, wanted)


@torch.no_grad()
def test_pooling_may_follow_the_comparison(hard_batch_norm):
    """sign(bn(max(relu(x)))) by thresholds, an OR and a flip, for slopes of both signs."""
    x = torch.randint(-90, 91, (50, 200, 4, 4)).float()
    slope = torch.randn(1, 200, 1, 1)  # of a BatchNorm behind the layer
    slope[0, :2] = 0

    def before(count):
        return torch.relu(count * slope + 3)

    sign = _PooledSign(before, hard_batch_norm)
    threshold, flip = (v[:, None, None] for v in sign.of_counts(90))
    wanted = hard_batch_norm(nn.functional.max_pool2d(before(x), 2)).numpy() >= 0
    bits = (x.numpy() >= threshold) ^ flip
    pooled = bits.reshape(50, 200, 2, 2, 2, 2).any(axis=(3, 5)) ^ sign.flip_after[:, None, None]
    assert np.array_equal(pooled, wanted)


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
    with pytest.raises(TypeError, match="LeNet5 or a ResNet18, not Linear"):
        pack(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="float twin"):
        pack(build_model("lenet5", "float", in_channels=1, num_classes=10))

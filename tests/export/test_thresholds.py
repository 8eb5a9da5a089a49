"""Thresholds give torch's bits for every value that can occur."""

import numpy as np
import pytest
import torch
from torch import nn

from xnornet.export.thresholds import Sign
from xnornet.nn.layers import XnorConv2d


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
    for functions in ([], [before]):
        threshold, flip = Sign(200, [*functions, hard_batch_norm]).of_counts(90)
        wanted = hard_batch_norm(before(counts) if functions else counts).view(-1, 200).numpy() >= 0
        assert np.array_equal((counts.view(-1, 200).numpy() >= threshold) ^ flip, wanted)
        assert 0.2 < wanted.mean() < 0.8


@torch.no_grad()
def test_float_thresholds_give_torchs_bit_next_to_the_threshold_and_far_from_it(hard_batch_norm):
    threshold, flip = Sign(200, [hard_batch_norm]).of_floats()
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

    sign = Sign(200, [before], [hard_batch_norm])
    threshold, flip = (v[:, None, None] for v in sign.of_counts(90))
    wanted = hard_batch_norm(nn.functional.max_pool2d(before(x), 2)).numpy() >= 0
    bits = (x.numpy() >= threshold) ^ flip
    pooled = bits.reshape(50, 200, 2, 2, 2, 2).any(axis=(3, 5)) ^ sign.flips[0][:, None, None]
    assert np.array_equal(pooled, wanted)


@torch.no_grad()
def test_a_dead_channel_behind_a_steep_one_keeps_its_sign():
    """At the largest floats the first BatchNorm overflows, and infinity times 0 is no number."""
    steep = batch_norm([10.0, -10.0, 10.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    dead = batch_norm([0.0, 0.0, -0.0], [0.5, -0.5, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    threshold, flip = Sign(3, [steep, dead]).of_floats()
    for x in (-3e38, -1.0, 0.0, 1.0, 3e38):
        assert ((np.full(3, x, np.float32) >= threshold) ^ flip).tolist() == [True, False, True]

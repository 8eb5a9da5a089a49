"""Networks as if trained, and images for them."""

import numpy as np
import torch

from xnornet.nn import binary_layers, build_model
from xnornet.nn.layers import BatchNorm, Normalize


def trained_like(name, seed=0, **options):
    """A LeNet-5 or ResNet-18 with BatchNorms of both slopes, dead channels and tiny variances."""
    torch.manual_seed(seed)
    model = build_model(name, "xnor", in_channels=1 if name == "lenet5" else 3, num_classes=10, **options)
    return settled(model, model.image_size)


def settled(model, side):
    """`model` with hard BatchNorms whose statistics fit, but for a dead channel and a tiny variance in each.

    With K, without tiny variances: what they make large would grow from layer to layer to infinity.
    """
    normalize = next(module for module in model.modules() if isinstance(module, Normalize))
    normalize.mean.uniform_(0.2, 0.5)
    normalize.std.uniform_(0.2, 0.4)
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    with torch.no_grad():
        for bn in norms:
            bn.weight.normal_()
            bn.bias.normal_(std=0.3)
        model.train()
        for batch in range(30):
            model(images(model, 8, side, seed=batch))
        for number, bn in enumerate(norms):
            bn.weight[number % bn.num_features] = 0
            if not with_scale(model):
                bn.running_var[(number + 1) % bn.num_features] = 1e-12
    return model.eval()


def with_scale(model):
    return any(layer.input_scaling for layer in binary_layers(model))


def images(model, count, side, seed=0):
    """uint8 (N, C, H, W) for torch."""
    normalize = next(module for module in model.modules() if isinstance(module, Normalize))
    shape = (count, len(normalize.mean), side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def channels_last(x):
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())


def assert_same_logits(model, network, side):
    """One wrong bit moves a logit by about 1e-2 of the largest one: there is none.

    With K, signs are taken of the engine's floats, which rounding may put on the other side of 0: in an image or two.
    """
    batch = images(model, 64, side, seed=100)
    with torch.no_grad():
        wanted = model(batch).flatten(1).numpy()
    logits = network(channels_last(batch))
    right = np.isclose(logits, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()).all(axis=1)
    assert (~right).sum() <= 2 * with_scale(model)
    assert np.array_equal(logits[right].argmax(axis=1), wanted[right].argmax(axis=1))
    assert np.ptp(wanted, axis=0).max() > 1e-2

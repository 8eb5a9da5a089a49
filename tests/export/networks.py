"""Networks as if trained, and images for them."""

import numpy as np
import torch

from xnornet.nn import build_model
from xnornet.nn.layers import BatchNorm, Normalize


def trained_like(name, seed=0, **options):
    """A LeNet-5 or ResNet-18 with BatchNorms of both slopes, dead channels and tiny variances."""
    torch.manual_seed(seed)
    model = build_model(name, "xnor", in_channels=1 if name == "lenet5" else 3, num_classes=10, **options)
    # Not behind layers with K: what they make would grow from layer to layer to infinity.
    return settled(model, model.image_size, keep="norm" if options.get("input_scaling") else None)


def settled(model, side, keep=None):
    """`model` with hard BatchNorms whose statistics fit; the tiny variance not in those whose name ends with `keep`."""
    normalize = next(module for module in model.modules() if isinstance(module, Normalize))
    normalize.mean.uniform_(0.2, 0.5)
    normalize.std.uniform_(0.2, 0.4)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, BatchNorm)}
    with torch.no_grad():
        for bn in norms.values():
            bn.weight.normal_()
            bn.bias.normal_(std=0.3)
        model.train()
        for batch in range(30):
            model(images(model, 8, side, seed=batch))
        for number, (name, bn) in enumerate(norms.items()):
            bn.weight[number % bn.num_features] = 0
            if keep is None or name.split(".")[-1] != keep:
                bn.running_var[(number + 1) % bn.num_features] = 1e-12
    return model.eval()


def images(model, count, side, seed=0):
    """uint8 (N, C, H, W) for torch."""
    normalize = next(module for module in model.modules() if isinstance(module, Normalize))
    shape = (count, len(normalize.mean), side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def channels_last(x):
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())


def assert_same_logits(model, network, side):
    """One wrong bit moves a logit by about 1e-2: there is none. (With K, a tiny variance makes logits of 1e12.)"""
    batch = images(model, 64, side, seed=100)
    with torch.no_grad():
        wanted = model(batch).flatten(1).numpy()
    logits = network(channels_last(batch))
    assert np.allclose(logits, wanted, rtol=1e-4, atol=max(1e-3, 1e-5 * np.abs(wanted).max()))
    assert np.array_equal(logits.argmax(axis=1), wanted.argmax(axis=1))
    assert np.ptp(wanted, axis=0).max() > 1e-2

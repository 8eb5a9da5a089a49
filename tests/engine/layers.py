"""Layers and images with random numbers."""

import numpy as np

from xnornet.engine import PackedConv2d


def given_layer(channels=16, depth=20, kernel=3, seed=0, **options):
    weight = np.random.default_rng(seed).standard_normal((channels, depth, kernel, kernel)).astype(np.float32)
    return weight, PackedConv2d(weight, **options)


def images(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

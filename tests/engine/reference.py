"""The engine's meaning in plain NumPy: integers on +-1, float64 where there are floats; shares no code with it."""

import numpy as np


def signs(x: np.ndarray) -> np.ndarray:
    """+1 where x >= 0, else -1, as int64."""
    return np.where(np.asarray(x) >= 0, 1, -1).astype(np.int64)


def windows(x: np.ndarray, height: int, width: int, stride: int, padding: int, fill: float = 0) -> np.ndarray:
    """(N, H, W, C) -> (N, H', W', C, height, width)."""
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(x, edge, constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))[:, ::stride, ::stride]


def binary_conv(x: np.ndarray, weight: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """sign(x) conv sign(weight), zeros around the signs: (N, H, W, C), (O, C, kh, kw) -> int64 (N, H', W', O)."""
    patches = windows(signs(x), weight.shape[2], weight.shape[3], stride, padding)
    return np.einsum("nhwckl,ockl->nhwo", patches, signs(weight))


def input_scale(x: np.ndarray, height: int, width: int, stride: int = 1, padding: int = 0) -> np.ndarray:
    """K (Rastegari et al. 2016, eq. 11) in float64: (N, H, W, C) -> (N, H', W', 1)."""
    means = np.abs(x.astype(np.float64)).mean(axis=3, keepdims=True)
    return windows(means, height, width, stride, padding).mean(axis=(4, 5))

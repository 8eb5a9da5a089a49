"""The engine: binary networks on packed words, XNOR and popcount. NumPy and Numba; nothing of torch."""

from xnornet.engine.layers import PackedConv2d, PackedImages, PackedLinear

__all__ = ["PackedConv2d", "PackedImages", "PackedLinear"]

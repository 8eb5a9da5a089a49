"""The engine: binary networks on packed words, XNOR and popcount. NumPy and Numba; nothing of torch."""

from xnornet.engine.graph import FormatError, Graph, Node
from xnornet.engine.layers import PackedConv2d, PackedImages, PackedLinear
from xnornet.engine.network import PackedNetwork

__all__ = ["FormatError", "Graph", "Node", "PackedConv2d", "PackedImages", "PackedLinear", "PackedNetwork"]

"""The engine: binary networks on packed words, XNOR and popcount. NumPy and Numba; nothing of torch."""

from xnornet.engine.graph import Graph
from xnornet.engine.images import PackedImages
from xnornet.engine.layers import PackedConv2d, PackedLinear
from xnornet.engine.network import PackedNetwork
from xnornet.engine.nodes import FormatError, Node

__all__ = ["FormatError", "Graph", "Node", "PackedConv2d", "PackedImages", "PackedLinear", "PackedNetwork"]

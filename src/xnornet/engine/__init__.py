"""The engine: binary networks on packed words, XNOR and popcount. NumPy and Numba; nothing of torch.

A call goes from `network` (or `layers`, `chain`) to `program` (its arena, the threads) and `interpreter.run`. That is
compiled, as is all behind it: `kernels` and `convolution`, whose loops call `tiles` or `lookup`, which emit LLVM code.
What it runs is made once: `file` reads and `graph` checks a network, `builder` walks its nodes, and `steps` fills in
the records (`op`), with the tables of `weights`, `panels`, `plan` and, where counts are looked up, `rounds`.
"""

from xnornet.engine.chain import PackedChain
from xnornet.engine.graph import Graph
from xnornet.engine.images import PackedImages
from xnornet.engine.layers import PackedConv2d, PackedLinear
from xnornet.engine.network import PackedNetwork
from xnornet.engine.nodes import FormatError, Node

__all__ = [
    "FormatError",
    "Graph",
    "Node",
    "PackedChain",
    "PackedConv2d",
    "PackedImages",
    "PackedLinear",
    "PackedNetwork",
]

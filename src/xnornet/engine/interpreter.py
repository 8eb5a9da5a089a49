"""Running a program: one call into compiled code for a whole layer or network, so Python's overhead is paid once."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numba
import numpy as np
from numba import carray, types

from xnornet.engine import convolution, kernels
from xnornet.engine.op import OP, Kind
from xnornet.engine.vector import intrinsic, kept

PACK, FOLD, BINARY_CONV, NORMALIZE, FLOAT_CONV, POOL_BITS, POOL_FLOATS, BATCH_NORM, INPUT_SCALE, AVERAGE = map(
    int, Kind
)
OP_SIZE = OP.itemsize
_RECORD = numba.from_dtype(OP)


@intrinsic
def _records(context, address):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(_RECORD)(types.int64), codegen


def _compiled(sources: str) -> Callable[..., int]:
    def run(program, length, x, y, images, batch, part, parts):  # type: ignore[no-untyped-def]
        """Run the `length` records at address `program` over images at address `x`, writing at `y`; `batch` at a time.

        Of each convolution's pixels only share `part` of `parts`. Returns not zero if a packed float was NaN.
        """
        sources  # noqa: B018  # part of the cache's key, see below
        ops = carray(_records(program), (length,))
        nan = 0
        for start in range(0, images, batch):
            n = min(batch, images - start)
            for index in range(length):
                op = ops[index]
                source = op.source if op.source else x + start * op.source_bytes
                target = op.target if op.target else y + start * op.target_bytes
                bits = op.bits if op.bits else y + start * op.bits_bytes
                kind = op.kind
                if kind == BINARY_CONV:
                    address = program + index * OP_SIZE
                    convolution.binary_convolution(op, address, source, target, bits, n, part, parts)
                elif kind == FLOAT_CONV:
                    address = program + index * OP_SIZE
                    convolution.float_convolution(op, address, source, target, bits, n, 0, 1)
                elif kind == PACK:
                    nan |= kernels.pack(op, source, target, n) != 0
                elif kind == FOLD:
                    kernels.fold(op, source, target, n)
                elif kind == NORMALIZE:
                    kernels.normalize(op, source, target, n)
                elif kind == POOL_BITS:
                    kernels.pool_bits(op, source, target, n)
                elif kind == POOL_FLOATS:
                    kernels.pool_floats(op, source, target, n)
                elif kind == BATCH_NORM:
                    kernels.batch_norm(op, source, target, n)
                elif kind == INPUT_SCALE:
                    kernels.input_scale(op, source, target, n)
                elif kind == AVERAGE:
                    kernels.average(op, source, target, n)
        return nan

    return kept(run, nogil=True)


def _source_digest() -> str:
    """Hash of the engine's code. Numba's on-disk cache looks at one file's time stamp; the kernels lie in several."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


# A variable that a cached function closes over is part of its cache key.
run = _compiled(_source_digest())


def _address(array):  # type: ignore[no-untyped-def]
    return array.ctypes.data


address = kept(_address)
"""Address of an array's data; ndarray.ctypes takes four times as long."""

# Numba imports 230 modules of its own at the first call of any function: have that done with the other imports, so that
# the first call of a network takes 0.03 s (once compiled) and not 0.5.
address(np.empty(1, np.float32))


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that live as long as the process; the kernels release the GIL."""
    return ThreadPoolExecutor(threads, thread_name_prefix="xnornet")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)  # a fork has the pools, but not their threads

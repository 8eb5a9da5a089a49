"""Memory at an address as an array, in compiled code."""

from collections.abc import Callable
from typing import Any

from numba import carray, from_dtype, njit, types

from xnornet.engine.op import OP
from xnornet.engine.vector import intrinsic


def _view(element: types.Type) -> Callable[..., Any]:
    """A function of an address and a number of elements: the array there."""

    @intrinsic
    def pointer(context, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), codegen

    @njit
    def view(address, size):  # type: ignore[no-untyped-def]
        return carray(pointer(address), (size,))

    return view


floats, bytes_, words, integers = map(_view, (types.float32, types.uint8, types.uint64, types.int64))
records = _view(from_dtype(OP))

"""Memory at an address as an array, in compiled code."""

from typing import Any

from numba import carray, njit, types

from xnornet.engine.vector import intrinsic


def _pointer(element: types.Type) -> Any:
    @intrinsic
    def pointer(context, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), codegen

    return pointer


_float_pointer = _pointer(types.float32)
_byte_pointer = _pointer(types.uint8)
_word_pointer = _pointer(types.uint64)
_integer_pointer = _pointer(types.int64)


@njit
def floats(address, size):  # type: ignore[no-untyped-def]
    return carray(_float_pointer(address), (size,))


@njit
def bytes_(address, size):  # type: ignore[no-untyped-def]
    return carray(_byte_pointer(address), (size,))


@njit
def integers(address, size):  # type: ignore[no-untyped-def]
    return carray(_integer_pointer(address), (size,))


@njit
def words(address, size):  # type: ignore[no-untyped-def]
    return carray(_word_pointer(address), (size,))

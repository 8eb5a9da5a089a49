"""Packing intrinsics: 64 float32 in, one word of sign bits out, NaN noticed on the way."""

from llvmlite import ir
from numba import types

from xnornet.engine.vector import Emitter, f32, i64, intrinsic, vector


def _nan_bits(e: Emitter, x: ir.Value) -> ir.Value:
    """Not zero if any lane is NaN. Comparing the two halves asks about two lanes at a time."""
    half = x.type.count // 2
    low, high = (
        e.ir.shuffle_vector(x, x, ir.Constant(vector(ir.IntType(32), half), list(range(start, start + half))))
        for start in (0, half)
    )
    return e.ir.zext(e.bits(e.ir.fcmp_unordered("uno", low, high)), i64)


def _sign_bits(e: Emitter, x: ir.Value) -> ir.Value:
    zero = ir.Constant(x.type, [0.0] * x.type.count)
    return e.bits(e.ir.fcmp_ordered(">=", x, zero))


def _full(e: Emitter, args: list[ir.Value]) -> tuple[ir.Value, ir.Value]:
    x = e.load(args[0], vector(f32, 64), 4)
    return _sign_bits(e, x), _nan_bits(e, x)


def _some(e: Emitter, args: list[ir.Value]) -> tuple[ir.Value, ir.Value]:
    mask = e.lane_mask(16, args[1])
    x = e.masked_load(args[0], mask)
    # The lanes that were not loaded are 0, whose sign bit is 1: take them away again.
    word = e.ir.zext(e.ir.and_(_sign_bits(e, x), e.bits(mask)), i64)
    return word, _nan_bits(e, x)


@intrinsic
def pack64(context, address):  # type: ignore[no-untyped-def]
    """(word, not zero if NaN) of the 64 float32 at `address`."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return context.make_tuple(builder, signature.return_type, _full(Emitter(builder), args))

    return types.UniTuple(types.uint64, 2)(types.int64), codegen


@intrinsic
def pack16(context, address, count):  # type: ignore[no-untyped-def]
    """(low bits of a word, not zero if NaN) of the first `count` of up to 16 float32 at `address`; reads no further."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return context.make_tuple(builder, signature.return_type, _some(Emitter(builder), args))

    return types.UniTuple(types.uint64, 2)(types.int64, types.int64), codegen

"""Packing intrinsics: 64 float32 in, one word of sign bits out, NaN noticed on the way."""

from llvmlite import ir
from numba import types

from xnornet.engine.vector import FEATURES, WIDE, Emitter, f32, i8, i16, i32, i64, intrinsic, vector

NARROWED = "avx2" in FEATURES and not WIDE
"""Whether comparisons make vectors of 256 bits, not masks. LLVM puts the lanes in order after each of the steps that
narrow them to bytes, `_full_narrowed` once: half the shuffles, of which such CPUs do one or two a cycle.
"""


def _nan_bits(e: Emitter, x: ir.Value) -> ir.Value:
    """Not zero if any lane is NaN. Comparing the two halves asks about two lanes at a time."""
    half = x.type.count // 2
    low, high = (
        e.ir.shuffle_vector(x, x, ir.Constant(vector(i32, half), list(range(start, start + half))))
        for start in (0, half)
    )
    return e.ir.zext(e.bits(e.ir.fcmp_unordered("uno", low, high)), i64)


def _sign_bits(e: Emitter, x: ir.Value) -> ir.Value:
    zero = ir.Constant(x.type, [0.0] * x.type.count)
    return e.bits(e.ir.fcmp_ordered(">=", x, zero))


def _full(e: Emitter, args: list[ir.Value]) -> tuple[ir.Value, ir.Value]:
    x = e.load(args[0], vector(f32, 64), 4)
    return _sign_bits(e, x), _nan_bits(e, x)


def _full_narrowed(e: Emitter, args: list[ir.Value]) -> tuple[ir.Value, ir.Value]:
    builder = e.ir
    parts = [e.load(e.advance(args[0], index, 32), vector(f32, 8), 4) for index in range(8)]
    signs = [builder.sext(builder.fcmp_ordered("<", x, e.zeros(x.type)), vector(i32, 8)) for x in parts]

    def half_word(first: int) -> ir.Value:
        """Of four vectors from one on. In each half of a register the first four lanes of all, or the last four."""
        pairs = [
            e.intrinsic("llvm.x86.avx2.packssdw", vector(i16, 16), signs[index : index + 2])
            for index in (first, first + 2)
        ]
        mixed = builder.bitcast(e.intrinsic("llvm.x86.avx2.packsswb", vector(i8, 32), pairs), vector(i32, 8))
        order = ir.Constant(vector(i32, 8), [0, 4, 1, 5, 2, 6, 3, 7])
        negative = builder.bitcast(builder.shuffle_vector(mixed, mixed, order), vector(i8, 32))
        return e.bits(builder.icmp_signed(">=", negative, e.zeros(negative.type)))

    low, high = (builder.zext(half_word(first), i64) for first in (0, 4))
    unordered = [builder.fcmp_unordered("uno", a, b) for a, b in zip(parts[:4], parts[4:], strict=True)]
    any_of_them = builder.or_(builder.or_(*unordered[:2]), builder.or_(*unordered[2:]))
    return builder.or_(low, builder.shl(high, e.constant(32))), builder.zext(e.bits(any_of_them), i64)


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
        pack = _full_narrowed if NARROWED else _full
        return context.make_tuple(builder, signature.return_type, pack(Emitter(builder), args))

    return types.UniTuple(types.uint64, 2)(types.int64), codegen


@intrinsic
def pack16(context, address, count):  # type: ignore[no-untyped-def]
    """(low bits of a word, not zero if NaN) of the first `count` of up to 16 float32 at `address`; reads no further."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return context.make_tuple(builder, signature.return_type, _some(Emitter(builder), args))

    return types.UniTuple(types.uint64, 2)(types.int64, types.int64), codegen

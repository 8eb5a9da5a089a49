"""Packing intrinsics: 64 float32 in, one word of sign bits out, NaN noticed on the way."""

from collections.abc import Sequence
from functools import reduce

from llvmlite import ir
from numba import types

from xnornet.engine.vector import FEATURES, WIDE, Emitter, f32, i8, i16, i32, i64, intrinsic, vector

NARROWED = "avx2" in FEATURES and not WIDE
"""Whether comparisons make vectors of 256 bits, not masks. LLVM puts the lanes in order after each of the steps that
narrow them to bytes, `_word_narrowed` once: half the shuffles, of which such CPUs do one or two a cycle.
"""


def _sign_bits(e: Emitter, x: ir.Value) -> ir.Value:
    zero = ir.Constant(x.type, [0.0] * x.type.count)
    return e.bits(e.ir.fcmp_ordered(">=", x, zero))


def _unordered(e: Emitter, parts: Sequence[ir.Value]) -> ir.Value:
    """Not zero if any lane of the vectors, an even number, is NaN. Comparing two asks about a lane of each."""
    truths = [e.ir.fcmp_unordered("uno", a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return e.ir.zext(e.bits(reduce(e.ir.or_, truths)), i64)


def _word(e: Emitter, address: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Of 64 floats the word, and `_unordered`. Put together as integers: masks, in registers of their own, are slow."""
    parts = [e.load(e.advance(address, index, 64), vector(f32, 16), 4) for index in range(4)]
    bits = [e.ir.shl(e.ir.zext(_sign_bits(e, x), i64), e.constant(16 * index)) for index, x in enumerate(parts)]
    return reduce(e.ir.or_, bits), _unordered(e, parts)


def _word_narrowed(e: Emitter, address: ir.Value) -> tuple[ir.Value, ir.Value]:
    builder = e.ir
    parts = [e.load(e.advance(address, index, 32), vector(f32, 8), 4) for index in range(8)]
    # Unordered: NaN counts as less, so that its bit is 0 as in `_sign_bits`.
    signs = [builder.sext(builder.fcmp_unordered("<", x, e.zeros(x.type)), vector(i32, 8)) for x in parts]

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
    return builder.or_(low, builder.shl(high, e.constant(32))), _unordered(e, parts)


def _some(e: Emitter, args: list[ir.Value]) -> tuple[ir.Value, ir.Value]:
    mask = e.lane_mask(16, args[1])
    x = e.masked_load(args[0], mask)
    # The lanes that were not loaded are 0, whose sign bit is 1: take them away again.
    word = e.ir.zext(e.ir.and_(_sign_bits(e, x), e.bits(mask)), i64)
    return word, _unordered(e, e.split(x, 2))


@intrinsic
def pack_words(context, source, target, count):  # type: ignore[no-untyped-def]
    """Pack the floats at `source`, 64 each, into `count` words at `target`. Not zero if any is NaN."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        e, (source, target, count) = Emitter(builder), args
        pack = _word_narrowed if NARROWED else _word

        def pack_word(number: ir.Value, nan: list[ir.Value]) -> list[ir.Value]:
            word, unordered = pack(e, e.advance(source, number, 256))
            e.store(word, e.advance(target, number, 8), 8)
            return [builder.or_(unordered, *nan)]

        (nan,) = e.loop(count, [e.constant(0)], pack_word)
        return nan

    return types.uint64(types.int64, types.int64, types.int64), codegen


@intrinsic
def pack16(context, address, count):  # type: ignore[no-untyped-def]
    """(low bits of a word, not zero if NaN) of the first `count` of up to 16 float32 at `address`; reads no further."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return context.make_tuple(builder, signature.return_type, _some(Emitter(builder), args))

    return types.UniTuple(types.uint64, 2)(types.int64, types.int64), codegen

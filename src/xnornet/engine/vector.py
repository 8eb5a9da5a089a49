"""LLVM vector code from Numba: what `@intrinsic` bodies need to say vectors, pointers and loops.

Numba has no vector types and does not vectorize a xor-popcount loop by itself. An intrinsic's body may emit any LLVM
IR, though, and LLVM makes of `<16 x i32>` one 512-bit register, two of 256 or four of 128 bits, and of
`llvm.ctpop.v16i32` VPOPCNTD, a shuffle table or CNT, as the target has them.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import extending, njit
from numba.core import caching, config
from numba.core.codegen import get_host_cpu_features

i1, i8, i16, i32, i64 = map(ir.IntType, (1, 8, 16, 32, 64))
f32 = ir.FloatType()


if getattr(config, "DISABLE_JIT", 0):
    raise ImportError("xnornet.engine is made by Numba's compiler: unset NUMBA_DISABLE_JIT")


class _Cache(caching.FunctionCache):
    """Numba's, but a cache that is damaged (a power cut, a full disk) costs a compilation and not the program."""

    def load_overload(self, *args: Any) -> Any:
        try:
            return super().load_overload(*args)
        except Exception:  # whatever pickle makes of half a file
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        with suppress(OSError):
            super().save_overload(*args)


def kept(function: Callable[..., Any], **options: Any) -> Any:
    """Compile with Numba, at the first call, and keep the code on disk.

    Where nothing can be written (an installation of somebody else's, no home), it is compiled anew in each process.
    """
    dispatcher = njit(**options)(function)
    with suppress(RuntimeError):
        dispatcher._cache = _Cache(function)  # as enable_caching() does with its own
    return dispatcher


intrinsic: Any = extending.intrinsic
"""Numba's decorator; for a type checker, its functions would take the context as an argument."""


def _target_features() -> set[str]:
    """Feature names of the compilation target, Numba's settings (NUMBA_CPU_FEATURES, NUMBA_ENABLE_AVX) heeded."""
    chosen: str | None = getattr(config, "CPU_FEATURES", None)
    features = get_host_cpu_features() if chosen is None else chosen
    return {name[1:] for name in features.split(",") if name.startswith("+")}


FEATURES = _target_features()
"""What the compilation target has, by LLVM's names."""

CPU: str = getattr(config, "CPU_NAME", None) or llvm.get_host_cpu_name()
"""LLVM's name of the compilation target, NUMBA_CPU_NAME heeded."""

WIDE = "avx512f" in FEATURES
"""Whether the target has 32 registers of 512 bits; decides the shapes of the register tiles."""


def vector(element: ir.Type, lanes: int) -> ir.VectorType:
    """The type `<lanes x element>`."""
    return ir.VectorType(element, lanes)


class Emitter:
    """An IRBuilder and the few words of vector code that it lacks. Addresses are i64 values in bytes."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.ir = builder

    def constant(self, value: int) -> ir.Constant:
        return ir.Constant(i64, value)

    def load(self, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        return self.ir.load(self.ir.inttoptr(address, kind.as_pointer()), align=align)

    def read(self, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        """`load` of what no kernel writes, a record or a table: LLVM need not read it again after a store elsewhere."""
        value = self.load(address, kind, align)
        value.set_metadata("invariant.load", self.ir.module.add_metadata([]))
        return value

    def store(self, value: ir.Value, address: ir.Value, align: int) -> None:
        self.ir.store(value, self.ir.inttoptr(address, value.type.as_pointer()), align=align)

    def advance(self, address: ir.Value, steps: ir.Value | int, size: int) -> ir.Value:
        """address + steps * size."""
        if isinstance(steps, int):
            return self.ir.add(address, self.constant(steps * size)) if steps else address
        return self.ir.add(address, self.ir.mul(steps, self.constant(size)))

    def splat(self, value: ir.Value, lanes: int) -> ir.Value:
        """All lanes `value`."""
        undefined = ir.Constant(vector(value.type, lanes), ir.Undefined)
        first = self.ir.insert_element(undefined, value, ir.Constant(i32, 0))
        return self.ir.shuffle_vector(first, undefined, ir.Constant(vector(i32, lanes), [0] * lanes))

    def zeros(self, kind: ir.VectorType) -> ir.Constant:
        return self.all_lanes(kind, 0)

    def lane_mask(self, lanes: int, used: ir.Value) -> ir.Value:
        """`<lanes x i1>`, true in the first `used` (i64) lanes."""
        order = ir.Constant(vector(i32, lanes), list(range(lanes)))
        return self.ir.icmp_signed("<", order, self.splat(self.ir.trunc(used, i32), lanes))

    def intrinsic(self, name: str, result: ir.Type, arguments: Sequence[ir.Value]) -> ir.Value:
        """Call an LLVM intrinsic by its full name; llvmlite's own `declare_intrinsic` refuses vector types."""
        module = self.ir.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(result, [a.type for a in arguments]), name)
        return self.ir.call(function, arguments)

    def opaque(self, value: ir.Value) -> ir.Value:
        """The same value, in the same register; but LLVM takes it for another, and does not reorder what made it.

        Of an x86 vector: the empty assembly keeps it in one of the registers that "v" stands for there.
        """
        return self.ir.asm(ir.FunctionType(value.type, [value.type]), "", "=v,0", [value], False)

    def popcount(self, value: ir.Value) -> ir.Value:
        kind = value.type
        return self.intrinsic(f"llvm.ctpop.v{kind.count}i{kind.element.width}", kind, [value])

    def look_up(self, table: ir.Value, index: ir.Value) -> ir.Value:
        """VPSHUFB of 32 bytes: of each index below 16 the entry in its own half of `table`."""
        return self.intrinsic("llvm.x86.avx2.pshuf.b", index.type, [table, index])

    def twice(self, value: ir.Value) -> ir.Value:
        """The vector followed by itself."""
        lanes = list(range(value.type.count))
        return self.ir.shuffle_vector(value, value, ir.Constant(vector(i32, 2 * len(lanes)), 2 * lanes))

    def all_lanes(self, kind: ir.VectorType, value: int) -> ir.Constant:
        return ir.Constant(kind, [value] * kind.count)

    def smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.ir.select(self.ir.icmp_signed("<", a, b), a, b)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c, rounded once."""
        return self.intrinsic(f"llvm.fma.v{a.type.count}f32", a.type, [a, b, c])

    def masked_load(self, address: ir.Value, mask: ir.Value) -> ir.Value:
        """Floats at `address` where the mask is true, 0 elsewhere; memory of false lanes is not touched."""
        kind = vector(f32, mask.type.count)
        pointer = self.ir.inttoptr(address, kind.as_pointer())
        name = f"llvm.masked.load.v{kind.count}f32.p0"
        return self.intrinsic(name, kind, [pointer, ir.Constant(i32, 4), mask, self.zeros(kind)])

    def masked_store(self, value: ir.Value, address: ir.Value, mask: ir.Value) -> None:
        """Store the floats whose mask is true; memory of false lanes is not touched."""
        pointer = self.ir.inttoptr(address, value.type.as_pointer())
        name = f"llvm.masked.store.v{value.type.count}f32.p0"
        self.intrinsic(name, ir.VoidType(), [value, pointer, ir.Constant(i32, 4), mask])

    def join(self, parts: Sequence[ir.Value]) -> ir.Value:
        """One or two vectors as one, the first in the low lanes."""
        if len(parts) == 1:
            return parts[0]
        low, high = parts
        order = ir.Constant(vector(i32, 2 * low.type.count), list(range(2 * low.type.count)))
        return self.ir.shuffle_vector(low, high, order)

    def split(self, value: ir.Value, parts: int) -> list[ir.Value]:
        """The inverse of `join`."""
        lanes = value.type.count // parts
        orders = [list(range(part * lanes, (part + 1) * lanes)) for part in range(parts)]
        return [self.ir.shuffle_vector(value, value, ir.Constant(vector(i32, lanes), order)) for order in orders]

    def low_halves(self, parts: Sequence[ir.Value]) -> ir.Value:
        """One or two `<n x i64>` -> one `<n or 2n x i32>`: the low halves of all, one shuffle of both."""
        lanes = parts[0].type.count
        low, high = (self.ir.bitcast(part, vector(i32, 2 * lanes)) for part in (parts[0], parts[-1]))
        order = ir.Constant(vector(i32, len(parts) * lanes), list(range(0, 2 * len(parts) * lanes, 2)))
        return self.ir.shuffle_vector(low, high, order)

    def bits(self, truths: ir.Value) -> ir.Value:
        """`<n x i1>` as an integer of n bits, lane 0 the lowest."""
        return self.ir.bitcast(truths, ir.IntType(truths.type.count))

    def _not_unrolled(self) -> ir.MDValue:
        """What LLVM wants to hear of a loop: a node that begins with itself."""
        module = self.ir.module
        wish = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
        node = ir.MDValue(module, [wish], name=str(len(module.metadata)))
        node.operands = (node, wish)
        return node

    def when(
        self, condition: ir.Value, body: Callable[[], list[ir.Value]], otherwise: Sequence[ir.Value] = ()
    ) -> list[ir.Value]:
        """`body() if condition else otherwise`."""
        return self.loop(self.ir.zext(condition, i64), otherwise, lambda _, __: body())

    def loop(
        self,
        count: ir.Value,
        state: Sequence[ir.Value],
        body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
        *,
        unroll: bool = True,
    ) -> list[ir.Value]:
        """`for i in range(count): state = body(i, state)`, the state in registers. Returns the last state.

        unroll: whether LLVM may repeat the body, which takes it time.
        """
        before = self.ir.block
        inside = self.ir.append_basic_block("loop")
        after = self.ir.append_basic_block("done")
        self.ir.cbranch(self.ir.icmp_signed(">", count, self.constant(0)), inside, after)
        self.ir.position_at_end(inside)
        index = self.ir.phi(i64)
        index.add_incoming(self.constant(0), before)
        old = [self.ir.phi(value.type) for value in state]
        for phi, value in zip(old, state, strict=True):
            phi.add_incoming(value, before)
        new = body(index, list(old))
        following = self.ir.add(index, self.constant(1))
        index.add_incoming(following, self.ir.block)
        for phi, value in zip(old, new, strict=True):
            phi.add_incoming(value, self.ir.block)
        inside_end = self.ir.block
        branch = self.ir.cbranch(self.ir.icmp_signed("<", following, count), inside, after)
        if not unroll:
            branch.set_metadata("llvm.loop", self._not_unrolled())
        self.ir.position_at_end(after)
        last = [self.ir.phi(value.type) for value in state]
        for phi, none, value in zip(last, state, new, strict=True):
            phi.add_incoming(none, before)
            phi.add_incoming(value, inside_end)
        return list(last)

"""Vectors in memory, written out for LLVM: what functions for numba's loops are made of.

All their arguments are whole numbers, and memory is told by its address: numba would count the references to an array
wherever it is handed on, which took longer than a row of pixels. Nothing is checked. The vectors are LLVM's own, which it
translates for every processor; only permutes of bytes are instructions that not every one has.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.core.registry import cpu_target
from numba.extending import intrinsic

LANES = 16  # channels, or numbers of four bytes
CODES = 64  # that are looked up at a time
BYTE, INTEGER, FLOAT, WHOLE = ir.IntType(8), ir.IntType(32), ir.FloatType(), ir.IntType(64)
FLOATS, INTEGERS = ir.VectorType(FLOAT, LANES), ir.VectorType(INTEGER, LANES)
BYTES = ir.VectorType(BYTE, CODES)
NOTHING = ir.Constant(FLOATS, [0.0] * LANES)


def has_permutes() -> bool:
    """Whether this processor looks bytes up in registers (AVX-512 VBMI)."""
    return _has("avx512vbmi")


def has_dot_products() -> bool:
    """Whether this processor multiplies and adds four bytes of a word at a time (AVX-512 VNNI)."""
    return _has("avx512vnni")


def has_wide_vectors() -> bool:
    """Whether this processor computes with sixteen float32 numbers at a time (AVX-512)."""
    return _has("avx512f")


def _has(instructions: str) -> bool:
    return f"+{instructions}," in cpu_target.target_context.codegen().magic_tuple()[2] + ","


class Memory:
    """The instructions of one function, of which some read and write memory."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    @staticmethod
    def number(value: int) -> ir.Constant:
        return ir.Constant(WHOLE, value)

    def sum(self, left: ir.Value, right: ir.Value | int) -> ir.Value:
        return self.builder.add(left, self.number(right) if isinstance(right, int) else right)

    def product(self, left: ir.Value, right: ir.Value | int) -> ir.Value:
        return self.builder.mul(left, self.number(right) if isinstance(right, int) else right)

    def place(self, address: ir.Value, at: ir.Value, kind: ir.Type) -> ir.Value:
        """Where a number or a vector lies that begins with that element."""
        element = kind.element if isinstance(kind, ir.VectorType) else kind
        first = self.builder.inttoptr(address, element.as_pointer())
        return self.builder.bitcast(self.builder.gep(first, [at]), kind.as_pointer())

    def load(self, address: ir.Value, at: ir.Value, kind: ir.Type) -> ir.Value:
        return self.builder.load(self.place(address, at, kind), align=_alignment(kind))

    def store(self, value: ir.Value, address: ir.Value, at: ir.Value) -> None:
        self.builder.store(value, self.place(address, at, value.type), align=_alignment(value.type))

    def first_lanes(self, lanes: ir.Value) -> ir.Value:
        """A mask of the first ``lanes`` of sixteen numbers."""
        every = splat(self.builder, self.builder.trunc(lanes, INTEGER), LANES)
        return self.builder.icmp_signed("<", ir.Constant(INTEGERS, list(range(LANES))), every)

    def load_some(self, address: ir.Value, at: ir.Value, mask: ir.Value, element: ir.Type = FLOAT) -> ir.Value:
        """Those of sixteen neighbouring numbers that a mask has, and zeros."""
        vector = ir.VectorType(element, LANES)
        place, align = self.place(address, at, vector), ir.Constant(INTEGER, _alignment(element))
        return self._masked("load", element, vector, [place, align, mask, ir.Constant(vector, None)])

    def store_some(self, value: ir.Value, address: ir.Value, at: ir.Value, mask: ir.Value) -> None:
        """Store those of sixteen numbers that a mask has."""
        element = value.type.element
        place, align = self.place(address, at, value.type), ir.Constant(INTEGER, _alignment(element))
        self._masked("store", element, ir.VoidType(), [value, place, align, mask])

    def _masked(self, what: str, element: ir.Type, result: ir.Type, arguments: Sequence[ir.Value]) -> ir.Value:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        name = f"llvm.masked.{what}.v{LANES}{'f' if element == FLOAT else 'i'}{8 * _alignment(element)}.p0"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

    def ask_for(self, address: ir.Value, at: ir.Value, kind: ir.Type) -> None:
        """Have the line of memory at an element ready, which will be written to; it may lie beyond an array's end."""
        place = self.place(address, at, kind)
        signature = ir.FunctionType(ir.VoidType(), [place.type, INTEGER, INTEGER, INTEGER])
        prefetch = cgutils.get_or_insert_function(self.builder.module, signature, "llvm.prefetch.p0")
        self.builder.call(prefetch, [place, ir.Constant(INTEGER, 1), ir.Constant(INTEGER, 3), ir.Constant(INTEGER, 1)])

    def multiply_add(self, left: ir.Value, right: ir.Value, total: ir.Value) -> ir.Value:
        """One instruction where the processor has it."""
        product = self.builder.fmul(left, right, flags=("contract",))
        return self.builder.fadd(product, total, flags=("contract",))

    def dot_products(self, left: ir.Value, right: ir.Value, total: ir.Value) -> ir.Value:
        """The sums of four products of bytes, unsigned and signed ones, added to 16 integers."""
        kind = ir.FunctionType(INTEGERS, [INTEGERS] * 3)
        add = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
        return self.builder.call(add, [total, left, right])


def written(count: int, write: Callable[..., None]) -> tuple[Any, Callable[..., ir.Value]]:
    """What an intrinsic returns: ``write(memory, *arguments)`` writes it out, with so many whole numbers for arguments."""

    def build(context: BaseContext, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:  # noqa: ARG001
        write(Memory(builder), *arguments)
        return context.get_dummy_value()

    return types.void(*[types.intp] * count), build


def _alignment(kind: ir.Type) -> int:
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    return 4 if isinstance(element, ir.FloatType) else element.width // 8


@intrinsic
def number_at(typing, address, at):  # noqa: ARG001
    """The whole number of eight bytes at an element."""

    def build(context, builder, signature, arguments):  # noqa: ARG001
        address, at = arguments
        return Memory(builder).load(address, at, WHOLE)

    return types.intp(types.intp, types.intp), build


def _elements(kind: types.Type, element: ir.Type) -> Callable[..., Any]:
    @intrinsic
    def pointer(typing, address):  # noqa: ARG001
        def build(context, builder, signature, arguments):  # noqa: ARG001
            return builder.inttoptr(arguments[0], element.as_pointer())

        return types.CPointer(kind)(types.intp), build

    return pointer


# What lies at an address, to be indexed.
bytes_at, halves_at = _elements(types.uint8, BYTE), _elements(types.int16, ir.IntType(16))
integers_at, wholes_at = _elements(types.int32, INTEGER), _elements(types.int64, WHOLE)
floats_at = _elements(types.float32, FLOAT)


# -- vectors -----------------------------------------------------------------------------------------------------------


def splat(builder: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    """A vector of ``count`` times the same value."""
    vector = ir.VectorType(value.type, count)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(INTEGER, 0))
    return shuffled(builder, one, one, [0] * count)


def shuffled(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, order: Sequence[int]) -> ir.Value:
    """The elements of two vectors, one after the other, in the order given."""
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(INTEGER, len(order)), list(order)))


def interleaved(builder: ir.IRBuilder, pair: Sequence[ir.Value], width: int) -> list[ir.Value]:
    """The lower and the upper halves of every ``width`` neighbours of two vectors, turn by turn."""
    count = pair[0].type.count
    orders = (
        [side + group + half + i for group in range(0, count, width) for i in range(width // 2) for side in (0, count)]
        for half in (0, width // 2)
    )
    return [shuffled(builder, pair[0], pair[1], order) for order in orders]


def transposed(builder: ir.IRBuilder, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """Sixteen vectors of sixteen values, transposed: four rounds in which halves are shuffled like cards."""
    for _ in range(4):
        pairs = zip(rows[: LANES // 2], rows[LANES // 2 :])
        rows = [half for pair in pairs for half in interleaved(builder, pair, LANES)]
    return list(rows)


def permuted(builder: ir.IRBuilder, quarters: Sequence[ir.Value], index: ir.Value) -> ir.Value:
    """The bytes that 64 codes select from 256."""
    kind = ir.FunctionType(BYTES, [BYTES, BYTES, BYTES])
    permute = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpermi2var.qi.512")
    low, high = (builder.call(permute, [pair[0], index, pair[1]]) for pair in (quarters[:2], quarters[2:]))
    above = builder.icmp_signed("<", index, ir.Constant(BYTES, [0] * CODES))
    return builder.select(above, high, low)

"""Values as 8-bit codes, and the scales of codes that follow the range of values; rounded as torch rounds on a CPU."""

import triton.language as tl

from .indexing import jit

_BEYOND = tl.constexpr(1024.0)  # beyond every code
_TO_INTEGER = tl.constexpr(12582912.0)  # 1.5 · 2^23: what is added to it is rounded to the nearest integer, or even one


@jit
def _rounded(values, step):
    """values / step as the nearest integers, ±1024 for all that are larger and 0 for NaN; and which are NaN."""
    scaled = tl.div_rn(values, step)
    nan = scaled != scaled
    near = tl.minimum(tl.maximum(tl.where(nan, 0.0, scaled), -_BEYOND), _BEYOND)
    return (near + _TO_INTEGER) - _TO_INTEGER, nan


@jit
def quantise_kernel(
    x, step, low, high, zero, index, clamped, step_out, size: int, LOADED: tl.constexpr, BLOCK: tl.constexpr
):
    """index = clamp(round(x / step), low, high) + zero, clamped = 1 where that clamps; a NaN makes ``step_out`` one.

    x (size,) of any floating dtype; index and clamped (size,) uint8. With LOADED, low, high and zero are addresses.
    """
    if LOADED:
        low, high, zero = tl.load(low), tl.load(high), tl.load(zero)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    known = place < size
    code, nan = _rounded(tl.load(x + place, mask=known, other=0.0).to(tl.float32), tl.load(step))
    code = code.to(tl.int32)
    tl.store(clamped + place, ((code < low) | (code > high)).to(tl.uint8), mask=known)
    code = tl.minimum(tl.maximum(code, low), high) + zero
    tl.store(index + place, code.to(tl.uint8), mask=known)
    tl.store(step_out, float("nan"), mask=tl.max(nan.to(tl.int32), axis=0) > 0)  # all programs that do store the same


@jit
def look_up_kernel(index, values, out, size: int, BLOCK: tl.constexpr):
    """out = values[index]; index (size,) uint8, values (256,) and out (size,) of one type."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    code = tl.load(index + place, mask=place < size, other=0).to(tl.int32)
    tl.store(out + place, tl.load(values + code), mask=place < size)


@jit
def decode_kernel(index, values, scale, out, size: int, length: int, BLOCK: tl.constexpr):
    """out (rows, length) = values[index] · scale (rows,); index uint8 with ``size`` in all, values (256,) float32."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = place < size
    code = tl.load(index + place, mask=known, other=0).to(tl.int32)
    tl.store(out + place, tl.load(values + code) * tl.load(scale + place // length, mask=known, other=0.0), mask=known)


@jit
def _code_rows(
    weight, index, scale, row, rows, length,
    LARGEST: tl.constexpr, SMALLEST_SCALE: tl.constexpr, ZERO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """scale = max|weight| / LARGEST of each row, index = round(weight / scale) + ZERO; a NaN makes its row's scale NaN, and
    its codes zero.
    """
    ROWS: tl.constexpr = row.shape[0]
    starts, lane = row[:, None] * length, tl.arange(0, BLOCK)[None, :]
    most = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    nan = tl.zeros((ROWS, BLOCK), dtype=tl.int32)
    for first in range(0, length, BLOCK):
        known = (row < rows)[:, None] & (first + lane < length)
        size = tl.abs(tl.load(weight + (starts + first + lane), mask=known, other=0.0).to(tl.float32))
        most = tl.maximum(most, size)
        nan |= (size != size).to(tl.int32)
    step = tl.maximum(tl.div_rn(tl.max(most, axis=1), tl.full((ROWS,), LARGEST, tl.float32)), SMALLEST_SCALE)
    step = tl.where(tl.max(nan, axis=1) > 0, float("nan"), step)
    tl.store(scale + row, step, mask=row < rows)
    for first in range(0, length, BLOCK):
        known = (row < rows)[:, None] & (first + lane < length)
        values = tl.load(weight + (starts + first + lane), mask=known, other=0.0).to(tl.float32)
        code, _ = _rounded(values, step[:, None])
        tl.store(index + (starts + first + lane), (code.to(tl.int32) + ZERO).to(tl.uint8), mask=known)


@jit
def weight_codes_kernel(
    weight, index, scale, rows: int, length: int,
    LARGEST: tl.constexpr, SMALLEST_SCALE: tl.constexpr, ZERO: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Codes and scales of a weight (rows, length) of any floating dtype: index (rows, length) uint8, scale (rows,) float32."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    _code_rows(weight, index, scale, row, rows, length, LARGEST, SMALLEST_SCALE, ZERO, BLOCK)


@jit
def all_weight_codes_kernel(
    plan, index, scale,
    LARGEST: tl.constexpr, SMALLEST_SCALE: tl.constexpr, ZERO: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same of many float32 weights; plan (programs, 5) int64: of up to ROWS rows of one of them, the address of the first,
    how many there are, their length, and where index and scale begin.
    """
    own = plan + tl.program_id(0) * 5
    weight, rows = tl.load(own).to(tl.pointer_type(tl.float32)), tl.load(own + 1).to(tl.int32)
    length, place = tl.load(own + 2).to(tl.int32), tl.load(own + 3)
    row = tl.arange(0, ROWS)
    _code_rows(weight, index + place, scale + tl.load(own + 4), row, rows, length, LARGEST, SMALLEST_SCALE, ZERO, BLOCK)


# -- one number each: a launch instead of a dozen ----------------------------------------------------------------------


@jit
def _larger(a, b):
    """The larger number; NaN where one of them is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@jit
def _extent(low, high, count, BLOCK: tl.constexpr):
    """The lowest of low (count,) and the highest of high (count,); NaN where one of them is."""
    lane = tl.arange(0, BLOCK)
    least, most = tl.full((BLOCK,), float("inf"), tl.float32), tl.full((BLOCK,), float("-inf"), tl.float32)
    nan = tl.zeros((BLOCK,), dtype=tl.int32)
    for first in range(0, count, BLOCK):
        known = first + lane < count
        lows = tl.load(low + (first + lane), mask=known, other=float("inf"))
        highs = tl.load(high + (first + lane), mask=known, other=float("-inf"))
        nan |= ((lows != lows) | (highs != highs)).to(tl.int32)
        least = tl.minimum(least, tl.where(lows == lows, lows, 0.0))
        most = tl.maximum(most, tl.where(highs == highs, highs, 0.0))
    lost = tl.max(nan, axis=0) > 0
    nothing = tl.full((), float("nan"), tl.float32)
    return tl.where(lost, nothing, tl.min(least, axis=0)), tl.where(lost, nothing, tl.max(most, axis=0))


@jit
def _step(span, LEVELS: tl.constexpr, SMALLEST_SCALE: tl.constexpr):
    """The scale of codes that divide ``span`` into so many levels."""
    return _larger(tl.div_rn(span, tl.full((), LEVELS, tl.float32)), tl.full((), SMALLEST_SCALE, tl.float32))


@jit
def running_maximum_kernel(
    low, high, maximum, step, spare, count: int,
    MOMENTUM: tl.constexpr, LEVELS: tl.constexpr, SMALLEST_SCALE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The moving average of max|x|, and the scale that follows from it; the average is computed in double precision.

    low and high (count,): the ranges of parts of x. ``spare`` is the scale once more.
    """
    least, most = _extent(low, high, count, BLOCK)
    batch, average = _larger(most, -least), tl.load(maximum).to(tl.float64)
    moved = (average + tl.full((), MOMENTUM, tl.float64) * (batch.to(tl.float64) - average)).to(tl.float32)
    new = tl.where(average > 0, moved, batch)
    tl.store(maximum, new)
    width = _step(new, LEVELS, SMALLEST_SCALE)
    tl.store(step, width)
    tl.store(spare, width)


@jit
def _moved(average, value, MOMENTUM: tl.constexpr):
    difference = (value - average).to(tl.float64)
    return (average.to(tl.float64) + tl.full((), MOMENTUM, tl.float64) * difference).to(tl.float32)


@jit
def running_range_kernel(
    low, high, minimum, maximum, step, spare, codes, count: int,
    MOMENTUM: tl.constexpr, LEVELS: tl.constexpr, SMALLEST_SCALE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The moving averages of the smallest and the largest value, zero included; scale, and lowest, highest and zero code."""
    lowest, highest = _extent(low, high, count, BLOCK)
    low = -_larger(-lowest, tl.zeros((), tl.float32))
    high = _larger(highest, tl.zeros((), tl.float32))
    least, most = tl.load(minimum), tl.load(maximum)
    seen = most > least
    least, most = tl.where(seen, _moved(least, low, MOMENTUM), low), tl.where(seen, _moved(most, high, MOMENTUM), high)
    tl.store(minimum, least)
    tl.store(maximum, most)
    width = _step(most - least, LEVELS, SMALLEST_SCALE)
    tl.store(step, width)
    tl.store(spare, width)
    code, _ = _rounded(-least, width)
    zero = tl.minimum(tl.maximum(code, 0.0), 255.0).to(tl.int32)
    tl.store(codes, -zero)
    tl.store(codes + 1, 255 - zero)
    tl.store(codes + 2, zero)

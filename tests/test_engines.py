"""Engines: every one gives the sums of a plain loop, bit for bit, and one rounding where it scales them."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.arithmetic import emulate
from spaces.arithmetic.emulate import ENGINES, approx_conv2d, choose_engine, use_engine
from spaces.arithmetic.engines import features, float32, reference, timing
from spaces.arithmetic.engines.cpu import dense_int8, gather, int8, onednn
from spaces.arithmetic.engines.geometry import Geometry
from spaces.errors import InputError
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import layer_table, operand_table
from tests.convolutions import (
    EXACT,
    FULL_RANK,
    LIBRARY,
    ROUGH,
    UNSIGNED,
    ZERO_ROW,
    codes,
    convolutions,
    loop_conv,
)
from tests.examples import examples

CPU = torch.device("cpu")

FACTORED = ("int8", "float32")
SMALL = Multiplier(  # rank 2 with factors beyond a byte: they must be split into digits
    name="digits",
    signed=True,
    table=np.multiply.outer(np.arange(256) * 3, np.arange(256) - 9)
    + np.multiply.outer(np.arange(256) % 7, np.arange(256) ** 2 % 500),
)
EDGES = Multiplier(name="edges", signed=False, table=np.random.default_rng(1).integers(0, 65536, (256, 256)))
MULTIPLIERS = (*LIBRARY, ZERO_ROW, SMALL, FULL_RANK)


def engines_for(multiplier: Multiplier) -> list[str]:
    """The engines that can compute with the circuit's table here, the oracle among them."""
    return [name for name, engine in ENGINES.items() if not engine.refusal(operand_table(multiplier), CPU)]


def packings(name, w, table, geometry):
    """What an engine packs; where it has a loop of its own for a small layer, what it packs for the library, too."""
    packed = ENGINES[name].pack(w, table, geometry)
    return [packed, int8.Packed(w, table, geometry)] if isinstance(packed, dense_int8.Packed) else [packed]


@pytest.fixture(autouse=True)
def _choose_again():
    """Whatever a test forces, the next one chooses again."""
    yield
    use_engine("auto")


# -- sums --------------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(250))
@given(convolutions(multipliers=MULTIPLIERS))
def test_every_engine_equals_the_reference_bit_for_bit(case):
    x, w, multiplier, moved = case
    expected = approx_conv2d(x, w, multiplier, **moved, engine="reference")
    assert expected.dtype == torch.int32
    for engine in (*engines_for(multiplier), "auto"):
        got = approx_conv2d(x, w, multiplier, **moved, engine=engine)
        assert got.dtype == torch.int32 and torch.equal(got, expected), engine


@settings(max_examples=examples(60))
@given(
    convolutions(multipliers=(EXACT, ROUGH, ZERO_ROW, SMALL, FULL_RANK)),
    st.integers(0, 255),
    st.integers(0, 2**20),
    st.booleans(),
)
def test_every_engine_scales_the_sums_with_the_same_rounding(case, fill, seed, contiguous):
    """Padded positions may hold any code, as an affine zero point does; memory may lie either way."""
    x, w, multiplier, moved = case
    table, geometry = operand_table(multiplier), Geometry(**moved)
    x, w = ((part - multiplier.lo).to(torch.uint8) for part in (x, w))
    x = x if contiguous else x.contiguous(memory_format=torch.channels_last)
    scale = torch.rand(len(w), generator=torch.Generator().manual_seed(seed)) * 1e-3
    expected = reference.conv2d(x, reference.pack(w, table, geometry), fill, scale)
    sums = reference.conv2d(x, reference.pack(w, table, geometry), fill)
    assert torch.equal(expected, sums.float() * scale.view(1, -1, 1, 1))
    for name in engines_for(multiplier):
        for packed in packings(name, w, table, geometry):
            assert torch.equal(ENGINES[name].conv2d(x, packed, fill, scale), expected), name
            assert torch.equal(ENGINES[name].conv2d(x, packed, fill).to(torch.int64), sums), name  # packed weights last


@settings(max_examples=40)
@given(convolutions(largest_group=2, multipliers=(EXACT, ROUGH, LIBRARY[-1], ZERO_ROW, FULL_RANK)))
def test_the_reference_engine_equals_a_plain_loop(case):
    x, w, multiplier, moved = case
    x, w = x[:1, :, :6, :7], w[:2] if moved["groups"] == 1 else w
    spans = [d * (k - 1) + 1 - 2 * p for k, p, d in zip(w.shape[2:], moved["padding"], moved["dilation"])]
    if any(side < span for side, span in zip(x.shape[2:], spans)):
        x = case[0][:1]
    expected = loop_conv(x.numpy(), w.numpy(), multiplier, **moved)
    assert np.array_equal(approx_conv2d(x, w, multiplier, **moved, engine="reference").numpy(), expected)


@pytest.mark.parametrize("multiplier", [ROUGH, ZERO_ROW, FULL_RANK], ids=lambda multiplier: multiplier.name)
def test_depthwise_convolutions_equal_a_plain_loop(multiplier):
    for stride, dilation in itertools.product((1, 2), (1, 2)):
        x, w = codes(2, 4, 6, 5), codes(4, 1, 3, 3)
        moved = {"stride": (stride, 1), "padding": (dilation, dilation), "dilation": (dilation, dilation), "groups": 4}
        expected = loop_conv(x.numpy(), w.numpy(), multiplier, **moved)
        for engine in engines_for(multiplier):
            assert np.array_equal(approx_conv2d(x, w, multiplier, **moved, engine=engine).numpy(), expected), engine


def test_padding_goes_through_the_table():
    """One pixel, a 3×3 kernel, padding 1: eight of the nine products have the padded zero, worth 5 each."""
    x, w = torch.tensor([[[[7]]]], dtype=torch.int16), codes(1, 1, 3, 3)
    for engine in engines_for(ZERO_ROW):
        got = approx_conv2d(x, w, ZERO_ROW, padding=1, engine=engine)
        assert got.item() == 8 * 5 + ROUGH.table[7 + 128, int(w[0, 0, 1, 1]) + 128]
        assert approx_conv2d(x, w, ROUGH, padding=1, engine=engine).item() == got.item() - 40


def test_unsigned_codes_equal_a_plain_loop():
    table = UNSIGNED.table.astype(np.int64)
    table[:, 1::2] += np.arange(256)[:, None] // 2  # an error of rank 1 that only odd weights see
    for multiplier in (Multiplier(name="unsigned", signed=False, table=table), UNSIGNED, EDGES):
        x, w = codes(1, 2, 4, 5, low=0, high=255), codes(3, 2, 3, 3, low=0, high=255)
        moved = {"stride": (1, 2), "padding": (1, 2), "dilation": (1, 1), "groups": 1}
        expected = loop_conv(x.numpy(), w.numpy(), multiplier, **moved)
        for engine in engines_for(multiplier):
            assert np.array_equal(approx_conv2d(x, w, multiplier, **moved, engine=engine).numpy(), expected), engine


def test_one_channel_and_one_output_column():
    """oneDNN 3.12 (torch 2.13, AVX-512) computes this shape wrongly from channels-last strides, (30, 1, 5, 1)."""
    moved = {"stride": (1, 2), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    for seed, engine in itertools.product(range(5), engines_for(EXACT)):
        x, w = codes(2, 1, 6, 5, seed=seed), codes(2, 1, 5, 5, seed=seed)
        expected = loop_conv(x.numpy(), w.numpy(), EXACT, **moved)
        assert np.array_equal(approx_conv2d(x, w, EXACT, **moved, engine=engine).numpy(), expected), engine


def test_many_pixels_equal_the_reference():
    """So many that loops are split into blocks and tasks, and rows of products pay."""
    x, w = codes(2, 16, 30, 29), codes(8, 16, 3, 3)
    for multiplier in (EXACT, ROUGH, FULL_RANK):
        expected = approx_conv2d(x, w, multiplier, padding=1, engine="reference")
        for engine in engines_for(multiplier):
            assert torch.equal(approx_conv2d(x, w, multiplier, padding=1, engine=engine), expected), engine


def test_small_layers_have_a_loop_of_their_own_and_large_ones_do_not():
    """On a processor with the instructions; all the rest, also in groups, is the library's."""
    table, here = operand_table(ROUGH), dense_int8.has_dot_products() and dense_int8.has_permutes()
    assert dense_int8.suits((16, 8, 3, 3), table, Geometry(padding=(1, 1))) == here
    assert not dense_int8.suits((64, 64, 3, 3), table, Geometry())
    assert not dense_int8.suits((16, 4, 3, 3), table, Geometry(groups=2))
    assert not dense_int8.suits((16, 8, 3, 3), operand_table(SMALL), Geometry())  # its digits have weights of their own


def test_threads_do_not_change_the_sums():
    x, w = codes(3, 16, 40, 37), codes(8, 16, 3, 3)
    for multiplier in (ROUGH, FULL_RANK):
        expected = approx_conv2d(x, w, multiplier, padding=1)
        try:
            torch.set_num_threads(2)
            for engine in engines_for(multiplier)[:-1]:
                assert torch.equal(approx_conv2d(x, w, multiplier, padding=1, engine=engine), expected), engine
        finally:
            torch.set_num_threads(1)


def test_integers_stand_for_squares():
    x, w = codes(1, 2, 9, 9), codes(2, 2, 3, 3)
    got = approx_conv2d(x, w, ROUGH, stride=2, padding=1, dilation=2)
    assert torch.equal(got, approx_conv2d(x, w, ROUGH, stride=(2, 2), padding=(1, 1), dilation=(2, 2)))


def test_every_integer_dtype_gives_the_same_sums():
    x, w = codes(1, 3, 5, 5), codes(2, 3, 3, 3)
    expected = approx_conv2d(x, w, ROUGH)
    for left, right in itertools.product((torch.int16, torch.int32, torch.int64), repeat=2):
        assert torch.equal(approx_conv2d(x.to(left), w.to(right), ROUGH), expected)


def test_noncontiguous_codes_give_the_same_sums():
    x, w = codes(2, 6, 8, 9), codes(4, 6, 3, 3)
    expected = approx_conv2d(x, w, ROUGH, engine="reference")
    x_last = x.contiguous(memory_format=torch.channels_last)
    w_last = w.contiguous(memory_format=torch.channels_last)
    flipped = x.flip(3).contiguous().flip(3)
    for engine in engines_for(ROUGH):
        for left, right in ((x_last, w), (x, w_last), (x_last, w_last), (flipped, w)):
            assert torch.equal(approx_conv2d(left, right, ROUGH, engine=engine), expected), engine


# Beyond 2^24 float32 has no odd integers, so a sum that is not split is off by one.


def test_a_sum_of_two_thousand_largest_products_is_exact():
    x = torch.full((1, 2001, 1, 1), -127, dtype=torch.int16)
    lowest = torch.full((1, 2000, 1, 1), -128, dtype=torch.int16)
    for engine in engines_for(EXACT):
        assert approx_conv2d(x, x, EXACT, engine=engine).item() == 2001 * 127 * 127 == 32_274_129 > 2**24
        assert approx_conv2d(lowest, lowest, EXACT, engine=engine).item() == 2000 * 2**14


@pytest.mark.parametrize(
    "multiplier", [EXACT, ROUGH, LIBRARY[3], ZERO_ROW, SMALL], ids=lambda multiplier: multiplier.name
)
def test_long_sums_are_exact_for_every_rank(multiplier):
    x, w = codes(1, 1999, 3, 2, low=-128, high=-101), codes(2, 1999, 1, 1, low=-128, high=-101)
    expected = approx_conv2d(x, w, multiplier, engine="reference")
    for engine in engines_for(multiplier):
        assert torch.equal(approx_conv2d(x, w, multiplier, engine=engine), expected), engine
    # Scaled, the exact sum is rounded once, however it was split.
    table, geometry, scale = operand_table(multiplier), Geometry(), torch.tensor([0.37, 1.21])
    x, w = ((part + 128).to(torch.uint8) for part in (x, w))
    for engine in engines_for(multiplier):
        for packed in packings(engine, w, table, geometry):
            got = ENGINES[engine].conv2d(x, packed, 128, scale)
            assert torch.equal(got, expected.float() * scale.view(1, -1, 1, 1)), engine


@pytest.mark.parametrize("groups", [2, 4])
def test_long_sums_are_exact_in_groups_and_in_windows(groups):
    x, w = codes(1, 150 * groups, 5, 4, low=-128, high=-90), codes(2 * groups, 150, 3, 3, low=-128, high=-90)
    moved = {"padding": 1, "stride": (2, 1), "groups": groups}
    expected = approx_conv2d(x, w, ROUGH, **moved, engine="reference")
    for engine in engines_for(ROUGH):
        assert torch.equal(approx_conv2d(x, w, ROUGH, **moved, engine=engine), expected), engine
        assert torch.equal(approx_conv2d(x, w[::2], ROUGH, **moved, engine=engine), expected[:, ::2]), engine


def test_a_window_too_large_for_float32_is_exact():
    x = torch.full((1, 1, 33, 33), 127, dtype=torch.int16)
    assert 33**2 * 127**2 > 2**24 and 33**2 * 127**2 % 2 == 1
    for engine in (*engines_for(EXACT), "auto"):
        assert approx_conv2d(x, -x, EXACT, engine=engine).item() == -(33**2) * 127**2, engine
        depthwise = approx_conv2d(x.expand(1, 2, 33, 33), x.expand(2, 1, 33, 33), EXACT, groups=2, engine=engine)
        assert depthwise.flatten().tolist() == [33**2 * 127**2] * 2, engine


# -- features ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4, 8, 10])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11, 16])
@pytest.mark.parametrize("kind", ["words", "bits", "float"])
def test_features_are_looked_up_for_every_alignment(kind, count, channels):
    rng = np.random.default_rng([count, channels])
    values = rng.integers(0, 256, (256, count)).astype(np.uint8)
    if kind == "bits":
        values = (np.arange(256, dtype=np.uint8)[:, None] & values[0]) ^ values[1]
    if kind == "float":
        values = values.astype(np.float32) - 100
    described = features.describe(values, channels)
    assert (described.bits is not None) == (kind == "bits")
    groups = 2
    index = torch.from_numpy(rng.integers(0, 256, (2, groups * channels, 3, 5)).astype(np.uint8))
    got = features.expand(index, described, groups)
    assert got.shape == (2, groups * channels * count, 3, 5) and got.is_contiguous(memory_format=torch.channels_last)
    # The weights of a convolution follow the same order, so that a 1×1 convolution is the sum over channels and features.
    weights = torch.from_numpy(rng.integers(-3, 4, (groups, channels, count, 1, 1)).astype(np.float64))
    ordered = described.order_weights(weights)
    sums = torch.nn.functional.conv2d(got.double(), ordered, groups=groups)
    looked_up = torch.from_numpy(values.astype(np.float64))[index.long()].unflatten(1, (groups, channels))
    assert torch.equal(sums, torch.einsum("ngchwr,gcr->nghw", looked_up, weights[..., 0, 0]))


def test_an_exact_multiplier_needs_no_features():
    assert int8._features(operand_table(EXACT), 0, 1, 16).is_index
    assert not int8._features(operand_table(LIBRARY[7]), 0, 1, 16).is_index


def test_features_are_built_once_for_several_readers():
    index = torch.randint(0, 256, (1, 4, 3, 3), dtype=torch.uint8)
    described = int8._features(operand_table(ROUGH), 0, 4, 4)
    assert features.expand_once(index, described, 1) is features.expand_once(index, described, 1)
    other = int8._features(operand_table(LIBRARY[3]), 0, 5, 4)
    assert features.expand_once(index, other, 1).shape[1] == 20


# -- the choice --------------------------------------------------------------------------------------------------------

LAYER = ((8, 8, 3, 3), Geometry(padding=(1, 1)), CPU)
THREADS = 1


def test_the_choice_follows_the_measured_costs(monkeypatch):
    table = operand_table(ROUGH)
    able = [name for name in FACTORED if not ENGINES[name].refusal(table, CPU)]
    for fastest in able:
        emulate._fastest.cache_clear()
        monkeypatch.setattr(timing, "seconds", lambda engine, *_, name=fastest: float(engine is not ENGINES[name]))
        assert choose_engine(table, *LAYER) == fastest
    emulate._fastest.cache_clear()


def test_tables_without_factors_are_gathered():
    assert choose_engine(operand_table(FULL_RANK), *LAYER) == "gather"
    assert choose_engine(operand_table(EXACT), *LAYER) in FACTORED


def test_costs_are_measured_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("APPROXNAS_CACHE", str(tmp_path))
    timing._line.cache_clear()
    few = timing.seconds(float32, operand_table(EXACT), *LAYER, THREADS)
    several = timing.seconds(float32, operand_table(LIBRARY[3]), *LAYER, THREADS)
    assert 0 < few <= several and len(list(tmp_path.glob("costs*.json"))) == 1
    monkeypatch.setattr(timing, "_measure", lambda *_: pytest.fail("measured again"))
    timing._line.cache_clear()
    assert timing.seconds(float32, operand_table(EXACT), *LAYER, THREADS) == few
    for torn in ("", "[", "{}", "7", '{"float32 dense": [1]}'):
        monkeypatch.setattr(timing, "_measure", lambda *_: 1e-9)
        next(tmp_path.glob("costs*.json")).write_text(torn)
        timing._line.cache_clear()
        assert timing.seconds(float32, operand_table(EXACT), *LAYER, THREADS) > 0
    timing._line.cache_clear()


def test_an_engine_can_be_forced():
    x, w = codes(1, 3, 5, 5), codes(2, 3, 3, 3)
    expected = approx_conv2d(x, w, ROUGH)
    for engine in engines_for(ROUGH):
        use_engine(engine)
        assert choose_engine(operand_table(ROUGH), *LAYER) == engine
        assert torch.equal(approx_conv2d(x, w, ROUGH), expected)
    use_engine("float32")
    with pytest.raises(
        InputError, match=r"engine 'float32' cannot be used: the table of random has no integer factors"
    ):
        approx_conv2d(x, w, FULL_RANK)
    with pytest.raises(InputError, match="did you mean gather"):
        use_engine("gahter")


def test_an_engine_that_computes_wrongly_is_left_out_with_a_warning(monkeypatch):
    right = onednn.convolve
    onednn.failure.cache_clear()
    emulate._fastest.cache_clear()
    # What saturating 16-bit sums do: large sums come out too small.
    monkeypatch.setattr(onednn, "convolve", lambda *arguments: right(*arguments).clamp(max=1e5))
    with pytest.warns(UserWarning, match="the int8 engine is left out: its self-test gave wrong sums"):
        reason = int8.refusal(operand_table(EXACT), CPU)
    assert "wrong sums" in reason and choose_engine(operand_table(EXACT), *LAYER) == "float32"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it says so once
        assert int8.refusal(operand_table(EXACT), CPU) == reason
    onednn.failure.cache_clear()
    emulate._fastest.cache_clear()


def test_an_engine_whose_operators_changed_is_left_out_with_a_warning(monkeypatch):
    def changed(*_):
        raise RuntimeError("expected 17 arguments\nbut got 18")

    onednn.failure.cache_clear()
    monkeypatch.setattr(onednn, "prepack", changed)
    with pytest.warns(UserWarning, match=r"self-test failed \(RuntimeError: expected 17 arguments\)"):
        assert int8.refusal(operand_table(EXACT), CPU)
    onednn.failure.cache_clear()


def test_a_shape_that_the_library_gets_wrong_is_computed_otherwise(monkeypatch):
    x, w = codes(2, 3, 7, 7), codes(4, 3, 3, 3)
    expected = approx_conv2d(x, w, ROUGH, engine="reference")
    right = onednn.convolve
    assert not int8.refusal(operand_table(ROUGH), CPU)
    onednn.computes.cache_clear()
    monkeypatch.setattr(dense_int8, "suits", lambda *_: False)
    monkeypatch.setattr(onednn, "convolve", lambda *arguments: right(*arguments) + 1)
    with pytest.warns(UserWarning, match=r"wrong for input \(12, 7, 7\)"):
        assert torch.equal(approx_conv2d(x, w, ROUGH, engine="int8"), expected)
    onednn.computes.cache_clear()


def test_engines_say_why_they_cannot():
    table = operand_table(FULL_RANK)
    assert "no integer factors" in float32.refusal(table, CPU)
    for engine in (int8, gather):
        assert engine.refusal(table, torch.device("meta")) == "it runs on the CPU"


# -- what may be asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float32, torch.float64, torch.bool])
def test_other_dtypes_are_refused(dtype):
    good = codes(1, 1, 2, 2, low=0, high=1)
    with pytest.raises(InputError, match="x_codes must be int16"):
        approx_conv2d(good.to(dtype), good, EXACT)
    with pytest.raises(InputError, match="w_codes must be int16"):
        approx_conv2d(good, good.to(dtype), EXACT)


@pytest.mark.parametrize(("multiplier", "code"), [(EXACT, 128), (EXACT, -129), (UNSIGNED, -1), (UNSIGNED, 256)])
def test_codes_beyond_the_operands_are_refused(multiplier, code):
    good = codes(1, 1, 3, 3, low=0, high=1)
    bad = good.clone()
    bad[0, 0, 1, 2] = code
    with pytest.raises(InputError, match=rf"x_codes holds .*{code}.* beyond"):
        approx_conv2d(bad, good, multiplier)
    with pytest.raises(InputError, match=rf"w_codes holds .*{code}.* beyond"):
        approx_conv2d(good, bad, multiplier)


def test_an_unknown_engine_suggests_the_nearest():
    x = codes(1, 1, 2, 2)
    with pytest.raises(InputError, match="did you mean reference"):
        approx_conv2d(x, x, EXACT, engine="referense")


def test_shapes_that_do_not_fit_are_refused():
    x, w = codes(1, 3, 5, 5), codes(2, 3, 3, 3)
    with pytest.raises(InputError, match="need 3 channels, not 4"):
        approx_conv2d(codes(1, 4, 5, 5), w, EXACT)
    with pytest.raises(InputError, match="2 outputs do not divide into 3 groups"):
        approx_conv2d(x, codes(2, 1, 3, 3), EXACT, groups=3)
    with pytest.raises(InputError, match="four dimensions"):
        approx_conv2d(x[0], w, EXACT)
    with pytest.raises(InputError, match="larger than the padded input"):
        approx_conv2d(x, codes(2, 3, 7, 7), EXACT)
    with pytest.raises(InputError, match="may not fit into 32 bits"):
        approx_conv2d(codes(1, 3000, 1, 1), codes(1, 3000, 1, 1), FULL_RANK)


def test_an_empty_batch_has_no_sums():
    for engine in engines_for(ROUGH):
        got = approx_conv2d(codes(0, 3, 5, 5), codes(2, 3, 3, 3), ROUGH, padding=1, engine=engine)
        assert got.shape == (0, 2, 5, 5) and got.dtype == torch.int32


def test_the_zero_table_sums_to_zero():
    """Some published circuits (mul8u_199Z) return zero for everything: rank 0."""
    zero = Multiplier(name="zero", signed=True, table=np.zeros((256, 256), dtype=int))
    for engine in (*engines_for(zero), "auto"):
        got = approx_conv2d(codes(2, 3, 5, 4), codes(6, 1, 3, 3), zero, padding=1, groups=3, engine=engine)
        assert torch.equal(got, torch.zeros(2, 6, 5, 4, dtype=torch.int32)), engine


def test_autocast_does_not_touch_the_sums():
    """bfloat16 has 8 significant bits: a convolution of codes in it would be off by hundreds."""
    x, w = codes(1, 16, 6, 6), codes(4, 16, 3, 3)
    expected = approx_conv2d(x, w, EXACT, engine="reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for engine in engines_for(EXACT):
            assert torch.equal(approx_conv2d(x, w, EXACT, engine=engine), expected), engine


def test_an_unsigned_layer_table_takes_the_weights_zero_point_away():
    table = layer_table(EDGES)
    assert (table.a_lo, table.b_lo) == (0, -128)
    for a, b in ((0, -128), (255, 127), (17, 0), (200, -3)):
        assert table.table[a, b + 128] == EDGES.table[a, b + 128] - 128 * a
    assert layer_table(EXACT) is operand_table(EXACT)
    assert np.array_equal(layer_table(UNSIGNED).table, layer_table(UNSIGNED).exact)
    assert emulate.choose_engine(table, *LAYER) == "gather"

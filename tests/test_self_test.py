"""The test that an engine must pass before it is used: it finds what can go wrong, is cheap, and disturbs nothing."""

import warnings
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from spaces import warmup
from spaces.arithmetic import emulate
from spaces.arithmetic.engines import examples, reference, self_test
from spaces.arithmetic.engines.examples import Layer
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.self_test import failure, mismatch
from spaces.errors import InputError
from spaces.multipliers.products import operand_table
from tests.convolutions import ROUGH, forget_self_tests, loop_conv

CPU = torch.device("cpu")
LAYER = Layer("odd", (2, 6, 5, 4), 4, (3, 2), Geometry((2, 1), (1, 2), (1, 2), 2))
TABLE = operand_table(ROUGH)


def engine(conv2d: Callable[..., Tensor], name: str = "broken") -> ModuleType:
    """An engine of the reference's parts with another convolution."""
    made = ModuleType(name)
    made.refusal, made.channels, made.pack = reference.refusal, lambda _: 0, reference.pack
    made.conv2d = conv2d
    return made


def off_by_one(x, packed, fill, scale=None):
    y = reference.conv2d(x, packed, fill, scale).clone()
    y.view(-1)[-1] += 1
    return y


def ignores_padding(x, packed, fill, scale=None):  # noqa: ARG001
    return reference.conv2d(x, packed, 128, scale)


def wrong_for_unaligned(x, packed, fill, scale=None):
    return reference.conv2d(x, packed, fill, scale) + int(x.data_ptr() % 16 > 0)


def reads_stale_memory(x, packed, fill, scale=None):
    right = reference.conv2d(x, packed, fill, scale).to(torch.int32 if scale is None else torch.float32)
    y = torch.empty_like(right)
    y[..., :-1] = right[..., :-1]
    return y


def saturates(x, packed, fill, scale=None):
    limit = 9 * 2**15
    y = reference.conv2d(x, packed, fill).clamp(-limit, limit)
    return y if scale is None else y.float() * scale.view(1, -1, 1, 1)


def rounds_twice(x, packed, fill, scale=None):
    y = reference.conv2d(x, packed, fill)
    return y if scale is None else (y.double() * scale.view(1, -1, 1, 1).double()).float()


def writes_into_its_input(x, packed, fill, scale=None):
    y = reference.conv2d(x, packed, fill, scale)
    x[0, 0, 0, 0] ^= 1
    return y


def takes_strides_for_granted(x, packed, fill, scale=None):
    flat = torch.as_strided(x, x.shape, (x[0].numel(), x[0, 0].numel(), x.shape[3], 1), x.storage_offset())
    return reference.conv2d(flat, packed, fill, scale)


BROKEN = {
    "off by one": off_by_one,
    "ignores padding": ignores_padding,
    "unaligned": wrong_for_unaligned,
    "stale memory": reads_stale_memory,
    "saturates": saturates,
    "rounds twice": rounds_twice,
    "writes into its input": writes_into_its_input,
    "strides": takes_strides_for_granted,
}


@pytest.fixture(autouse=True)
def forgetful():
    """No test knows of the failures of another."""
    forget_self_tests()
    yield
    forget_self_tests()


@pytest.mark.parametrize("name", ["int8", "float32", "gather", "reference"])
def test_sound_engines_pass(name):
    assert failure(name, emulate.ENGINES[name], CPU) == ""
    if not emulate.ENGINES[name].refusal(TABLE, CPU):
        assert mismatch(emulate.ENGINES[name], TABLE, LAYER, CPU) == ""


@pytest.mark.parametrize("fault", BROKEN)
def test_faults_are_found(fault):
    broken = engine(BROKEN[fault])
    with pytest.warns(UserWarning, match="the broken engine is left out on cpu: .*other engines are exact, but slower"):
        reason = failure("broken", broken, CPU)
    assert reason.startswith("engine broken, table ")


def test_a_mismatch_names_engine_table_layer_place_and_both_values():
    def wrong(x, packed, fill, scale=None):
        y = reference.conv2d(x, packed, fill, scale).clone()
        y[1, 2, 0, 3] += 5
        return y

    right = examples.make_example(TABLE, LAYER, "random").sums[1, 2, 0, 3]
    said = mismatch(engine(wrong), TABLE, LAYER, CPU)
    assert f"engine broken, table {TABLE.name}, layer odd (2×6×5×4 by 4×3×3×2, stride 2×1" in said
    assert f"at (1, 2, 0, 3) it gives {right + 5}, not {right}" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda y: y[:, :-1], "shape is (2, 3, 3, 6), not (2, 4, 3, 6)"), (lambda y: y.double(), "not float32")],
)
def test_a_wrong_form_is_a_mismatch(change, said):
    broken = engine(lambda *arguments: change(reference.conv2d(*arguments)))
    assert said in mismatch(broken, TABLE, LAYER, CPU)


def test_an_engine_that_raises_has_failed_and_is_warned_of_once():
    def raises(*_):
        raise RuntimeError("no such kernel\nand a long explanation")

    broken = engine(raises)
    with pytest.warns(UserWarning, match="RuntimeError: no such kernel"):
        assert failure("broken", broken, CPU) == "its self-test failed (RuntimeError: no such kernel)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "no such kernel" in failure("broken", broken, CPU)


def test_full_memory_says_nothing_about_an_engine():
    for error in (torch.OutOfMemoryError("full"), MemoryError(), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")):
        errors = [error]

        def full_at_first(*arguments, errors=errors):
            if errors:
                raise errors.pop()
            return reference.conv2d(*arguments)

        made = engine(full_at_first)
        with pytest.raises(type(error)):
            failure("made", made, CPU)
        assert failure("made", made, CPU) == ""


def test_a_gpu_on_which_nothing_runs_any_more_is_no_fault_of_the_next_engines(monkeypatch):
    def raises(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", raises)
    with pytest.raises(InputError, match="the self-test of the x engine left cuda:0 in a state .*--engine float32"):
        self_test._require_alive("x", torch.device("cuda:0"), RuntimeError("CUDA error: an illegal memory access"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    self_test._require_alive("x", torch.device("cuda:0"), RuntimeError("no such kernel"))


def test_a_warning_that_is_an_error_does_not_bring_the_engine_back():
    def raises(*_):
        raise RuntimeError("no such kernel")

    broken = engine(raises)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="no such kernel"):
            failure("broken", broken, CPU)
        assert "no such kernel" in failure("broken", broken, CPU)


def test_the_definition_is_that_of_the_plain_loop():
    example = examples.make_example(TABLE, LAYER, "saturating")  # whose padding holds the code 0
    x, w, g = example.x.astype(int) - 128, example.w.astype(int) - 128, LAYER.geometry
    expected = loop_conv(x, w, ROUGH, g.stride, g.padding, g.dilation, g.groups)
    assert np.array_equal(example.sums, expected)
    assert example.fill == 128


def test_a_large_batch_repeats_a_few_images_and_checks_all():
    layer = Layer("many", (100, 3, 4, 4), 2, (3, 3))
    example = examples.make_example(TABLE, layer, "random")
    assert example.x.shape == (100, 3, 4, 4)
    assert len(np.unique(example.x.reshape(100, -1), axis=0)) == examples.DIFFERENT_IMAGES
    again = examples.sums_by_definition(example.x, example.w, TABLE.table, Geometry(), example.fill)
    assert np.array_equal(example.sums, again)


@pytest.mark.parametrize("way", examples.HELD)
def test_inputs_lie_as_they_say(way):
    x = torch.arange(48, dtype=torch.uint8).view(2, 4, 3, 2)
    held = examples.place(x, way, CPU)
    assert torch.equal(held, x)
    assert held.is_contiguous() == (way == "contiguous")
    assert held.is_contiguous(memory_format=torch.channels_last) == (way in ("channels-last", "unaligned"))
    assert (held.data_ptr() % 16 != 0) == (way == "unaligned")


def test_operands_reach_the_ends_and_saturate_pairs():
    made = {kind: examples.make_example(TABLE, LAYER, kind) for kind in examples.OPERANDS}
    assert (made["lowest"].x == 0).all() and (made["lowest"].w == 0).all()
    assert (made["highest"].x == 255).all() and (made["highest"].w == 255).all()
    assert set(np.unique(made["alternating"].x)) == {0, 255}
    pair = made["saturating"].w[0, :2, 0, 0]  # two neighbouring products of one sign, each near the largest
    assert pair[0] == pair[1] and set(np.unique(made["saturating"].w)) == {0, 255}
    assert all((example.scale > 0).all() for example in made.values())


def test_the_short_test_is_short_and_counts_as_getting_ready():
    calls, products = [], []

    def counted(x, packed, fill, scale=None):
        y = reference.conv2d(x, packed, fill, scale)
        calls.append(1)
        products.append(y.numel() * packed.weights.shape[2])
        return y

    before = warmup.seconds()
    assert failure("made", engine(counted), CPU) == ""
    assert len(calls) <= 130  # at some ten microseconds each
    assert sum(products) < 15e6
    assert warmup.seconds() > before
    made = examples.make_example.cache_info().misses
    assert failure("other", engine(counted), CPU) == ""
    assert examples.make_example.cache_info().misses == made  # what must come out is computed once for all engines


def test_tables_that_are_refused_are_not_tried():
    made = engine(off_by_one)
    made.refusal = lambda *_: "no"
    assert failure("made", made, CPU) == ""


def test_random_numbers_stay_as_they_were():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    failure("gather", emulate.ENGINES["gather"], CPU)
    assert torch.equal(torch.rand(3), expected)

"""Compiled loops on the threads of torch's own runtime."""

import numpy as np
import pytest
import torch
from numba import njit

from spaces.arithmetic.engines import openmp, threads
from spaces.arithmetic.engines.memory import floats_at


@njit
def tell(target, factor, sizes, begin, end):
    numbers = floats_at(target)
    for task in range(begin, end):
        numbers[task] += factor * task + sizes[1]


@njit
def of_floats(target, factor, begin, end):
    numbers = floats_at(target)
    for task in range(begin, end):
        numbers[task] = factor


needs_runtime = pytest.mark.skipif(openmp.runtime() is None, reason="torch has another OpenMP runtime here than GNU's")


@needs_runtime
@pytest.mark.parametrize(("tasks", "count"), [(1, 2), (2, 2), (7, 3), (1000, 2), (5, 8)])
def test_every_task_is_done_once(tasks, count):
    target = np.zeros(tasks, dtype=np.float32)
    tell(target.ctypes.data, 3, (10, 20), 0, 0)  # compiled
    assert openmp.run(tell, (target.ctypes.data, 3, (10, 20)), tasks, count)
    assert np.array_equal(target, 3 * np.arange(tasks) + 20)


def test_loops_that_it_cannot_call_are_refused():
    assert not openmp.run(lambda begin, end: None, (), 2, 2)  # noqa: ARG005
    target = np.zeros(4, dtype=np.float32)
    of_floats(target.ctypes.data, 0.5, 0, 0)
    assert not openmp.run(of_floats, (target.ctypes.data, 0.5), 4, 2)
    assert not target.any()


def test_without_that_runtime_plain_threads_do_it(monkeypatch):
    monkeypatch.setattr(openmp, "runtime", lambda: None)
    monkeypatch.setattr(threads, "_processors", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    target = np.zeros(50, dtype=np.float32)
    for _ in range(2):  # the first call of all compiles
        target[:] = 0
        threads.share(tell, (target.ctypes.data, 1, (0, 0)), 50, threads.ENOUGH)
        assert np.array_equal(target, np.arange(50))


@njit
def asks_for_too_much(count, begin, end):
    memory = np.empty(count * (end - begin), dtype=np.float32)
    memory[0] = 0


@needs_runtime
def test_a_loop_without_memory_says_so():
    asks_for_too_much(1, 0, 1)
    with pytest.raises(MemoryError, match="no memory for its work"):
        openmp.run(asks_for_too_much, (2**56,), 2, 2)

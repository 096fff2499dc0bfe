"""A loop's tasks, shared between threads: those of torch's own runtime, or where that is not GNU's, plain ones.

numba's parallel loops take three times as long to compile as the same loops for one thread, and have threads of their own.
"""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch

from spaces.arithmetic.engines import openmp

ENOUGH = 65536  # numbers of a result, from which waking a thread up pays


def share(run: Callable[..., None], arguments: tuple[Any, ...], tasks: int, work: int) -> None:
    """run(*arguments, begin, end) for all ``tasks``, by as many threads as torch uses, if there is enough ``work``.

    Nothing that a task computes may depend on the others. The first call of all is not shared: it compiles ``run``.
    """
    threads = 1 if work < ENOUGH else min(torch.get_num_threads(), _processors(), tasks)
    if threads < 2 or not getattr(run, "overloads", True):
        run(*arguments, 0, tasks)
        return
    if openmp.run(run, arguments, tasks, threads):
        return
    own, *parts = itertools.pairwise(tasks * number // threads for number in range(threads + 1))
    others = [_threads().submit(run, *arguments, *part) for part in parts]
    try:
        run(*arguments, *own)
    finally:  # what they work on must not be freed before
        wait(others)
    for other in others:
        other.result()


@functools.cache
def _processors() -> int:
    return os.cpu_count() or 1  # which asks the system every time


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_processors(), thread_name_prefix="loops")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked process has none of them

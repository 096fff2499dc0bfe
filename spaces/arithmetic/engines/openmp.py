"""A loop's tasks on the threads of torch's own OpenMP runtime, GNU's.

Threads of anybody else's share the processors with these, which go on waiting at full speed for a while after each of
torch's loops: two pools are slower than one thread. So loops are called by the pool that there is, and as a
compiler would call them, by their address and without Python.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

_WHOLE, _BYTE = ir.IntType(64), ir.IntType(8)
_HEADER = 3  # whole numbers before the arguments: the loop's address, its tasks, and whether a part of it failed


@functools.cache
def runtime() -> ctypes.CDLL | None:
    """The library that torch has loaded; None where it uses another, as on macOS."""
    own = sorted(Path(torch.__file__).with_name("lib").glob("libgomp*.so*"))
    for name in (*map(str, own), "libgomp.so.1"):
        try:
            library = ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
            _ = library.GOMP_parallel, library.omp_get_thread_num, library.omp_get_num_threads
        except (OSError, AttributeError):
            continue
        return library
    return None


def run(loop: Callable[..., None], arguments: tuple[Any, ...], tasks: int, threads: int) -> bool:
    """loop(*arguments, begin, end) for all ``tasks``, by so many threads; False where that is not possible.

    ``loop`` is numba's, compiled, and takes whole numbers or tuples of them. Raises MemoryError where it fails: memory is
    all that loops ask for.
    """
    library = runtime()
    if library is None or _forked:
        return False
    address = _address(loop)
    if address is None:
        return False
    numbers = [address, tasks, 0]
    for each in arguments:
        numbers.extend(each) if isinstance(each, tuple) else numbers.append(each)
    data = (ctypes.c_int64 * len(numbers))(*numbers)
    library.GOMP_parallel(_caller(len(numbers) - _HEADER), data, threads, 0)
    if data[_HEADER - 1]:
        raise MemoryError("a loop on the CPU found no memory for its work")
    return True


@functools.cache
def _address(loop: Any) -> int | None:
    """Where the compiled loop lies, if all that it takes are whole numbers."""
    overloads = list(getattr(loop, "overloads", {}).values())
    if len(overloads) != 1:
        return None
    (compiled,) = overloads
    flat = [
        part for each in compiled.signature.args for part in (each if isinstance(each, types.BaseTuple) else (each,))
    ]
    if any(part != types.intp for part in flat):
        return None
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@functools.cache
def _caller(count: int) -> ctypes.c_void_p:
    """The address of what every thread runs: its share of the tasks, with ``count`` arguments."""
    library = runtime()
    assert library is not None
    module, name = ir.Module(), f"approxnas_share_{count}"
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_WHOLE.as_pointer()]), name)
    builder = ir.IRBuilder(function.append_basic_block())
    (data,) = function.args

    def number(at: int) -> ir.Value:
        return builder.load(builder.gep(data, [ir.Constant(_WHOLE, at)]))

    def asked(what: Any) -> ir.Value:
        kind = ir.FunctionType(ir.IntType(32), [])
        place = builder.inttoptr(_constant(what), kind.as_pointer())
        return builder.sext(builder.call(place, []), _WHOLE)

    loop, tasks = number(0), number(1)
    thread, threads = asked(library.omp_get_thread_num), asked(library.omp_get_num_threads)
    begin = builder.sdiv(builder.mul(tasks, thread), threads)
    end = builder.sdiv(builder.mul(tasks, builder.add(thread, ir.Constant(_WHOLE, 1))), threads)
    # As numba's functions are called: where a result and an exception would go, then the arguments.
    nowhere = [builder.alloca(_BYTE.as_pointer()) for _ in range(2)]
    signature = ir.FunctionType(ir.IntType(32), [place.type for place in nowhere] + [_WHOLE] * (count + 2))
    arguments = [*nowhere, *(number(_HEADER + at) for at in range(count)), begin, end]
    status = builder.call(builder.inttoptr(loop, signature.as_pointer()), arguments)
    with builder.if_then(builder.icmp_signed("!=", status, ir.Constant(status.type, 0))):
        builder.store(ir.Constant(_WHOLE, 1), builder.gep(data, [ir.Constant(_WHOLE, _HEADER - 1)]))
    builder.ret_void()
    compiled = cpu_target.target_context.codegen().create_library(name)
    compiled.add_ir_module(module)
    with global_compiler_lock:
        compiled.finalize()
    _kept.append(compiled)
    return ctypes.c_void_p(compiled.get_pointer_to_function(name))


_forked: list[bool] = []  # not empty in a forked process, in which the runtime waits for threads that are not there
os.register_at_fork(after_in_child=lambda: _forked.append(True))

_kept: list[Any] = []  # compiled code lives as long as its library


def _constant(function: Any) -> ir.Constant:
    return ir.Constant(_WHOLE, ctypes.cast(function, ctypes.c_void_p).value)

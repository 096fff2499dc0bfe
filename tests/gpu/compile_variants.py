"""Compiles kernels with whichever Triton is imported, for a GPU that need not be there; a process that needs no torch.

``python compile_variants.py KERNELS/__init__.py`` reads ``{"capability": 80, "variants": […]}`` as JSON (see
``variants.py``) and prints for each variant ``{"error": …}``, or what its machine code is like.
"""

import importlib.util
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import triton
import triton.backends.compiler
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

WORKERS = 2
WARP = 32  # threads
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def load_kernels(path: str) -> None:
    """Import the package of kernels alone, without those around it, which import torch."""
    spec = importlib.util.spec_from_file_location("kernels", path, submodule_search_locations=[str(Path(path).parent)])
    sys.modules["kernels"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def source_of(variant: dict) -> ASTSource:
    """The variant in the words of this version of Triton."""
    kernel = getattr(sys.modules["kernels"], variant["kernel"])
    signature, constants, aligned = variant["signature"], variant["constants"], variant["aligned"]
    if hasattr(triton.backends.compiler, "AttrsDescriptor"):  # up to 3.2
        attrs = triton.backends.compiler.AttrsDescriptor.from_hints(dict.fromkeys(aligned, 16))
        arguments = {name: kind for name, kind in signature.items() if name not in constants}
        return ASTSource(kernel, arguments, constants=constants, attrs=attrs)
    attrs = {(number,): [["tt.divisibility", 16]] for number in aligned}
    return ASTSource(kernel, signature, constexprs=constants, attrs=attrs)


def resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and bytes of its stack, where it keeps what did not fit into them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout))
    return {"registers": int(found["REG"]), "spilled": int(found["STACK"]) + int(found["LOCAL"])}


def changed(kernel: triton.JITFunction) -> list[str]:
    """Globals of a compiled kernel that Triton takes for changed when it is launched again, which it refuses: NaN is one."""
    known = kernel.used_global_vals.items()
    return [name for (name, _), (value, where) in known if where.get(name, value) != value]


def in_a_line(error: BaseException) -> str:
    """The error's first line, and what caused it: of an assertion without a message, the assertion itself."""
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if error.__cause__ is None:
        return text
    failed = traceback.extract_tb(error.__cause__.__traceback__)[-1]
    return f"{text} {in_a_line(error.__cause__)} {failed.line} ({Path(failed.filename).name}:{failed.lineno})"


def compiled(task: tuple[dict, int]) -> dict:
    """What the machine code of a variant for a capability is like."""
    variant, capability = task
    target = GPUTarget("cuda", capability, WARP)
    try:
        made = triton.compile(source_of(variant), target=target, options=variant["options"])
    except Exception as error:  # of whichever kind: it is what the test reports
        return {"error": in_a_line(error)}
    if names := changed(getattr(sys.modules["kernels"], variant["kernel"])):
        return {"error": f"cannot be launched twice: {', '.join(names)}"}
    ptx, cubin = made.asm["ptx"], made.asm["cubin"]
    return {
        "cubin": len(cubin),
        "tensor cores": bool(re.search(r"\b(wgmma\.mma_async|mma\.sync)\S*\.s32\.s8\.s8", ptx)),
        "fused": bool(re.search(r"\bfma\.", ptx)),
        "shared": made.metadata.shared,
        **resources(cubin),
    }


def main() -> None:
    wanted, answers = json.load(sys.stdin), sys.stdout
    sys.stdout = sys.stderr  # where Triton may print as it likes
    load_kernels(sys.argv[1])  # not in the workers: one that fails at its start is started anew without an end
    tasks = [(variant, wanted["capability"]) for variant in wanted["variants"]]
    with workers(WORKERS) as pool:
        futures = [pool.submit(compiled, task) for task in tasks]
    json.dump([result_of(future, task) for future, task in zip(futures, tasks)], answers)


def workers(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("fork"))


def result_of(future: Future, task: tuple[dict, int]) -> dict:
    """What became of a variant: compiled once more, alone, where one beside it brought its worker down."""
    try:
        return future.result()
    except BrokenProcessPool:
        with workers(1) as pool:
            try:
                return pool.submit(compiled, task).result()
            except BrokenProcessPool:
                return {"error": "the compiler crashed"}


if __name__ == "__main__":
    main()

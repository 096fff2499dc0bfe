"""The Triton kernels compile to machine code of GPUs that are not there: for what layers ask for, with several Tritons.

Installed is the Triton of the newest torch's CUDA build; ``APPROXNAS_TRITON_FOLDERS`` (set by tox, see there) names
folders with others, above all that of the oldest torch. Without it the installed one compiles alone.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spaces.arithmetic.engines import self_test
from spaces.arithmetic.engines.gpu import factored as triton_factored
from tests.gpu import variants as recorded

CAPABILITIES = (80, 90)  # Ampere's, the lowest that int8 is computed for; Hopper's, which has instructions of its own
FOLDERS = [Path(name) for name in os.environ.get("APPROXNAS_TRITON_FOLDERS", "").split(os.pathsep) if name]
SHARED = 99 * 1024  # bytes that a program may have on consumer GPUs
SPILLED = 1024  # bytes per thread that did not fit into registers; up to 528 were seen, with Triton 3.2
REAL = (  # kernels whose sums are of real numbers
    "blend", "depthwise", "finish", "gradient_sums", "map", "add_up", "weighted_sum"
)  # fmt: skip
COMPILER = Path(__file__).with_name("compile_variants.py")
KERNELS = Path(triton_factored.__file__).with_name("kernels") / "__init__.py"

pytestmark = [
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="Triton is tested on x86-64 Linux alone"
    ),
    pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="Triton's interpreter compiles nothing"),
]


@pytest.fixture(scope="module")
def variants() -> list[dict]:
    return recorded.covering(recorded.variants())


def compile_all(variants: list[dict], capability: int, folder: Path | None, cache: Path) -> list[dict]:
    """What became of each variant, in a process of its own with the Triton of ``folder``, or else the installed one."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    if folder is not None:
        assert (folder / "triton").is_dir(), f"there is no Triton in {folder}"
        environment["PYTHONPATH"] = str(folder)
    done = subprocess.run(
        [sys.executable, COMPILER, KERNELS],
        input=json.dumps({"capability": capability, "variants": variants}),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def fault(variant: dict, result: dict) -> str:
    """What is wrong with a variant; '' when nothing is."""
    if error := result.get("error"):
        return error
    if not result["cubin"]:
        return "there is no machine code"
    if variant["kernel"] == "matrix_kernel" and not result["tensor cores"]:
        return "bytes are not multiplied on the tensor cores"
    if result["fused"] and not variant["kernel"].startswith(REAL):
        return "a multiplication is fused with an addition, so that sums are not rounded before they are scaled"
    if result["shared"] > SHARED:
        return f"{result['shared']} bytes of shared memory are more than consumer GPUs have"
    if result["spilled"] > SPILLED:
        return f"{result['spilled']} bytes per thread do not fit into registers"
    return ""


with_every_triton = pytest.mark.parametrize(
    "folder", [None, *FOLDERS], ids=["installed", *(folder.name for folder in FOLDERS)]
)


@with_every_triton
def test_kernels_compile(folder, variants, tmp_path):
    """Every second variant for the newer architecture with the newer Triton, the others for the older one with the older."""
    if folder is None:
        require_compiled(None, CAPABILITIES[-1], variants[::2], tmp_path)
    else:
        require_compiled(folder, CAPABILITIES[0], variants[1::2], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@with_every_triton
def test_all_variants_compile_and_not_a_choice_alone(folder, capability, tmp_path):
    """Thousands: half an hour on two cores each."""
    require_compiled(folder, capability, recorded.variants(), tmp_path)


def require_compiled(folder: Path | None, capability: int, variants: list[dict], tmp_path: Path) -> None:
    results = compile_all(variants, capability, folder, tmp_path)
    assert len(results) == len(variants)
    faults = [
        f"{variant['kernel']} {variant['constants']} {variant['options']}: {text}"
        for variant, result in zip(variants, results)
        if (text := fault(variant, result))
    ]
    assert not faults, f"{len(faults)} of {len(variants)} variants for sm_{capability}:\n" + "\n".join(faults)


def test_every_kernel_is_launched(variants):
    assert {variant["kernel"] for variant in variants} == set(recorded.kernels()) != set()


def test_engines_are_tested_in_the_shapes_that_layers_are_computed_in(variants):
    """The self-test of a GPU, and the check, launch every size of tile that networks do."""

    def sizes(found: list[dict]) -> set[tuple]:
        names = ("BLOCK_M", "BLOCK_N", "num_warps", "num_stages", "FLAT", "BITS", "CHUNKS")
        held = [
            {**variant["constants"], **variant["options"]} for variant in found if variant["kernel"] == "matrix_kernel"
        ]
        return {
            (name, min(int(values[name]), 2) if name == "CHUNKS" else values[name]) for values in held for name in names
        }

    held = {"dtype": torch.uint8, "device": recorded.META}
    with recorded.recording() as launches:
        for key, layer, *_ in (*self_test._SHORT, *self_test._SHORT_ON_GPU):
            if key != "none":  # which is looked up
                x = torch.empty(layer.input, **held).contiguous(memory_format=torch.channels_last)
                packed = triton_factored.pack(
                    torch.empty(layer.weights, **held), self_test._tables()[key], layer.geometry
                )
                triton_factored.conv2d(x, packed, 128)
    assert sizes(variants) - sizes(list(launches.values())) == set()


def test_the_choice_has_every_pair_of_shapes():
    found = [
        {"kernel": "k", "signature": {"x": "*u8"}, "constants": {"A": a, "B": b, "C": c}, "aligned": [0], "options": {}}
        for a in range(3)
        for b in range(3)
        for c in range(3)
    ]
    chosen = recorded.covering(found)
    assert len(chosen) == 9  # as many as the pairs of two of the numbers: a Latin square
    for one, other in ("AB", "AC", "BC"):
        assert {(v["constants"][one], v["constants"][other]) for v in chosen} == {
            (i, j) for i in range(3) for j in range(3)
        }


def test_faults_are_named():
    variant = {"kernel": "matrix_kernel"}
    fine = {"cubin": 1, "tensor cores": True, "fused": False, "shared": SHARED, "spilled": 0}
    assert fault(variant, fine) == ""
    assert fault(variant, {"error": "AssertionError: acc"}) == "AssertionError: acc"
    for change, text in (
        ({"cubin": 0}, "no machine code"), ({"tensor cores": False}, "tensor cores"), ({"fused": True}, "fused"),
        ({"shared": SHARED + 1}, "shared memory"), ({"spilled": SPILLED + 1}, "registers"),
    ):  # fmt: skip
        assert text in fault(variant, {**fine, **change})


def test_a_compiler_that_crashes_is_a_fault_of_its_variant():
    """Instead of a test that waits for ever: Triton 3.2 ends its process at what it cannot lower."""
    code = """if True:
        import os
        import compile_variants

        def crash(task):
            os.abort()

        compile_variants.compiled, task = crash, ({}, 80)
        with compile_variants.workers(1) as pool:
            future = pool.submit(crash, task)
        print(compile_variants.result_of(future, task))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=COMPILER.parent, capture_output=True, text=True, check=False
    )
    assert "the compiler crashed" in done.stdout, done.stderr

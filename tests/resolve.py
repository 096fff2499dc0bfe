"""Do the pinned versions go together? ``python -m tests.resolve [--all] [--python 3.12] [--torch 2.8]`` asks uv.

Resolves the package with all extras and what the tests need under ``constraints.txt``, whose line for torch is replaced,
for Linux on x86-64 and for two builds of torch: "cuda", PyPI's, which pins Triton and CUDA's libraries; and "cpu", which
PyPI does not have: it is the same without these. Nothing is installed or downloaded but metadata.
"""

import argparse
import configparser
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORM = "x86_64-manylinux_2_28"
OF_CUDA = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton\b)")  # nvidia-ml-py is an extra of ours


def version_of(name: str, text: str) -> str:
    """The version in a line like ``name==1.2`` or ``"name>=1.2"`` of a file."""
    return re.search(rf"^\W*{name}[=>]=([\d.]+)", text, re.MULTILINE)[1]


def torch_versions() -> list[str]:
    """From the lowest that pyproject.toml admits to the pinned one, as minor versions, of which the last patch counts."""
    lowest = version_of("torch", (ROOT / "pyproject.toml").read_text())
    newest = version_of("torch", (ROOT / "constraints.txt").read_text())
    (major, first), last = map(int, lowest.split(".")[:2]), int(newest.split(".")[1])
    return [f"{major}.{minor}.*" for minor in range(first, last)] + [newest]


def tests_need(pinned: bool) -> list[str]:
    """What tox installs beside the package; ``pinned``: also what belongs to the newest torch alone."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "tox.ini")
    lines = [line for env in ("tests", "lint") for line in settings[f"testenv:{env}"]["deps"].splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#") and (pinned or "==" not in line)]


def resolve(torch: str, python: str, without: list[str]) -> tuple[list[str], str]:
    """The versions found, and why there are none. ``without``: packages whose requirements are left out."""
    import uv

    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    newest = f"torch=={torch}" in constraints
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.txt" for name in ("constraints", "requirements", "excludes")}
        files["constraints"].write_text("\n".join(line for line in constraints if not line.startswith("torch==")))
        files["requirements"].write_text("\n".join([f"torch=={torch}", *tests_need(newest)]))
        files["excludes"].write_text("\n".join(without))
        command = [
            uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate", "--all-extras",
            "--only-binary", ":all:", "--python-version", python, "--python-platform", PLATFORM,
            "--constraints", files["constraints"], "--excludes", files["excludes"],
            ROOT / "pyproject.toml", files["requirements"],
        ]  # fmt: skip
        environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.stdout.split("\n") if done.returncode == 0 else [], reason(done.stderr) if done.returncode else ""


def reason(message: str) -> str:
    """uv's explanation in one line, without the frame around it."""
    words = " ".join(re.sub(r"[×╰─▶│]", " ", message).split())
    return words.split("resolving dependencies", 1)[-1].removeprefix(":").strip().removeprefix("cause: ")


def check(torch: str, python: str) -> bool:
    """Prints a line for each build of torch; whether all resolve."""
    found, without, fine = [], [], True
    for build in ("cuda", "cpu"):
        found, conflict = resolve(torch, python, without)
        name = next((line for line in found if line.startswith("torch==")), f"torch=={torch}")
        extra = ", ".join(line for line in found if line.startswith(("triton==", "sympy==", "setuptools==")))
        print(
            f"{name:14} {build:4} Python {python:4}  {'conflict: ' + conflict if conflict else 'ok  ' + extra}",
            flush=True,
        )
        without = [line.split("==")[0] for line in found if OF_CUDA.match(line)]
        fine &= not conflict
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].split("``")[0])
    parser.add_argument("--all", action="store_true", help="every supported torch on every supported Python")
    parser.add_argument("--python", choices=PYTHONS, help="this one alone; without --all, the Python that runs this")
    parser.add_argument("--torch", metavar="VERSION", help="this one alone, say 2.8.0; without --all, the pinned one")
    args = parser.parse_args()
    pythons = [args.python] if args.python else PYTHONS if args.all else ["{}.{}".format(*sys.version_info)]
    torches = [args.torch] if args.torch else torch_versions() if args.all else torch_versions()[-1:]
    results = [check(torch, python) for torch in torches for python in pythons]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Every reader of files from elsewhere, given thousands of damaged and forged ones: a value or the declared error.

No input may take more than 2 s of this process's time, nor 500 MB. Mutants are made from real files by their number, so
that a failure names all that is needed to see it again.
"""

import io
import json
import resource
import tarfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation.cli import summary
from evaluation.datasets import decode
from evaluation.datasets.containers import open_container
from evaluation.export import files as export
from evaluation.export.graph import Graph
from evaluation.export.network import ExportedNetwork
from evaluation.runs import architecture_files as architectures
from evaluation.runs import checkpoints
from evaluation.runs.checkpoint_shapes import Checkpoint
from evaluation.runs.folder import read_history, read_record
from evaluation.settings.config import RunConfig
from evaluation.training.loop import Schedule
from reports.rows import rows_of
from spaces.cli.terminal import Terminal
from spaces.errors import InputError
from spaces.files.json_files import parse_json, read_json
from spaces.files.schema import typed
from spaces.multipliers import catalogue
from spaces.multipliers.files.datasheet import is_figures_file, read_figures
from spaces.multipliers.files.formats import FORMATS
from tests import tiny
from tests.examples import examples
from tests.made_records import RECORDS
from tests.mutations import Mutator, mutant, mutant_json

COUNT, MANY = 2_000, 100_000
SECONDS, MEGABYTES = 2.0, 500
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Reader:
    """``originals`` are real files, by suffix and content; ``read`` reads a path and uses what it found."""

    originals: Callable[[], list[tuple[str, bytes]]]
    read: Callable[[Path], object]
    mutate: Mutator = mutant


# -- real files --------------------------------------------------------------------------------------------------------


def _packed(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def images() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    made = []
    for mode, channels in (("L", 0), ("RGB", 3), ("RGBA", 4)):
        shape = (9, 7, channels) if channels else (9, 7)
        picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)
        for form in ("PNG", "GIF", "BMP", "WEBP", "TIFF", *(("JPEG",) if mode != "RGBA" else ())):
            kept = picture if form != "GIF" else picture.convert("P")
            made.append((".png", _packed(lambda file, kept=kept, form=form: kept.save(file, form))))
    return made


def _members() -> dict[str, bytes]:
    content = images()[0][1]
    return {f"train/{name}/{number}.png": content for name in "ab" for number in range(2)} | {"test/a/1.png": content}


def _tar(mode: str, form: int) -> bytes:
    def write(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode=mode, format=form) as archive:
            for name, content in _members().items():
                member = tarfile.TarInfo(name if form != tarfile.PAX_FORMAT else f"{name[:-4]}é.png")
                member.size, member.mtime = len(content), 1.5 if form == tarfile.PAX_FORMAT else 1
                archive.addfile(member, io.BytesIO(content))

    return _packed(write)


def _zip() -> bytes:
    def write(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in _members().items():
                archive.writestr(name, content)

    return _packed(write)


def archives() -> list[tuple[str, bytes]]:
    tars = [(".tar", _tar("w", form)) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    packed = [(".tar.gz", _tar("w:gz", tarfile.GNU_FORMAT)), (".tar.xz", _tar("w:xz", tarfile.PAX_FORMAT))]
    return [*tars, *tars, *packed, (".zip", _zip()), (".zip", _zip())]


def tables(*suffixes: str) -> Callable[[], list[tuple[str, bytes]]]:
    def made() -> list[tuple[str, bytes]]:
        multiplier = tiny.library(tiny.run_config())[1]
        contents = [(suffix, FORMATS[suffix].write(multiplier)) for suffix in suffixes]
        # Whole texts of 65,536 numbers take 10 ms each: one in ten is whole.
        starts = [(suffix, content[:2000]) for suffix, content in contents if suffix in (".txt", ".csv", ".h")]
        return contents + 9 * starts

    return made


def figures() -> list[tuple[str, bytes]]:
    built_in = Path(catalogue.__file__).with_name("mul8s_figures.csv")
    return [(".csv", built_in.read_bytes())]


def some_records() -> list[tuple[str, bytes]]:
    names = ("approxdarts-digits-quick-s0", "random-digits-quick-s4", "evoapproxnas-grid-digits-quick-s0")
    older = [RECORDS / name / "record.json" for name in names]
    newer = [json.dumps(read_record(path).to_json()).encode() for path in older]
    return [(".json", content) for content in (*(path.read_bytes() for path in older), *newer)]


def histories() -> list[tuple[str, bytes]]:
    lines = (RECORDS / "random-digits-quick-s4" / "history.jsonl").read_bytes().splitlines(keepends=True)
    return [(".jsonl", b"".join(lines[:4]))]


def some_architectures() -> list[tuple[str, bytes]]:
    found = [json.loads(content)["finalists"][0]["architecture"] for _, content in some_records()]
    return [(".json", json.dumps(data).encode()) for data in found]


def configs() -> list[tuple[str, bytes]]:
    return [(".json", json.dumps(tiny.run_config(name).to_json()).encode()) for name in tiny.SMALL]


def _state() -> dict:
    problem = tiny.problem("random")
    network = torch.nn.Linear(3, 2)
    training = {"epoch": 1, "network": network.state_dict(), "optimiser": {}, "generator": torch.arange(8)}
    under_way = {"1-approximate": {"training": training, "losses": [0.5], "told": 1}}
    state = {
        "stage": "final",
        "lines": 3,
        "proposals": [],
        "selected": 1,
        "finalists": [],
        "failures": [],
        "results": {},
    }
    stage = {"device_seconds": 1.0, "wall_seconds": 1.0}
    kept = {"state": state | {"training": under_way, "method": None}, "problem": problem.state_dict()}
    return {"schema": 3, "config": tiny.run_config().to_json(), "data": "f", "ledger": {"search": stage}, **kept}


def some_checkpoints() -> list[tuple[str, bytes]]:
    return [(".pt", _packed(lambda file: torch.save(_state(), file)))]


def arrays() -> list[tuple[str, bytes]]:
    parts = {"a.weight": np.ones((2, 3), np.float32), "a.codes": np.ones((2, 3), np.int8), "b": np.float32(1.5)}
    return [(".npz", _packed(lambda file: np.savez_compressed(file, **parts)))]


def _network() -> dict:
    shapes = {"output_shape": [1, 6, 6]}
    layers = [
        {"name": "n", "op": "normalise", "inputs": ["image"], **shapes},
        {"name": "c", "op": "conv", "inputs": ["n"], "arithmetic": "fp32", "stride": [1, 1], "padding": [1, 1],
         "dilation": [1, 1], "groups": 1, "kernel_size": [3, 3], **shapes},
        {"name": "b", "op": "batch_norm", "inputs": ["c"], "epsilon": 1e-5, **shapes},
        {"name": "p", "op": "max_pool", "inputs": ["b"], "kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0]},
        {"name": "q", "op": "pad", "inputs": ["p"], "left": 1, "right": 1, "top": 0, "bottom": 0},
        {"name": "s", "op": "slice", "inputs": ["q"], "start": [0, 0, 0], "stop": [1, 3, 3]},
    ]  # fmt: skip
    return {"format": 1, "multipliers": {}, "layers": layers, "input": {"name": "image"}, "output": "s"}


def networks() -> list[tuple[str, bytes]]:
    return [(".json", json.dumps(_network()).encode())]


# -- what is done with them --------------------------------------------------------------------------------------------


def read_image(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the decoder of image folders does
        return decode._picture(path.read_bytes(), path.name, 0)


def read_archive(path: Path) -> object:
    container = open_container(path)
    return sum(len(content) for _, content in container.read(container.listing.files))


def read_figures_file(path: Path) -> object:
    return read_figures(path) if is_figures_file(path) else None


def read_and_show(path: Path) -> object:
    record = read_record(path)
    if zlib.crc32(path.read_bytes()) % 8 == 0:  # to lay the tables out takes 10 ms
        summary.show(Terminal(file=io.StringIO(), width=100), record, "here")
    return record


def read_checkpoint(path: Path) -> object:
    return typed(checkpoints.load(path, CPU), Checkpoint)


def read_network(path: Path) -> object:
    """As a whole export, whose arrays are good."""
    content = {"n.mean": 0.5, "n.std": 1.0, "c.weight": np.ones((1, 1, 3, 3)), "b.mean": [0.0], "b.variance": [1.0]}
    folder = path.parent
    (folder / export.JSON).write_bytes(path.read_bytes())
    if not (folder / export.NPZ).exists():
        np.savez(folder / export.NPZ, **{name: np.asarray(value, np.float32) for name, value in content.items()})
    graph, _ = export.read(folder)
    return ExportedNetwork(Graph(graph.layers, graph.arrays, {}))(torch.zeros(1, 1, 6, 6, dtype=torch.uint8))


READERS = {
    "images": Reader(images, read_image),
    "archives": Reader(archives, read_archive),
    "binary tables": Reader(tables(".bin", ".npy", ".npz"), lambda path: FORMATS[path.suffix].read(path)),
    "text tables": Reader(tables(".txt", ".csv", ".h"), lambda path: FORMATS[path.suffix].read(path)),
    "figures": Reader(figures, read_figures_file),
    "records": Reader(some_records, read_and_show, mutant_json),
    "records of reports": Reader(some_records, lambda path: rows_of(read_record(path)), mutant_json),
    "histories": Reader(histories, read_history),
    "architectures": Reader(some_architectures, lambda p: architectures._from_json(read_json(p)), mutant_json),
    "settings": Reader(configs, lambda path: RunConfig.from_json(read_json(path), path), mutant_json),
    "checkpoints": Reader(some_checkpoints, read_checkpoint),
    "arrays": Reader(arrays, lambda path: export.read_arrays(path)),
    "networks": Reader(networks, read_network, mutant_json),
}


def campaign(name: str, folder: Path, count: int) -> tuple[int, int]:
    """How many mutants were read and how many refused; fails where anything else happens."""
    reader, peak = READERS[name], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    originals = reader.originals()
    for suffix, content in originals:
        (folder / f"mutant{suffix}").write_bytes(content)
        if name != "text tables":  # most of which are only the beginning of one
            reader.read(folder / f"mutant{suffix}")
    read = refused = 0
    for number in range(count):
        suffix, content = originals[number % len(originals)]
        path = folder / f"mutant{suffix}"
        path.write_bytes(reader.mutate(content, number))
        began = time.process_time()
        try:
            reader.read(path)
            read += 1
        except InputError as error:
            refused += 1
            assert str(error), f"mutant {number} of {name}"
        except BaseException as error:
            raise AssertionError(f"mutant {number} of {name}: {type(error).__name__}: {error}") from error
        assert time.process_time() - began < SECONDS, f"mutant {number} of {name}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    assert grown < MEGABYTES, f"{name}: {grown:.0f} MB"
    return read, refused


@pytest.mark.parametrize("name", READERS)
def test_mutants_are_read_or_refused(name, tmp_path):
    read, refused = campaign(name, tmp_path, COUNT)
    assert refused > COUNT / 50, (read, refused)  # or the mutations are too tame to say anything


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_mutants_are_read_or_refused(name, tmp_path):
    print(name, campaign(name, tmp_path, MANY))


NUMBERS = st.integers() | st.floats() | st.booleans() | st.none()
ANYTHING = st.recursive(
    NUMBERS | st.text(max_size=8), lambda c: st.lists(c, max_size=4) | st.dictionaries(st.text(), c)
)


@settings(max_examples=examples(300))
@given(ANYTHING)
def test_any_json_is_read_or_refused(data):
    for use in (architectures._from_json, lambda value: RunConfig.from_json(value, Path("a"))):
        try:
            use(parse_json(json.dumps(data), "a"))
        except InputError as error:
            assert str(error)


@settings(max_examples=examples(300))
@given(
    ANYTHING,
    st.sampled_from([int, float, str, bool, dict, list[int], tuple[int, str], int | None, Schedule, Checkpoint]),
)
def test_any_value_is_of_a_type_or_not(data, kind):
    try:
        typed(data, kind)
    except InputError as error:
        assert str(error)

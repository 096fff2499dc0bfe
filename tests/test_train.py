"""Given architectures: published genotypes, records and files; their training, and their place in reports."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import train
from evaluation.cli import comparison
from evaluation.runs import checkpoints
from evaluation.runs.architecture_files import resolve
from evaluation.runs.folder import RunFolder, read_history, read_record
from evaluation.runs.stages import Run
from reports import tables, text
from reports.load import load
from spaces.cells import published
from spaces.cells.space import CellSpace
from spaces.cli.terminal import Terminal
from spaces.costs.trace import total_macs, total_params
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.files.importing import keep_tables
from spaces.multipliers.multiplier import Multiplier, exact_products
from spaces.registry import SPACES, find_published
from spaces.shape import NetworkShape
from tests import made_records, tiny
from tests.running import (
    EVERY_CHECKPOINT,
    counted_run,
    finished_run,
    moments_to_kill_at,
    quiet,
    resume,
    stopped_run,
    without_times,
)

CPU = torch.device("cpu")
CIFAR = NetworkShape(channels=36, cells=20, classes=10, input_shape=(3, 32, 32))
FLAGS = [
    "--baselines",
    "none",
    "--protocol.search-channels",
    "2",
    "--protocol.final-channels",
    "2",
    "--protocol.batch",
    "360",
    "--protocol.final-epochs",
    "1",
]
# DARTS_V2 as the genotypes.py of DARTS spells it.
GENOTYPE = {
    "normal": [
        ["sep_conv_3x3", 0], ["sep_conv_3x3", 1], ["sep_conv_3x3", 0], ["sep_conv_3x3", 1],
        ["sep_conv_3x3", 1], ["skip_connect", 0], ["skip_connect", 0], ["dil_conv_3x3", 2],
    ],
    "normal_concat": [2, 3, 4, 5],
    "reduce": [
        ["max_pool_3x3", 0], ["max_pool_3x3", 1], ["skip_connect", 2], ["max_pool_3x3", 1],
        ["max_pool_3x3", 0], ["skip_connect", 2], ["skip_connect", 2], ["max_pool_3x3", 1],
    ],
    "reduce_concat": [2, 3, 4, 5],
}  # fmt: skip


def written(path: Path, data: object) -> str:
    path.write_text(json.dumps(data))
    return str(path)


# -- published genotypes -----------------------------------------------------------------------------------------------

# V1 lacks one dil_conv_3x3 of V2 in each of the 18 normal cells, of which six have 36, 72 and 144 channels: a depthwise
# and a pointwise convolution and a normalisation, 9 C + C² + 2 C parameters. The others as published: 3.4 M and 532 M
# (P-DARTS), 3.6 M (PC-DARTS; counted as 3.63 M by others).
SIZES = {
    "DARTS_V1": (3_349_342 - 6 * sum(c * c + 11 * c for c in (36, 72, 144)), 0.5, 501.0),
    "DARTS_V2": (3_349_342, 0.5, 528.4),
    "PC_DARTS": (3_630_000, 5_000, None),
    "P_DARTS": (3_430_000, 5_000, 532.0),
}


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_a_published_genotype_has_its_published_size(name):
    rows = CellSpace([catalogue.exact(True)]).costs(published.PUBLISHED[name].architecture("mul8s_1KV8"), CIFAR)
    params, within, macs = SIZES[name]
    assert total_params(rows) == pytest.approx(params, abs=within)
    if macs:
        assert total_macs(rows) / 1e6 == pytest.approx(macs, abs=0.5)


@pytest.mark.parametrize(
    ("text", "name"),
    [("darts_v2", "DARTS_V2"), ("Darts-V1", "DARTS_V1"), ("PC-DARTS", "PC_DARTS"), ("PC_DARTS_cifar", "PC_DARTS"),
     ("pdarts", "P_DARTS")],
)  # fmt: skip
def test_names_are_found_however_they_are_spelled(text, name):
    assert find_published(text) == (name, published.ARCHITECTURES[name])


def test_a_genotype_of_darts_is_the_published_one(tmp_path):
    given = resolve(written(tmp_path / "mine.json", GENOTYPE), multiplier="mul8s_1L2H")
    assert given.architecture == resolve("DARTS_V2", multiplier="mul8s_1L2H").architecture
    assert given.name == "mine" and [multiplier.name for multiplier in given.library] == ["mul8s_1L2H"]
    short = {"normal": GENOTYPE["normal"][:2], "reduce": GENOTYPE["reduce"][:2]}
    one_node = resolve(written(tmp_path / "short.json", short))
    assert one_node.space_settings == {"space": "cells", "space_config": {"nodes": 1}, "scope": "all"}
    assert one_node.architecture.multipliers == ("mul8s_1KV8",)  # the exact one, where nothing is said


GENES = {cell: [tuple(pair) for pair in GENOTYPE[cell]] for cell in ("normal", "reduce")}
NESTED = {cell: [GENES[cell][at : at + 2] for at in (0, 2, 4, 6)] for cell in GENES}
# As the code of DARTS prints it, as its genotypes.py spells it, and as others nest it.
PRINTED = {
    "printed": f"Genotype(normal={GENES['normal']}, normal_concat=range(2, 6), reduce={GENES['reduce']}, "
    "reduce_concat=range(2, 6))",
    "named, over several lines": f"DARTS_V2 = Genotype(\n    normal={GENES['normal']},\n    normal_concat=[2, 3, 4, 5],\n"
    f"    reduce={GENES['reduce']},\n    reduce_concat=[2, 3, 4, 5],\n)",
    "by position": f"Genotype({GENES['normal']}, [2, 3, 4, 5], {GENES['reduce']}, (5, 4, 3, 2))",
    "nested": f"Genotype(normal={NESTED['normal']}, normal_concat=range(2,6), reduce={NESTED['reduce']})",
}


@pytest.mark.parametrize("case", PRINTED)
def test_a_genotype_is_read_as_it_is_printed(case, tmp_path):
    known = resolve("DARTS_V2").architecture
    assert resolve(PRINTED[case]).architecture == known
    module = tmp_path / "genotypes.py"
    module.write_text(
        f"from collections import namedtuple\n\nGenotype = namedtuple('Genotype', 'normal')\n{PRINTED[case]}\n"
    )
    given = resolve(str(module))
    assert (given.name, given.architecture) == ("genotypes", known)


def test_nested_pairs_and_ranges_are_read_in_json(tmp_path):
    data = {"normal": NESTED["normal"], "normal_concat": "range(2, 6)", "reduce": GENES["reduce"]}
    assert resolve(written(tmp_path / "mine.json", data)).architecture == resolve("DARTS_V2").architecture


def test_a_cell_of_nasbench201_is_one_of_the_bench_space(tmp_path):
    text = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
    given = resolve(text, multiplier="mul8s_1L2H")
    operations = [(edge.source, edge.where, edge.operation) for edge in SPACES["bench"].edges(given.architecture)]
    assert operations == [
        ("cell input", "node 1", "conv_3x3"),
        ("cell input", "node 2", "avg_pool_3x3"), ("node 1", "node 2", "conv_1x1"),
        ("cell input", "node 3", "skip_connect"), ("node 1", "node 3", "conv_3x3"), ("node 2", "node 3", "skip_connect"),
    ]  # fmt: skip
    assert given.architecture.multipliers == ("mul8s_1L2H",)
    (tmp_path / "cell.txt").write_text(f"{text}\n")
    assert resolve(str(tmp_path / "cell.txt")).architecture.multipliers == ("mul8s_1KV8",)
    assert resolve(str(tmp_path / "cell.txt"), multiplier="mul8s_1L2H").architecture == given.architecture


def test_multipliers_and_scope_are_replaced_where_that_is_asked_for(tmp_path):
    separable = resolve("darts_v2", multiplier="mul8s_1L2H", scope="separable").architecture
    assert separable.scope == "separable" and separable.multiplier is None and separable.cells[0].multiplier is None
    # One circuit on one edge: it stays without --multiplier, and goes with it.
    data = resolve("darts_v2").architecture.to_json()
    data["cells"][0]["nodes"][0][0][2] = "mul8s_1KX2"
    path = written(tmp_path / "own.json", data)
    assert resolve(path).architecture.multipliers == ("mul8s_1KV8", "mul8s_1KX2")
    assert [multiplier.name for multiplier in resolve(path).library] == ["mul8s_1KV8", "mul8s_1KX2"]
    assert resolve(path, multiplier="mul8s_1L2H").architecture == resolve("DARTS_V2", 0, "mul8s_1L2H").architecture
    assert resolve(path, scope="separable").architecture.multipliers == ("mul8s_1KX2", "mul8s_1KV8")
    narrow = written(tmp_path / "narrow.json", separable.to_json())
    with pytest.raises(InputError, match="needs --multiplier"):
        resolve(narrow, scope="all")
    assert resolve(narrow, multiplier="mul8s_1L2H", scope="all").architecture.multiplier == "mul8s_1L2H"


def test_unsigned_multipliers_from_a_file_are_taken(tmp_path):
    np.save(tmp_path / "mul8u_mine.npy", exact_products(signed=False) // 4 * 4)
    (tmp_path / "figures.csv").write_text("name,power_mw\nmul8u_mine,0.3\n")
    given = resolve("pc_darts", multiplier=str(tmp_path / "mul8u_mine.npy"))
    assert [(c.name, c.signed, c.power_mw) for c in given.library] == [("mul8u_mine", False, 0.3)]
    assert given.architecture.multipliers == ("mul8u_mine",)


# -- training ----------------------------------------------------------------------------------------------------------


def config_of(given, **changes):
    settings = {
        "method": f"given-{given.name}", "architecture": given.architecture.to_json(), **given.space_settings,
        "method_config": {"architecture": given.name}, "multipliers": tuple(c.name for c in given.library),
    }  # fmt: skip
    return replace(tiny.run_config(), **{**settings, **changes})


@pytest.mark.parametrize("method", ["random", "evoapproxnas"])
def test_a_finalist_trained_again_is_the_same_network(method, tmp_path):
    """The search's own training of its finalist is the other route: equal weights, accuracies and energies."""
    space = (
        {"space": "grid", "space_config": {"rows": 2, "columns": 4, "levels_back": 3}}
        if method == "evoapproxnas"
        else {}
    )
    config = tiny.run_config(method, baselines="all", **space)
    folder, searched = finished_run(tmp_path / "search", config)
    number = len(searched.finalists)
    given = resolve(str(folder.path), number)
    again, record = finished_run(tmp_path / "given", config_of(given, baselines=("all",)))
    (finalist,), expected = record.finalists, searched.finalists[number - 1]
    assert finalist.accuracy.validation is None and expected.accuracy.validation is not None
    assert replace(finalist, accuracy=expected.accuracy) == expected
    assert finalist.accuracy.test == expected.accuracy.test
    for arithmetic in ("fp32", "int8", "approximate"):
        weights = checkpoints.load(again.weights(1, arithmetic), CPU)
        trained = checkpoints.load(folder.weights(number, arithmetic), CPU)
        assert weights.keys() == trained.keys() and all(torch.equal(weights[name], trained[name]) for name in weights)
    spent = {stage: times.device_seconds for stage, times in record.ledger.items()}
    assert spent["search"] == spent["selection"] == 0 < min(spent["final"], spent["test"])
    assert (record.hypervolume, record.anytime, record.failures) == (None, (), ())
    history = read_history(again.path / "history.jsonl")
    assert [line["stage"] for line in history] == ["final"] * 3 * tiny.PROTOCOL.final_epochs
    assert (again.path / "finalist1.svg").exists()


@pytest.mark.parametrize("every", EVERY_CHECKPOINT)
def test_a_given_run_killed_around_any_checkpoint_and_resumed_equals_an_uninterrupted_one(every, tmp_path):
    given = resolve(written(tmp_path / "a.json", {"normal": GENOTYPE["normal"][:2], "reduce": GENOTYPE["reduce"][:2]}))
    config = config_of(given, baselines=("first",))
    _, whole, kinds = counted_run(tmp_path / "whole", config)
    assert len(kinds) > 6
    for number, before in moments_to_kill_at(kinds, every):
        killed = stopped_run(tmp_path / "killed", config, number, before)
        assert without_times(resume(killed)) == without_times(whole), f"killed at checkpoint {number}"


def test_foreign_multipliers_of_a_record_are_found_beside_it(tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    values = np.arange(-128, 128)
    np.save(tables / "mine.npy", np.multiply.outer(values // 4 * 4, values))
    (tables / "figures.csv").write_text("name,power_mw\nmine,0.3\n")
    library = catalogue.library([str(tables)])
    config = tiny.run_config(multipliers=("mine",), tables={"mine": library[0].key}, baselines="none")
    folder = RunFolder.create(tmp_path / "runs", config, library)
    Run(config, tiny.dataset(), CPU, library).execute(folder, quiet())
    assert resolve(str(folder.path / "record.json")).library == library
    moved = tmp_path / "record.json"
    moved.write_bytes((folder.path / "record.json").read_bytes())
    with pytest.raises(InputError, match=r"mine.*give a circuit with --multiplier"):
        resolve(str(moved))
    assert resolve(str(moved), multiplier="mul8s_1L2H").architecture.multipliers == ("mul8s_1L2H",)
    # A built-in circuit whose name meant another table when the record was written.
    record = json.loads(moved.read_text().replace('"mine"', '"mul8s_1KX2"'))
    with pytest.raises(InputError, match="mul8s_1KX2 is another circuit here"):
        resolve(written(moved, record))


# -- reports -----------------------------------------------------------------------------------------------------------


def test_reports_and_comparisons_cope_with_runs_without_a_search(tmp_path):
    (tmp_path / "genotypes").mkdir()
    genes = {"normal": GENOTYPE["normal"][:2], "reduce": GENOTYPE["reduce"][:2]}
    given = resolve(written(tmp_path / "genotypes" / "tiny net.json", genes), multiplier="mul8s_1L2H")
    runs = [finished_run(tmp_path, config_of(given, seed=seed, baselines=("none",))) for seed in (0, 1)]
    runs.append(finished_run(tmp_path, tiny.run_config("random", baselines="none")))
    places = [folder.path for folder, _ in runs]
    assert places[0].name == "given-tiny_net-blobs-tiny-s0-1"
    loaded = load(places)
    row = next(run for run in loaded.runs if run.record_file.parent == places[0]).best
    assert row["method"] == "given-tiny_net" and row[["validation_accuracy", "hypervolume"]].isna().all()
    assert row["test_accuracy_approximate"] == runs[0][1].finalists[0].accuracy.test["approximate"]
    told = text.report(loaded, {section.name: list(tables.of_section(section)) for section in loaded.sections}, "")
    assert "| given-tiny_net | 2 | 0 1 |" in told and "| random | 1 | 0 |" in told
    console = Terminal(record=True, width=120, file=io.StringIO())
    comparison.show(console, [record for _, record in runs])
    assert console.export_text() == ""  # one search alone has nothing to be compared with


# -- the command line --------------------------------------------------------------------------------------------------


def test_help_needs_no_torch_and_names_every_published_genotype():
    code = (
        "import sys\nfrom evaluation.train import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    words = re.findall(r"[\w.-]+", shown.stdout)
    assert {*published.PUBLISHED, "--architecture", "--finalist", "--export", "--protocol.final-epochs"} <= {*words}


def test_train_test_and_resume_on_the_command_line(tmp_path, capsys):
    genes = {"normal": GENOTYPE["normal"][:2], "reduce": GENOTYPE["reduce"][:2]}
    path = written(tmp_path / "mine.json", genes)
    arguments = ["--architecture", path, "--multiplier", "mul8s_1L2H", "--scope", "separable", *FLAGS]
    assert train.main([*arguments, "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "given-mine-digits-quick-custom-s0-1"
    record = read_record(folder / "record.json")
    assert record.method == "given-mine" and record.method_config["architecture"] == "mine"
    assert (record.multipliers, record.scope, record.seed) == (("mul8s_1L2H",), "separable", 0)
    assert record.finalists[0].architecture == resolve(path, 0, "mul8s_1L2H", "separable").architecture.to_json()
    assert record.command.startswith("python -m evaluation.train --architecture")
    capsys.readouterr()
    assert train.main(["--resume", str(folder), "--export", str(tmp_path / "exported")]) == 0
    assert "bit for bit on 128 test images" in capsys.readouterr().out
    assert read_record(folder / "record.json") == record
    assert json.loads((tmp_path / "exported" / "network.json").read_text())["scope"] == "separable"


def full(path: Path) -> Path:
    path.mkdir()
    (path / "file").write_text("")
    return path


BAD = {
    "no architecture": ([], "--architecture darts_v2"),
    "unknown name": (["--architecture", "darts_v3"], "did you mean DARTS_V"),
    "no such file": (["--architecture", "nowhere/record.json"], "does not exist"),
    "not JSON": (["--architecture", "{torn}"], "is damaged"),
    "neither form": (["--architecture", "{other}"], "neither a record nor an architecture"),
    "text without a genotype": (["--architecture", "{text}"], "neither a record nor an architecture"),
    "two genotypes": (["--architecture", "{two}"], r"two.py: holds 2 genotypes (A, B); leave one"),
    "code in a genotype": (
        ["--architecture", "Genotype(normal=open('x').read(), reduce=[])"],
        "holds open('x').read()",
    ),
    "no Python": (["--architecture", "Genotype(normal=[("], "is not as DARTS prints it"),
    "no reduction cell": (["--architecture", "Genotype(normal=[])"], "has normal=… and reduce=…"),
    "none on the bench space": (
        ["--architecture", "|none~0|+|nor_conv_1x1~0|skip_connect~1|"],
        "unknown operation 'none'",
    ),
    "edge twice": (
        ["--architecture", "|skip_connect~0|+|skip_connect~0|skip_connect~0|"],
        "needs one edge from each of 0 to 1",
    ),
    "edge missing": (["--architecture", "|skip_connect~0|+|skip_connect~0|"], "no cell of NAS-Bench-201"),
    "a list": (["--architecture", "{list}"], "neither a record nor an architecture"),
    "some nodes left out": (["--architecture", "{partial}"], "normal_concat"),
    "odd number of genes": (["--architecture", "{odd}"], "two [operation, source] pairs"),
    "genes the other way round": (["--architecture", "{swapped}"], "write pairs as"),
    "unknown operation": (["--architecture", "{seven}"], "did you mean sep_conv"),
    "unknown key": (["--architecture", "{extra}"], "has no 'width'"),
    "source ahead": (["--architecture", "{ahead}"], "its sources are 0 to 1"),
    "finalist of a genotype": (["--architecture", "darts_v2", "--finalist", "1"], "--finalist is for records"),
    "finalist zero": (["--architecture", "{record}", "--finalist", "0"], "counts from 1"),
    "no such finalist": (["--architecture", "{record}", "--finalist", "2"], "has no finalist 2; it has 1"),
    "older record": (["--architecture", "{old}"], "schema 1"),
    "folder without a record": (["--architecture", "{folder}"], "has no record.json"),
    "unknown circuit": (["--architecture", "darts_v2", "--multiplier", "mul8s_1KV9"], "did you mean mul8s_1K"),
    "mixed signs": (["--architecture", "{mixed}"], "signed and unsigned multipliers cannot"),
    "circuit without power": (["--architecture", "darts_v2", "--multiplier", "bam8s_7_7_14"], "no power figure"),
    "folder of circuits": (["--architecture", "darts_v2", "--multiplier", "{tables}"], "takes one circuit"),
    "flag of a search": (["--architecture", "darts_v2", "--multipliers", "mul8s_1L2H"], "did you mean --multiplier"),
    "scope": (["--architecture", "darts_v2", "--scope", "some"], "separable"),
    "depth": (["--architecture", "darts_v2", "--protocol.final-cells", "2"], "at least 3 cells"),
    "full export folder": (["--architecture", "darts_v2", "--export", "{full}"], "is not empty"),
    "export to a file": (["--architecture", "darts_v2", "--export", "{record}"], "is not a folder"),
    "export here": (["--architecture", "darts_v2", "--export", "."], "a folder of its own"),
    "export to nothing": (["--architecture", "darts_v2", "--export", ""], "a folder of its own"),
    "export where nothing can be": (["--architecture", "darts_v2", "--export", "/proc/x"], "cannot write"),
    "resume of nothing": (["--resume"], "at least one run folder"),
    "resume with other flags": (["--resume", "{folder}", "--seed", "1"], "no other flag"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("inputs")
    genes = [["sep_conv_3x3", 0], ["sep_conv_3x3", 1]]
    mixed = resolve("darts_v2").architecture.to_json()
    mixed["cells"][0]["nodes"][0][0][2] = "mul8u_mine"
    record = made_records.record(made_records.finalist(architecture=resolve("darts_v2").architecture.to_json()))
    files = {
        "other": {"cells": []}, "list": [1], "record": record, "old": {**record, "schema": 1},
        "partial": {**GENOTYPE, "normal_concat": [4, 5]}, "odd": {"normal": genes[:1], "reduce": genes},
        "swapped": {"normal": [[0, "sep_conv_3x3"], genes[1]], "reduce": genes},
        "seven": {"normal": genes, "reduce": [["sep_conv_7x7", 0], genes[1]]}, "extra": {**GENOTYPE, "width": 36},
        "ahead": {"normal": [["sep_conv_3x3", 2], genes[1]], "reduce": genes},
    }  # fmt: skip
    paths = {name: written(root / f"{name}.json", data) for name, data in files.items()}
    (root / "torn.json").write_text('{"normal": [')
    (root / "folder").mkdir()
    (root / "text.txt").write_text("sep_conv_3x3 from 0\n")
    (root / "two.py").write_text(f"A = {PRINTED['printed']}\nB = {PRINTED['nested']}\n")
    unsigned = Multiplier(name="mul8u_mine", signed=False, table=exact_products(signed=False) // 4 * 4, power_mw=0.3)
    keep_tables([unsigned], root / "run" / "multipliers")
    mixed = {**record, "finalists": [made_records.finalist(architecture=mixed)]}
    paths["mixed"] = written(root / "run" / "record.json", mixed)
    (root / "tables").mkdir()
    for name, step in (("mul8s_a", 2), ("mul8s_b", 4)):
        np.save(root / "tables" / f"{name}.npy", exact_products(signed=True) // step * step)
    (root / "tables" / "figures.csv").write_text("name,power_mw\nmul8s_a,1\nmul8s_b,1\n")
    return paths | {
        "torn": str(root / "torn.json"), "text": str(root / "text.txt"), "two": str(root / "two.py"),
        "folder": str(root / "folder"), "tables": str(root / "tables"),
        "full": str(full(root / "full")),
    }  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_line_and_exit_code_2(case, inputs, tmp_path, capsys):
    arguments, expected = BAD[case]
    arguments = [argument.format(**inputs) for argument in arguments]
    out = [] if "--resume" in arguments else ["--out", str(tmp_path / "runs")]
    assert train.main([*arguments, *out]) == 2
    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1, told
    assert expected in told
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_settings_of_before_given_architectures_still_load(tmp_path):
    data = tiny.run_config().to_json()
    del data["architecture"]
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert RunFolder(tmp_path).config() == tiny.run_config()

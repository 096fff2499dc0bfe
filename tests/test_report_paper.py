"""The published tables: the derivation by hand, which records fill which cells, and commands that never go stale."""

import csv
import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given as given_any
from hypothesis import settings as examples
from hypothesis import strategies as st

from evaluation import datasets
from evaluation.settings.protocols import Darts
from methods.approxdarts import ApproxDartsConfig
from methods.evoapproxnas import EvoApproxNasConfig
from methods.random_search import RandomConfig
from reports.load import Loaded, load
from reports.paper import __main__ as command
from reports.paper import contents, derivation, measures
from reports.paper.published import published
from reports.paper.qualifying import OFFICIAL, sort_out
from spaces.cells.published import PUBLISHED
from spaces.errors import InputError
from spaces.multipliers import catalogue
from tests import official_files
from tests.made_records import damaged, finalist, moment, record, save

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "paper.md"
GPU = {"type": "cuda", "name": "a GPU", "count": 1}
ORIGIN = "CIFAR-10 from its official binary files (MD5 checked); Krizhevsky, 2009"


def power(name: str) -> float:
    """Of a built-in circuit, from the table of its figures."""
    text = resources.files("spaces.multipliers").joinpath("mul8s_figures.csv").read_text(encoding="utf-8")
    return next(float(row["pdk45_power_mw"]) for row in csv.DictReader(text.splitlines()) if row["name"] == name)


# -- records that qualify ----------------------------------------------------------------------------------------------


def on_cifar(*finalists: dict, multipliers=("mul8s_1KV8",), hours=24.0, **changes) -> dict:
    """A record on the official CIFAR-10 under the protocol darts, whose search took so many GPU-hours."""
    made = record(*finalists, digest=Darts().hash, dataset="cifar10", dataset_origin=ORIGIN, device=dict(GPU))
    made["protocol"]["name"] = "darts"
    made["ledger"]["search"]["device_seconds"] = 3600 * hours
    tables = {name: catalogue.get(name).key for name in multipliers}
    made |= {"scope": "separable", "cost": "approxdarts", "multipliers": list(multipliers), "tables": tables}
    return made | {"space_config": {"nodes": 4}, "train_limit": 0, "engine": "auto", "deterministic": False} | changes


def settings(config: object, **changes) -> dict:
    return json.loads(json.dumps(asdict(config))) | changes


def darts(order: int, *finalists: dict, **changes) -> dict:
    """A search anew of DARTS: the exact circuit, no energy in the loss, the published derivation alone."""
    config = settings(ApproxDartsConfig(order=order, energy_weight=0.0, proposals=1))
    return on_cifar(*finalists, **{"method": "approxdarts", "method_config": config} | changes)


def approxdarts(*finalists: dict, **changes) -> dict:
    return darts(1, *finalists, multipliers=("mul8s_1KTY",), **changes)


def given(name: str, cells: str = "", **changes) -> dict:
    """Published cells, trained: named after one genotype, with the cells of it or of another."""
    made = PUBLISHED[cells or name].architecture("mul8s_1L2H")
    one = finalist(validation=None, fp32=0.9724, architecture=made.to_json(), key=made.key)
    config = {"architecture": name, "key": made.key[:8]}
    return on_cifar(one, method_config=config, multipliers=("mul8s_1L2H",), **{"method": f"given-{name}"} | changes)


def both(method: str, seed: int, *seconds: float, **changes) -> dict:
    """A run of the comparison, that has the hypervolumes 0.1, 0.2, … after so many seconds."""
    config = ApproxDartsConfig() if method == "approxdarts" else EvoApproxNasConfig()
    curve = [moment(at, s, (0.1, 9.0)) | {"hypervolume": at / 10} for at, s in enumerate(seconds, 1)]
    names = catalogue.names()
    changes = {"scope": "all", "cost": "horowitz45", "budget": "10h", "snapshots": 3} | changes
    changes |= {"method": method, "seed": seed, "anytime": curve, "hypervolume": len(seconds) / 10}
    return on_cifar(method_config=settings(config), multipliers=names, **changes)


def loaded(folder: Path, *records: dict) -> Loaded:
    for number, made in enumerate(records):
        save(folder / f"run{number}", made)
    return load([folder]) if records else Loaded((), ())


def cells(found: Loaded) -> dict[tuple[str, str, str], str]:
    """Every measured cell of the claims and of the family's table that is not empty, by table, row and column."""
    counted = sort_out(found.runs)
    tables = contents.claims(counted, (0.0, 0.0)), contents.family(counted, {})
    return {
        (table.name, row[0].text, column.header): cell.text
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row)
        if column.header.startswith("measured") and column.header != "measured by" and cell.text
    }


def reason(found: Loaded) -> str:
    """Why the only record fills no cell."""
    ((_, _, why),) = contents.others(sort_out(found.runs), found.left_out).rows
    return why.text


ERROR, SEARCHED = "measured: error, %, published cells", "measured: error, %, search anew"
PARAMS, DAYS = "measured: parameters, M, search anew", "measured: GPU-days, one search"


def test_nothing_is_measured_without_records(tmp_path):
    assert cells(loaded(tmp_path)) == {}


def test_a_search_anew_fills_its_row_alone(tmp_path):
    one, two = (finalist(fp32=share, params=params) for share, params in ((0.97, 3_200_000), (0.972, 3_400_000)))
    found = loaded(tmp_path, darts(2, one, hours=12.0), darts(2, two, hours=24.0, seed=1))
    # Mean ± |difference| ÷ √2, which is the sample deviation of two.
    assert cells(found) == {
        ("family", "DARTS, second order", SEARCHED): "2.90 ± 0.14 (2 runs)",
        ("family", "DARTS, second order", PARAMS): "3.30 ± 0.14 (2 runs)",
        ("family", "DARTS, second order", DAYS): "0.750 ± 0.354 (2 runs)",
    }


def test_the_finalist_is_the_best_on_validation(tmp_path):
    chosen, tempting = finalist(validation=0.9, fp32=0.96), finalist(validation=0.8, fp32=0.99)
    assert (
        cells(loaded(tmp_path, darts(1, tempting, chosen)))["family", "DARTS, first order", SEARCHED] == "4.00 (1 run)"
    )


def test_random_search_of_24_networks_fills_its_row(tmp_path):
    made = on_cifar(method="random", method_config=settings(RandomConfig(samples=24)), hours=96.0)
    filled = cells(loaded(tmp_path, made))
    assert filled.pop(("family", "random search", DAYS)) == "4.000 (1 run)"
    assert {row for _, row, _ in filled} == {"random search"}


@pytest.mark.parametrize(
    ("name", "row"),
    [("DARTS_V1", "DARTS, first order"), ("DARTS_V2", "DARTS, second order"), ("PC_DARTS", "PC-DARTS"),
     ("P_DARTS", "P-DARTS")],
)  # fmt: skip
def test_published_cells_fill_the_error_of_their_row(name, row, tmp_path):
    assert cells(loaded(tmp_path, given(name))) == {("family", row, ERROR): "2.76 (1 run)"}


def test_one_multiplier_fills_the_claims(tmp_path):
    # 2 · 150 of 800 and of 400 pJ: 62.5 % and 25 % saved.
    assert cells(loaded(tmp_path, approxdarts(finalist(), hours=9.5))) == {
        ("claims", "search on CIFAR-10, GPU-hours", "measured"): "9.50 (1 run)",
        ("claims", "energy of the multiplications vs fp32, %", "measured"): "−62.50 (1 run)",
        ("claims", "energy of the multiplications vs exact int8, %", "measured"): "−25.00 (1 run)",
        ("claims", "accuracy lost vs fp32, points", "measured"): "5.00 (1 run)",  # 99 and 95 against 94 %
        ("claims", "accuracy lost vs exact int8, points", "measured"): "1.00 (1 run)",
    }


def test_the_speed_up_is_that_to_the_final_hypervolume_of_the_worse_method(tmp_path):
    """Evolution ends at 0.2, after 50 s (the lower median of 50 and 60); the gradient is there after 20 s: 2.5 times."""
    fast = [both("approxdarts", seed, 10.0, 20.0 + seed, 30.0) for seed in (0, 1)]
    slow = [both("evoapproxnas", seed, 30.0, 50.0 + 10 * seed) for seed in (0, 1)]
    elsewhere = both("approxdarts", 5, 1.0, 2.0, device=GPU | {"name": "another GPU"})
    filled = cells(loaded(tmp_path, *fast, *slow, elsewhere))
    assert filled == {("claims", "faster than EvoApproxNAS, ×", "measured"): "2.5 (2 + 2 runs)"}


def test_one_method_alone_or_a_curve_that_is_not_recorded_gives_no_speed_up(tmp_path):
    one, other = both("approxdarts", 0, 10.0, 20.0), both("evoapproxnas", 0, 30.0, 50.0)
    assert cells(loaded(tmp_path / "alone", one)) == {}
    for damage in (None, "much", {}):
        other["anytime"][0]["hypervolume"] = damage
        assert cells(loaded(tmp_path / str(damage), one, other)) == {}


# -- records that nearly do --------------------------------------------------------------------------------------------

JPEG = "archive 'cifar10.tar.xz', training images from 50,000 JPEG files (JPEG is lossy)"
NEARLY = {
    "another hash": (lambda: darts(1, protocol={"name": "darts", "hash": "b" * 64}), "protocol darts (bbbbbbbb), not"),
    "a training limit": (lambda: darts(1, train_limit=2000), "only 2,000 training images"),
    "JPEG copies": (lambda: darts(1, dataset="cifar10-jpeg", dataset_origin=JPEG), "not the official CIFAR-10 but 'cifar10-j"),
    "a folder of that name": (lambda: darts(1, dataset_origin=JPEG), "'cifar10': archive"),
    "no origin": (lambda: darts(1, dataset_origin=None), "origin not recorded"),
    "another order": (lambda: darts(3), "approxdarts.order is 3, not"),
    "a budget": (lambda: darts(1, budget="1h"), 'budget is "1h", not none'),
    "another scope": (lambda: darts(1, scope="all"), 'scope is "all", not "separable"'),
    "other nodes": (lambda: darts(1, space_config={"nodes": 5}), "space_config"),
    "another table": (lambda: darts(1, tables={"mul8s_1KV8": "0" * 64}), "tables"),
    "no tables": (lambda: {k: v for k, v in darts(1).items() if k != "tables"}, "tables is not recorded"),
    "settings of no method": (lambda: darts(1, method_config=None), "approxdarts.relaxation is not recorded"),
    "two circuits": (lambda: darts(1, multipliers=["mul8s_1KV8", "mul8s_1KTY"]), "multipliers"),
    "an unknown method": (lambda: darts(1, method="mine"), "no row is measured by the method mine"),
    "cells of another name": (lambda: given("DARTS_V2", "DARTS_V1"), "its cells are not those of DARTS_V2"),
    "no architecture": (lambda: given("DARTS_V2") | {"finalists": [finalist(architecture={})]}, "its cells are not"),
    "fewer samples": (lambda: on_cifar(method="random", method_config=settings(RandomConfig())), "samples is 100, not 24"),
    "no comparison": (lambda: both("evoapproxnas", 0, 1.0, snapshots=0), "snapshots is 0, not 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", NEARLY)
def test_a_record_that_nearly_qualifies_fills_no_cell_and_says_why(name, tmp_path):
    make, why = NEARLY[name]
    found = loaded(tmp_path, make())
    assert cells(found) == {}
    assert why in reason(found)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device": GPU | {"type": "cpu"}}, "ran on device type cpu, not cuda"),
        ({"notes": ["resumed on cpu after cuda at step 7: other random numbers"]}, "went on on another device"),
        ({"engine": "gather"}, "ran with a forced engine or bit for bit"),
        ({"deterministic": True}, "ran with a forced engine or bit for bit"),
    ],
)
def test_time_counts_only_where_a_gpu_was_free_to_run(changes, why, tmp_path):
    found = loaded(tmp_path, darts(1, **changes), approxdarts(seed=1, **changes))
    assert {column for _, _, column in cells(found)} == {SEARCHED, PARAMS, "measured"}
    assert ("claims", "search on CIFAR-10, GPU-hours", "measured") not in cells(found)
    notes = contents.family(sort_out(found.runs), {}).notes
    assert f"time not counted: run0 {why}; run1 {why}" in notes


def test_an_error_that_was_not_measured_leaves_its_cell_empty(tmp_path):
    filled = cells(loaded(tmp_path, darts(1, finalist(fp32=None)), darts(1, finalist(fp32=0.97), seed=1)))
    assert filled["family", "DARTS, first order", SEARCHED] == "3.00 (1 run)"
    assert filled["family", "DARTS, first order", PARAMS] == "0.00 ± 0.00 (2 runs)"
    nobody = loaded(tmp_path / "none", darts(1, finalist(fp32=None), seed=2))
    assert ("family", "DARTS, first order", SEARCHED) not in cells(nobody)
    notes = contents.family(sort_out(nobody.runs), {}).notes
    assert "not trained in fp32, so without an error: run0" in notes


def test_the_loader_gives_official_images_the_origin_that_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("APPROXNAS_CACHE", str(tmp_path / "cache"))
    files = official_files.published("cifar10", official_files.members("cifar10", *official_files.parts("cifar10")))
    official_files.register(monkeypatch, "cifar10", files)
    folder = official_files.write(tmp_path / "files", files)
    assert datasets.load("cifar10", data_dir=str(folder)).origin.startswith(OFFICIAL)


WHOLE = [
    darts(2),
    approxdarts(),
    given("P_DARTS"),
    both("evoapproxnas", 0, 30.0, 50.0),
    both("approxdarts", 0, 9.0, 20.0),
]


@examples(max_examples=100, deadline=None)
@given_any(st.data())
def test_a_record_damaged_anywhere_breaks_nothing(data):
    """The other of the two methods compared stands beside it, so that all measures are tried."""
    broken = damaged(data.draw, data.draw(st.sampled_from(WHOLE)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = loaded(Path(folder), broken, WHOLE[3], WHOLE[4])
        except InputError:
            return
    counted = sort_out(found.runs)
    told = {row[0].text for row in contents.others(counted, found.left_out).rows}
    assert all(run.name in told or any(run in runs for runs in counted.by_rerun.values()) for run in found.runs)
    assert all(key[0] in ("claims", "family") for key in cells(found))
    assert len(command.commands(counted, tuple(published().reruns)).splitlines()) == 3 * len(published().reruns) - 1


# -- computed ----------------------------------------------------------------------------------------------------------


def test_the_derivation_is_that_by_hand():
    derived = derivation.derive()
    assert derived.params == 3_349_342
    assert derived.macs / 1e6 == pytest.approx(528.4, abs=0.05)
    share = derived.separable_share
    assert share == pytest.approx(0.5699, abs=5e-5)
    assert derived.fp32_pj == pytest.approx(3.7 * derived.macs)
    assert derived.int8_pj / derived.fp32_pj == pytest.approx(1 - share + share * 0.391 / 3.7)
    assert derived.int8_pj / derived.fp32_pj == pytest.approx(0.490, abs=5e-4)
    vs_fp32, vs_int8 = derived.savings(0.515)
    assert (vs_fp32, vs_int8) == (pytest.approx(0.539, abs=5e-4), pytest.approx(0.0595, abs=1e-4))
    assert derived.ratio_for(vs_fp32, derived.fp32_pj) == pytest.approx(0.515)
    assert derived.ratio_for(vs_int8, derived.int8_pj) == pytest.approx(0.515)
    # Without any power: of the separable convolutions' 8-bit energy nothing is left.
    assert derived.savings(0.0)[1] == pytest.approx(share * 0.391 / (3.7 - share * (3.7 - 0.391)))


def test_every_multiplier_saves_what_its_power_says():
    found, share = derivation.multipliers(), derivation.derive().separable_share
    assert [name for name, *_ in found] == list(catalogue.names()) and len(found) == 13
    for name, ratio, vs_fp32, vs_int8 in found:
        assert ratio == pytest.approx(power(name) / 0.425)
        left = 1 - share + share * 0.391 / 3.7 * power(name) / 0.425
        assert vs_fp32 == pytest.approx(1 - left)
        assert vs_int8 == pytest.approx(1 - left / (1 - share + share * 0.391 / 3.7), abs=1e-12)


def test_the_multiplier_to_measure_with_is_the_nearest_to_the_explanation():
    nearest = min(catalogue.names(), key=lambda name: abs(power(name) / 0.425 - 0.515))
    assert f"--multipliers {nearest} " in published().reruns["approxdarts"].command


def test_published_cells_have_the_parameters_that_are_known():
    found = {name: round(count / 1e6, 2) for name, count in derivation.parameters().items()}
    assert found == {"DARTS_V1": 3.17, "DARTS_V2": 3.35, "PC_DARTS": 3.63, "P_DARTS": 3.43}


# -- reported ----------------------------------------------------------------------------------------------------------


def test_reported_figures_are_those_of_the_papers():
    assert [claim.reported for claim in published().claims if claim.reported] == [
        "< 10",
        "−53.84",
        "−5.97",
        *["negligible"] * 2,
        "2.3",
    ]
    assert [(row.method, row.error, row.params, row.gpu_days) for row in published().family] == [
        ("DARTS, first order", "3.00 ± 0.14", "3.3", "1.5"), ("DARTS, second order", "2.76 ± 0.09", "3.3", "4"),
        ("random search", "3.29 ± 0.15", "3.2", "4"), ("PC-DARTS", "2.57 ± 0.07", "3.6", "0.1"),
        ("P-DARTS", "2.50", "3.4", "0.3"), ("GDAS", "2.93", "3.4", "0.3"),
    ]  # fmt: skip


def test_every_reported_figure_has_its_source_and_every_row_a_way_to_be_measured_or_a_reason():
    for row in published().family:
        assert "arXiv" in published().sources[row.source]
        assert set(row.reruns) <= set(published().reruns)
        assert row.search or published().missing[row.method]
        assert bool(row.genotype) == bool(row.cell)
    used = {name for row in published().family for name in row.reruns} | {claim.rerun for claim in published().claims}
    assert used == set(published().reruns)


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", published().reruns)
def test_every_command_is_understood_and_means_what_its_row_says(name):
    python, dash, module, *arguments = shlex.split(published().reruns[name].command)
    assert (python, dash) == ("python", "-m")
    if module == "evaluation.train":
        from evaluation.train import parse, plan

        options, protocol = parse(arguments)
        config, _ = plan(options, protocol, "")
        row = next(row for row in published().family if row.cell == name)
        cells = PUBLISHED[row.genotype].architecture(catalogue.EXACT_SIGNED)
        assert config.architecture == cells.to_json()
    else:
        from evaluation.run import parse

        asked = parse(arguments)
        options, protocol = asked.options, asked.protocol
        assert module == "evaluation.run"
        wanted = {
            "darts-1-search": {"approxdarts": ApproxDartsConfig(order=1, energy_weight=0.0, proposals=1)},
            "darts-2-search": {"approxdarts": ApproxDartsConfig(order=2, energy_weight=0.0, proposals=1)},
            "approxdarts": {"approxdarts": ApproxDartsConfig(order=1, energy_weight=0.0, proposals=1)},
            "random-search": {"random": RandomConfig(samples=24)},
            "speed-up": {"approxdarts": ApproxDartsConfig(), "evoapproxnas": EvoApproxNasConfig()},
        }
        assert asked.methods == wanted[name]
    assert (options.dataset, options.train_limit, protocol) == ("cifar10", 0, Darts())


def run_command(*arguments: object, encoding: str = "utf-8") -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "reports.paper", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_commands_are_printed_with_what_they_took_only_where_somebody_measured_it(tmp_path, capsys):
    made = darts(1, hours=10.0)  # and 72 + 360 + 3.6 s in the other stages
    save(tmp_path / "a", made)
    assert command.main(["--rerun", "--rows", "darts-1-search", "p-darts-cell", "--", str(tmp_path)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "# darts-1-search: 10.12 device-hours a run on a GPU (1 run)"
    assert told[1] == published().reruns["darts-1-search"].command
    assert told[3] == "# p-darts-cell: how long it takes was not measured"


def test_commands_are_run_one_after_the_other_until_one_fails(monkeypatch, capsys):
    lines, codes = [], iter([0, 3, 0])

    def runs(line, **_: object):
        lines.append(line)
        return subprocess.CompletedProcess(line, next(codes))

    monkeypatch.setattr(command.subprocess, "run", runs)
    rows = ["darts-1-cell", "darts-2-cell", "pc-darts-cell"]
    assert command.main(["--rerun", "run", "--rows", *rows]) == 2
    words = "-m evaluation.train --architecture {} --dataset cifar10 --protocol darts"
    assert lines == [[sys.executable, *words.format(name).split()] for name in ("DARTS_V1", "DARTS_V2")]
    assert capsys.readouterr().err == "error: darts-2-cell ended with exit code 3; its own message is above\n"
    assert command.main(["--rerun", "run", "--rows", "pc-darts-cell"]) == 0
    assert capsys.readouterr().out.endswith("python -m reports.paper runs/ takes the new records in\n")


# -- at reduced scale --------------------------------------------------------------------------------------------------


def test_records_of_other_data_fill_the_column_at_reduced_scale_alone(tmp_path):
    runs = []
    for seed, (own, theirs) in enumerate(((10.0, 30.0), (20.0, 20.0), (10.0, 40.0))):
        small = {"dataset": "digits", "dataset_origin": "scikit-learn", "scope": "all"}
        runs.append(
            approxdarts(finalist(fp32=0.95, approximate=0.94 - 0.01 * seed), seed=seed, hours=seed + 1.0, **small)
        )
        curve = [moment(1, own, (0.1, 9.0)) | {"hypervolume": 0.5, "judging_seconds": 0.0}]
        runs[-1] |= {"anytime": curve, "hypervolume": 0.5}
        curve = [moment(1, theirs, (0.1, 9.0)) | {"hypervolume": 0.5, "judging_seconds": 0.0}]
        runs.append(both("evoapproxnas", seed, 1.0, **small) | {"anytime": curve, "hypervolume": 0.5})
        runs[-1] |= {
            name: runs[-2][name] for name in ("cost", "budget", "multipliers", "snapshots") if name in runs[-2]
        }
    found = loaded(tmp_path, *runs)
    assert cells(found) == {}
    table = contents.claims(sort_out(found.runs), (0.0, 0.0))
    at = [column.header for column in table.columns].index("at reduced scale")
    told = {row[0].text: row[at].text for row in table.rows if row[at].text}
    # Losses of 1, 2 and 3 points against 95 %: mean 2, deviation 1, Student's 4.303 · 1 / √3 = 2.48.
    assert told["accuracy lost vs fp32, points"] == "2.00 ± 1.00 [−0.48, 4.48] (digits, cells, darts, 3 runs)"
    assert told["search on CIFAR-10, GPU-hours"].startswith("2.00 ± 1.00 [")
    # Medians of 10 and 30 seconds to the same hypervolume.
    assert told["faster than EvoApproxNAS, ×"] == "3.0 (digits, cells, darts, 6 runs)"


def test_published_cells_that_were_trained_alike_get_ranks(tmp_path):
    small = {"dataset": "digits", "dataset_origin": "scikit-learn"}
    made = [given("DARTS_V1", **small), given("PC_DARTS", **small)]
    made[0]["finalists"][0]["accuracy"]["test"]["fp32"] = 0.90
    table = contents.family(sort_out(loaded(tmp_path, *made).runs), {})
    ranks = {row[0].text: row[-2].text for row in table.rows if row[-2].text}
    assert ranks == {"DARTS, first order": "2 of 2", "PC-DARTS": "1 of 2"}
    errors = {row[0].text: row[-3].text for row in table.rows if row[-3].text}
    assert errors["DARTS, first order"] == "10.00 (digits, cells, darts, 1 run)"


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_the_whole_report_is_the_golden_one(tmp_path, capsys, monkeypatch):
    """To renew it after a change that is meant: python -m tests.test_report_paper."""
    text = golden_report(tmp_path, monkeypatch.chdir)
    capsys.readouterr()
    assert text == GOLDEN.read_text(encoding="utf-8")


def golden_report(folder: Path, change_folder) -> str:
    """The report of a search, of published cells, of a run on JPEG copies, and of a damaged record."""
    change_folder(folder)
    save(Path("runs/search"), darts(2, finalist(fp32=0.97, params=3_300_000)))
    save(Path("runs/cells"), given("PC_DARTS", device=GPU | {"type": "cpu"}))
    save(Path("runs/one|circuit"), approxdarts(finalist(), hours=9.5))
    save(Path("runs/jpeg"), darts(1, dataset="cifar10-jpeg", dataset_origin=JPEG, train_limit=2000))
    save(Path("runs/torn"), "{")
    assert command.main(["runs", "--out", "out"]) == 0
    return Path("out/paper.md").read_text(encoding="utf-8")


def test_the_three_files_say_the_same(tmp_path):
    save(tmp_path / "runs" / "a", darts(1, finalist(fp32=0.97), hours=12.0))
    done = run_command(tmp_path / "runs", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert told[0] == "1 record under the published protocol; no others." and len(told) < 40
    assert told[-1] == f"wrote paper.md, paper.tex, paper.csv to {tmp_path / 'out'}"
    with (tmp_path / "out" / "paper.csv").open(newline="", encoding="utf-8") as file:
        rows = {(row["table"], row["row"], row["column"]): row for row in csv.DictReader(file)}
    measured = rows["family", "DARTS, first order", SEARCHED]
    assert (measured["text"], float(measured["value"]), measured["runs"]) == ("3.00 (1 run)", pytest.approx(3.0), "a")
    empty = rows["family", "DARTS, second order", SEARCHED]
    assert (empty["text"], empty["value"], empty["runs"]) == ("", "", "")
    assert float(rows["family", "DARTS, first order", DAYS]["value"]) == 0.5
    assert float(rows["derivation", "parameters", "computed"]["value"]) == 3349342
    latex = (tmp_path / "out" / "paper.tex").read_text(encoding="utf-8")
    assert latex.count("\\begin{table}") == 6 and "3.00 (1 run)" in latex and "0.500 (1 run)" in latex


def test_the_records_that_are_kept_here_are_the_default(tmp_path, capsys):
    assert command.main(["--out", str(tmp_path / "out")]) == 0
    kept = [path.parent.name for path in (ROOT / "reports" / "records").glob("*/record.json")]
    assert f"no records under the published protocol; {len(kept)} others." in capsys.readouterr().out
    told = (tmp_path / "out" / "paper.md").read_text(encoding="utf-8")
    assert kept and all(name in told for name in kept)


def test_without_any_record_what_is_reported_and_computed_is_shown_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "RECORDS", tmp_path / "none")
    assert command.main(["--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    told = (tmp_path / "out" / "paper.md").read_text(encoding="utf-8")
    assert "nothing is measured yet" in told and "every record that was found is in the tables" in told


def test_importing_and_asking_for_help_leave_torch_alone():
    code = "import sys, reports.paper.__main__ as paper\ntry: paper.main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and b"--rerun" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{tmp}/missing"], "missing' does not exist"),
        (["{tmp}/torn"], "torn/record.json is damaged"),
        (["{tmp}/empty"], "no finished run to report"),
        (["--out", "{tmp}/file"], "choose another folder with --out"),
        (["--outt", "x"], "did you mean --out or"),
        (["--out"], "expected one argument"),
        (["--rerun", "{tmp}"], "invalid choice"),
        (["--rerun", "--rows", "darts-2"], "did you mean darts-2-cell or darts-2-search?"),
        (["--rerun", "--rows"], "expected at least one argument"),
        (["--rows", "darts-2-cell"], "--rows chooses commands of --rerun"),
        (["--rerun", "run"], "choose with --rows: approxdarts, speed-up"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, arguments, complaint):
    save(tmp_path / "torn", "{")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert command.main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert complaint in told.err


def test_a_terminal_without_the_characters_of_a_table_is_no_reason_to_fail(tmp_path):
    save(tmp_path / "runs", darts(1, device=GPU | {"name": "µ\ud800"}))
    done = run_command(tmp_path / "runs", "--rerun", encoding="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "a run on \\xb5\\ufffd (1 run)" in done.stdout


def test_bad_input_as_a_process_leaves_the_old_report_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "paper.md").write_text("old")
    save(tmp_path / "torn", "{")
    done = run_command(tmp_path / "torn", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no finished run to report") and done.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["paper.md"]
    assert (tmp_path / "out" / "paper.md").read_text() == "old"


def test_what_a_run_took_is_told_by_device(tmp_path):
    elsewhere = darts(1, hours=1.0, seed=2, device=GPU | {"name": "b"})
    found = loaded(tmp_path, darts(1, hours=10.0), darts(1, hours=20.0, seed=1), elsewhere)
    # The other stages: 435.6 s, which is 0.121 h.
    assert measures.duration(sort_out(found.runs).by_rerun["darts-1-search"]) == (
        "15.12 device-hours a run on a GPU (2 runs); 1.12 device-hours a run on b (1 run)"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(golden_report(Path(folder), os.chdir), encoding="utf-8")

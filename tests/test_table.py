"""Tables of trained networks: their files, their fronts, searches on them, and how these are ranked."""

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import datasets
from evaluation import table as command
from evaluation.benchmark import curves
from evaluation.benchmark import table as tables
from evaluation.benchmark.building import Journal, build, jobs_of
from evaluation.benchmark.plan import TablePlan
from evaluation.benchmark.ranking import final_regret, rank, regret_at
from evaluation.benchmark.regret import Landscape
from evaluation.benchmark.table import BenchTable
from evaluation.benchmark.trajectories import Moment, Trajectory, TrajectoryFile, compare, trajectory, unkept_runs
from evaluation.benchmark.verifying import verify
from evaluation.cli.plan import plan_runs
from evaluation.run import main as run_main
from evaluation.run import parse
from evaluation.runs.folder import read_record
from evaluation.searching.candidates import Job
from evaluation.searching.seeds import derived_seed
from evaluation.settings.config import Budget, Place
from spaces.bench.architecture import BenchArchitecture, BenchEdge
from spaces.costs import COSTS
from spaces.errors import InputError
from tests.made_tables import PLAN, TEST, made_table


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "fashion14.npz"
    made_table().save(path)
    return path


@pytest.fixture
def table(made, monkeypatch):
    """The only table of the package."""
    monkeypatch.setattr(tables, "embedded", lambda: {"fashion14": made})
    monkeypatch.setattr("evaluation.benchmark.evaluator.embedded", lambda: {"fashion14": made})
    monkeypatch.setattr("evaluation.benchmark.presentation.embedded", lambda: {"fashion14": made})
    tables._loaded.cache_clear()
    yield BenchTable.load("fashion14")
    tables._loaded.cache_clear()


def configs_of(*arguments: str):
    configs, library = plan_runs(parse(["--evaluator", "table", "--device", "cpu", *arguments]), "test")
    return {config.method: config for config in configs}, library


# -- files ---------------------------------------------------------------------------------------------------------------


def test_a_table_comes_back_from_its_file_as_it_was(made):
    before, after = made_table(), BenchTable.read(made)
    assert dataclasses.asdict(after.header) == dataclasses.asdict(before.header)
    assert after.architectures == before.architectures
    assert all(np.array_equal(after.arrays[name], array) for name, array in before.arrays.items())
    assert made.stat().st_size < 5 << 20


def rewritten(made, target, **changes):
    """A copy of the file in which arrays are others."""
    with np.load(made) as arrays:
        np.savez(target, **{**arrays, **changes})
    return target


def header_with(made, **changes) -> np.ndarray:
    with np.load(made) as arrays:
        header = json.loads(arrays["header"].tobytes())
    return np.frombuffer(json.dumps({**header, **changes}).encode(), np.uint8)


def test_what_is_no_whole_table_is_refused(made, tmp_path):
    torn = tmp_path / "torn.npz"
    torn.write_bytes(made.read_bytes()[:-200])
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, header=np.array([{"a": 1}], dtype=object))
    bad = {
        torn: "damaged",
        pickled: "not plain numbers",
        rewritten(made, tmp_path / "shape.npz", test=np.zeros((2, 3, 5), np.uint16)): "its array test",
        rewritten(made, tmp_path / "nan.npz", seconds=np.full((280, 3, 5), np.nan, np.float32)): "cannot be",
        rewritten(made, tmp_path / "topology.npz", fp32_of=np.full(280, 500, np.uint16)): "topology",
        rewritten(made, tmp_path / "schema.npz", header=header_with(made, schema=9)): "schema is 9",
        rewritten(made, tmp_path / "header.npz", header=header_with(made, device=3)): "device",
    }
    for path, reason in bad.items():
        with pytest.raises(InputError, match=reason):
            BenchTable.read(path)
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(InputError):
        BenchTable.read(tmp_path / "other.npz")
    with pytest.raises(InputError, match="table"):
        BenchTable.load("fashion41")


def test_another_space_than_the_tables_is_refused_by_name():
    with pytest.raises(InputError, match="fashion14 has networks of the space bench: leave out --space cells"):
        parse(["--evaluator", "table", "--space", "cells"])


def test_a_query_is_the_mean_over_the_trainings(table):
    network = table.architectures[17]
    entry = table.query(network)
    assert entry.test_error == pytest.approx(table.arrays["test"][17, :, -1].sum() / (3 * TEST))
    assert table.query(network, 2).seconds == 2
    with pytest.raises(InputError, match="1 to 5 epochs"):
        table.query(network, 6)
    other = BenchArchitecture((BenchEdge("conv_3x3", "mul8s_1L2H"),) * 3, "mul8s_1KV8")
    with pytest.raises(InputError, match="has no network"):
        table.query(other)
    exact = network.with_multiplier("mul8s_1KV8", "all")
    assert table.reference_test_error(network, "int8") == table.query(exact).test_error
    assert table.reference_test_error(network, "fp32") == table.reference_test_error(exact, "fp32")


def test_the_packages_table_is_that_of_its_plan_and_leaves_searches_something_to_find():
    table, path = BenchTable.load("fashion14"), Path(tables.__file__).with_name("plans") / "fashion14.toml"
    plan, header = TablePlan.read(path), table.header
    assert header.plan == plan and header.plan_key == plan.key and not header.failures
    assert header.train_fingerprint == datasets.load(plan.dataset).train.fingerprint
    assert table.architectures == plan.networks()
    landscape = Landscape.of(table, "horowitz45")
    errors, costs = (values[list(landscape.front)] for values in (landscape.errors, landscape.costs))
    assert np.ptp(errors) >= 0.08 and costs.max() >= 3 * costs.min()
    rng = np.random.default_rng(0)
    draws = [landscape.regret(rng.choice(len(table), 20, replace=False).tolist()) for _ in range(20)]
    assert np.mean(draws) > 0.01


# -- the front -----------------------------------------------------------------------------------------------------------


def area(points) -> float:
    """Dominated by points of error and relative cost, up to (1, 1): a sum over strips of cost."""
    total, best = 0.0, 1.0
    ordered = sorted((cost, error) for error, cost in points)
    for at, (cost, error) in enumerate(ordered):
        best = min(best, error)
        following = ordered[at + 1][0] if at + 1 < len(ordered) else 1.0
        total += max(0.0, min(following, 1.0) - min(cost, 1.0)) * (1.0 - best)
    return total


@pytest.mark.parametrize("cost", ["horowitz45", "system45"])
def test_the_front_is_what_nothing_beats(table, cost):
    landscape = Landscape.of(table, cost)
    points = list(zip(landscape.errors.tolist(), landscape.costs.tolist()))
    beaten = {
        at
        for at, (error, price) in enumerate(points)
        for other in points
        if other[0] <= error and other[1] <= price and other != (error, price)
    }
    assert set(landscape.front) == set(range(len(points))) - beaten
    relative = [(error, price / landscape.reference_cost) for error, price in points]
    assert landscape.hypervolume == pytest.approx(area(relative))
    some = [3, 40, 200]
    assert landscape.regret(some) == pytest.approx(area(relative) - area([relative[at] for at in some]))
    assert landscape.regret(landscape.front) == pytest.approx(0, abs=1e-12)
    assert landscape.regret([]) == landscape.hypervolume
    space, shape = table.make_space(), table.shape
    assert landscape.costs[5] == COSTS[cost].network(space.costs(table.architectures[5], shape), "approximate").total


# -- searches ------------------------------------------------------------------------------------------------------------


def recorded(tmp_path, *arguments: str):
    out = tmp_path / "runs"
    assert run_main(["--evaluator", "table", "--device", "cpu", "--out", str(out), *arguments]) == 0
    (path,) = out.glob("*/record.json")
    return read_record(path)


def test_a_run_on_a_table_is_booked_and_judged_by_it(table, tmp_path):
    record = recorded(tmp_path, "--method", "random", "--budget", "12evals", "--random.samples", "12", "--seed", "3")
    assert (record.space, record.dataset, record.protocol.name) == ("bench", "fashion14", "bench")
    assert record.ledger["search"].device_seconds == pytest.approx(12 * 5, abs=3)  # five seconds each, and its own
    (finalist,) = record.finalists
    at = table.index[finalist.key]
    judging = (derived_seed(3, finalist.key) + 1) % 3  # the training after the one that the search saw
    assert finalist.accuracy.validation == pytest.approx(1 - table.validation[at, judging, -1])
    assert finalist.accuracy.test["approximate"] == pytest.approx(1 - table.mean_test[at, -1])
    fp32 = table.arrays["fp32_test"][table.arrays["fp32_of"][at], :, -1].mean() / TEST
    assert finalist.accuracy.test["fp32"] == pytest.approx(1 - fp32)
    assert record.ledger["final"].device_seconds < 5


def test_three_judgements_are_the_mean_of_three_trainings_at_the_price_of_three(table):
    configs, library = configs_of("--method", "random", "--budget", "30evals", "--protocol.judgements", "3")
    evaluator = unkept_runs(configs, library)["random"].problem.work.evaluator
    network = table.architectures[9]
    results = [evaluator.evaluate(Job(network, "selection", 0, 5, repeat=repeat)) for repeat in range(3)]
    assert np.mean([result.evaluation.error for result in results]) == pytest.approx(table.mean_validation[9, -1])
    assert sum(result.seconds for result in results) == 15
    others, library = configs_of("--method", "random", "--budget", "30evals", "--protocol.selection-lr", "0.3")
    with pytest.raises(InputError, match="no table has"):
        unkept_runs(others, library)


def test_a_search_sees_one_training_and_its_seed_says_which(table):
    configs, library = configs_of("--method", "random", "--budget", "30evals")
    run = unkept_runs(configs, library)["random"]
    seen = {}
    for seed in range(3):
        again = run.again(seed)
        for network, evaluation in zip(table.architectures, again.problem.evaluate(table.architectures)):
            seen.setdefault(network.key, set()).add(evaluation.error)
            assert evaluation.error in table.validation[table.index[network.key], :, -1]
    assert sum(len(errors) > 1 for errors in seen.values()) > 100


def test_what_goes_on_costs_the_epochs_in_between(table):
    configs, library = configs_of("--method", "random", "--budget", "30evals")
    problem = unkept_runs(configs, library)["random"].problem
    network = table.architectures[9]
    problem.evaluate([network], 2, [network])
    problem.evaluate([network], 5, [network])
    assert [trial.seconds for trial in problem.searched.trials.values()] == [2, 3]


@pytest.mark.parametrize("method", ["random", "regularised_evolution", "local_search", "asha", "zero"])
def test_searches_that_leave_no_folder_are_those_that_do(table, tmp_path, method):
    arguments = ("--method", method, "--budget", "4e11macs", "--seed", "5")
    record = recorded(tmp_path, *arguments)
    configs, library = configs_of(*arguments)
    last = trajectory(unkept_runs(configs, library)[method].again(5)).moments[-1]
    proposed = [table.architectures[at].key for at in last.proposals]
    files = json.loads(next((tmp_path / "runs").glob("*/proposals.json")).read_text())
    assert [table.make_space().from_json(each).key for each in files] == proposed
    spent = sum(record.ledger[stage].work for stage in ("search", "selection"))
    assert last.work == pytest.approx(spent)


@pytest.mark.usefixtures("table")
def test_a_comparison_that_was_stopped_goes_on(tmp_path):
    configs, library = configs_of("--method", "random", "zero", "--budget", "2e11macs")
    whole, parts = TrajectoryFile(tmp_path / "whole.jsonl"), TrajectoryFile(tmp_path / "parts.jsonl")
    compare(configs, library, range(3), whole, lambda *_: None)
    compare(configs, library, range(1), parts, lambda *_: None)
    with parts.path.open("ab") as file:
        file.write(b'{"method": "random", "seed": 1, "mom')  # killed while it wrote
    compare(configs, library, range(3), TrajectoryFile(parts.path), lambda *_: None)

    def deeds(path):  # device time is never the same twice
        return [
            (t.method, t.seed, [(m.work, m.evaluations, m.proposals) for m in t.moments])
            for t in TrajectoryFile(path).found
        ]

    assert deeds(parts.path) == deeds(whole.path)
    others, _ = configs_of("--method", "random", "--budget", "3e11macs")
    with pytest.raises(InputError, match="budget"):
        compare(others, library, range(3), TrajectoryFile(whole.path), lambda *_: None)
    others, _ = configs_of("--method", "random", "--budget", "2e11macs", "--random.batch", "2")
    with pytest.raises(InputError, match="random under other settings"):
        compare(others, library, range(3), TrajectoryFile(whole.path), lambda *_: None)


@pytest.mark.usefixtures("table")
def test_what_was_proposed_last_counts_from_when_it_was_found():
    configs, library = configs_of("--method", "random", "--budget", "6e12macs", "--random.samples", "280")
    moments = trajectory(unkept_runs(configs, library)["random"].again(0)).moments
    assert moments[-1].proposals == moments[-2].proposals and moments[-1].work > moments[-2].work
    assert [moment.work for moment in moments] == sorted(moment.work for moment in moments)


@pytest.mark.usefixtures("table")
def test_files_of_others_are_read_by_nobody_and_kept(tmp_path):
    configs, library = configs_of("--method", "random", "--budget", "2e11macs")
    for name, text in {
        "readme.md": "# A page\n",
        "list.jsonl": '{"a": 1}\n',
        "old.jsonl": "[1]\n{}\n",
        "one": "line",
    }.items():
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(InputError, match="no file of table compare"):
            compare(configs, library, range(1), TrajectoryFile(path), lambda *_: None)
        assert path.read_text() == text
    journal = tmp_path / "mine.jsonl"
    journal.write_text("notes\n")
    with pytest.raises(InputError, match="no journal"):
        build(
            dataclasses.replace(PLAN, seeds=1, sample=1), tmp_path / "mine.npz", Place(), "cpu", "test", lambda *_: None
        )
    assert journal.read_text() == "notes\n"


# -- ranks ---------------------------------------------------------------------------------------------------------------


def made_search(method: str, seed: int, *proposals: tuple[int, ...]) -> Trajectory:
    moments = (Moment(float(at), 0.0, at, each) for at, each in enumerate(proposals, 1))
    return Trajectory(method, seed, tuple(moments))


def test_ranks_and_the_sentence_say_who_wins(table):
    landscape, budget = Landscape.of(table, "horowitz45"), Budget.parse("2evals")
    front = list(landscape.front)
    searches = []
    for seed in range(14):
        searches.append(made_search("asha", seed, (front[0],), tuple(front[: -1 - seed % 2])))
        searches.append(made_search("random", seed, (front[-1],), tuple(front[: 4 + seed % 3])))
        searches.append(made_search("zero", seed, (front[-1],), tuple(front[:2])))
        searches.append(made_search("gdas", seed, (front[0],), (front[0],)))
    ranking = rank(searches, landscape, budget)
    assert [each.method for each in ranking.standings][:1] == ["asha"]
    by_name = {each.method: each for each in ranking.standings}
    assert by_name["asha"].rank == 1 and by_name["random"].rank == 2
    assert by_name["random"].regrets[-1] == pytest.approx(
        np.mean([final_regret(s, landscape) for s in searches if s.method == "random"])
    )
    assert by_name["random"].regrets[2] == landscape.regret([front[-1]])
    # Four methods on 14 data sets: Demšar's example (JMLR 2006, section 3.2.2, q = 2.569) gives 1.25
    assert ranking.critical_difference == pytest.approx(1.25, abs=0.005)
    assert ranking.friedman_p < 1e-5
    assert ranking.sentence.startswith("The best method, asha, beats the best control, random")
    worse = rank([s for s in searches if s.method != "asha"], landscape, budget)
    assert worse.sentence.startswith("No method beats the best control")
    assert regret_at(searches[0], landscape, budget, 0.5) == landscape.hypervolume


# -- building and checking -----------------------------------------------------------------------------------------------


def test_a_table_is_built_goes_on_after_a_stop_and_holds_what_a_second_training_gives(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "WARM_UP", 0)
    plan = dataclasses.replace(PLAN, dataset="digits", seeds=1, sample=2)
    out = tmp_path / "digits.npz"
    jobs = jobs_of(plan)
    assert {job.arithmetic for job in jobs} == {"approximate", "fp32"}

    class Stopped(Exception):
        pass

    def stop(done: int, *_) -> None:
        if done == 1:
            raise Stopped

    with pytest.raises(Stopped):
        build(plan, out, Place(), "cpu", "test", stop)
    kept = Journal(out.with_suffix(".jsonl"), plan).read()
    assert len(kept) == 1
    counts = []
    table = build(plan, out, Place(), "cpu", "test", lambda done, *_: counts.append(done))
    assert counts == list(range(1, len(jobs) + 1))
    ((name, curve),) = kept.items()
    at = table.index[name.split("/")[0]]
    assert tuple(table.arrays["test"][at, 0]) == curve.test
    again = BenchTable.read(out)
    assert all(checked.same for checked in verify(again, 1, 0, "cpu"))
    with pytest.raises(InputError, match="another plan"):
        build(dataclasses.replace(plan, seeds=2), out, Place(), "cpu", "test", lambda *_: None)
    assert torch.get_num_threads() >= 1


def test_plans_are_checked(tmp_path):
    def plan(text: str) -> TablePlan:
        path = tmp_path / "plan.toml"
        path.write_text(text)
        return TablePlan.read(path)

    good = 'dataset = "digits"\nprotocol = "bench"\nspace = "bench"\nmultipliers = ["mul8s_1KV8"]\n'
    assert len(plan(good).networks()) == 2 * 2 * 3 + 3 * 4 // 2
    for text, reason in {
        good + "seed = 3": "seeds",
        good + "seeds = 0": "1 to 100",
        good.replace('"bench"\nspace', '"benhc"\nspace'): "bench",
        good.replace("mul8s_1KV8", "mul8s_1KV9"): "did you mean",
        good.replace('"digits"', "3"): "dataset is 3",
    }.items():
        with pytest.raises(InputError, match=reason):
            plan(text)
    with pytest.raises(InputError, match="too many to list"):
        plan(good.replace('space = "bench"', 'space = "cells"')).networks()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["frnt"], "did you mean front"),
        (["info", "fashion41"], "fashion14"),
        (["front", "--cost", "horowitz"], "horowitz45"),
        (["info", "searches.jsonl"], "table ranks"),
        (["query", "ffff"], "ffff"),
        (["build", "nothing.toml"], "nothing.toml"),
        (["compare", "--method", "random"], "budget"),
        (["compare", "--method", "random", "--budget", "9evals", "--dataset", "digits"], "no table has"),
        (["compare", "--method", "random", "--budget", "9evals", "--proposals", "0"], "--proposals"),
        (["ranks", "nothing.jsonl"], "does not exist"),
        (["verify", "--entries", "0"], "--entries"),
    ],
)
@pytest.mark.usefixtures("table")
def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ") and reason in complaint and complaint.count("\n") == 1


def test_the_commands_fit_into_80_columns(table, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "c.jsonl"
    searches = ["compare", "--method", "random", "zero", "--seeds", "2", "--budget", "2e11macs", "--to", str(file)]
    for arguments in (["info"], ["front"], ["query", table.architectures[0].key[:8]], searches, ["ranks", str(file)]):
        assert command.main(arguments) == 0
        shown = capsys.readouterr().out
        assert "…" not in shown and max(map(len, shown.splitlines())) <= 80

"""Tables of which most networks are predicted: the sample, the trees, the noise, their file, and searches on them."""

import dataclasses
import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from evaluation import table as command
from evaluation.benchmark import noise, strata, trees
from evaluation.benchmark import surrogate as surrogates
from evaluation.benchmark import table as tables
from evaluation.benchmark.building import Journal, build, jobs_of
from evaluation.benchmark.curves import Curve
from evaluation.benchmark.evaluator import TableEvaluator
from evaluation.benchmark.plan import TablePlan
from evaluation.benchmark.regret import Landscape
from evaluation.benchmark.surrogate import FOLDS, SurrogateTable
from evaluation.benchmark.table import BenchTable
from evaluation.benchmark.trajectories import trajectory, unkept_runs
from evaluation.cli.plan import plan_runs
from evaluation.run import parse
from evaluation.settings.config import Place
from spaces.bench.architecture import BenchArchitecture, BenchEdge
from spaces.bench.features import matrix
from spaces.bench.space import BenchConfig, BenchSpace
from spaces.bench.whole import WholeSpace
from spaces.costs import COSTS
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.shape import NetworkShape
from tests.made_tables import LARGE, made_surrogate, made_trainings

LIBRARY = catalogue.library(("mul8s_1KV8", "mul8s_1L1G", "bam8s_4_4_0"))
FOUR = BenchSpace(LIBRARY, BenchConfig(nodes=4, pooling=True, sites="nodes"))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Fewer trees than are good, and bounds that so small a sample keeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "ROUNDS", 40)
        patch.setattr(surrogates, "LEAST_TAU", 0.6)
        patch.setattr(surrogates, "LARGEST_RATIO", 4.0)
        yield


@pytest.fixture(scope="module")
def surrogate(quick) -> SurrogateTable:  # noqa: ARG001
    return made_surrogate()


@pytest.fixture(scope="module")
def made(surrogate, tmp_path_factory):
    path = tmp_path_factory.mktemp("surrogate") / "large.npz"
    surrogate.save(path)
    return path


@pytest.fixture
def large(made, monkeypatch):
    """The name of the only table of the package."""
    for name in ("header", "table", "evaluator", "presentation"):
        monkeypatch.setattr(f"evaluation.benchmark.{name}.embedded", lambda: {"large": made})
    tables._loaded.cache_clear()
    yield "large"
    tables._loaded.cache_clear()


# -- all networks of a space by number -----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [BenchConfig(), BenchConfig(3, True, "nodes"), BenchConfig(2, True)])
def test_every_network_has_one_number(config):
    space = BenchSpace(LIBRARY, config)
    whole = WholeSpace(space)
    genes = itertools.product(
        itertools.product(range(len(space.operations)), repeat=len(whole.edges)),
        itertools.product(range(3), repeat=len(space.sites)),
    )
    written = {space._architecture(*each) for each in genes}
    assert {whole.architecture(number) for number in range(whole.count)} == written
    assert all(whole.architecture(whole.number(each)) == each for each in written)
    assert whole.count == len(written)


def test_a_network_of_another_space_has_no_number():
    other = BenchArchitecture((BenchEdge("conv_1x1", "mul8s_1L2H"),) * 6, "mul8s_1KV8")
    untied = FOUR.reference().with_edge(1, BenchEdge("conv_1x1", "bam8s_4_4_0"))
    for foreign in (other, untied, BenchSpace(LIBRARY).reference()):
        with pytest.raises(InputError, match="no network of this bench space"):
            WholeSpace(FOUR).number(foreign)


@pytest.mark.parametrize("cost", COSTS)
def test_costs_of_all_networks_are_those_of_each(cost):
    rng, whole, shape = np.random.default_rng(0), WholeSpace(FOUR), NetworkShape(8, 2, 10, (1, 14, 14))
    drawn = [whole.architecture(0), *(FOUR.sample(rng) for _ in range(12))]
    wanted = [COSTS[cost].network(FOUR.costs(each, shape), "approximate").total for each in drawn]
    assert whole.costs(shape, COSTS[cost])[[whole.number(each) for each in drawn]] == pytest.approx(wanted, rel=1e-12)


def test_cells_that_compute_the_same_have_the_same_features():
    whole = WholeSpace(BenchSpace(LIBRARY, BenchConfig(3, True)))
    found = matrix(whole, whole.genes(np.arange(whole.count)))
    alike: dict[str, list[int]] = {}
    for number in range(whole.count):
        alike.setdefault(whole.architecture(number).key, []).append(number)
    assert len(alike) < whole.count
    for numbers in alike.values():
        assert (found[numbers] == found[numbers[0]]).all()


# -- the sample ----------------------------------------------------------------------------------------------------------


def test_a_sample_has_rare_networks_and_its_beginning_is_spread_alike():
    found = strata.spread(FOUR, 150, np.random.default_rng(0))
    again = strata.spread(FOUR, 150, np.random.default_rng(0))
    assert [each.key for each in found] == [each.key for each in again] and len({each.key for each in found}) == 150
    counts = [sum(edge.operation == "conv_3x3" for edge in each.edges) for each in found]
    assert set(counts[:75]) >= set(range(6)) and sum(count >= 4 for count in counts) >= 15  # of uniform draws: 6


def test_a_surrogates_plan_repeats_some_of_its_sample():
    seeds = [list(LARGE.seeds_of(number)) for number in range(60)]
    assert sum(len(each) == 2 for each in seeds) == 12 and {tuple(each) for each in seeds} == {(0,), (1,), (0, 1)}
    assert len(jobs_of(LARGE)) == 72 and {job.arithmetic for job in jobs_of(LARGE)} == {"approximate"}


@pytest.mark.parametrize(
    "change",
    [{"repeated": 0}, {"repeated": 61}, {"seeds": 1}, {"surrogate": False}, {"space": "cells", "space_config": {}}],
)
def test_a_surrogates_plan_that_could_tell_no_noise_is_refused(change):
    with pytest.raises(InputError):
        dataclasses.replace(LARGE, **change)


def test_keys_of_complete_plans_are_those_of_the_tables_there_are():
    """A build that was begun under an earlier version goes on."""
    header = BenchTable.load("fashion14").header
    assert header.plan.key == header.plan_key


# -- trees ---------------------------------------------------------------------------------------------------------------


def test_a_tree_predicts_as_scikit_learns():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)).astype(np.float32), rng.normal(size=(200, 3))
    for leaf in (1, 40):  # grown to its depth, and not
        tree = DecisionTreeRegressor(max_depth=trees.DEPTH, min_samples_leaf=leaf, random_state=0).fit(x, y)
        ours = trees.Trees(np.ones(3), *(part[None] for part in trees._heap(tree.tree_)))
        assert ours.predict(x) == pytest.approx(1 + trees.RATE * tree.predict(x), abs=1e-6)
        assert ours.predict(x, slice(-1, None)) == pytest.approx(ours.predict(x)[:, -1:])


# -- noise ---------------------------------------------------------------------------------------------------------------


def test_noise_is_learned_from_networks_that_were_trained_again():
    rng = np.random.default_rng(0)
    positions = rng.uniform(-2, 0, 400)
    scales = 0.01 * np.exp(positions)
    curves = [0.3 + scale * (rng.normal(size=(3, 4)) + rng.normal(size=(3, 1))) for scale in scales]
    found = noise.learned([*curves, np.zeros((1, 4))], [*positions, 5.0])
    assert found.level[1] == pytest.approx(1, abs=0.1) and found.pooled == pytest.approx(
        np.sqrt(2 * (scales**2).mean()), rel=0.1
    )
    draws = np.array([found.draw(-1.0, rng) for _ in range(4000)])
    assert draws.std(axis=0) == pytest.approx(0.01 * np.exp(-1) * 2**0.5, rel=0.15)
    assert np.corrcoef(draws.T)[0, 3] == pytest.approx(0.5, abs=0.1)
    assert found.scale(np.array(5.0)) == found.scale(positions.max())


# -- the surrogate -------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_members_that_have_not_seen_a_network(surrogate):
    arrays, predicted = surrogate.arrays, []
    for at, architecture in enumerate(surrogate.sample):
        member, number = surrogate.members[at % FOLDS], surrogate.at(architecture)
        row = matrix(surrogate.whole, surrogate.whole.genes(np.array([number])))
        predicted.append(1 / (1 + np.exp(-member.predict(row)[0, -1])))
    means = [(arrays["test"][arrays["network"] == at, -1] / 10_000).mean() for at in range(60)]
    signs = [np.sign((predicted[a] - predicted[b]) * (means[a] - means[b])) for a in range(60) for b in range(a)]
    assert surrogate.scores.tau == pytest.approx(sum(signs) / len(signs), abs=0.01)  # but for ties
    gaps = [predicted[at] - wrong / 10_000 for at, wrong in zip(arrays["network"], arrays["test"][:, -1])]
    assert surrogate.scores.rmse == pytest.approx(np.sqrt(np.square(gaps).mean()), rel=1e-3)
    assert 0.002 < surrogate.scores.noise < 0.008 and surrogate.scores.accepted


def test_the_highest_tau_is_that_of_correlated_normal_numbers(surrogate):
    """Kendall's τ = 2/π asin ρ (Kruskal, 1958), where ρ² is the share of the variance that is not noise."""
    errors = surrogate.arrays["test"][:, -1] / 10_000
    means = np.array([errors[surrogate.arrays["network"] == at].mean() for at in range(len(surrogate.sample))])
    trainings = np.bincount(surrogate.arrays["network"])
    share = 1 - (surrogate.scores.noise**2 / trainings).mean() / means.var()
    assert surrogate.scores.highest_tau == pytest.approx(2 / np.pi * np.arcsin(np.sqrt(share)), abs=0.06)


def test_a_predictor_that_tells_nothing_is_asked_for_as_much(surrogate):
    """The highest τ is the trainings', so that predictions of little spread make nothing easier."""
    flat = {**surrogate.arrays, "values": surrogate.arrays["values"] * 1e-3}
    dull = SurrogateTable(surrogate.header, surrogate.sample, flat)
    assert dull.scores.highest_tau == pytest.approx(surrogate.scores.highest_tau, abs=0.05)
    worse = surrogate.scores._replace(tau=0.9 * surrogate.scores.least_tau)
    assert surrogate.scores.accepted and not worse.accepted
    assert not surrogate.scores._replace(tau=float("nan")).accepted


def test_less_is_asked_where_noise_allows_no_more(surrogate):
    noisy = surrogate.scores._replace(highest_tau=0.5)
    assert noisy.least_tau == pytest.approx(0.475) and surrogate.scores._replace(highest_tau=0.99).least_tau == 0.6


def test_a_surrogate_comes_back_from_its_file_as_it_was(surrogate, made):
    again = BenchTable.load(str(made))
    assert again.scores == surrogate.scores and made.stat().st_size < 5 << 20
    for number in (0, 17, len(surrogate) - 1):
        architecture = surrogate.architecture(number)
        assert again.query(architecture) == surrogate.query(architecture)
        assert again.query(architecture).test_error == pytest.approx(surrogate.errors()[number])
        for mine, theirs in zip(surrogate.training(architecture, 3), again.training(architecture, 3)):
            assert (mine == theirs).all()


def test_the_same_trainings_make_the_same_trees():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 6)).astype(np.float32), rng.normal(size=(30, 2))
    first, again, other = (trees.fit(x, y, seed) for seed in (1, 1, 2))
    assert all((one == two).all() for one, two in zip(first, again))
    assert (first.thresholds != other.thresholds).any()


def test_trainings_of_a_network_differ_by_noise(surrogate):
    architecture = surrogate.architecture(5)
    errors = np.array([surrogate.training(architecture, number)[0][-1] for number in range(300)])
    assert len(set(errors.tolist())) > 50 and errors.mean() == pytest.approx(
        surrogate.query(architecture).validation_error, abs=0.003
    )
    assert errors.std() == pytest.approx(0.005, rel=0.5)


def test_the_predicted_front_is_the_best_of_all_networks(surrogate):
    landscape = Landscape.of(surrogate, "horowitz45")
    points = np.stack([landscape.errors, landscape.costs], axis=1)
    assert len(points) == len(surrogate)
    for at in landscape.front:
        assert not ((points <= points[at]).all(axis=1) & (points < points[at]).any(axis=1)).any()
    assert landscape.regret(landscape.front[:3]) >= 0 and landscape.regret(landscape.front) == 0


# -- files and commands --------------------------------------------------------------------------------------------------


def test_a_surrogate_below_the_bounds_is_refused_unless_asked_for(surrogate, tmp_path, capsys):
    """Its scores are worked out from the trainings in the file, whoever wrote it."""
    mixed = np.random.default_rng(0).permutation(surrogate.arrays["test"])
    bad = SurrogateTable(surrogate.header, surrogate.sample, {**surrogate.arrays, "test": mixed})
    path = tmp_path / "bad.npz"
    bad.save(path)
    for words in (["info", str(path)], ["front", str(path)], ["query", bad.sample[0].key, "--table", str(path)]):
        assert command.main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "not good enough" in error and "τ" in error
    assert command.main(["info", str(path), "--doubtful"]) == 0
    assert "asked" in " ".join(capsys.readouterr().out.split())


def rewritten(made, target, **changes):
    with np.load(made) as arrays:
        np.savez(target, **{**arrays, **changes})
    return target


def test_a_damaged_surrogate_is_refused(made, tmp_path, capsys):
    with np.load(made) as arrays:
        said, kept = json.loads(arrays["header"].tobytes()), dict(arrays)
    other = np.frombuffer(json.dumps({**said, "features": said["features"][1:]}).encode(), np.uint8)
    complete = np.frombuffer(json.dumps({**said, "plan": {**said["plan"], "seeds": 1}}).encode(), np.uint8)
    whole = made.read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"header": 1}))
    files = [tmp_path / "cut.npz", tmp_path / "pickle.npz"]
    changes = {
        "other": {"header": other},
        "complete": {"header": complete},
        "feature": {"features": np.full_like(kept["features"], 255)},
        "objects": {"thresholds": np.array([{}], object)},
        "shape": {"values": kept["values"][:, :, 1:]},
        "nan": {"values": np.full_like(kept["values"], np.nan)},
        "unseen": {"network": np.zeros_like(kept["network"])},
        "answers": {"test": np.full_like(kept["test"], 60_000)},
    }
    files += [rewritten(made, tmp_path / f"{name}.npz", **change) for name, change in changes.items()]
    for path in files:
        assert command.main(["info", str(path)]) == 2, path
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(path) in error, error


def test_commands_say_how_well_the_table_predicts(large, surrogate, capsys):
    for words in (["info", large], ["front", large], ["query", surrogate.sample[3].key[:10], "--table", large]):
        assert command.main(words) == 0
        assert "held out: Kendall's τ" in " ".join(capsys.readouterr().out.split())
    assert command.main(["query", "12345678", "--table", large]) == 2
    foreign = BenchSpace(LIBRARY).reference()
    with pytest.raises(InputError, match="no network"):
        surrogate.query(dataclasses.replace(foreign, edges=foreign.edges[:1]))


def test_what_a_build_has_done_so_far_makes_a_surrogate(tmp_path):
    arrays, jobs = made_trainings(), jobs_of(LARGE)
    journal = Journal(tmp_path / "large.jsonl", LARGE)
    journal.read()
    for at, job in enumerate(jobs[:50]):
        journal.add(job, Curve(*(tuple(arrays[name][at].tolist()) for name in ("validation", "test", "seconds"))))
    done = [job.architecture.key for job in jobs[:50]]
    found = build(LARGE, tmp_path / "large.npz", Place(), "cpu", "test", lambda *_: None, so_far=True)
    assert len(found.sample) in (len(set(done)), len(set(done)) - 1)  # of the last one, a training may be missing
    assert (found.arrays["test"] == arrays["test"][: len(found.arrays["test"])]).all()
    with pytest.raises(InputError, match="complete table"):
        build(
            dataclasses.replace(LARGE, surrogate=False, repeated=0), tmp_path / "x.npz", Place(), "cpu", "", print, True
        )


def test_searches_go_on_a_surrogate_as_on_any_table(large):
    flags = ["--evaluator", "table", "--table", large, "--method", "random", "--budget", "30evals", "--device", "cpu"]
    asked = parse(flags)
    assert asked.space_config == BenchConfig(3, True, "nodes")
    configs, library = plan_runs(asked, "test")
    (run,) = unkept_runs({"random": configs[0]}, library).values()
    first, second = (trajectory(run.again(seed)) for seed in (1, 1))
    assert [each.proposals for each in first.moments] == [each.proposals for each in second.moments]
    assert first.moments[-1].proposals and first.moments[-1].evaluations >= 30
    assert isinstance(run.problem.work.evaluator, TableEvaluator) and "Kendall" in run.problem.work.reliability
    with pytest.raises(InputError, match="large"):
        parse([*flags[:2], "--table", "larg"])


def test_the_plan_in_the_tree_is_of_the_large_space():
    plan = TablePlan.read(Path(command.__file__).parent / "benchmark/plans/fashion14_large.toml")
    assert WholeSpace(plan.make_space()).count == 221_184 and plan.sample >= 500 and plan.settings.name == "bench"

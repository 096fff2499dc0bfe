"""What executors cost beyond the work itself, and how a run's time falls with workers: the figures of docs/scaling.md."""

import dataclasses
import functools
import math
import resource
import time

import numpy as np
import pytest

from evaluation.searching.evaluators import EVALUATORS
from evaluation.searching.executors import ray_cluster
from evaluation.searching.executors.pool import Pool
from evaluation.searching.executors.processes import ProcessWorkers
from evaluation.searching.executors.ray_cluster import RayWorkers
from evaluation.settings.config import Place
from tests import evaluators, jobs, tiny
from tests.running import new_run, quiet

JOBS = {"processes": 10_000, "ray": 1000}
SECONDS, SLEEPING = 0.5, 24  # of a job, and how many there are
EPOCHS, CANDIDATES = 10, 8  # of a real one, and how many


@pytest.fixture
def pool(request):
    """A pool of so many workers, all of them ready."""
    kind, count = request.param
    recipe = jobs.Recipe(jobs.act)
    if kind == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
        workers = RayWorkers(recipe, Place(workers=count, ray_num_cpus=0.25), ray_cluster._ray())
    else:
        workers = ProcessWorkers(recipe, count)
    made = Pool(workers, jobs.Limits(math.inf))
    work_off(made, [("pid", 0.5)] * count)
    yield kind, made
    made.close()


def work_off(pool: Pool, asked: list) -> None:
    for number, job in enumerate(asked):
        pool.submit(number, job)
    for _ in asked:
        pool.next()


@pytest.mark.parametrize("pool", [("processes", 2), ("ray", 2)], indirect=True, ids=str)
def test_jobs_that_do_nothing(benchmark, pool):
    kind, made = pool
    asked = [("square", 3)] * JOBS[kind]
    work_off(made, asked[:100])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    benchmark.pedantic(work_off, (made, asked), rounds=1)
    benchmark.extra_info["ms per job"] = 1000 * benchmark.stats["mean"] / len(asked)
    benchmark.extra_info["KB more memory per job"] = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    ) / len(asked)


@pytest.mark.parametrize(
    "pool", [(kind, count) for kind in ("processes", "ray") for count in (1, 2, 4)], indirect=True, ids=str
)
def test_jobs_that_wait(benchmark, pool):
    """Jobs that need no core, so that four workers are not held up by two cores."""
    _, made = pool
    benchmark.pedantic(work_off, (made, [("pid", SECONDS)] * SLEEPING), rounds=1)
    workers = made.parallel
    benchmark.extra_info["share of the ideal"] = SECONDS * SLEEPING / workers / benchmark.stats["mean"]


@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_candidates_that_train(benchmark, kind):
    """Real ones, of one thread each, by one worker and by two. The machine must have two cores that nobody else uses."""
    if kind == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
    long = dataclasses.replace(tiny.PROTOCOL, selection_epochs=EPOCHS)
    seconds, shares, found = {}, {}, {}
    for workers in (1, 2):
        problem = tiny.problem("random", executor=kind, workers=workers, ray_num_cpus=0.5, protocol=long)
        rng = np.random.default_rng(0)
        drawn, first = ([problem.space.sample(rng) for _ in range(count)] for count in (CANDIDATES, workers))
        for architecture in drawn:
            problem.cost_of(architecture)
        problem.announce(first)  # all workers are ready, and have compiled what they need
        problem.evaluate(first)
        began, computed = time.perf_counter(), problem.searched.seconds
        run = functools.partial(problem.evaluate, drawn)
        problem.announce(drawn)
        found[workers] = benchmark.pedantic(run, rounds=1) if workers == 2 else run()
        seconds[workers] = time.perf_counter() - began
        shares[workers] = (problem.searched.seconds - computed) / CANDIDATES
        problem.close()
    assert found[1] == found[2]
    benchmark.extra_info["s per candidate, 1 and 2 workers"] = tuple(shares.values())
    benchmark.extra_info["times the throughput of one worker"] = seconds[1] / seconds[2]
    benchmark.extra_info["ms per candidate beyond its training, 1 worker"] = (
        1000 * (seconds[1] - shares[1] * CANDIDATES) / CANDIDATES
    )


@pytest.mark.parametrize("samples", [50, 200])
def test_a_run_whose_candidates_cost_nothing(benchmark, samples, tmp_path):
    """The driver's own time: drawing, keeping the result, saving the run."""
    config = tiny.run_config("random", baselines="none", evaluator="no_op", space="cells")
    settings = config.method_config | {"samples": samples, "batch": 1}
    with EVALUATORS.temporarily("no_op", evaluators.NoOp):
        run, folder = new_run(tmp_path, dataclasses.replace(config, method_config=settings))
        benchmark.pedantic(run.execute, (folder, quiet()), rounds=1)
    benchmark.extra_info["ms per candidate"] = 1000 * benchmark.stats["mean"] / samples
    benchmark.extra_info["KB of the checkpoint per candidate"] = (
        (folder.path / "checkpoint" / "state.pt").stat().st_size / 1024 / samples
    )

"""The Ray executor, on a cluster of this machine: the same records, and one clear line for what cannot be."""

import dataclasses
import math
import socket
import subprocess
import sys

import pytest

from evaluation.searching.executors import ray_cluster
from evaluation.searching.executors.fingerprint import fingerprint
from evaluation.searching.executors.pool import Pool, Ready
from evaluation.searching.executors.ray_cluster import Actor, RayWorkers
from evaluation.settings.config import Place
from spaces.errors import InputError
from tests import jobs, tiny
from tests.running import finished_run, without_times

installed = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import ray"], check=False, capture_output=True).returncode != 0,
    reason="Ray is not installed: pip install 'approxnas-bench[ray]'",
)


@pytest.fixture(scope="module")
def cluster():
    """A cluster that the first run starts, and its end."""
    import ray

    yield ray
    ray.shutdown()


def pool_of(place: Place) -> Pool:
    return Pool(RayWorkers(jobs.Recipe(jobs.act), place, ray_cluster._ray()), jobs.Limits(math.inf))


@installed
def test_a_seed_gives_the_same_record_on_ray(cluster, tmp_path):
    config = tiny.run_config("random", baselines="int8", space_config={"nodes": 1})
    on_ray = dataclasses.replace(config, executor="ray", workers=1, ray_num_cpus=0.5)
    _, serial = finished_run(tmp_path, config)
    _, parallel = finished_run(tmp_path, on_ray)
    assert without_times(parallel) == without_times(serial)
    assert cluster.is_initialized()  # for the next run of this process


@installed
def test_jobs_are_done_once_and_a_lost_one_is_tried_again_on_ray(cluster, tmp_path):  # noqa: ARG001
    pool = pool_of(Place(workers=1, ray_num_cpus=0.5))
    asked = [("square", 3), ("kill once", tmp_path / "once"), ("kill",), ("square", 4)]
    for number, job in enumerate(asked):
        pool.submit(number, job)
    found = dict(pool.next() for _ in asked)
    pool.close()
    assert [found[n].result for n in (0, 3)] == [9, 16]
    assert found[1].result == "kill once" and len(found[1].losses) == 1
    assert found[2].result is None and len(found[2].losses) == 2
    assert "its Ray worker ended" in found[2].losses[0].reason and "\n" not in found[2].losses[0].reason


@installed
@pytest.mark.parametrize("place", [Place(ray_num_gpus=2), Place(workers=100_000), Place(ray_num_cpus=10_000)])
def test_more_than_the_cluster_has_is_refused(place, cluster):  # noqa: ARG001
    pool = pool_of(place)
    with pytest.raises(InputError, match="do not fit: the Ray cluster has .*change --workers, --ray-num-cpus"):
        _ = pool.parallel


def test_a_cluster_that_does_not_answer_is_bad_input():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "no.such.host.invalid:6379", "127.0.0.1:many"):
        with pytest.raises(InputError, match=f"no Ray cluster answers at --ray-address {address}"):
            ray_cluster._require_answer(address)


def test_a_worker_of_another_version_is_refused():
    told = Actor().set_up([], 0, "0" * 64)
    assert told.is_input and "has another version of the suite, or other tables" in told.message
    assert not isinstance(told, Ready) and len(fingerprint()) == 64


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'approxnas-bench\[ray\]'"):
        tiny.problem(executor="ray")


def test_the_command_does_not_import_ray():
    code = (
        "import sys, evaluation.run, evaluation.campaign, evaluation.searching.problem; sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

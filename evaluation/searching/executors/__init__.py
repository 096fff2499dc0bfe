"""Where jobs are worked on: in this process, by others on this machine, or by those of a Ray cluster.

Results do not depend on it: a job is pure, and results are applied in the order in which jobs were submitted.

A new executor is one file and one line in ``EXECUTORS``, or an entry point in the group ``approxnas.executors``.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from spaces.plugins import Registry

if TYPE_CHECKING:
    from evaluation.searching.executors.executor import Executor

EXECUTORS: "Registry[Callable[..., Executor]]" = Registry(
    "executor",
    "approxnas.executors",
    {
        "serial": "evaluation.searching.executors.serial:Serial",
        "processes": "evaluation.searching.executors.processes:processes",
        "ray": "evaluation.searching.executors.ray_cluster:ray_cluster",
    },
)

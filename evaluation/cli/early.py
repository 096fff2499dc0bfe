"""What a command line is refused for at once: before methods are imported, most of which need torch.

The flags that decide which others there are (--method, --space, --protocol, --preset) are read here, too.
"""

import argparse
from collections.abc import Sequence

from evaluation import datasets
from evaluation.searching.evaluators import EVALUATORS
from evaluation.searching.executors import EXECUTORS
from evaluation.settings.baselines import require_baselines
from evaluation.settings.config import DEVICES, Options, RunOptions
from evaluation.settings.protocols import Protocol
from evaluation.training.tasks import TASKS
from methods import METHODS
from spaces.cli.flags import Parser, flags_of, given_flags, require_known
from spaces.costs import COSTS
from spaces.errors import suggest
from spaces.registry import SPACES

DECIDING = ("space", "protocol", "preset")
NAMES = ("cost", "task", "executor", "evaluator", "dataset", "device")


def read(program: str, arguments: Sequence[str]) -> argparse.Namespace:
    """``method`` (None where it is not given), ``space``, ``protocol`` and ``preset``.

    Raises InputError for names of what does not exist, and for flags that no method or space could have.
    """
    parser = Parser(program, help_flag=False)
    parser.add_argument("--method", nargs="+")
    parser.add_argument("--baselines", nargs="*", default=Options.baselines)
    for name in (*DECIDING, *NAMES):
        parser.add_argument(f"--{name}", default=getattr(Options, name))
    chosen, _ = parser.parse_known_args(arguments)
    for name in chosen.method or ():
        METHODS.require(name)
    if chosen.space != "auto":
        SPACES.require(chosen.space)
    known = flags_of(Options) | flags_of(Protocol, "protocol.")
    owners = {owner.replace("_", "-") for registry in (METHODS, SPACES) for owner in registry}
    require_known((flag for flag in given_flags(arguments) if flag[2:].partition(".")[0] not in owners), known)
    EVALUATORS.require(chosen.evaluator)
    require_names(chosen)
    return chosen


def require_names(options: RunOptions | argparse.Namespace) -> None:
    """Raises InputError for a name among the options that stands for nothing."""
    COSTS.require(options.cost)
    TASKS.require(options.task)
    EXECUTORS.require(options.executor)
    datasets.require(options.dataset)
    if options.device not in DEVICES:
        raise suggest(options.device, DEVICES, "device")
    require_baselines(options.baselines)

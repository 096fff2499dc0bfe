"""A device whose memory is full: how it shows, and what to tell the person who waits."""

from collections.abc import Iterator
from contextlib import contextmanager

from evaluation.settings.config import RunConfig
from spaces.errors import InputError
from spaces.full_memory import is_full

FULL = "out of memory"


def smaller(config: RunConfig, stage: str) -> str:
    """What to try where ``stage`` ran out of memory. Settings of a run never change, so that means a new one."""
    kind, flag, batch = "final", "batch", config.protocol.batch
    if stage == "search":
        kind, flag, batch = "search", "search-batch", config.protocol.search_batch
    ways = [f"--protocol.{flag} {batch // 2}"] if batch > 1 else []
    if stage == "search" and "partial" in config.method_config:
        ways.append(f"--{config.method}.partial {2 * config.method_config['partial']}")
    return "start anew with " + (" or ".join(ways) or f"fewer --protocol.{kind}-channels")


@contextmanager
def full_means_bad_input(config: RunConfig, stage: str) -> Iterator[None]:
    """Raises InputError that says what to do where the block, a part of ``stage``, runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_full(error):
            raise
        where, advice = "in the test", ""  # its batches are none of the protocol's
        if stage != "test":
            batch = config.protocol.search_batch if stage == "search" else config.protocol.batch
            where, advice = f"in {stage} at batch size {batch}", f"{smaller(config, stage)}, or "
        raise InputError(
            f"{FULL} {where}: {advice}go on with --resume on a device with more memory, "
            "such as --resume with --device cpu"
        ) from error

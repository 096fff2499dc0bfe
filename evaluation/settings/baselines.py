"""Which arithmetics a finalist is trained in, besides the approximate one that the search was for."""

from collections.abc import Sequence

from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.errors import InputError

MAIN = "approximate"
WORDS = ("all", "first", "none")


def require_baselines(asked: Sequence[str]) -> None:
    """Raises InputError for what is neither one of the ``WORDS``, alone, nor names of arithmetics."""
    for word in asked:
        if word in WORDS and len(asked) > 1:
            raise InputError(f"--baselines {word} stands alone: it says for itself which arithmetics are meant")
    if not asked:
        raise InputError("--baselines needs names of arithmetics, or all, first or none")
    for name in recorded_arithmetics(asked):
        ARITHMETICS[name]  # raises for one that is unknown or cannot be loaded, before a run has begun


def arithmetics_of(finalist: int, asked: Sequence[str]) -> list[str]:
    """Those in which finalist ``finalist``, from 0, is trained: the approximate one first, then the baselines ``asked`` for.

    "all" means every arithmetic that is known, "first" the same for the first finalist alone.
    """
    if "none" in asked or ("first" in asked and finalist > 0):
        return [MAIN]
    others = [name for name in ARITHMETICS if name != MAIN and (asked[0] in WORDS or name in asked)]
    return [MAIN, *reversed(others)]


def recorded_arithmetics(asked: Sequence[str]) -> list[str]:
    """Those that a record knows: ours, whether or not they were asked for, and the baselines."""
    if asked[0] in ("all", "first"):
        return list(ARITHMETICS)
    others = (name for name in asked if name not in ARITHMETICS.built_in and name not in WORDS)
    return [*ARITHMETICS.built_in, *dict.fromkeys(others)]

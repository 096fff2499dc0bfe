"""The one exception that speaks to the person at the keyboard."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something a user handed in is wrong; the message says what, and what to do about it.

    The command lines print it as one line and exit with code 2. Anything else that escapes is a defect of ours and
    keeps its traceback.
    """


def suggest(name: str, known: Iterable[str], kind: str) -> InputError:
    """The error for an unknown ``name``: names the nearest known ones, or lists them all when nothing is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return InputError(f"unknown {kind} '{name}'; {hint}")

"""The one exception that speaks to the person at the keyboard."""

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator

LONGEST_NAME = 200  # characters of an unknown name: to compare longer ones takes long


class InputError(ValueError):
    """Something a user handed in is wrong; the message says what, and what to do about it.

    The command lines print it as one line and exit with code 2. Anything else that escapes is a defect of ours and
    keeps its traceback.
    """


def suggest(name: str, known: Iterable[str], kind: str) -> InputError:
    """The error for an unknown ``name``: names the nearest known ones, or lists them all when nothing is near."""
    known, name = sorted(known), name[:LONGEST_NAME]
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return InputError(f"unknown {kind} '{name}'; {hint}")


@contextlib.contextmanager
def disk_errors_as_input_errors(advice: str = "") -> Iterator[None]:
    """A full disk or a folder without permission is bad input, too: one line, which ends with ``advice``."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output went away, as in "… | head"
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        raise InputError(f"{error.strerror or error}{where}{advice}") from error

"""Whether the four floors are this suite's: other packages and folders of a user's own have such names, too.

Loaded by its path (``runpy``), before a floor is imported from another: the one that is not ours may be ``spaces`` itself.
"""

import importlib.util
import sys
from pathlib import Path

FLOORS = ("spaces", "methods", "evaluation", "reports")
MARK = "ApproxNAS-Bench"  # in the first line of each floor's __init__.py
ROOT = Path(__file__).resolve().parents[1]
BAD_INPUT = 2


def complaint() -> str | None:
    """A line about the first floor that Python would import from elsewhere, or that another package has overwritten."""
    for name in FLOORS:
        spec = importlib.util.find_spec(name)
        places = [*(spec.submodule_search_locations or ()), spec.origin or "nowhere"] if spec else ["nowhere"]
        place = Path(places[0]).resolve()
        if place != ROOT / name:
            return (
                f"Python takes '{name}' from {place} and not from ApproxNAS-Bench in {ROOT}; use the command approxnas, "
                "which works beside such a package, or start from another folder"
            )
        with (place / "__init__.py").open(encoding="utf-8", errors="replace") as file:
            if MARK not in file.readline():
                return f"another package has overwritten {place}; install ApproxNAS-Bench in an environment of its own"
    return None


def require_own() -> None:
    """Raises ImportError with the complaint; where a module is run by ``python -m``, prints it and ends with 2."""
    if (line := complaint()) is None:
        return
    if sys.argv[:1] == ["-m"]:  # while Python imports the packages of the module
        print(f"error: {line}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    raise ImportError(line)

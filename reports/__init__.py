"""ApproxNAS-Bench: reads run records and puts them side by side: tables, figures, a page."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "spaces" / "own_floors.py"))["require_own"]()

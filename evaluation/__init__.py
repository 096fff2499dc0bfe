"""ApproxNAS-Bench: runs and measures search methods: data, training, stages, the ledger, run folders, command lines."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "spaces" / "own_floors.py"))["require_own"]()

"""A campaign as an array of SLURM jobs: one run each, without a process that watches over them."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.campaigns.plan import PlannedRun
from spaces.files.saving import save_text

SCRIPT = "campaign.sbatch"


def write_script(folder: Path, plan: Path, runs: Sequence[PlannedRun], at_once: int) -> Path:
    """The script; each of its jobs goes on with its run where it stands, so that it may be queued again at any time."""
    limit = f"%{at_once}" if at_once else ""
    on_gpu = runs[0].config.device == "cuda"
    command = [
        sys.executable,
        "-m",
        "evaluation.campaign",
        str(plan.resolve()),
        "--out",
        str(folder.resolve()),
        "--one",
    ]
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=approxnas",
        f"#SBATCH --array=0-{len(runs) - 1}{limit}",
        f"#SBATCH --output={folder.resolve() / 'slurm-%A_%a.log'}",
        "#SBATCH --ntasks=1",
        *(["#SBATCH --gpus-per-task=1"] if on_gpu else []),
        "#SBATCH --requeue",
        "# Further options, such as --partition and --time, may be given to sbatch itself.",
        "runs=(",
        *(f"  {shlex.quote(run.name)}" for run in runs),
        ")",
        f"cd {shlex.quote(str(Path.cwd()))} || exit 2",
        f'exec {shlex.join(command)} "${{runs[$SLURM_ARRAY_TASK_ID]}}"',
    ]
    path = folder / SCRIPT
    save_text(path, "\n".join(lines) + "\n")
    return path

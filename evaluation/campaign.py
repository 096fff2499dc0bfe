"""The command line: many runs, planned in one file.

    python -m evaluation.campaign plan.toml --out campaign/ --jobs 4
    python -m evaluation.campaign plan.toml --out campaign/ --dry-run
    python -m evaluation.campaign plan.toml --out campaign/ --slurm && sbatch campaign/campaign.sbatch

The same command goes on after any stop: what is done is skipped, what was begun goes on where it stood. Bad input ends with
one line that says what to do, and exit code 2, and so does a campaign of which a run failed.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.cli.commands import BAD_INPUT, guarded, leave, say
from spaces.cli.flags import Parser, path
from spaces.cli.programs import program
from spaces.errors import InputError

if TYPE_CHECKING:
    from evaluation.campaigns.folder import CampaignFolder
    from evaluation.campaigns.plan import PlannedRun

PROGRAM = program("campaign")
DESCRIPTION = """Run every combination of the methods, spaces, data sets, protocols, multipliers and seeds of a plan. The
same command goes on after a stop."""
MOST_JOBS = 1024


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return guarded(
        lambda: _work(parser().parse(arguments)),
        lambda: "stopped; the same command goes on",
        "; after fixing that, the same command with --retry-failed goes on",
    )


def parser() -> Parser:
    made = Parser(PROGRAM, DESCRIPTION)
    add = made.add_argument
    add("plan", type=path, help="TOML file; evaluation/campaigns/plan.py and docs/scaling.md say what is in it")
    add("--out", type=path, default=Path("campaign"), help="folder of the campaign (default: campaign)")
    add("--jobs", type=_jobs, default=1, help="runs at once, each in a process of its own (default: 1)")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="runs whose name has this in it; * and ? stand for anything",
    )
    add("--retry-failed", action="store_true", help="try runs that failed again, from where they stand")
    add("--dry-run", action="store_true", help="say what would run and how long it would take, and run nothing")
    add(
        "--records",
        type=path,
        nargs="+",
        default=[],
        help="folders of earlier runs, for --dry-run; --out is one anyway",
    )
    add("--slurm", action="store_true", help="write an sbatch script with a job for each run, and run nothing")
    add("--one", metavar="NAME", default="", help="carry out this run alone, beside others: what the script's jobs do")
    add("--take-over", action="store_true", help="go on in place of a campaign on another machine that has died")
    return made


def _jobs(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST_JOBS:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 to {MOST_JOBS}")
    return int(text)


def _work(options: argparse.Namespace) -> int:
    from evaluation.campaigns.folder import CampaignFolder, Status, chosen
    from evaluation.campaigns.plan import read_plan

    plan, folder = read_plan(options.plan), CampaignFolder(options.out)
    if options.one:
        return _one(folder, {run.name: run for run in plan}, options.one)
    runs = chosen(plan, options.only)

    from evaluation.campaigns import forecast, ownership, slurm, table
    from spaces.cli.terminal import Terminal

    console = Terminal()
    table.show_change(console, folder.change(plan))
    if options.dry_run:
        records = forecast.records_below([folder.path, *options.records])
        table.show_forecast(console, folder, runs, records, options.jobs)
        return 0
    with ownership.owned(folder.path, options.take_over):
        folder.keep(plan)
        if options.retry_failed:
            for run in runs:
                folder.forgive(run.name)
        if options.slurm:
            left = [run for run in runs if folder.status(run.name) in (Status.NEW, Status.BEGUN)]
            if not left:
                raise InputError("every run is done or has failed: there is nothing to submit")
            script = slurm.write_script(folder.path, options.plan, left, options.jobs if options.jobs > 1 else 0)
            console.print(f"{len(left)} runs; submit them with: sbatch {script}", highlight=False)
            return 0
        from evaluation.campaigns.carrying_out import carry_out

        carry_out(console, folder, runs, options.jobs, say)
        return BAD_INPUT if table.show_end(console, folder, runs, say) else 0


def _one(folder: "CampaignFolder", runs: "Mapping[str, PlannedRun]", name: str) -> int:
    if name not in runs:
        raise InputError(f"the plan has no run '{name}'; it may have changed: write the script anew with --slurm")
    from evaluation.campaigns.work import carry_out

    ended = carry_out(folder, runs[name], quietly=False)
    if ended.failure:
        raise InputError(ended.failure)
    return 0


if __name__ == "__main__":
    leave(main())

"""Campaigns: plans, owners, and runs that one command carries out, goes on with, and never does twice."""

import dataclasses
import errno
import io
import itertools
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation import campaign
from evaluation.campaigns import forecast, ownership, slurm, table, work
from evaluation.campaigns.folder import CampaignFolder, Change, Status, chosen
from evaluation.campaigns.ownership import OWNER, Owner, owned
from evaluation.campaigns.plan import read_plan
from evaluation.runs.folder import RECORD, read_record
from spaces.cli.terminal import Terminal
from spaces.errors import InputError
from spaces.files import saving
from tests.running import run_here, without_times

SMALL = """
methods = ["random"]
spaces = ["cells"]
multipliers = [["mul8s_1KV8", "mul8s_1L2H"]]
seeds = {seeds}

[settings]
baselines = ["none"]
cells.nodes = 1
random = {{samples = 3, batch = 1, proposals = 2}}

[settings.protocol]
search_channels = 2
final_channels = 2
batch = 180
selection_epochs = 1
final_epochs = 2
finalists = 1
finalist_margin = 1.0
"""


def plan_of(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def run_campaign(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "evaluation.campaign", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- plans -------------------------------------------------------------------------------------------------------------


def test_a_plan_asks_for_every_combination(tmp_path):
    text = """
    methods = ["random", "evoapproxnas"]
    spaces = ["cells", "grid"]
    protocols = ["quick", "fast"]
    multipliers = [["mul8s_1KV8"], ["mul8s_1KV8", "mul8s_1L2H"], []]
    seeds = [0, 7]
    settings.protocol.selection_epochs = 2
    settings.train_limit = 400
    """
    runs = read_plan(plan_of(tmp_path, text))
    assert len(runs) == 2 * 2 * 2 * 3 * 2 == len({run.name for run in runs}) == len({run.key for run in runs})
    assert [run.config.seed for run in runs] == [0] * 24 + [7] * 24
    assert {run.config.protocol.name for run in runs} == {"quick-custom", "fast-custom"}
    assert {(run.config.protocol.selection_epochs, run.config.train_limit) for run in runs} == {(2, 400)}
    assert {len(run.library) for run in runs} == {1, 2, 13}
    # Methods that are compared get the budget and the snapshots that evaluation.run gives them.
    assert {(run.config.budget, run.config.snapshots) for run in runs} == {("90s", 3), ("10m", 3)}
    assert {run.config.method for run in runs[:2]} == {"random", "evoapproxnas"}


def test_a_runs_key_is_that_of_its_settings_and_not_of_its_place(tmp_path):
    (run,) = read_plan(plan_of(tmp_path, SMALL.format(seeds=1)))
    other = dataclasses.replace
    elsewhere = other(run, config=other(run.config, executor="ray", workers=3, ray_address="auto", command="x"))
    assert elsewhere.name == run.name
    for change in ({"seed": 1}, {"budget": "9evals"}, {"tables": {"mul8s_1KV8": "0" * 64}}, {"baselines": ("all",)}):
        assert other(run, config=other(run.config, **change)).key != run.key


BAD = {
    "an unknown key": ("metods = ['random']", "unknown key in .*plan.toml: 'metods'; did you mean methods"),
    "an unknown setting": ("methods = ['random']\nsettings.budgt = '3s'", "unknown key 'budgt'; did you mean budget"),
    "a setting of the plan": ("methods = ['random']\nsettings.seed = 3", "settings: unknown key 'seed'"),
    "an unknown method": ("methods = ['randon']", "did you mean random"),
    "a method's key": ("methods = ['random']\nsettings.evoapproxnas.rungs = 2", "belongs to method 'evoapproxnas'"),
    "no methods": ("methods = []", "methods is empty"),
    "no seeds": ("methods = ['random']\nseeds = 0", "seeds is empty"),
    "a wrong seed": ("methods = ['random']\nseeds = [-1]", "must lie between 0"),
    "a wrong type": ("methods = 'random'", "methods is 'random', not a list"),
    "too many": ("methods = ['random']\nseeds = 1000000", "up to 100,000 runs"),
    "no TOML": ("methods = [", "is no TOML"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_run_could_be_made_of_is_refused(case, tmp_path):
    text, line = BAD[case]
    with pytest.raises(InputError, match=line):
        read_plan(plan_of(tmp_path, text))


def test_bad_input_ends_with_one_line_and_code_2(tmp_path, capsys):
    assert campaign.main([str(plan_of(tmp_path, BAD["an unknown key"][0]))]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert campaign.main(["plan.toml", "--job", "3"]) == 2
    assert "did you mean --jobs" in capsys.readouterr().err
    assert campaign.main([str(plan_of(tmp_path, SMALL.format(seeds=1))), "--only", "grid", "--dry-run"]) == 2
    assert "no run of the plan is so called, as in random-cells-" in capsys.readouterr().err


# -- one owner ---------------------------------------------------------------------------------------------------------


def claim(folder: Path, silent: float = 0.0, **changes) -> None:
    """As if another process owned the folder."""
    owner = dataclasses.replace(Owner.here(), **changes)
    (folder / OWNER).write_text(json.dumps(dataclasses.asdict(owner)))
    then = time.time() - silent
    os.utime(folder / OWNER, (then, then))


def test_a_folder_has_one_owner_at_a_time(tmp_path):
    with owned(tmp_path):
        line = rf"is in use by process {os.getpid()} on {socket.gethostname()}; wait for it, or end it with: kill"
        for take_over in (False, True):
            with pytest.raises(InputError, match=line), owned(tmp_path, take_over):
                pass
    with owned(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"started": "1"}, {"boot": "an earlier one"}])
def test_a_dead_owner_on_this_machine_is_replaced(changes, tmp_path):
    claim(tmp_path, **changes)
    with owned(tmp_path):
        assert ownership._read(tmp_path / OWNER) == Owner.here()


def test_an_owner_elsewhere_is_replaced_when_it_is_silent_and_one_says_so(tmp_path):
    claim(tmp_path, silent=5, host="node7")
    with pytest.raises(InputError, match="in use by process .* on node7, last heard of 5 s ago"), owned(tmp_path, True):
        pass
    claim(tmp_path, silent=600, host="node7")
    with (
        pytest.raises(InputError, match="on node7, which has been silent for 10 minutes.*--take-over"),
        owned(tmp_path),
    ):
        pass
    with owned(tmp_path, take_over=True):
        assert ownership._read(tmp_path / OWNER) == Owner.here()


def test_an_owner_whose_folder_is_taken_over_ends(tmp_path):
    script = (
        "import time\nfrom pathlib import Path\nfrom evaluation.campaigns import ownership\n"
        f"ownership.HEARTBEAT = 0.05\nwith ownership.owned(Path({str(tmp_path)!r})):\n"
        "    print(1, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as old:
        old.stdout.readline()
        claim(tmp_path)
        assert old.wait(30) == 2 and "was taken over by another process" in old.stderr.read()


# -- what is known of the runs -----------------------------------------------------------------------------------------


def test_a_changed_plan_says_what_is_new_and_what_is_orphaned(tmp_path):
    before, after = (read_plan(plan_of(tmp_path, SMALL.format(seeds=seeds))) for seeds in ("[0, 1, 2]", "[1, 2, 3, 4]"))
    folder = CampaignFolder(tmp_path / "out")
    assert folder.change(before) == Change((), ())
    folder.keep(before)
    assert folder.change(before) == Change((), ())
    change = folder.change(after)
    assert change == Change((after[2].name, after[3].name), (before[0].name,))
    console = Terminal(file=io.StringIO(), width=500)
    table.show_change(console, change)
    told = console.file.getvalue()
    assert "2 are new in the plan: random-" in told and "1 is no longer in the plan, and left as they are" in told


def test_failed_runs_are_marked_and_tried_again_when_asked_for(tmp_path):
    (run,) = read_plan(plan_of(tmp_path, SMALL.format(seeds=1) + "\n[settings.nothing]"))
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, dataset="/no/such/folder"))
    folder = CampaignFolder(tmp_path / "out")
    ended = work.carry_out(folder, run, quietly=False)
    assert "does not exist" in ended.failure and not ended.in_use
    assert folder.status(run.name) is Status.FAILED and folder.reason(run.name) == ended.failure
    folder.forgive(run.name)
    assert folder.status(run.name) is Status.BEGUN
    assert chosen([run], ["s0"]) == chosen([run], ["random*s0"]) == [run]


def test_a_disk_that_is_too_full_for_a_mark_is_no_success(tmp_path, monkeypatch):
    def full(path, mode):  # noqa: ARG001
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    (run,) = read_plan(plan_of(tmp_path, SMALL.format(seeds=1)))
    folder, told = CampaignFolder(tmp_path / "out"), []
    monkeypatch.setattr(saving, "_open", full)
    ended = work.carry_out(folder, run, quietly=False)
    assert ended.failure.startswith("No space left on device ") and folder.status(run.name) is Status.NEW
    assert table.show_end(Terminal(file=io.StringIO()), folder, [run], told.append) == 1
    assert told == ["1 more is not done; the same command goes on"]


def test_the_forecast_is_the_median_of_the_most_similar_records(tmp_path):
    from tests.made_records import record

    def made(seconds, **changes):
        data = record() | changes
        data["ledger"] = {stage: {"device_seconds": seconds / 4, "wall_seconds": 0.0} for stage in forecast.STAGES}
        return forecast.Record.from_json(data)

    (run,) = read_plan(plan_of(tmp_path, SMALL.format(seeds=1)))
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, budget="60s"))
    protocol = {"name": "quick-custom", "hash": "a", "settings": {}}
    alike = {"method": "random", "dataset": "digits", "protocol": protocol}
    unlike = made(1e6, **(alike | {"method": "evoapproxnas"}))
    assert forecast.predicted(run, [unlike]) is None
    far = made(100.0, **alike, budget="5m", space="grid")
    assert forecast.predicted(run, [unlike, far]) == pytest.approx(100)
    near = [made(seconds, **alike, budget="60s", space="cells") for seconds in (10, 30, 80)]
    assert forecast.predicted(run, [unlike, far, *near]) == pytest.approx(30)


# -- whole campaigns ---------------------------------------------------------------------------------------------------


def fake_sbatch(script: Path) -> list[subprocess.CompletedProcess]:
    """What SLURM does with an array, one job after the other."""
    array = next(line for line in script.read_text().splitlines() if line.startswith("#SBATCH --array="))
    first, last = array.partition("=")[2].partition("%")[0].split("-")
    return [
        subprocess.run(
            ["bash", str(script)],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(number)},
            capture_output=True,
            text=True,
            check=False,
        )
        for number in range(int(first), int(last) + 1)
    ]


def test_an_array_of_jobs_does_what_the_plan_says_and_the_campaign_finds_it_done(tmp_path, capsys):
    path, out = plan_of(tmp_path, SMALL.format(seeds=1)), tmp_path / "out"
    assert campaign.main([str(path), "--out", str(out), "--slurm"]) == 0
    assert f"1 runs; submit them with: sbatch {out}/{slurm.SCRIPT}" in capsys.readouterr().out.replace("\n", "")
    for job in fake_sbatch(out / slurm.SCRIPT):
        assert job.returncode == 0, job.stderr
    (run,) = read_plan(path)
    record = read_record(out / run.name / RECORD)
    again = run_here(*shlex.split(record.command)[3:], "--out", str(tmp_path / "alone"))
    assert again.returncode == 0, again.stderr
    (alone,) = (tmp_path / "alone").iterdir()
    assert without_times(read_record(alone / RECORD)) == without_times(record)
    began = (out / run.name / RECORD).stat().st_mtime_ns
    assert campaign.main([str(path), "--out", str(out)]) == 0
    assert "1 of 1 runs are done, 0 failed" in capsys.readouterr().out
    assert (out / run.name / RECORD).stat().st_mtime_ns == began
    assert campaign.main([str(path), "--out", str(out), "--one", "random-1"]) == 2


MOMENTS = 20  # at which a campaign is killed


@pytest.mark.slow
def test_a_campaign_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path):
    """One after the other, until there were so many moments; each is stopped once by SIGTERM, too."""
    text = SMALL.format(seeds=3).replace('["random"]', '["random", "evoapproxnas"]')
    evolution = "{population = 2, offspring = 1, generations = 2, epochs = 1}"
    more = f"evoapproxnas = {evolution}\nbudget = '4evals'\nsnapshots = 1\n[settings.protocol]"
    path, began = plan_of(tmp_path, text.replace("[settings.protocol]", more)), time.monotonic()
    assert run_campaign(str(path), "--out", str(tmp_path / "whole")).returncode == 0
    longest, rng, kills, rounds = 0.4 * (time.monotonic() - began), random.Random(0), 0, 0
    while kills < MOMENTS:
        out = tmp_path / f"killed{rounds}"
        # Later ones come later, so that it ends, whatever else this machine does.
        found = ended_by(str(path), out, (rng.uniform(0, longest * 1.1**number) for number in itertools.count()))
        assert found, "no moment came before the end"
        kills, rounds = kills + found, rounds + 1
        for run in read_plan(path):
            one, other = (read_record(folder / run.name / RECORD) for folder in (tmp_path / "whole", out))
            assert without_times(one) == without_times(other)
    print(f"\n{kills} kills in {rounds} campaigns")


def ended_by(plan: str, out: Path, moments: Iterator[float]) -> int:
    """A campaign that is ended after so many seconds, gone on with, and so on until it is done. How often it was killed."""
    command = [sys.executable, "-m", "evaluation.campaign", plan, "--jobs", "2", "--out", str(out)]
    told = (128 + signal.SIGTERM, "stopped; the same command goes on\n")
    too_early = (-signal.SIGTERM, "")  # for anybody to say that
    ended, kills = None, -1
    while ended != (0, ""):
        assert ended is None or ended in (told, too_early) or ended[0] == -signal.SIGKILL
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            try:
                error = process.communicate(timeout=next(moments))[1]
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM if ended is None else signal.SIGKILL)
                error, kills = process.communicate()[1], kills + 1
        ended = process.returncode, error
    return kills

"""The tables that a run ends with."""

from collections import Counter

from rich import box
from rich.console import Group
from rich.table import Table

from evaluation.runs.folder import limit_note
from evaluation.runs.ledger import MEASURING, STAGES
from spaces.cli.terminal import Terminal


def show(console: Terminal, record: dict, folder: str) -> None:
    """Finalists with accuracy and energy, where the energy goes, and the time per stage."""
    console.print(Group("", _finalists(record), "", _split(record), "", _times(record)))
    for (stage, reason), count in Counter((f["stage"], f["reason"]) for f in record["failures"]).items():
        console.print(f"failed in {stage}, {count} ×: {reason}")
    for note in record.get("notes", []):
        console.print(f"note: {note}")
    console.print(f"record: {folder}/record.json", highlight=False)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _finalists(record: dict) -> Group:
    model = record["energy_model"]
    table = Table(
        title=f"{record['method']} on {record['dataset']}{limit_note(record)}, "
        f"space {record['space']}, protocol {record['protocol']['name']}, seed {record['seed']}: "
        f"test accuracy in %, energy in nJ ({model}), saving in %",
        caption="genotypes in full: record.json; drawings: finalist*.svg",
        box=box.SIMPLE_HEAD,
    )
    headers = ("", "params", "MACs", "fp32", "int8", "approx.", "energy", "vs\nfp32", "vs\nint8")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    genotypes = []
    for number, finalist in enumerate(record["finalists"], 1):
        energy, tested = finalist["energy"][model], finalist["accuracy"]["test"]
        table.add_row(
            str(number),
            f"{finalist['params']:,}",
            f"{finalist['macs']:,}",
            *(_percent(tested[name]) for name in ("fp32", "int8", "approximate")),
            f"{energy['approximate_pj'] / 1000:,.1f}",
            _percent(energy["saving_vs_fp32"]),
            _percent(energy["saving_vs_int8"]),
        )
        genotypes.append(f"  {number}  {finalist['summary']}")
    return Group(table, *genotypes)


def _split(record: dict) -> Table:
    table = Table(title="where the energy goes, nJ per inference (memory is not in the total)", box=box.SIMPLE_HEAD)
    for header in ("finalist", "arithmetic", "multiplications", "additions", "total", "memory"):
        table.add_column(header, justify="left" if header in ("finalist", "arithmetic") else "right")
    for number, finalist in enumerate(record["finalists"], 1):
        energy = finalist["energy"][record["energy_model"]]
        for name, part in energy["split"].items():
            values = (part["multiplications_pj"], part["additions_pj"], energy[f"{name}_pj"], part["memory_pj"])
            label = str(number) if name == "fp32" else ""
            table.add_row(label, name, *(f"{value / 1000:,.1f}" for value in values), end_section=name == "approximate")
    return table


def _times(record: dict) -> Table:
    device = record["device"]
    unit = "GPU" if device["type"] == "cuda" else "CPU"
    table = Table(title=f"device time ({device['count']} × {device['name']})", box=box.SIMPLE_HEAD)
    table.add_column("")
    seconds = {stage: record["ledger"][stage]["device_seconds"] for stage in STAGES}
    seconds["total"] = sum(seconds.values())
    if watched := record["ledger"].get(MEASURING, {}).get("device_seconds"):  # records need not have it
        seconds["(snapshots)"] = watched
    for stage in seconds:
        table.add_column(stage, justify="right")
    for label, form in (("seconds", lambda s: f"{s:.1f}"), (f"{unit}-hours", lambda s: f"{s / 3600:.4f}")):
        table.add_row(label, *(form(value) for value in seconds.values()))
    parts = [record["ledger"][stage] for stage in (*STAGES, *([MEASURING] if watched else []))]
    for label, name, digits in (("of it warm-up, s", "warm_up_seconds", 1), ("joules", "joules", 0)):
        values = [part.get(name) for part in parts]
        if any(value and round(value, digits) for value in values):
            total = None if None in values[: len(STAGES)] else sum(values[: len(STAGES)])
            values.insert(len(STAGES), total)
            table.add_row(label, *("–" if value is None else f"{value:,.{digits}f}" for value in values))
    return table

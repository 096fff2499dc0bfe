"""The tables that a run ends with."""

from collections import Counter

from rich import box
from rich.console import Group
from rich.table import Table

from evaluation.runs import units
from evaluation.runs.accounts import amount
from evaluation.runs.record import HEADLINES, MEASURING, STAGES, Record, in_order
from spaces.cli.terminal import Terminal

SHORT = {"approximate": "approx."}  # names of arithmetics in narrow columns


def show(console: Terminal, record: Record, folder: str) -> None:
    """Finalists with accuracy and cost, where the cost goes, and the time per stage."""
    console.print(Group("", _finalists(record), "", _savings(record), "", _split(record), "", _times(record)))
    for (stage, reason), count in Counter((f.stage, f.reason) for f in record.failures).items():
        console.print(f"failed in {stage}, {count} ×: {reason}")
    for note in record.notes:
        console.print(f"note: {note}")
    if record.account is not None and record.account.granted is not None:
        spent, granted = (amount(each, record.account.unit) for each in (record.account.spent, record.account.granted))
        console.print(f"budget: {spent} of {granted} spent, search and selection together")
    console.print(f"record: {folder}/record.json", highlight=False)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _finalists(record: Record) -> Group:
    noun, (unit, size) = units.noun(record.unit), units.of_tables(record.unit)
    bases = [name for name in record.arithmetics if name != "approximate"]
    table = Table(
        title=f"{record.method} on {record.dataset}{record.limit_note}, "
        f"space {record.space}, protocol {record.protocol.name}, seed {record.seed}: "
        f"test accuracy in %, {noun} in {unit} ({record.cost}), saving in %",
        caption="genotypes in full: record.json; drawings: finalist*.svg",
        box=box.SIMPLE_HEAD,
    )
    tested = (SHORT.get(name, name) for name in record.arithmetics)
    for header in ("", "params", "MACs", *tested, noun, *(f"vs\n{base}" for base in bases)):
        table.add_column(header, justify="right", no_wrap=True)
    genotypes = []
    for number, finalist in enumerate(record.finalists, 1):
        cost = finalist.costs[record.cost]
        table.add_row(
            str(number),
            f"{finalist.params:,}",
            f"{finalist.macs:,}",
            *(_percent(finalist.accuracy.test.get(name)) for name in record.arithmetics),
            f"{cost.values['approximate'] / size:,.1f}",
            *(_percent(cost.saving(base)) for base in bases),
        )
        genotypes.append(f"  {number}  {finalist.summary}")
    return Group(table, *genotypes)


def _savings(record: Record) -> Table:
    """By every accounting of the headlines, and which part of it any 8-bit integers save."""
    title = "what is saved by each cost model: below fp32, of it by int8 and by circuits, and below int8"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for header in ("finalist", "cost model", "vs fp32, %", "by int8, points", "by circuits, points", "vs int8, %"):
        table.add_column(header, justify="left" if header in ("finalist", "cost model") else "right")
    for number, finalist in enumerate(record.finalists, 1):
        models = [name for name in dict.fromkeys((record.cost, *HEADLINES)) if name in finalist.costs]
        for name in models:
            cost = finalist.costs[name]
            whole, exact = cost.saving("fp32"), cost.saving("fp32", "int8")
            circuits = None if whole is None or exact is None else whole - exact
            shown = (_percent(value) for value in (whole, exact, circuits, cost.saving("int8")))
            table.add_row(str(number) if name == models[0] else "", name, *shown, end_section=name == models[-1])
    return table


def _split(record: Record) -> Table:
    noun, (unit, size) = units.noun(record.unit), units.of_tables(record.unit)
    parts, apart = record.parts
    aside = f" ({', '.join(apart)} {'is' if len(apart) == 1 else 'are'} not in the total)" if apart else ""
    table = Table(title=f"where the {noun} goes, {unit} per inference{aside}", box=box.SIMPLE_HEAD)
    for header in ("finalist", "arithmetic", *parts, "total", *apart):
        table.add_column(header, justify="left" if header in ("finalist", "arithmetic") else "right")
    for number, finalist in enumerate(record.finalists, 1):
        cost = finalist.costs[record.cost]
        for name in (names := in_order(cost.values)):
            split, beside = cost.split.get(name, {}), cost.apart.get(name, {})
            values = (*(split.get(part) for part in parts), cost.values[name], *(beside.get(part) for part in apart))
            shown = ("–" if value is None else f"{value / size:,.1f}" for value in values)
            table.add_row(str(number) if name == names[0] else "", name, *shown, end_section=name == names[-1])
    return table


def _times(record: Record) -> Table:
    device, ledger = record.device, record.ledger
    unit = "GPU" if device.type == "cuda" else "CPU"
    table = Table(title=f"device time ({device.count} × {device.name})", box=box.SIMPLE_HEAD)
    table.add_column("")
    seconds = {stage: ledger[stage].device_seconds for stage in STAGES}
    seconds["total"] = sum(seconds.values())
    rows = [ledger[stage] for stage in STAGES]
    if MEASURING in ledger and ledger[MEASURING].device_seconds:  # records need not have it
        seconds["(snapshots)"] = ledger[MEASURING].device_seconds
        rows.append(ledger[MEASURING])
    for stage in seconds:
        table.add_column(stage, justify="right")
    for label, form in (("seconds", lambda s: f"{s:.1f}"), (f"{unit}-hours", lambda s: f"{s / 3600:.4f}")):
        table.add_row(label, *(form(value) for value in seconds.values()))
    beside = {
        "of it warm-up, s": ([row.warm_up_seconds for row in rows], 1),
        "joules": ([row.joules for row in rows], 0),
        "trained work, GMACs": ([None if row.work is None else row.work / 1e9 for row in rows], 1),
    }
    for label, (values, digits) in beside.items():
        if any(value and round(value, digits) for value in values):
            known = [value for value in values[: len(STAGES)] if value is not None]
            values.insert(len(STAGES), sum(known) if len(known) == len(STAGES) else None)
            table.add_row(label, *("–" if value is None else f"{value:,.{digits}f}" for value in values))
    return table

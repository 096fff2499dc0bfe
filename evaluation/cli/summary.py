"""The tables that a run ends with."""

from collections import Counter

from rich.console import Group

from evaluation.runs import units
from evaluation.runs.accounts import amount
from evaluation.runs.record import HEADLINES, MEASURING, STAGES, Record, in_order
from spaces.cli.numbers import three
from spaces.cli.tables import Column, Fitted
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
        console.print(f"budget: {granted}; search and selection spent {spent}")
    console.print(f"record: {folder}/record.json", highlight=False)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _saved(value: float | None) -> str:
    return "–" if value is None else three(100 * value)


def _amounts_unit(record: Record) -> tuple[str, float]:
    """The unit of all amounts of the run's cost, and its size: that which suits the cheapest finalist."""
    costs = [finalist.costs[record.cost].values["approximate"] for finalist in record.finalists]
    return units.suited(record.unit, min(costs))


def _finalists(record: Record) -> Group:
    noun, (unit, size) = units.noun(record.unit), _amounts_unit(record)
    tested = [
        Column(f"{SHORT.get(name, name)}\n%", {"approximate": 0, "int8": 1}.get(name, 2)) for name in record.arithmetics
    ]
    saved = [
        Column(f"below\n{base}, %", 0 if base == "int8" else 3) for base in record.arithmetics if base != "approximate"
    ]
    table = Fitted(
        f"{record.method} on {record.dataset}{record.limit_note}, "
        f"space {record.space}, protocol {record.protocol.name}, seed {record.seed}: "
        f"test accuracy, {noun} per inference ({record.cost}), and what is saved of it",
        [Column("", left=True), Column("params", 5), Column("MACs", 4), *tested, Column(f"{noun}\n{unit}"), *saved],
    )
    genotypes = Fitted("", [Column("", left=True), Column("genotype", text=True)])
    for number, finalist in enumerate(record.finalists, 1):
        cost = finalist.costs[record.cost]
        table.add(
            str(number),
            units.with_prefix(finalist.params),
            units.with_prefix(finalist.macs),
            *(_percent(finalist.accuracy.test.get(name)) for name in record.arithmetics),
            three(cost.values["approximate"] / size),
            *(_saved(cost.saving(base)) for base in record.arithmetics if base != "approximate"),
        )
        genotypes.add(str(number), finalist.summary)
    return Group(table, "", genotypes, " genotypes in full: record.json; drawings: finalist*.svg")


def _savings(record: Record) -> Fitted:
    """By every accounting of the headlines, and which part of it any 8-bit integers save."""
    columns = [Column("", left=True), Column("cost model", left=True), Column("below\nfp32, %")]
    columns += [Column("by int8,\npoints", 2), Column("by circuits,\npoints", 1), Column("below\nint8, %")]
    table = Fitted("what each finalist saves by each cost model, and which part of it int8 and circuits do", columns)
    for number, finalist in enumerate(record.finalists, 1):
        models = [name for name in dict.fromkeys((record.cost, *HEADLINES)) if name in finalist.costs]
        for name in models:
            cost = finalist.costs[name]
            whole, exact = cost.saving("fp32"), cost.saving("fp32", "int8")
            circuits = None if whole is None or exact is None else whole - exact
            shown = (_saved(value) for value in (whole, exact, circuits, cost.saving("int8")))
            table.add(str(number) if name == models[0] else "", name, *shown, end=name == models[-1])
    return table


def _split(record: Record) -> Fitted:
    noun, (unit, size) = units.noun(record.unit), _amounts_unit(record)
    parts, apart = record.parts
    aside = f" ({', '.join(apart)} {'is' if len(apart) == 1 else 'are'} not in the total)" if apart else ""
    columns = [
        Column("", left=True),
        Column("arithmetic", left=True),
        *(Column(part, 2) for part in parts),
        Column("total"),
    ]
    table = Fitted(
        f"where the {noun} goes, {unit} per inference{aside}", [*columns, *(Column(part, 1) for part in apart)]
    )
    for number, finalist in enumerate(record.finalists, 1):
        cost = finalist.costs[record.cost]
        for name in (names := in_order(cost.values)):
            split, beside = cost.split.get(name, {}), cost.apart.get(name, {})
            values = (*(split.get(part) for part in parts), cost.values[name], *(beside.get(part) for part in apart))
            shown = ("–" if value is None else three(value / size) for value in values)
            table.add(str(number) if name == names[0] else "", name, *shown, end=name == names[-1])
    return table


def _times(record: Record) -> Fitted:
    device, ledger = record.device, record.ledger
    unit = "GPU" if device.type == "cuda" else "CPU"
    seconds = {stage: ledger[stage].device_seconds for stage in STAGES}
    seconds["total"] = sum(seconds.values())
    rows = [ledger[stage] for stage in STAGES]
    if MEASURING in ledger and ledger[MEASURING].device_seconds:  # records need not have it
        seconds["(snapshots)"] = ledger[MEASURING].device_seconds
        rows.append(ledger[MEASURING])
    ranks = {"test": 3, "(snapshots)": 2, "final": 1, "selection": 1}
    columns = [Column("", left=True), *(Column(stage, ranks.get(stage, 0)) for stage in seconds)]
    table = Fitted(f"device time ({device.count} × {device.name})", columns)
    table.add("seconds", *(three(value) for value in seconds.values()))
    table.add(f"{unit}-hours", *(three(value / 3600) for value in seconds.values()))
    beside = {
        "of it warm-up, s": [row.warm_up_seconds for row in rows],
        "joules": [row.joules for row in rows],
        "trained work, GMACs": [None if row.work is None else row.work / 1e9 for row in rows],
    }
    for label, values in beside.items():
        if any(value and value >= 0.05 for value in values):
            known = [value for value in values[: len(STAGES)] if value is not None]
            values.insert(len(STAGES), sum(known) if len(known) == len(STAGES) else None)
            table.add(label, *("–" if value is None else three(value) for value in values))
    return table

"""What methods caused to be spent, against what they were granted: search, and the judging of the proposals.

Nothing here imports torch.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from evaluation.runs.record import Account, LedgerRow, Record
from evaluation.settings.config import Budget

TOLERANCE = 0.1  # by which methods may differ in what they spent, and a method from what it was granted
COUNTED = ("search", "selection")


def account_of(budget: str, ledger: Mapping[str, LedgerRow], candidates: int, judged: int) -> Account:
    """Of a run that trained so many ``candidates`` in its search and ``judged`` so many proposals."""
    granted = Budget.parse(budget)
    rows = [ledger[stage] for stage in COUNTED]
    if granted.evaluations is not None:
        return Account("candidates", candidates + judged, granted.evaluations)
    work = [row.work for row in rows if row.work is not None]
    if granted.seconds is not None or len(work) < len(rows):
        return Account("s", sum(row.device_seconds for row in rows), granted.seconds)
    return Account("MAC", sum(work), granted.work)


def account(record: Record) -> Account:
    """Of a record; one that does not say is asked for its device time."""
    seconds = sum(record.ledger[stage].device_seconds for stage in COUNTED)
    return record.account or Account("s", seconds, Budget.parse(record.budget).seconds)


def compared(methods: Mapping[str, Sequence[Record]]) -> tuple[bool, str] | None:
    """Whether methods spent as much as each other, and as they were granted, to ``TOLERANCE``; and a sentence with the
    figures, means over runs. None where the accounts are not of one kind, or there is nothing to compare.
    """
    accounts = {name: [account(record) for record in records] for name, records in methods.items()}
    kinds = {(each.unit, each.granted) for own in accounts.values() for each in own}
    if len(kinds) != 1:
        return None
    ((unit, granted),) = kinds
    spent = {name: fmean(each.spent for each in own) for name, own in accounts.items()}
    least, most = min(spent.values()), max(spent.values())
    equal = most <= (1 + TOLERANCE) * least and (granted is None or most <= (1 + TOLERANCE) * granted)
    of = "" if granted is None else f" of {amount(granted, unit)}"
    figures = ", ".join(f"{name} {amount(value, unit)}" for name, value in spent.items())
    return equal, f"spent{of}, search and selection together: {figures}"


def amount(value: float, unit: str) -> str:
    """As people read it."""
    if unit == "MAC":
        return f"{value:.3g} MACs"
    return f"{value:,.0f} {unit}" if value >= 10 or unit != "s" else f"{value:.2g} {unit}"

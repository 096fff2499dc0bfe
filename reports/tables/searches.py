"""Searches on a table of trained networks: how far each method stays from the true front, and its rank."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev

from evaluation.runs import units
from reports.searches import Proposal, Searched, amount_unit, amount_words, cost_unit
from reports.tables.shape import best_marked
from reports.tables.table import PERCENT, Cell, Column, Form, Table, nothing, number, words

THOUSANDS = Form(1, 1000)
RANK, P = Form(2), Form()


def _notes(found: Searched) -> tuple[str, ...]:
    errors = "true errors (means over the table's trainings, on test images)"
    if found.reliability:
        errors = f"predicted errors ({found.reliability.rstrip('.')})"
    return (
        f"Regret: hypervolume of the {found.front_name} minus that of what a search hands over, by {errors} and costs; times "
        "1,000; ± half of the 95 % interval of its mean over seeds.",
        "Test error, cost and saving are of the most accurate network that a search hands over; ± the sample standard "
        "deviation over seeds. *: a control.",
    )


def searches(found: Searched) -> tuple[Table, Table]:
    """The headline of six columns; and regret after parts of the budget, with what was spent."""
    return best_marked(_headline(found)), best_marked(_parts(found))


def _named(found: Searched) -> list[Cell]:
    return [
        replace(words(each.method), text=f"{each.method}{' *' if each.control else ''} ({each.seeds})")
        for each in found.ranking.standings
    ]


def _headline(found: Searched) -> Table:
    unit, size = cost_unit(found)
    headers = {
        "method": None,
        "test error, %": "less",
        f"{units.noun(unit)}, {unit}": "less",
        "saved vs exact int8, %": "more",
    }
    headers |= {"regret × 1000": "less", "mean rank": "less"}
    columns = tuple(Column(name, at > 0, way, True) for at, (name, way) in enumerate(headers.items()))
    rows = []
    for label, each in zip(_named(found), found.ranking.standings):
        chosen = found.most_accurate[each.method]
        rows.append(
            (
                label,
                _over_seeds(chosen, "error", PERCENT),
                _over_seeds(chosen, "cost", Form(None, 1 / size)),
                _over_seeds(chosen, "saved", PERCENT),
                _regret(each.regrets[-1], each.interval),
                nothing() if each.rank is None else number(each.rank, RANK),
            )
        )
    return Table(
        f"{found.name}-headline", f"At a glance: {found.title}", columns, tuple(rows), (*_notes(found), *_tests(found))
    )


def _over_seeds(chosen: Sequence[Proposal], name: str, form: Form) -> Cell:
    values = [form.scaled(getattr(each, name)) for each in chosen]
    if len(values) == 1:
        return Cell(form.text(values[0])[0], values[0])
    deviation = stdev(values)
    parts = {"n": len(values), "std": deviation}
    return Cell(" ± ".join(form.text(mean(values), deviation)), mean(values), (), parts)


def _regret(value: float, interval: tuple[float, float]) -> Cell:
    low, high = (THOUSANDS.scaled(end) for end in interval)
    scaled = THOUSANDS.scaled(value)
    return Cell(" ± ".join(THOUSANDS.text(scaled, (high - low) / 2)), scaled, (), {"low": low, "high": high})


def _parts(found: Searched) -> Table:
    from evaluation.benchmark.ranking import PARTS

    _, size = amount_unit(found)
    after = [f"regret × 1000 after {100 * part:g} %" for part in PARTS]
    columns = (
        Column("method", False),
        *(Column(name, better="less", main=True) for name in after),
        *(Column(name, main=True) for name in (f"spent: {amount_words(found)}", "seeds")),
    )
    rows = tuple(
        (
            label,
            *(number(value, THOUSANDS) for value in each.regrets[:-1]),
            _regret(each.regrets[-1], each.interval),
            replace(number(each.spent, Form(None, 1 / size)), best=False),
            Cell(str(each.seeds), each.seeds),
        )
        for label, each in zip(_named(found), found.ranking.standings)
    )
    over = [each.method for each in found.ranking.standings if each.overrun]
    notes = [
        _notes(found)[0],
        f"Parts of the budget of {found.budget}; the judging of what a search hands over is on its account.",
    ]
    notes += [f"Overran the budget: {', '.join(over)}."] if over else []
    return Table(f"{found.name}-budget", f"Regret by budget: {found.title}", columns, rows, tuple(notes))


def _tests(found: Searched) -> list[str]:
    ranking, lines = found.ranking, []
    if ranking.critical_difference is not None:
        lines.append(
            f"Mean ranks over the {ranking.shared_seeds} seeds that all methods have; those that differ by less than "
            f"{ranking.critical_difference:.2f} cannot be told apart (Nemenyi, 5 %)."
        )
    if ranking.friedman_p is not None:
        lines.append(f"That all methods are alike: p = {ranking.friedman_p:.2g} (Friedman).")
    return lines

"""What the searches found: a row per method, and a row per finalist."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.runs import units
from evaluation.runs.record import HEADLINES, STAGES
from reports import statistics
from reports.load import Run, Section
from reports.rows import SAVINGS, exact_column, saving_column
from reports.statistics import Reference
from reports.tables.shape import for_papers
from reports.tables.table import (
    COUNT,
    PERCENT,
    Cell,
    Column,
    Form,
    Table,
    average,
    cost_form,
    measured,
    nothing,
    number,
    time_form,
    words,
)

HYPERVOLUME, IGD_PLUS = Form(3), Form(4)

AVERAGES = (
    "Mean ± sample standard deviation (from two runs on) over the searches of a row; in brackets the 95 % interval "
    "of the mean (Student's; from 20 values on the bootstrap's; from three on that are not all equal). (k of n): "
    "measured in k of n searches; –: in none."
)
CHOSEN = (
    "Each search counts with its finalist of the highest validation accuracy; choosing by test error would flatter it."
)
BEST = "Best of searches: the one of these finalists whose validation accuracy is the highest."


@dataclass(frozen=True)
class Measure:
    """A column: its header, what to read from a finalist's row, how to write it."""

    header: str
    value: Callable[[Mapping[str, Any]], float | None]
    form: Form
    main: bool = False  # has an interval, and a column of the best of searches


def test_error(arithmetic: str) -> Callable[[Mapping[str, Any]], float | None]:
    def value(row: Mapping[str, Any]) -> float | None:
        accuracy = measured(row, f"test_accuracy_{arithmetic}")
        return None if accuracy is None else 1 - accuracy

    return value


def _named(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    """By its name in the frame."""
    return lambda row: measured(row, name)


def results(section: Section) -> tuple[Measure, ...]:
    """What is told of a finalist: errors and costs in every arithmetic, and what approximate arithmetic saves."""
    noun, (unit, form) = units.noun(section.unit), cost_form(section)
    names, main = section.arithmetics, "approximate"
    return (
        *(Measure(f"error {name}, %", test_error(name), PERCENT, main=name == main) for name in names),
        Measure("drop vs int8, points", _named("accuracy_drop_vs_int8"), PERCENT),
        Measure("parameters", _named("params"), COUNT),
        Measure("MACs", _named("macs"), COUNT),
        *(Measure(f"{noun} {n}, {unit}", _named(section.cost_column(n)), form, main=n == main) for n in names),
        *(Measure(f"saved vs {b}, %", _named(saving_column(section.cost, b)), PERCENT, main=True) for b in SAVINGS),
        *_headlines(section),
    )


def _headlines(section: Section) -> Iterator[Measure]:
    """What of the saving is int8's, and the same by the other accountings of the headlines, where a record has them."""
    yield Measure("of it by int8, points", _named(exact_column(section.cost)), PERCENT)
    for model in HEADLINES:
        if model != section.cost and saving_column(model, "int8") in section.finalists:
            for base in SAVINGS:
                yield Measure(f"saved vs {base} by {model}, %", _named(saving_column(model, base)), PERCENT)
            yield Measure(f"of it by int8 by {model}, points", _named(exact_column(model)), PERCENT)


def measures_note(section: Section) -> str:
    """What the columns of ``results`` mean."""
    noun, aside = units.noun(section.unit), f", without {section.apart}" if section.apart else ""
    return (
        "Errors are of the test images; drop: test accuracy in exact int8 − approximate, run by run. "
        f"{noun.capitalize()} is per inference{aside}. Of what is saved vs fp32, exact 8-bit integers save a part with any "
        "circuit: the rest is the circuits'."
    )


def spent(section: Section) -> tuple[Measure, ...]:
    """The device time of every stage, and of all."""
    unit, form = time_form(section)
    return tuple(Measure(f"{stage}, {unit}", _named(f"{stage}_device_seconds"), form) for stage in (*STAGES, "total"))


def best_search(runs: Sequence[Run]) -> Run | None:
    """The run whose best finalist has the highest validation accuracy; None where several have none to choose by."""
    known = [(measured(run.best, "validation_accuracy"), run) for run in runs]
    rated = [(accuracy, run) for accuracy, run in known if accuracy is not None]
    if not rated:
        return runs[0] if len(runs) == 1 else None
    return max(rated, key=lambda pair: pair[0])[1]


# -- methods -----------------------------------------------------------------------------------------------------------


def methods(section: Section) -> Table:
    """A row per variant: means over its searches, and the best of them."""
    found = statistics.reference(section)
    columns = [Column(name, name == "runs") for name in ("method", "runs", "seeds", "device")]
    for measure in results(section):
        names = ("mean over searches", "best of searches") if measure.main else (None,)
        columns += [Column(f"{measure.header}: {name}" if name else measure.header) for name in names]
    columns += [Column(name) for name in ("hypervolume", "IGD+", *(measure.header for measure in spent(section)))]
    rows = [_method_row(section, variant, found) for variant in section.variants]
    notes = [AVERAGES, CHOSEN, BEST, measures_note(section), *([found.sentence] if found else []), *cautions(section)]
    table = Table(f"{section.name}-methods", f"Methods: {section.title}", tuple(columns), tuple(rows), tuple(notes))
    noun, (unit, _) = units.noun(section.unit), cost_form(section)
    means = {"error approximate, %": "less", f"{noun} approximate, {unit}": "less", "saved vs int8, %": "more"}
    others = {"drop vs int8, points": "less", "hypervolume": "more", "IGD+": "less"}
    return for_papers(table, {f"{name}: mean over searches": way for name, way in means.items()} | others)


def _method_row(section: Section, variant: str, found: Reference | None) -> tuple[Cell, ...]:
    runs = section.variants[variant]
    names = [run.name for run in runs]
    best = best_search(runs)
    cells = [
        words(variant, names),
        Cell(str(len(runs)), len(runs), tuple(names)),
        words(" ".join(str(run.seed) for run in runs), names),
        words(device(runs[0]), names),
    ]
    for measure in results(section):
        cells.append(mean_cell(runs, measure))
        if measure.main:
            cells.append(number(measure.value(best.best), measure.form, [best.name]) if best else nothing())
    return (*cells, *front_cells(section, runs, found), *(mean_cell(runs, measure) for measure in spent(section)))


def device(run: Run) -> str:
    """The device of a run, and how many of it."""
    used = run.record.device
    return f"{used.count} × {used.name}" if used.count > 1 else used.name


def mean_cell(runs: Sequence[Run], measure: Measure) -> Cell:
    return average([(run, measure.value(run.best)) for run in runs], measure.form, measure.main)


def front_cells(section: Section, runs: Sequence[Run], found: Reference | None) -> tuple[Cell, Cell]:
    """Hypervolume and IGD+ of the final fronts."""
    if found is None:
        return nothing(), nothing()
    union = statistics.union_front(section)
    distances = [
        (run, statistics.igd_plus(statistics.final_front(run), union, found) if run.moments else None) for run in runs
    ]
    volumes = [(run, statistics.final_hypervolume(run, found)) for run in runs]
    return average(volumes, HYPERVOLUME, True), average(distances, IGD_PLUS)


def cautions(section: Section) -> list[str]:
    """What the rows cannot say."""
    few = [variant for variant, runs in section.variants.items() if len(runs) < statistics.FEWEST]
    if not few:
        return []
    named = ", ".join(few) if len(few) < 6 else f"{len(few)} rows"
    return [f"Fewer than {statistics.FEWEST} runs ({named}): how much results vary from seed to seed is not known."]


# -- finalists ---------------------------------------------------------------------------------------------------------


def finalists(section: Section) -> Table:
    """Every finalist of every run."""
    validation = Measure("error validation, %", _validation_error, PERCENT)
    measures = (validation, *results(section))
    texts = ("run", "finalist", "method", "seed", "best on validation", "network")
    columns = [Column(name, name in ("finalist", "seed")) for name in texts]
    columns += [Column(measure.header) for measure in measures]
    rows = []
    for row in section.finalists.to_dict("records"):
        run = (row["run"],)
        labels = [words(row["run"], run), Cell(str(row["finalist"]), row["finalist"], run), words(row["variant"], run)]
        labels += [Cell(str(row["seed"]), row["seed"], run), words("yes" if row["best"] else "", run)]
        labels += [Cell(row["key"][:8], row["key"], run)]
        rows.append((*labels, *(number(measure.value(row), measure.form, run) for measure in measures)))
    notes = (
        measures_note(section),
        "Network: the first digits of its key; genotypes are in the records. –: not measured.",
    )
    title = f"Finalists: {section.title}"
    table = Table(f"{section.name}-finalists", title, tuple(columns), tuple(rows), notes, 2)
    noun, (unit, _) = units.noun(section.unit), cost_form(section)
    return for_papers(
        table,
        ("error validation, %", "error approximate, %", f"{noun} approximate, {unit}", "saved vs int8, %"),
    )


def _validation_error(row: Mapping[str, Any]) -> float | None:
    accuracy = measured(row, "validation_accuracy")
    return None if accuracy is None else 1 - accuracy

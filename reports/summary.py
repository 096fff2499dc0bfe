"""The report in words: which method is better, by how much, at what cost, how sure we are, what cannot be concluded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median

from evaluation.runs import units
from evaluation.significance import CONTROLS, EXPLANATION, Comparison
from reports.figures import style
from reports.load import Run, Section
from reports.rows import saving_column
from reports.statistics import anytime, comparisons, final_hypervolume, judged, reference
from reports.tables.table import PERCENT, UNMEASURED, Form, average, cost_form, measured, time_form

FALL = 0.005  # of hypervolume, from which a curve is said to fall
SHOWN = 12  # comparisons and methods that are spelled out; tables have the others


@dataclass(frozen=True)
class Statement:
    """A sentence, and the names of the runs that it is made from."""

    text: str
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What a section says; each part may be empty."""

    headline: Statement
    verdicts: tuple[Statement, ...]
    amounts: tuple[Statement, ...]
    costs: tuple[Statement, ...]
    course: tuple[Statement, ...]  # what happened on the way
    limits: tuple[Statement, ...]
    explanation: str


def summary(section: Section) -> Summary:
    """In words what the section's records say; nothing is said that they do not hold."""
    pairs = comparisons(section)
    scale = reference(section)
    variants = list(section.variants.items())[:SHOWN]
    return Summary(
        headline=_headline(section, pairs),
        verdicts=tuple(_verdict(section, pair) for pair in pairs[:SHOWN]),
        amounts=tuple(Statement(_amount(section, name, runs), _names(runs)) for name, runs in variants),
        costs=tuple(Statement(_cost(section, name, runs), _names(runs)) for name, runs in variants),
        course=tuple(_falls(section)),
        limits=tuple(_limits(section, pairs)),
        explanation=f"{EXPLANATION} {scale.sentence}" if pairs and scale else scale.sentence if scale else "",
    )


def _headline(section: Section, pairs: Sequence[Comparison]) -> Statement:
    runs, methods = _names(section.runs), {variant: members[0].method for variant, members in section.variants.items()}
    if len(set(methods.values())) == 1:
        settings = f" under {len(methods)} groups of settings" if len(methods) > 1 else ""
        only = f"One method, {section.runs[0].method}, with {style.count(len(runs), 'run')}{settings}"
        return Statement(f"{only}: there is no other to compare it with.", runs)
    between = [pair for pair in pairs if methods[pair.one] != methods[pair.other]]
    if not between:
        return Statement("No two methods have a judged front: their searches cannot be compared.", runs)
    named = dict.fromkeys(name for pair in between for name in (pair.one, pair.other))  # in order: of equals the first
    top = max(named, key=lambda name: _volume(section, name))
    rivals = {pair.other if pair.one == top else pair.one: pair for pair in between if top in (pair.one, pair.other)}
    beaten = [name for name, pair in rivals.items() if pair.larger == top]
    better = [name for name, pair in rivals.items() if pair.larger == name]
    equal = [name for name, pair in rivals.items() if pair.larger is None]
    unequal = tuple(dict.fromkeys(name for pair in rivals.values() for name in pair.unequal))
    caution = f"; mind that they also differ in {', '.join(unequal)}" if unequal else ""
    controls, ranges = _against_controls(section, named, between), _ranges(section)
    if len(beaten) == len(rivals):
        return Statement(f"{controls}{top} finds better fronts than {_all(beaten)}{caution}. {ranges}", runs)
    text = f"{controls}{top} has the largest mean hypervolume"
    text += f" and is better than {_all(beaten)}" if beaten else ""
    text += f"; seed by seed {_all(better)} does better" if better else ""
    text += f"; it is not distinguishable from {_all(equal)}" if equal else ""
    return Statement(f"{text}{caution}. {ranges}", runs)


def _against_controls(section: Section, named: Iterable[str], pairs: Sequence[Comparison]) -> str:
    """A sentence where no method is shown to beat the best control; "" where one is, or there is nothing to say."""
    ordered = sorted(named, key=lambda name: -_volume(section, name))
    best = {is_control: [name for name in ordered if (name in CONTROLS) is is_control] for is_control in (True, False)}
    if not best[True] or not best[False]:
        return ""
    method, control = best[False][0], best[True][0]
    pair = next((pair for pair in pairs if {pair.one, pair.other} == {method, control}), None)
    return "" if pair and pair.larger == method else f"No method is shown to beat the best control, {control}. "


def _ranges(section: Section) -> str:
    """Between which errors and costs the methods' finalists lie on average: what a hypervolume does not tell."""
    runs = [found for variant, found in section.variants.items() if variant == found[0].method]
    unit, form = cost_form(section)

    def span(column: str, form: Form, sign: int = 1, offset: float = 0) -> str:
        means = []
        for group in runs:
            known = [value for run in group if (value := measured(run.best, column)) is not None]
            means += [form.scaled(offset + sign * mean(known))] if known else []
        ends = (
            sorted(
                {form.text(value)[0] for value in (min(means), max(means))},
                key=lambda text: float(text.replace(",", "").replace("−", "-")),
            )
            if means
            else []
        )
        return " to ".join(ends)

    error = span("test_accuracy_approximate", PERCENT, -1, 1)
    cost = span(section.cost_column(), form)
    errors = f"Mean test errors: {error} %; " if error else ""
    return f"{errors}mean {units.noun(section.unit)} per inference: {cost} {unit}."


def _falls(section: Section) -> Iterable[Statement]:
    """Searches whose proposals got worse on the way: their curve falls."""
    scale = reference(section)
    for variant, runs in section.variants.items():
        curves = [[value for _, value in anytime(run, scale)] for run in judged(runs)] if scale else []
        fallen = [curve for curve in curves if max(curve) - curve[-1] > FALL]
        if fallen:
            high, last = (f"{median(values):.3f}" for values in (map(max, fallen), (curve[-1] for curve in fallen)))
            text = (
                f"{variant}: hypervolume falls during the search in {len(fallen)} of {style.count(len(curves), 'run')}, from "
                f"{high} at its highest to {last} at the end (medians of these): what it proposed last is worse than what it "
                "had proposed before."
            )
            yield Statement(text, _names(runs))


def _volume(section: Section, variant: str) -> float:
    """The mean hypervolume of a variant that searched."""
    scale = reference(section)
    values = (final_hypervolume(run, scale) for run in section.variants[variant])
    return mean(value for value in values if value is not None)


def _verdict(section: Section, pair: Comparison) -> Statement:
    used = [run for name in (pair.one, pair.other) for run in section.variants[name] if run.seed in pair.seeds]
    return Statement(f"{pair.sentence}.", _names(used))


def _amount(section: Section, name: str, runs: Sequence[Run]) -> str:
    scale, noun, (unit, form) = reference(section), units.noun(section.unit), cost_form(section)
    best = [(run, run.best) for run in runs]
    saved = {base: saving_column(section.cost, base) for base in ("int8", "fp32")}

    def mean(column: str, form: Form, sign: int = 1, offset: float = 0) -> str:
        known = [(run, measured(row, column)) for run, row in best]
        return average([(run, None if value is None else offset + sign * value) for run, value in known], form).text

    drop = mean("accuracy_drop_vs_int8", PERCENT)
    lost = "its accuracy was not compared, and it" if drop == UNMEASURED else f"it loses {drop} points of accuracy and"
    text = (
        f"{name}: {mean('test_accuracy_approximate', PERCENT, -1, 1)} % test error in approximate arithmetic, at "
        f"{mean(section.cost_column(), form)} {unit} per inference. Against exact int8, {lost} "
        f"saves {mean(saved['int8'], PERCENT)} % of the {noun}; against fp32, {mean(saved['fp32'], PERCENT)} %."
    )
    volumes = [(run, final_hypervolume(run, scale)) for run in runs]
    if any(value is not None for _, value in volumes):
        text += f" Hypervolume {average(volumes, Form(3), with_interval=True).text}."
    return text


def _cost(section: Section, name: str, runs: Sequence[Run]) -> str:
    unit, form = time_form(section)
    search, whole_time = (
        average([(run, run.best[f"{stage}_device_seconds"]) for run in runs], form).text
        for stage in ("search", "total")
    )
    devices = sorted({str(run.best["device_name"]) for run in runs})
    return f"{name}: {search} {unit} of search per run, {whole_time} with all stages, on {', '.join(devices)}."


def _limits(section: Section, pairs: Sequence[Comparison]) -> Iterable[Statement]:
    """What a reader must not conclude, and why."""
    names = {run.method for run in section.runs}
    if len(names) == 1:
        text = f"Whether {names.pop()} is better than another method, or than random search: no other was run."
        yield Statement(text, _names(section.runs))
    elif "random" not in names:
        yield Statement("Whether these methods are better than random search: it was not run.", _names(section.runs))
    single = {name: runs for name, runs in section.variants.items() if len({run.seed for run in runs}) == 1}
    if single:
        text = (
            f"How much chance has to do with it: {_all(single)} ran with one seed only, so that the spread is unknown."
        )
        yield Statement(text, _names(run for runs in single.values() for run in runs))
    methods = {variant: runs[0].method for variant, runs in section.variants.items()}
    few = [pair for pair in pairs if not pair.possible]
    between = [pair for pair in few if methods[pair.one] != methods[pair.other]]
    for members, which in (
        (between, "two methods"),
        ([pair for pair in few if pair not in between], "two settings of a method"),
    ):
        if members:
            needed = max(pair.seeds_needed for pair in members)
            yield Statement(f"Which of {which} is better, where seeds are too few: it takes {needed} of each.")
    frame = section.finalists
    for arithmetic, what in (
        ("int8", "how much accuracy the circuits cost"),
        ("fp32", "how much accuracy 8 bits cost"),
    ):
        lacking = frame.loc[frame[f"test_accuracy_{arithmetic}"].isna(), "run"].unique()
        if len(lacking):
            text = (
                f"{what.capitalize()}: {style.count(len(lacking), 'run')} did not test every finalist in {arithmetic}."
            )
            yield Statement(text, tuple(lacking))
    if unjudged := [run for run in section.runs if not run.moments]:
        text = f"How good the whole front is, for {style.count(len(unjudged), 'run')} without a judged front."
        yield Statement(text, _names(unjudged))
    yield Statement(f"Anything beyond this data, space and protocol: {section.data}.", _names(section.runs))


def _names(runs: Iterable[Run]) -> tuple[str, ...]:
    return tuple(run.name for run in runs)


def _all(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    names = list(names)
    if len(names) > SHOWN:
        names = [*names[:SHOWN], f"{len(names) - SHOWN} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

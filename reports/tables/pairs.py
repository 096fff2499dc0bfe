"""Methods against one another: every pair of them, and the settings of one method."""

import json
from collections.abc import Sequence

from evaluation.significance import EXPLANATION, Comparison
from reports import statistics
from reports.load import Section
from reports.statistics import Reference
from reports.tables.results import (
    AVERAGES,
    CHOSEN,
    HYPERVOLUME,
    Measure,
    cautions,
    front_cells,
    mean_cell,
    measures_note,
    results,
)
from reports.tables.shape import for_papers
from reports.tables.table import Cell, Column, Form, Table, nothing, number, words
from reports.variants import settings_of

P = Form()
SPELLED = 160  # characters of a setting
DIFFERENCE = (
    "Median difference: hypervolume of the first − of the second, seed by seed, with its bootstrap 95 % interval. Methods "
    "stand in their usual settings, those that most methods share and of these most runs; others are compared with these."
)
TO_THE_USUAL = (
    "Difference to the usual: hypervolume − that of the usual settings, median over the seeds of "
    "both, with its bootstrap 95 % interval."
)


def comparisons(section: Section) -> Table:
    """A row per pair of variants that searched: the paired test of their hypervolumes, and its words."""
    found = statistics.reference(section)
    headers = ("one", "other", "pairs", "median difference", "p", "p after Holm", "r", "verdict")
    columns = tuple(Column(header, header not in ("one", "other", "verdict")) for header in headers)
    rows = []
    for pair in statistics.comparisons(section):
        names = _paired_runs(section, pair)
        rows.append(
            (
                words(pair.one, names),
                words(pair.other, names),
                Cell(str(len(pair.seeds)), len(pair.seeds), names),
                difference(pair, names),
                *(number(value if pair.seeds else None, P, names) for value in (pair.p, pair.adjusted_p)),
                number(pair.effect if pair.seeds else None, Form(2), names),
                words(pair.verdict, names),
            )
        )
    notes = (DIFFERENCE, EXPLANATION, *([found.sentence] if found else []))
    table = Table(f"{section.name}-pairs", f"Pairs of methods: {section.title}", columns, tuple(rows), notes, 2)
    return for_papers(table, headers[2:-1])


def _paired_runs(section: Section, pair: Comparison) -> tuple[str, ...]:
    runs = (*section.variants[pair.one], *section.variants[pair.other])
    return tuple(run.name for run in runs if run.moments and run.seed in pair.seeds)


def difference(pair: Comparison, runs: Sequence[str] = ()) -> Cell:
    """The median paired difference with its interval."""
    if pair.median_difference is None:
        return nothing(runs)
    middle, ends = pair.median_difference, pair.interval or ()
    text = number(middle, HYPERVOLUME).text
    if ends:
        text += f" [{', '.join(number(end, HYPERVOLUME).text for end in ends)}]"
    return Cell(text, middle, tuple(runs), dict(zip(("low", "high"), ends)))


# -- settings of one method --------------------------------------------------------------------------------------------


def ablation(section: Section) -> Table:
    """Variants of one method side by side, each against the usual one; no rows where no method has several."""
    found = statistics.reference(section)
    headers = ("hypervolume", "difference to the usual", "pairs", "p after Holm")
    columns = (
        *(Column(name, False) for name in ("method", "settings that differ")),
        *(Column(name) for name in ("runs", *(measure.header for measure in _main(section)), *headers)),
        Column("verdict", False),
    )
    pairs = {pair.one: pair for pair in statistics.comparisons(section) if pair.other == _method(section, pair.one)}
    rows = []
    for method in dict.fromkeys(run.method for run in section.runs):
        variants = [name for name in section.variants if _method(section, name) == method]
        differences = _differing(section, variants)
        if len(variants) > 1:
            rows += [_variant_row(section, name, differences[name], found, pairs.get(name)) for name in variants]
    notes = [
        AVERAGES,
        CHOSEN,
        measures_note(section),
        TO_THE_USUAL,
        EXPLANATION,
        *([found.sentence] if found else []),
        *cautions(section),
    ]
    title = f"Settings of one method: {section.title}"
    table = Table(f"{section.name}-ablation", title, columns, tuple(rows), tuple(notes), 2)
    return for_papers(table, {"runs": None, "hypervolume": "more"} | dict.fromkeys(headers[1:]))


def _main(section: Section) -> list[Measure]:
    return [measure for measure in results(section) if measure.main]


def _method(section: Section, variant: str) -> str:
    return section.variants[variant][0].method


def _variant_row(
    section: Section, variant: str, differences: str, found: Reference | None, pair: Comparison | None
) -> tuple[Cell, ...]:
    runs = section.variants[variant]
    names = tuple(run.name for run in runs)
    return (
        words(variant, names),
        words(differences + " (the usual)" * (variant == runs[0].method), names),
        Cell(str(len(runs)), len(runs), names),
        *(mean_cell(runs, measure) for measure in _main(section)),
        front_cells(section, runs, found)[0],
        *_against(section, pair),
    )


def _differing(section: Section, variants: Sequence[str]) -> dict[str, str]:
    """Variant → the settings in which the variants of a method differ from one another, spelled out."""
    settings = {variant: settings_of(section.variants[variant][0].record) for variant in variants}
    names = dict.fromkeys(name for own in settings.values() for name in own)
    differing = [name for name in names if len({own.get(name) for own in settings.values()}) > 1]
    libraries = {(own.get("multipliers"), own.get("tables")) for own in settings.values()}
    if len({names for names, _ in libraries}) == len(libraries):  # names alone say which circuits are meant
        differing = [name for name in differing if name != "tables"]
    return {
        variant: "; ".join(f"{name} = {_spelled(own.get(name))}" for name in differing)
        for variant, own in settings.items()
    }


def _against(section: Section, pair: Comparison | None) -> tuple[Cell, ...]:
    """The paired comparison with the usual variant; empty for that one itself."""
    if pair is None:
        return (*(nothing() for _ in range(3)), words(""))
    names = _paired_runs(section, pair)
    count = Cell(str(len(pair.seeds)), len(pair.seeds), names)
    p = number(pair.adjusted_p if pair.seeds else None, P, names)
    return difference(pair, names), count, p, words(pair.verdict, names)


def _spelled(text: str | None) -> str:
    """A setting in full, as far as that can be read."""
    value = None if text is None else json.loads(text)
    if isinstance(value, list):
        text = " ".join(map(str, value))
    elif isinstance(value, dict):
        text = " ".join(f"{name} {str(part)[:12]}" for name, part in value.items() if part is not None)
    else:
        text = "none" if value in (None, "") else str(value)
    return text if len(text) <= SPELLED else f"{text[:SPELLED]}…"

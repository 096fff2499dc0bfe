"""The tables of the paper: three kinds of column, told apart in every header. Computing imports torch."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from evaluation.settings.protocols import named_protocol
from reports.load import LeftOut, Run
from reports.paper import measures, reduced
from reports.paper.measures import EMPTY
from reports.paper.published import Claim, Member, published
from reports.paper.qualifying import OFFICIAL, PROTOCOL, Counted, untimed
from reports.tables import Cell, Column, Table
from reports.tables.shape import for_papers
from reports.tables.table import words, written

if TYPE_CHECKING:
    from reports.paper.derivation import Derivation

KINDS = (
    "reported: as the authors print it, never checked here",
    "computed: by this suite from the architecture alone, without any training",
    "measured: by a run of this suite whose record qualifies; an empty cell was measured by nobody",
    "at reduced scale: by runs on other data or under a shorter protocol, named with them; 95 % interval in brackets",
)


def tables(counted: Counted, left_out: Sequence[LeftOut]) -> list[Table]:
    """All of them, in the order of the report."""
    from reports.paper import derivation  # torch

    derived = derivation.derive()
    return [
        claims(counted, derived.savings(derivation.EXPLAINS)),
        reduced.claims(counted),
        steps(derived, derivation.EXPLAINS),
        multipliers(derivation.multipliers()),
        family(counted, derivation.parameters()),
        others(counted, left_out),
    ]


def claims(counted: Counted, savings: tuple[float, float]) -> Table:
    """The claims of ApproxDARTS; ``savings`` are those that the derivation gives for one circuit."""
    computed, found = dict(zip(("saving_vs_fp32", "saving_vs_int8"), savings)), reduced.scales(counted)

    def row(claim: Claim) -> tuple[Cell, ...]:
        share = computed.get(claim.measure)
        return (
            words(claim.what),
            words(claim.reported),
            EMPTY if share is None else Cell(_change(share), -100 * share),
            measures.claim(claim.measure, claim.rerun, counted),
            reduced.best(claim.measure, found),
            words(claim.rerun),
        )

    return Table(
        name="claims",
        title="The claims of ApproxDARTS",
        columns=_columns("claim", "reported", "computed", "measured", "at reduced scale", "measured by"),
        rows=tuple(row(claim) for claim in published().claims),
        notes=(
            *KINDS,
            f"reported in {published().sources['approxdarts']}",
            "computed savings: the derivation below; its circuit, at 0.515 of the exact one's power, is fitted to the "
            "reported pair, so that their agreement is no evidence of its own",
            "measured: hours of the search stage from device type cuda alone; savings under the accounting approxdarts, of "
            "each run's finalist with the highest validation accuracy; mean ± sample standard deviation over runs; the "
            "criteria are those of the table of the DARTS family",
            *_remarks(claim.rerun for claim in published().claims),
        ),
    )


def steps(derived: "Derivation", ratio: float) -> Table:
    """How the reported savings follow from the accounting, step by step."""
    share, quotient = derived.separable_share, derived.int8_pj / derived.fp32_pj
    vs_fp32, vs_int8 = derived.savings(ratio)
    _, bound = derived.savings(0.0)
    reported = {claim.measure: claim.reported for claim in published().claims}
    printed = {name: -float(reported[name].replace("−", "-")) / 100 for name in ("saving_vs_fp32", "saving_vs_int8")}
    first = derived.ratio_for(printed["saving_vs_fp32"], derived.fp32_pj)
    second = derived.ratio_for(printed["saving_vs_int8"], derived.int8_pj)
    rows = (
        ("parameters", "all layers, without the auxiliary head", "3.349 M", f"{derived.params:,}", derived.params),
        ("multiplications", "traced, for one image", "", f"{derived.macs / 1e6:,.1f} M", derived.macs),
        ("of these in the separable convolutions", "depthwise and pointwise ones of sep_conv and dil_conv", "",
         f"{100 * share:.2f} %", share),
        ("energy in fp32", "3.7 pJ each", "", f"{derived.fp32_pj / 1e6:,.1f} µJ", derived.fp32_pj),
        ("energy in exact int8", "0.391 pJ each in the separable convolutions, 3.7 pJ elsewhere", "",
         f"{derived.int8_pj / 1e6:,.1f} µJ", derived.int8_pj),
        ("exact int8 ÷ fp32", f"1 − {share:.4f} × (1 − 0.391 ÷ 3.7)", "", f"{quotient:.3f}", quotient),
        ("circuit vs fp32, %", f"at {ratio} of the exact circuit's power", reported["saving_vs_fp32"],
         _change(vs_fp32), -100 * vs_fp32),
        ("circuit vs exact int8, %", "the same circuit", reported["saving_vs_int8"], _change(vs_int8), -100 * vs_int8),
        ("the same vs exact int8, %, if the circuit took no power", "a bound", "", _change(bound), -100 * bound),
        ("power that gives the first exactly", "share of the exact circuit's", "", f"{first:.3f}", first),
        ("power that gives the second exactly", "share of the exact circuit's", "", f"{second:.3f}", second),
    )  # fmt: skip
    return Table(
        name="derivation",
        title="Where these savings come from: DARTS_V2 at 36 channels and 20 cells under the accounting approxdarts",
        columns=_columns("quantity", "how", "reported", "computed"),
        rows=tuple((words(a), words(b), words(c), Cell(text, value)) for a, b, c, text, value in rows),
        notes=(
            "the accounting counts multiplications only, and only those of the separable convolutions are 8-bit: this "
            "bounds what any circuit can save against exact int8",
            f"{ratio} is fitted: one power explains both savings nearly, but none both exactly, as the last lines show; that "
            "the paper's network has these very cells is an assumption, too",
            "3.349 M: README of the DARTS code, arXiv 1806.09055",
        ),
    )


def multipliers(found: Iterable[tuple[str, float, float, float]]) -> Table:
    """What each built-in circuit would give in the same derivation."""
    return Table(
        name="circuits",
        title="The same network on each built-in circuit",
        columns=_columns("circuit", "reported: power ÷ exact", "computed: vs fp32, %", "computed: vs exact int8, %"),
        rows=tuple(
            (
                words(name),
                Cell(f"{ratio:.3f}", ratio),
                *(Cell(_change(share), -100 * share) for share in savings),
            )
            for name, ratio, *savings in found
        ),
        notes=(
            "power: figures of EvoApproxLib v1 (Mrazek et al., DATE 2017), FreePDK45; accuracy is not computed: it needs "
            "training, which the commands below do",
        ),
    )


def family(counted: Counted, parameters: dict[str, int]) -> Table:
    """CIFAR-10 in the DARTS family."""

    cells = reduced.published_cells(counted)

    def row(member: Member) -> tuple[Cell, ...]:
        params = parameters.get(member.genotype)
        searched = counted.by_rerun.get(member.search, ())
        return (
            words(member.method),
            *map(words, (member.error, member.params, member.gpu_days)),
            EMPTY if params is None else Cell(f"{params / 1e6:.2f}", params / 1e6),
            measures.spread(counted.by_rerun.get(member.cell, ()), measures.error, measures.PERCENT),
            measures.spread(searched, measures.error, measures.PERCENT),
            measures.spread(searched, measures.params, measures.MILLIONS),
            measures.spread(counted.timed(member.search), measures.search_seconds, measures.DAYS),
            *cells.get(member.genotype, (EMPTY, EMPTY)),
            reduced.searched(member.searched, counted),
        )

    table = Table(
        name="family",
        title="CIFAR-10 in the DARTS family",
        columns=_columns(
            "method",
            "reported: error, %",
            "reported: parameters, M",
            "reported: GPU-days",
            "computed: parameters, M",
            "measured: error, %, published cells",
            "measured: error, %, search anew",
            "measured: parameters, M, search anew",
            "measured: GPU-days, one search",
            "at reduced scale: error, %, published cells",
            "at reduced scale: rank of these",
            "at reduced scale: error, %, search",
        ),
        rows=tuple(row(member) for member in published().family),
        notes=(*_family_sources(), *_criteria(counted), *_remarks(member.search for member in published().family)),
    )
    kept = (
        "reported: error, %",
        "reported: GPU-days",
        "measured: error, %, published cells",
        "measured: error, %, search anew",
    )
    return for_papers(table, {*kept, "measured: GPU-days, one search", *(c.header for c in table.columns[-3:])})


def _family_sources() -> list[str]:
    named: dict[str, list[str]] = {}
    for member in published().family:
        named.setdefault(member.source, []).append(member.method)
    return [f"{', '.join(methods)}: reported in {published().sources[source]}" for source, methods in named.items()]


def _criteria(counted: Counted) -> list[str]:
    """What fills a measured cell, in full."""
    digest = named_protocol(PROTOCOL).hash
    searches = {*(claim.rerun for claim in published().claims), *(member.search for member in published().family)}
    counting = [(name, run) for name, runs in counted.by_rerun.items() for run in runs]
    slow = [f"{run.name} {why}" for name, run in counting if name in searches and (why := untimed(run))]
    untrained = [run.name for _, run in counting if measures.error(run) is None]
    return [
        f"a record fills a measured cell if and only if its data set is cifar10 and its origin begins with '{OFFICIAL}', "
        f"it left no training images out, its protocol has the hash of {PROTOCOL} ({digest[:16]}…), and its method, "
        "settings, space, scope, circuits (by truth table) and budget are those that one of these commands sets: "
        + "; ".join(
            f"{member.method}: {', '.join(named)}" for member in published().family if (named := member.reruns)
        ),
        "published cells: the one finalist has those cells, on whatever circuit; error: trained and tested in fp32, of each "
        "run's finalist with the highest validation accuracy; mean ± sample standard deviation over runs",
        "GPU-days: device-seconds of the search stage ÷ 86,400, of one search, from device type cuda alone, not resumed on "
        "another device, no engine forced, not bit for bit",
        *(f"{method}: no search anew, because {why}" for method, why in published().missing.items()),
        *([f"time not counted: {'; '.join(slow)}"] if slow else []),
        *([f"not trained in fp32, so without an error: {', '.join(untrained)}"] if untrained else []),
    ]


def others(counted: Counted, left_out: Sequence[LeftOut]) -> Table:
    """Every record that fills no measured cell, and why; equal reasons together."""

    def row(runs: Sequence[Run], reason: str) -> tuple[Cell, ...]:
        names = tuple(run.name for run in runs)
        return Cell(", ".join(names), ", ".join(names), names), words(runs[0].method), words(reason)

    alike: dict[tuple[str, str], list[Run]] = {}
    for run, reason in counted.others:
        alike.setdefault((run.method, reason), []).append(run)
    rows = [row(runs, reason) for (_, reason), runs in alike.items()]
    rows += [(words(item.place), EMPTY, words(item.reason)) for item in left_out]
    return Table(
        name="others",
        title="Records that fill no measured cell",
        columns=tuple(Column(header, False) for header in ("record", "method", "why")),
        rows=tuple(rows),
        notes=() if rows else ("none: every record that was found is in the tables",),
    )


def _columns(*headers: str) -> tuple[Column, ...]:
    kinds = ("reported", "computed", "measured", "at reduced scale")
    return tuple(Column(header, header.startswith(kinds) and header != "measured by") for header in headers)


def _remarks(reruns: Iterable[str]) -> list[str]:
    known = published().reruns
    return [f"{name}: {known[name].remark}" for name in dict.fromkeys(reruns) if name and known[name].remark]


def _change(saving: float) -> str:
    """A saving as the change in % that the paper prints."""
    return written(-100 * saving, 2)

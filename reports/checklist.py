"""The best-practice checklist for architecture search, filled in from the records alone.

Its sixteen questions are those of M. Lindauer and F. Hutter, "Best Practices for Scientific Research on Neural
Architecture Search", JMLR 21(243):1–18, 2020 (https://jmlr.org/papers/v21/20-056.html), in our own words. "Yes" needs
evidence in every section that the question is about; where the records are silent the answer is "not known".
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from evaluation.runs import accounts
from evaluation.runs.record import STAGES
from evaluation.significance import needed_pairs
from methods import METHODS
from reports.load import Loaded, Run, Section
from reports.variants import DEVICE, settings_of
from spaces.registry import SPACES

YES, NO, UNKNOWN = "yes", "no", "not known"
RELEASE, COMPARE, REPORT = "Releasing code", "Comparing methods", "Reporting details"
RANDOM = "random"
TRAINING = ("final_epochs", "final_lr", "batch", "weight_decay")  # what a protocol's settings cannot lack
DETAILS = (
    "command", "versions", "device", "dataset_origin", "dataset_fingerprint", "multipliers", "tables", "protocol",
)  # fmt: skip
CONDITIONS = ("device", "moved", "budget")  # set variants apart, but no part of a method
NOT_INSTALLED = "not installed"  # what a record says of a package that was not
SHOWN = 5  # names listed in one answer


@dataclass(frozen=True)
class Item:
    """A question, its answer and why; ``runs`` are those that the evidence speaks of, where it is not all of them."""

    group: str
    question: str
    answer: str  # YES, NO or UNKNOWN
    evidence: str
    runs: tuple[str, ...] = ()


def checklist(loaded: Loaded) -> list[Item]:
    """All sixteen items, in the paper's order."""
    return [
        Item(group, question, *answer(loaded))
        for group, question, answer in (
            (RELEASE, "Is the code that trains the final networks released?", _training_code),
            (RELEASE, "Is the code of the search space released?", _space_code),
            (RELEASE, "Are the settings of the final training released, with random seeds?", _training_settings),
            (RELEASE, "Is the code of the search methods released?", _method_code),
            (RELEASE, "Are the settings of the search methods released, with random seeds?", _method_settings),
            (COMPARE, "Do all methods use the same benchmark: data and split, space, training code?", _same_benchmark),
            (COMPARE, "Are confounders under control: hardware, library versions, time?", _confounders),
            (COMPARE, "Were ablation studies run?", _ablations),
            (COMPARE, "Is the evaluation protocol the same for all methods compared?", _same_protocol),
            (COMPARE, "Is performance compared over time?", _over_time),
            (COMPARE, "Is there a comparison with random search?", _random_search),
            (COMPARE, "Were runs repeated, and are the seeds reported?", _repetitions),
            (COMPARE, "Do tabular or surrogate benchmarks back the findings?", _tabular),
            (REPORT, "Is it reported how hyperparameters were tuned, and at what cost?", _tuning),
            (REPORT, "Is the time of the whole search reported, end to end?", _whole_time),
            (REPORT, "Are all details of the experiments reported?", _details),
        )
    ]


_Answer = tuple[str, str, tuple[str, ...]]


# -- releasing code ----------------------------------------------------------------------------------------------------


def _training_code(loaded: Loaded) -> _Answer:
    versions = [(run.record.versions or {}).get("approxnas-bench") or NOT_INSTALLED for run in loaded.runs]
    lacking = [run for run, version in zip(loaded.runs, versions) if version == NOT_INSTALLED]
    if lacking:
        return UNKNOWN, f"{_some(lacking)} not record the version of the suite that trained them.", _named(lacking)
    text = _list(sorted(set(versions)))
    return YES, f"The harness of this suite (MIT licence), version {text}, trained every finalist.", ()


def _space_code(loaded: Loaded) -> _Answer:
    spaces = sorted({run.record.space for run in loaded.runs})
    foreign = [run for run in loaded.runs if run.record.space not in list(SPACES.built_in)]
    if foreign:
        return UNKNOWN, f"A space among {_list(spaces)} is none of this suite's.", _named(foreign)
    return YES, f"The suite's own: {_list(spaces)}.", ()


def _training_settings(loaded: Loaded) -> _Answer:
    lacking = [run for run in loaded.runs if not all(name in run.record.protocol.settings for name in TRAINING)]
    if lacking:
        return NO, f"{_some(lacking)} name the protocol but not its settings.", _named(lacking)
    names = sorted({f"{run.record.protocol.name} ({run.record.protocol.hash[:8]})" for run in loaded.runs})
    return YES, f"Every record holds its protocol's settings and its seed: {_list(names)}.", ()


def _method_code(loaded: Loaded) -> _Answer:
    foreign = [run for run in loaded.runs if run.method not in METHODS.built_in and not _given(run)]
    names = sorted({run.method for run in foreign})
    if foreign:
        return UNKNOWN, f"Not part of this suite: {_list(names)}. The records cannot say where it is.", _named(foreign)
    return YES, f"All are part of this suite: {_list(sorted({run.method for run in loaded.runs}))}.", ()


def _method_settings(loaded: Loaded) -> _Answer:
    lacking = [run for run in loaded.runs if run.record.method_config is None]
    if lacking:
        return NO, f"{_some(lacking)} not hold the method's settings.", _named(lacking)
    return YES, "Every record holds all settings of its method and its seed.", ()


# -- comparing methods -------------------------------------------------------------------------------------------------


def _same_benchmark(loaded: Loaded) -> _Answer:
    names = ("multiplier_choice", "multipliers", "tables")
    return _equal_within(loaded, names, "data, split, space, circuits and training are equal within each section")


def _confounders(loaded: Loaded) -> _Answer:
    def measured(run: Run) -> dict:
        device = {name: getattr(run.record.device, name) for name in DEVICE}
        versions = {f"version of {name}": version for name, version in (run.record.versions or {}).items()}
        moved = any(note.startswith("resumed on ") for note in run.notes)
        engine = {"engine": run.record.engine or "auto", "bit for bit": bool(run.record.deterministic)}
        return device | versions | engine | {"budget": run.record.budget, "moved between devices": moved}

    compared = _compared(loaded)
    if not compared:
        return UNKNOWN, _one_method(loaded), ()
    for section in compared:
        if differing := _differing(measured(run) for run in section.runs):
            return NO, f"{section.title}: runs differ in {_list(differing)}.", ()
    named = ({name: [run.record for run in runs] for name, runs in section.variants.items()} for section in compared)
    told = [accounts.compared(methods) for methods in named]
    for section, spent in zip(compared, told):
        if spent and not spent[0]:
            return NO, f"{section.title}: ✗ methods were not given the same: {spent[1]}.", ()
    budgets = sorted({run.record.budget or "none" for section in compared for run in section.runs})
    text = f"Device, threads, engine, library versions and budget ({_list(budgets)}) are equal within each section."
    text = " ".join([text, *(f"S{spent[1][1:]}." for spent in told if spent)])
    return YES, f"{text} What else ran on the machine, the records do not say.", ()


def _ablations(loaded: Loaded) -> _Answer:
    found = []
    for section in loaded.sections:
        kinds: dict[str, dict[str, list[str]]] = {}  # method → settings that an ablation may vary → variants
        for name, (run, *_) in section.variants.items():
            own = {key: value for key, value in settings_of(run.record).items() if key not in CONDITIONS}
            kinds.setdefault(run.method, {}).setdefault(json.dumps(own, sort_keys=True), []).append(name)
        found += [name for own in kinds.values() if len(own) > 1 for names in own.values() for name in names]
    if not found:
        return NO, "No section has one method under several settings.", ()
    return YES, f"The same method under several settings: {_list(found)}.", ()


def _same_protocol(loaded: Loaded) -> _Answer:
    if not _compared(loaded):
        return UNKNOWN, _one_method(loaded), ()
    count = len(loaded.sections)
    text = "A section holds runs of one protocol hash, data set, scope and accounting only"
    return YES, f"{text}; {'this is the only one' if count == 1 else f'the {count} are never compared'}.", ()


def _over_time(loaded: Loaded) -> _Answer:
    searches = [run for run in loaded.runs if run.variant == run.method and not _given(run)]
    if not searches:
        return UNKNOWN, "There is no search here: the architectures were given.", ()
    lacking = [run for run in searches if len(run.moments) < 2]
    if lacking:
        return NO, f"{_some(lacking)} not tell of the front before the search's end; see --snapshots.", _named(lacking)
    moments = sorted({len(run.moments) for run in searches})
    return YES, f"Every search was judged at {_list(map(str, moments))} moments, the last at its end.", ()


def _random_search(loaded: Loaded) -> _Answer:
    lacking = [s for s in loaded.sections if RANDOM not in {run.method for run in s.runs}]
    if lacking:
        return NO, f"No run of random search in: {'; '.join(section.title for section in lacking[:SHOWN])}.", ()
    if not _compared(loaded):
        return UNKNOWN, "Random search is the only method.", ()
    runs = [run for run in loaded.runs if run.method == RANDOM]
    text = f"Random search has {_count(len(runs), 'run')} under the same protocol"
    unequal = any(_differing({"budget": run.record.budget} for run in s.runs) for s in _compared(loaded))
    return YES, f"{text}; budgets differ." if unequal else f"{text} and budget.", _named(runs)


def _repetitions(loaded: Loaded) -> _Answer:
    seeds = {
        (section.name, variant): sorted({run.seed for run in runs})
        for section in loaded.sections
        for variant, runs in section.variants.items()
    }
    text = _list(f"{variant}: {_count(len(s), 'seed')} ({_list(map(str, s))})" for (_, variant), s in seeds.items())
    fewest = min(map(len, seeds.values()))
    if fewest < 2:
        return NO, f"At least one has a single seed. {text}.", ()
    needed = max(needed_pairs(max(1, math.comb(len(methods), 2))) for methods in _methods(loaded))
    few = f" To show a difference between all methods takes {needed} seeds of each." if fewest < needed else ""
    return YES, f"{text}.{few}", ()


def _tabular(loaded: Loaded) -> _Answer:
    if count := sum(found.searches for found in loaded.searches):
        return YES, f"{count:,} searches went on a table of trained networks, whose true front is known.", ()
    return (
        NO,
        "Every accuracy here was measured by training; no comparison on a table of trained networks was given.",
        (),
    )


# -- reporting details -------------------------------------------------------------------------------------------------


def _tuning(_: Loaded) -> _Answer:
    return UNKNOWN, "Records hold the settings that were used, not how they were found or what that took.", ()


def _whole_time(loaded: Loaded) -> _Answer:
    hours = sum(float(run.finalists["total_device_seconds"].iloc[0]) for run in loaded.runs) / 3600
    text = f"Every ledger books {', '.join(STAGES[:-1])} and {STAGES[-1]} apart: {hours:,.3g} device-hours in all"
    return YES, f"{text}, and what judging snapshots took beside it.", ()


def _details(loaded: Loaded) -> _Answer:
    lacking = {name: [run for run in loaded.runs if not getattr(run.record, name)] for name in DETAILS}
    lacking = {name: runs for name, runs in lacking.items() if runs}
    if lacking:
        text = _list(f"{name} ({_count(len(runs), 'run')})" for name, runs in lacking.items())
        return NO, f"Not in every record: {text}.", _named(run for runs in lacking.values() for run in runs)
    text = "Every record holds command, versions, device, origin and fingerprint of the data, protocol and truth tables"
    return YES, f"{text}.", ()


# -- helpers -----------------------------------------------------------------------------------------------------------


def _compared(loaded: Loaded) -> list[Section]:
    """What is compared with one another in the sections with something to compare: methods in their usual settings."""
    sections = zip(loaded.sections, _methods(loaded))
    return [section.pictured[""] for section, methods in sections if len(methods) > 1]


def _methods(loaded: Loaded) -> list[set[str]]:
    """The methods of each section."""
    return [{run.method for run in section.runs} for section in loaded.sections]


def _one_method(loaded: Loaded) -> str:
    names = _list(sorted({run.method for run in loaded.runs}))
    return f"No section holds two methods ({names}), so that nothing is compared."


def _equal_within(loaded: Loaded, names: Iterable[str], text: str) -> _Answer:
    compared, names = _compared(loaded), tuple(names)
    if not compared:
        return UNKNOWN, _one_method(loaded), ()
    for section in compared:
        if differing := _differing({name: getattr(run.record, name) for name in names} for run in section.runs):
            return NO, f"{section.title}: runs differ in {_list(differing)}.", ()
    return YES, f"{text[0].upper()}{text[1:]}.", ()


def _differing(values: Iterable[dict]) -> list[str]:
    """The names under which not all have the same value."""
    values = list(values)
    names = dict.fromkeys(name for value in values for name in value)
    return [str(name) for name in names if len({json.dumps(value.get(name), sort_keys=True) for value in values}) > 1]


def _given(run: Run) -> bool:
    """Whether the run trained an architecture that was given, without a search."""
    return run.method.startswith("given-")


def _named(runs: Iterable[Run]) -> tuple[str, ...]:
    return tuple(sorted({run.name for run in runs}))


def _some(runs: list[Run]) -> str:
    return "1 run does" if len(runs) == 1 else f"{len(runs)} runs do"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _list(texts: Iterable[str]) -> str:
    texts = list(texts)
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN + 1 else ""
    return ", ".join(texts[: SHOWN + (not more)]) + more

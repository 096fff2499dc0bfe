"""Which runs repeat one another: the settings that tell a method's variants apart, and their names."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from evaluation.runs.record import Record

# What must be equal for two runs to be repetitions of one another; numbers of a driver and the like may change.
SETTINGS = ("multiplier_choice", "budget", "multipliers", "tables", "engine", "deterministic", "method_config")
DEVICE = ("type", "name", "count", "threads")


def settings_of(record: Record) -> dict[str, str]:
    """What tells a run from its repetitions, as text by name; the method's own settings one by one."""
    settings = {name: getattr(record, name) for name in SETTINGS if name != "method_config"}
    settings |= {"method_config": None} if record.method_config is None else record.method_config
    device = (getattr(record.device, name) for name in DEVICE)
    settings["device"] = " ".join(str(fact) for fact in device if fact is not None)
    if moved := [note for note in record.notes if note.startswith("resumed on ")]:
        settings["moved"] = moved
    return {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}


def variants_of(records: Sequence[Record]) -> list[str]:
    """The name of every record's variant: its method, and what sets it apart from the method's usual settings.

    Usual is what most other methods share, and of that what most runs have: methods are compared in usual settings.
    """
    all_settings = [settings_of(record) for record in records]
    own = [record.method_config or {} for record in records]
    shared = [
        tuple((name, value) for name, value in sorted(settings.items()) if name not in config)
        for settings, config in zip(all_settings, own)
    ]
    methods_with: dict[tuple, set[str]] = {}
    for record, common in zip(records, shared):
        methods_with.setdefault(common, set()).add(record.method)
    names = [""] * len(records)
    for method in {record.method for record in records}:
        members = [at for at, record in enumerate(records) if record.method == method]
        kinds = Counter(tuple(sorted(all_settings[at].items())) for at in members)
        popular = {tuple(sorted(all_settings[at].items())): len(methods_with[shared[at]]) for at in members}
        usual = max(kinds, key=lambda kind: (popular[kind], kinds[kind]))  # of equals the first that was found
        for at in members:
            names[at] = _told(method, all_settings[at], dict(usual))
    return names


def _told(method: str, settings: dict[str, str], usual: dict[str, str]) -> str:
    differing = [name for name in {**usual, **settings} if settings.get(name) != usual.get(name)]
    differences = [f"{name}={_short(settings.get(name))}" for name in differing if name != "tables"]
    if "tables" in differing and "multipliers" not in differing:
        differences.append("other truth tables under the same names")
    return f"{method} ({', '.join(differences)})" if differences else method


def _short(text: str | None) -> str:
    """A setting in few words."""
    if text is None:
        return "none"
    value = json.loads(text)
    if isinstance(value, list) and len(value) > 2:
        digest = hashlib.sha256(text.encode()).hexdigest()[:4]
        return f"{len(value)} of them #{digest}"  # two lists of equal length must not read the same
    if isinstance(value, list):
        return "+".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(str(part) for part in value.values() if part is not None)
    return "none" if value in (None, "") else str(value)

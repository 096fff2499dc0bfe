"""Which network stands for a variant, and what its record says of it."""

from reports.load import Run, Section


def best_run(runs: tuple[Run, ...]) -> Run:
    """The run whose best finalist has the highest validation accuracy; test accuracy must not choose."""
    accuracies = [run.best["validation_accuracy"] for run in runs]
    return runs[
        max(range(len(runs)), key=lambda at: -1.0 if accuracies[at] != accuracies[at] else accuracies[at] or 0.0)
    ]


def finalist_of(run: Run) -> dict:
    """The record's entry of a run's best finalist."""
    return run.record["finalists"][int(run.best["finalist"]) - 1]


def layers_of(finalist: dict) -> list[dict] | None:
    """The layers as recorded; None where they are not, or are damaged (part of them would be a wrong picture)."""
    found = finalist.get("layers")
    return found if isinstance(found, list) and found and all(map(_is_layer, found)) else None


def _is_layer(layer: object) -> bool:
    if not isinstance(layer, dict) or not isinstance(layer.get("name"), str):
        return False
    multiplier = layer.get("multiplier")
    energies = [layer.get("int8_pj"), layer.get("approximate_pj")]
    numbers = all(isinstance(e, int | float) and not isinstance(e, bool) and 0 <= e < 1e100 for e in energies)
    return numbers and (multiplier is None or (isinstance(multiplier, str) and multiplier))


def only_first(section: Section, most: int) -> str:
    """What captions say where not every variant gets a figure of its own."""
    total = len(section.variants)
    return f" Such a figure is drawn for at most {most} of the section's {total} variants." if total > most else ""

"""Which network stands for a variant, and what its record says of it."""

from evaluation.runs.record import Finalist, Layer
from reports.load import Run, Section


def best_run(runs: tuple[Run, ...]) -> Run:
    """The run whose best finalist has the highest validation accuracy; test accuracy must not choose."""
    accuracies = [run.best["validation_accuracy"] for run in runs]
    return runs[
        max(range(len(runs)), key=lambda at: -1.0 if accuracies[at] != accuracies[at] else accuracies[at] or 0.0)
    ]


def layers_of(finalist: Finalist) -> tuple[Layer, ...]:
    """The layers as recorded; none where one lacks a cost that is drawn (part of them would be a wrong picture)."""
    drawn = {"int8", "approximate"}
    return finalist.layers if all(drawn <= layer.costs.keys() for layer in finalist.layers) else ()


def only_first(section: Section, most: int) -> str:
    """What captions say where not every variant gets a figure of its own."""
    total = len(section.variants)
    return f" Such a figure is drawn for at most {most} of the section's {total} variants." if total > most else ""

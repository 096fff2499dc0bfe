"""What a person sees of many runs, one after the other: which one is at work, a line on each that is over, the time left."""

import time
from pathlib import Path

from evaluation.runs import units
from evaluation.runs.record import Record
from spaces.cli.numbers import duration, three
from spaces.cli.terminal import Terminal


class Several:
    """Of ``count`` runs. The times of those that were run here, and not found finished, say how long the rest may take."""

    def __init__(self, console: Terminal, count: int) -> None:
        self.console, self.count, self.begun = console, count, 0
        self.took: list[float] = []

    def begin(self, path: Path) -> str:
        """The title of the next run."""
        self.begun += 1
        self._since = time.monotonic()
        return f"run {self.begun} of {self.count}: {path}"

    def end(self, record: Record, was_finished: bool) -> None:
        """Print the line on a run that is over."""
        seconds = time.monotonic() - self._since
        if not was_finished:
            self.took.append(seconds)
        parts = [f"run {self.begun} of {self.count}, {record.method}, seed {record.seed}: {_best(record)}"]
        if record.hypervolume is not None:
            parts.append(f"hypervolume {record.hypervolume:.3f}")
        parts.append("was finished" if was_finished else duration(seconds))
        left = self.count - self.begun
        if left and self.took:
            parts.append(f"about {duration(left * sum(self.took) / len(self.took))} left")
        self.console.print("; ".join(parts), highlight=False)


def _best(record: Record) -> str:
    """The most accurate finalist, as it was tested."""
    tested = [
        (accuracy, each) for each in record.finalists if (accuracy := each.accuracy.test.get("approximate")) is not None
    ]
    if not tested:
        return "no finalist could be tested"
    accuracy, best = max(tested, key=lambda pair: pair[0])
    cost = best.costs[record.cost]
    return f"test error {three(100 * (1 - accuracy))} % at {units.with_prefix(cost.values['approximate'], cost.unit)}"

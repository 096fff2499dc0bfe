"""What came of searches, as Python users want it: tables, the best network, a picture. torch is imported for networks alone."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.runs import units
from evaluation.runs.folder import HISTORY, RunFolder, read_history
from evaluation.runs.record import Finalist, Record
from spaces.cli.numbers import three
from spaces.errors import InputError
from spaces.registry import architecture_from_json
from spaces.space import Architecture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

MAIN = "approximate"


@dataclass(frozen=True)
class FinishedSearch:
    """One run: its folder, and its record with everything that was measured."""

    folder: RunFolder
    record: Record


@dataclass(frozen=True)
class FoundNetwork:
    """A finalist of a run, counted from 1."""

    run: FinishedSearch
    number: int

    @property
    def figures(self) -> Finalist:
        """Its figures in the record: accuracies, costs by every cost model, layers."""
        return self.run.record.finalists[self.number - 1]

    @property
    def architecture(self) -> Architecture:
        return architecture_from_json(self.figures.architecture)

    @property
    def test_error(self) -> float | None:
        """The share of test images, 0 to 1, that it answers wrongly on its multipliers; None where its training failed."""
        accuracy = self.figures.accuracy.test.get(MAIN)
        return None if accuracy is None else 1 - accuracy

    @property
    def cost(self) -> float:
        """Of an inference on its multipliers, in the unit of the record's cost model."""
        return self.figures.costs[self.run.record.cost].values[MAIN]

    def network(self) -> "nn.Module":
        """The trained network on the CPU, ready to answer: normalised images N×C×H×W in, logits out.

        Raises InputError where its folder has no weights.
        """
        from evaluation.export.exporting import TrainedFinalist

        return TrainedFinalist(self.run.folder.path, self.number).network(MAIN)

    def export(self, folder: str | Path) -> str:
        """Write the network for hardware engineers into a new folder; returns what was checked. See ``evaluation.export``."""
        from evaluation.export.exporting import export_finalist

        return export_finalist(self.run.folder.path, self.number, Path(folder))


@dataclass(frozen=True)
class SearchResult:
    """Finished runs, side by side."""

    runs: tuple[FinishedSearch, ...]

    @property
    def networks(self) -> list[FoundNetwork]:
        """Every finalist of every run."""
        return [FoundNetwork(run, at) for run in self.runs for at in range(1, len(run.record.finalists) + 1)]

    @property
    def best(self) -> FoundNetwork:
        """The finalist with the lowest test error on its multipliers, the cheaper of equals. Test images chose it: its error
        is no estimate of what a search finds."""
        tested = [
            (each.test_error, each.cost, at) for at, each in enumerate(self.networks) if each.test_error is not None
        ]
        if not tested:
            raise InputError("no finalist could be tested: see the record's failures")
        return self.networks[min(tested)[2]]

    @property
    def finalists(self) -> "pd.DataFrame":
        """A row for each finalist: errors as shares, 0 to 1; ``cost`` by the model that guided the search, in ``unit``."""
        return _frame([_finalist_row(each) for each in self.networks])

    @property
    def front(self) -> "pd.DataFrame":
        """A row for each point of the runs' final fronts: judged validation error, 0 to 1, and cost."""
        rows = [
            {**_whose(run), "validation_error": error, "cost": cost, "unit": run.record.unit}
            for run in self.runs
            for error, cost in (run.record.anytime[-1].front if run.record.anytime else ())
        ]
        return _frame(rows)

    @property
    def history(self) -> "pd.DataFrame":
        """A row for each step: stage, device-seconds so far, error, cost, hypervolume; diagnostics in columns of their own."""
        rows = []
        for run in self.runs:
            for line in read_history(run.folder.path / HISTORY):
                diagnostics = line.pop("diagnostics", {})
                rows.append({**_whose(run), **line, **diagnostics})
        return _frame(rows)

    def plot(self) -> "Figure":
        """The final fronts, validation error over cost, a colour for each method."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        colours: dict[str, str] = {}
        unit, size = units.suited(self.runs[0].record.unit, max(self.front["cost"], default=1.0))
        for run in self.runs:
            points = sorted(run.record.anytime[-1].front, key=lambda point: point[1]) if run.record.anytime else []
            method = run.record.method
            label = "" if method in colours else method
            colour = colours.setdefault(method, f"C{len(colours)}")
            costs, errors = [cost / size for _, cost in points], [100 * error for error, _ in points]
            axes.step(costs, errors, "o-", where="post", color=colour, label=label, markersize=4)
        axes.set(xlabel=f"{units.noun(self.runs[0].record.unit)} per inference, {unit}", ylabel="validation error, %")
        axes.legend()
        return figure

    def export(self, folder: str | Path) -> str:
        """Export the best network; see ``FoundNetwork.export``."""
        return self.best.export(folder)

    def __repr__(self) -> str:
        methods = ", ".join(dict.fromkeys(run.record.method for run in self.runs))
        runs, finalists = (
            f"{count} {noun}{'' if count == 1 else 's'}"
            for count, noun in ((len(self.runs), "run"), (len(self.networks), "finalist"))
        )
        return f"<{runs} of {methods} on {self.runs[0].record.dataset}, {finalists}>"

    def _repr_html_(self) -> str:
        """For notebooks: the finalists, in three digits."""
        headers = ("method", "seed", "finalist", "test error, %", "int8, %", "cost", "below int8, %", "MACs")
        body = []
        for row in map(_finalist_row, self.networks):
            saved, errors = row["saving_vs_int8"], (row["test_error"], row["test_error_int8"])
            cells = (
                row["method"], row["seed"], row["finalist"], *(_percent(error) for error in errors),
                units.with_prefix(row["cost"], row["unit"]), _percent(saved), units.with_prefix(row["macs"]),
            )  # fmt: skip
            body.append("".join(f"<td>{escape(str(cell))}</td>" for cell in cells))
        head = "".join(f"<th>{header}</th>" for header in headers)
        rows = "".join(f"<tr>{cells}</tr>" for cells in body)
        return f"<p>{escape(repr(self))}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _frame(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(rows)


def _whose(run: FinishedSearch) -> dict[str, Any]:
    return {"method": run.record.method, "seed": run.record.seed}


def _finalist_row(each: FoundNetwork) -> dict[str, Any]:
    record, figures = each.run.record, each.figures
    cost, tests = figures.costs[record.cost], figures.accuracy.test
    baselines = {
        f"test_error_{name}": None if tests[name] is None else 1 - tests[name]  # type: ignore[operator]
        for name in ("int8", "fp32")
        if name in tests
    }
    validation = figures.accuracy.validation
    return {
        **_whose(each.run),
        "finalist": each.number,
        "test_error": each.test_error,
        "test_error_int8": None,
        "test_error_fp32": None,
        **baselines,
        "validation_error": None if validation is None else 1 - validation,
        "cost": each.cost,
        "unit": cost.unit,
        "saving_vs_int8": cost.saving("int8"),
        "saving_vs_fp32": cost.saving("fp32"),
        "params": figures.params,
        "macs": figures.macs,
        "key": figures.key,
        "run": str(each.run.folder.path),
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else three(100 * share)

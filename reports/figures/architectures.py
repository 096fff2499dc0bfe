"""The networks that were found, drawn as graphs with the operation and the multiplier of every edge."""

import io
import json
from collections.abc import Iterator

import matplotlib
from matplotlib.figure import Figure

from evaluation.runs import units
from reports.figures import style
from reports.figures.best import best_run, layers_of, only_first
from reports.figures.picture import Picture
from reports.load import Section
from spaces.errors import InputError
from spaces.registry import SPACES, architecture_from_json
from spaces.space import Architecture

MOST_TEXT = 100_000  # characters of an architecture's JSON form; the largest real ones have a tenth
LARGEST = 60.0  # inches


def architectures(section: Section, most: int) -> Iterator[Picture]:
    """The best finalist of each variant, of the first ``most`` variants."""
    names = style.labels(section.variants)
    drawn = 0
    for variant, runs in section.variants.items():
        run = best_run(runs)
        data = run.best_finalist.architecture
        if drawn == most or (figure := drawing(data)) is None:
            continue
        drawn += 1
        best = run.best
        error = best["test_accuracy_approximate"]
        tested = "not tested" if error is None or error != error else f"{100 * (1 - error):.2f} % test error"
        cost = best[section.cost_column()]
        unit, size = units.suited(section.unit, cost)
        caption = (
            f"{names[variant]} on {section.title}: finalist {best['finalist']} of run {style.plain(run.name)}, the best on "
            f"validation of {style.count(len(runs), 'run')}. In approximate arithmetic {tested}, "
            f"{cost / size:,.4g} {unit} per inference. "
            "Multipliers are named without the prefix mul8s_."
        )
        if not layers_of(run.best_finalist):
            caption += f" The {units.noun(section.unit)} of its layers is not recorded."
        caption += only_first(section, most)
        title = f"Best network of {names[variant]}"
        yield Picture(f"{section.name}-architecture-{drawn}", title, caption, figure)


def architecture_of(data: object) -> Architecture | None:
    """An architecture from its JSON form; None where it is none, or larger than any real one."""
    try:
        return architecture_from_json(data) if len(json.dumps(data)) <= MOST_TEXT else None
    except (InputError, TypeError, ValueError, KeyError, RecursionError):
        return None


def drawing(data: object) -> Figure | None:
    """The graph of an architecture in its JSON form; None where it is none, or too large to draw."""
    architecture = architecture_of(data)
    if architecture is None:
        return None
    figure = SPACES[architecture.space].draw(_printable(architecture))
    return figure if max(figure.get_size_inches()) <= LARGEST else None


def drawing_svg(data: object) -> str | None:
    """The graph as an SVG element whose text is text, for pages; None as in ``drawing``."""
    figure = drawing(data)
    return None if figure is None else svg(figure, "drawing")


@style.styled
def svg(figure: Figure, key: str) -> str:
    """A figure as an SVG element, the same text for equal figures of equal ``key``; text stays text, so it is small."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": key, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def _printable(architecture: Architecture) -> Architecture:
    """The same architecture, with such names of circuits as the figure's font can show in a reasonable width."""
    shown = style.labels(architecture.multipliers)
    if all(name == label for name, label in shown.items()):
        return architecture
    renamed = type(architecture).from_json(_renamed(architecture.to_json(), shown))
    renamed.__dict__["key"] = architecture.key  # the heading names the network as the record does
    return renamed


def _renamed(node: object, names: dict[str, str]) -> object:
    if isinstance(node, dict):
        return {key: _renamed(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(value, names) for value in node]
    return names.get(node, node) if isinstance(node, str) else node

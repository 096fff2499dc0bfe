"""How the figures of a report look: one palette, one size of type, legends that cover nothing, and text from strangers."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from reports.load import Section
from spaces.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW, text_width
from spaces.multipliers import catalogue

COLUMN, PAGE = 3.4, 7.0  # inches: one column and both columns of a paper
TEXT, SMALL = 8.0, 7.0  # points
# Inches around axes for their ticks and labels; fixed, because layout engines are slow and move what is compared.
LEFT, BOTTOM, TOP, RIGHT = 0.52, 0.42, 0.24, 0.1
LINE_HEIGHT = 0.135  # inches of a line of small type
NAME = 40  # characters of a name from outside that are shown

RC = {
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "axes.titlesize": TEXT,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.5,
    "legend.fontsize": SMALL,
    "text.parse_math": False,  # names may hold $, _ and ^
}
styled = matplotlib.rc_context(RC)  # a decorator; nothing stays behind it

PALETTE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<", ">", "p", "*", "d")
DASHES = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (8, 2, 3, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 3)),
)
# Names 8 apart share a colour, so their hatches differ most.
HATCHES = ("", "////", "xxxx", "\\\\\\\\", "----", "||||", "", "++", "xx", "--", "\\\\", "||", "//")


@dataclass(frozen=True)
class Look:
    """How one variant, operation or circuit is drawn: by colour, and without colour by marker, dashes or hatching."""

    colour: str
    marker: str
    dashes: object
    hatch: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for every name, in their order. Colours repeat after 8 names, markers and hatches after 13."""
    return {
        name: Look(*(options[at % len(options)] for options in (PALETTE, MARKERS, DASHES, HATCHES)))
        for at, name in enumerate(dict.fromkeys(names))
    }


def colours(section: Section) -> dict[str, str]:
    """Variant → colour as #rrggbb, the same in all figures of the section."""
    return {variant: look.colour for variant, look in looks(section.variants).items()}


def circuit_looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for every circuit: the built-in ones always have the same, those of a user's own take those behind."""
    names = set(names)
    own = sorted(names.difference(catalogue.names()))
    return {name: look for name, look in looks([*catalogue.names(), *own]).items() if name in names}


# -- text from strangers -----------------------------------------------------------------------------------------------


@cache
def _font() -> object:
    return get_font(findfont(FontProperties(family="DejaVu Sans")))


def plain(text: str, limit: int = NAME) -> str:
    """One line of at most ``limit`` characters, all of which the font of the figures has."""
    line = " ".join(text.split())
    if len(line) > limit:  # names differ at their ends as often as at their beginnings
        line = f"{line[: (limit + 1) // 2 - 1]}…{line[-(limit // 2) :]}"
    return "".join(c if c.isprintable() and _font().get_char_index(ord(c)) else "?" for c in line)


def labels(names: Iterable[str], limit: int = NAME) -> dict[str, str]:
    """What to call each name in a figure; those that read the same when shortened get a number."""
    shown: dict[str, str] = {}
    for name in names:
        label = plain(name, limit) or "(no name)"
        twins = sum(1 for other in shown.values() if other.partition(" #")[0] == label)
        shown[name] = f"{label} #{twins + 1}" if twins else label
    return shown


def count(number: int, what: str) -> str:
    """``1 run``, ``3 runs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# -- axes and legends --------------------------------------------------------------------------------------------------


def inches(figure: Figure, left: float, bottom: float, width: float, height: float, **options: object) -> Axes:
    """Axes whose frame lies at these inches from the figure's lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up), **options)


def finish(axes: Axes, grid: str = "both") -> None:
    """Light grid lines below everything; ticks whose numbers have no offset."""
    axes.grid(True, axis=grid, color="#E4E4E4", linewidth=0.5)
    axes.tick_params(length=2.5, pad=2)


def legend_lines(texts: Sequence[str], width: float) -> tuple[int, float]:
    """Columns of a legend that is at most ``width`` inches wide, and its height in inches."""
    if not texts:
        return 1, 0.0
    entry = max(text_width(text, SMALL) for text in texts) + 0.42
    columns = max(1, min(len(texts), int(width / entry)))
    rows = -(-len(texts) // columns)
    columns = -(-len(texts) // rows)
    return columns, rows * LINE_HEIGHT + 0.08


def legend(
    figure: Figure, handles: Sequence[Artist], texts: Sequence[str], left: float, top: float, columns: int
) -> Legend:
    """A legend outside all axes: its upper left corner at these inches from the figure's upper left one."""
    across, up = figure.get_size_inches()
    made = figure.legend(
        handles,
        ["x"] * len(texts),  # a text that begins with _ would be left out
        loc="upper left",
        bbox_to_anchor=(left / across, 1 - top / up),
        ncols=columns,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=2.6,
        handletextpad=0.5,
        columnspacing=1.2,
        labelspacing=0.35,
    )
    for shown, text in zip(made.get_texts(), texts):
        shown.set_text(text)
    return made


def every(number: int, most: int = 8) -> list[int]:
    """At most ``most`` + 1 places among so many points, evenly spread, the last among them."""
    step = max(1, -(-number // most))
    return sorted({*range(0, number, step), number - 1} - {-1})


def line_handle(look: Look, **options: object) -> Line2D:
    return Line2D([], [], color=look.colour, linestyle=look.dashes, **options)


def wrap(text: str, width: float, size: float = TEXT) -> str:
    """Lines of about ``width`` inches."""
    return textwrap.fill(text, max(20, int(width * 72 / (0.55 * size))))


# -- units -------------------------------------------------------------------------------------------------------------


def energy_unit(largest_pj: float) -> tuple[str, float]:
    """The unit that suits these energies, and how many pJ it has."""
    for unit, size in (("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3)):
        if largest_pj >= size:
            return unit, size
    return "pJ", 1.0


def time_unit(longest_hours: float) -> tuple[str, float]:
    """The unit that suits these device times, and how many hours it has."""
    for unit, size in (("device-hours", 1.0), ("device-minutes", 1 / 60)):
        if longest_hours >= size:
            return unit, size
    return "device-seconds", 1 / 3600

"""What the drawings of all spaces share: colours, type, boxes and files that are the same bytes every time."""

import io
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import text_to_path

from spaces.errors import suggest
from spaces.files.saving import save_bytes

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
FILL, OUTLINE, LINE = "#F2F2F2", "#333333", "#707070"

OPERATION_SIZE, MULTIPLIER_SIZE, TITLE_SIZE = 8.0, 6.5, 9.0  # points
# Inches, the unit of all axes: type and geometry keep their proportion whatever the size of the drawing.
MARGIN, HEADER = 0.12, 0.3
ARROW = 0.09

# A timestamp in the file would make two drawings of one architecture differ.
_METADATA = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": None}


def write(figure: Figure, path: str | Path, key: str) -> None:
    """Write an .svg, .png or .pdf file, the same bytes for equal figures of equal ``key``.

    Raises InputError for another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _METADATA:
        raise suggest(suffix, _METADATA, "picture format")
    with matplotlib.rc_context({"svg.hashsalt": key}):
        drawn = io.BytesIO()
        figure.savefig(drawn, format=suffix[1:], dpi=200, metadata=_METADATA[suffix])
    save_bytes(Path(path), drawn.getvalue())


def multiplier_label(multiplier: str) -> str:
    """A multiplier's name without the prefix that all of EvoApproxLib's signed 8-bit ones share."""
    return multiplier.removeprefix("mul8s_")


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a line of text of ``size`` points needs."""
    font = FontProperties(size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def add_box(
    axes: Axes,
    left: float,
    middle: float,
    width: float,
    height: float,
    fill: str | tuple[float, ...] = FILL,
    outline: str = OUTLINE,
) -> None:
    """A box with rounded corners, over all lines; ``middle`` is its vertical centre."""
    style = "round,pad=0,rounding_size=0.06"
    corner = (left, middle - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, fc=fill, ec=outline, lw=1, zorder=5))

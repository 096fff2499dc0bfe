"""The figures of a report: drawn for every section, and written as PDF, SVG and PNG.

Figures are made with matplotlib's objects, never with its global state, and their files are the same bytes every time.
"""

from collections.abc import Iterator
from pathlib import Path

from reports.figures import anytime, architectures, circuits, energy, evolution, fronts, library, style
from reports.figures.architectures import drawing_svg, svg
from reports.figures.picture import Picture
from reports.load import Loaded
from spaces.drawing import write as write_figure

__all__ = ["Picture", "drawing_svg", "pictures", "svg", "write"]

FORMATS = (".pdf", ".svg", ".png")
MOST_VARIANTS = 4  # that get drawings of their own in a section


def pictures(loaded: Loaded) -> Iterator[Picture]:
    """Every figure that the runs have data for, section by section, then those of the circuits."""
    for section in loaded.sections:
        yield fronts.front(section)
        if (picture := anytime.anytime(section)) is not None:
            yield picture
        for draw in (architectures.architectures, energy.layers, evolution.evolution):
            yield from draw(section, MOST_VARIANTS)
    if (picture := circuits.error_maps(loaded)) is not None:
        yield picture
    yield library.power_error(loaded)


@style.styled
def write(picture: Picture, folder: Path) -> None:
    """Write the picture as PDF, SVG and PNG, named after it, to a folder that exists."""
    for suffix in FORMATS:
        write_figure(picture.figure, folder / f"{picture.name}{suffix}", picture.name)

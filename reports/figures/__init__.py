"""The figures of a report: drawn for every section, and written as PDF, SVG and PNG.

Figures are made with matplotlib's objects, never with its global state, and their files are the same bytes every time.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from reports.figures import anytime, architectures, energy, evolution, fronts, library, multipliers, searches, style
from reports.figures.architectures import drawing_svg, svg
from reports.figures.picture import Picture
from reports.load import Loaded
from spaces.drawing import write as write_figure

__all__ = ["Picture", "drawing_svg", "pictures", "svg", "write"]

FORMATS = (".pdf", ".svg", ".png")
# Drawings of single variants take most of the time, so a section gets them for its first 1 to 4 variants.
MOST_VARIANTS, MOST_TOGETHER = 4, 6


def pictures(loaded: Loaded) -> Iterator[Picture]:
    """Every figure that the runs have data for, section by section, then those of the circuits."""
    for found in loaded.searches:
        yield from searches.pictures(found)
    most = max(1, min(MOST_VARIANTS, MOST_TOGETHER // max(1, len(loaded.sections))))
    for section in loaded.sections:
        for method, part in section.pictured.items():
            for picture in filter(None, (fronts.front(part), anytime.anytime(part))):
                yield replace(picture, title=f"{picture.title}: settings of {method}") if method else picture
        for draw in (architectures.architectures, energy.layers, evolution.evolution):
            yield from draw(section, most)
    used, others = multipliers.in_use(loaded)
    yield from filter(None, (multipliers.error_maps(used, others), library.power_error(used)))


@style.styled
def write(picture: Picture, folder: Path) -> None:
    """Write the picture as PDF, SVG and PNG, named after it, to a folder that exists."""
    for suffix in FORMATS:
        write_figure(picture.figure, folder / f"{picture.name}{suffix}", picture.name)

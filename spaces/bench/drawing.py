"""Draws the cell of a bench architecture: what it computes, from its input to its output."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from spaces.bench.architecture import BenchArchitecture
from spaces.box_drawing.boxes import draw_boxes
from spaces.drawing import multiplier_label


def draw(architecture: BenchArchitecture) -> Figure:
    """A box per operation that is carried out, and one per addition; see ``draw_boxes``."""
    program = architecture.program
    labels = [("cell input", "")]
    sources: list[tuple[int, ...]] = [()]
    box_of = {0: 0}  # of every map

    def read(maps: Sequence[int]) -> int:
        """The box that holds the sum of these maps."""
        box = box_of[maps[0]]
        for other in maps[1:]:
            labels.append(("sum", ""))
            sources.append((box, box_of[other]))
            box = len(labels) - 1
        return box

    for number, step in enumerate(program.steps, 1):
        source = read(step.reads)
        labels.append((step.operation, step.multiplier))
        sources.append((source,))
        box_of[number] = len(labels) - 1
    output = read(program.output)
    labels.append(("cell output", ""))
    sources.append((output,))
    heading = f"{architecture.key[:8]} · around the cells: {multiplier_label(architecture.outer)}"
    return draw_boxes(heading, labels, sources)

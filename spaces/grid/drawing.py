"""Draws the network of a grid architecture: its active nodes from the image above to the classifier below."""

from matplotlib.figure import Figure

from spaces.box_drawing.boxes import draw_boxes
from spaces.grid.architecture import GridArchitecture


def draw(architecture: GridArchitecture) -> Figure:
    """A box per active node, below the image and above the classifier; see ``draw_boxes``."""
    count = len(architecture.active)
    nodes = f"{count} active node{'' if count == 1 else 's'}"
    heading = f"{architecture.key[:8]} · {nodes} of {architecture.rows}×{architecture.columns}"
    named = [(node.function, node.multiplier or "") for node in architecture.active]
    labels = [("image", ""), *named, ("classifier", architecture.multiplier)]
    return draw_boxes(heading, labels, [(), *(node.sources for node in architecture.active), (count,)])

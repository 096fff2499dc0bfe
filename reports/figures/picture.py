"""What a figure of the report is: the drawing, and the words that go with it."""

from dataclasses import dataclass, field

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """``name`` is its file's stem; ``caption`` says what was measured, of how many runs, and on which scale."""

    name: str
    title: str
    caption: str
    figure: Figure = field(repr=False)

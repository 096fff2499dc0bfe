"""A terminal on which text from anywhere is only printed: nothing in it acts, and none of it takes long."""

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from spaces.files.untrusted_text import shortened, without_controls

WIDTH_OF_FILES = 160  # columns of what goes to a file or a pipe: enough for every table


class Terminal(Console):
    """A console that prints text from anywhere as it is: no markup, no control characters, and no endless lines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})
        if not self.is_terminal and "width" not in options and "COLUMNS" not in os.environ:
            self.width = WIDTH_OF_FILES

    def print(self, *objects: Any, **options: Any) -> None:
        """What does not fit is left to the terminal to wrap: cut off, a number would be another."""
        super().print(*objects, **{"crop": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Shortened, since laying out 100,000 characters takes a minute."""
        return super().render_str(shortened(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Every piece of text that is about to be printed; rich's own control codes come apart from it."""
        for segment in super().render(renderable, options):
            safe = segment.control is not None or segment.text.isprintable()
            yield segment if safe else Segment(without_controls(segment.text), segment.style)

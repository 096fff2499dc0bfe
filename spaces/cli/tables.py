"""Tables of the terminal: numbers are never wrapped or cut, however narrow it is.

Where a table is too wide, columns leave, the least important first, and a line names them. Where those that must stay are too
wide, every row becomes a block with a value on each line. Only columns of text may wrap, between words.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

from spaces.files.untrusted_text import shortened

GAP, INDENT = "  ", " "
NARROWEST_TEXT = 16  # columns of the terminal for a column of text


@dataclass(frozen=True)
class Column:
    """``header`` may have several lines; of columns with a ``rank``, the highest leaves first, and those without stay."""

    header: str
    rank: int = 0
    left: bool = False  # aligned, as names are
    text: bool = False  # may wrap; at most one of a table, its last


@dataclass
class Fitted:
    """A table that fits the terminal it is printed on. ``ends`` are the rows after which there is a gap."""

    title: str
    columns: Sequence[Column]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    ends: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.title = shortened(self.title)

    def add(self, *cells: str, end: bool = False) -> None:
        """A row; ``end``: there is a gap after it."""
        self.rows.append(tuple(shortened(cell) for cell in cells))
        if end:
            self.ends.add(len(self.rows) - 1)

    def lines(self, width: int) -> list[str]:
        """What is printed, on a terminal so many columns wide."""
        title = textwrap.wrap(self.title, width) if self.title else []
        kept = list(range(len(self.columns)))
        leaving = sorted((at for at in kept if self.columns[at].rank), key=lambda at: self.columns[at].rank)
        while self._width(kept) > width and leaving:
            kept.remove(leaving.pop())
        if self._width(kept) > width:
            return [*title, "", *self._blocks(width)]
        left = [_in_a_line(column.header) for at, column in enumerate(self.columns) if at not in kept]
        note = textwrap.wrap(f"not shown in so narrow a window: {', '.join(left)}", width - 1) if left else []
        return [*title, *([""] if title else []), *self._grid(kept, width), *(INDENT + line for line in note)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        titles = len(textwrap.wrap(self.title, options.max_width))
        for number, line in enumerate(self.lines(options.max_width)):
            yield Text(line, no_wrap=True, overflow="ignore", style="bold" if number < titles else "")

    def _widths(self, kept: Sequence[int]) -> list[int]:
        """Of columns, with nothing wrapped; of one of text the least."""
        widths = []
        for at in kept:
            cells = (self.columns[at].header, *(row[at] for row in self.rows))
            widths.append(max(cell_len(line) for cell in cells for line in cell.split("\n")))
            if self.columns[at].text:
                widths[-1] = min(widths[-1], max(NARROWEST_TEXT, cell_len(self.columns[at].header)))
        return widths

    def _width(self, kept: Sequence[int]) -> int:
        return len(INDENT) + sum(self._widths(kept)) + len(GAP) * (len(kept) - 1)

    def _grid(self, kept: Sequence[int], width: int) -> list[str]:
        widths = self._widths(kept)
        columns = [self.columns[at] for at in kept]
        if columns[-1].text:
            widths[-1] += width - self._width(kept)
        header = [_bottom(column.header, max(c.header.count("\n") for c in columns)) for column in columns]
        top, lines = _row(header, columns, widths), []
        for number, row in enumerate(self.rows):
            lines += _row([row[at] for at in kept], columns, widths)
            if number in self.ends and number < len(self.rows) - 1:
                lines.append("")
        rule = "─" * (max(map(cell_len, (*top, *lines))) - len(INDENT))
        return [*top, INDENT + rule, *lines]

    def _blocks(self, width: int) -> list[str]:
        """A value on each line, beside its header, or below it where there is no room."""
        lines = []
        labels = [_in_a_line(column.header) for column in self.columns]
        widest = max((cell_len(word) for row in self.rows for cell in row for word in cell.split()), default=0)
        label_width = max(map(cell_len, labels))
        beside = len(INDENT) + label_width + len(GAP) + widest <= width
        room = max(1, width - len(INDENT + GAP) - (label_width if beside else 0))
        for row in self.rows:
            for label, cell in zip(labels, row):
                parts = _wrapped(_in_a_line(cell), room)
                if beside:
                    names = [label, *[""] * (len(parts) - 1)]
                    lines += [f"{INDENT}{_padded(name, label_width)}{GAP}{part}" for name, part in zip(names, parts)]
                else:
                    lines += [f"{INDENT}{label}", *(f"{INDENT}{GAP}{part}" for part in parts)]
            lines.append("")
        return lines[:-1]


def _row(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    """The lines of a row, whose cells may have several."""
    parts = [
        _wrapped(cell, width) if column.text else cell.split("\n")
        for cell, column, width in zip(cells, columns, widths)
    ]
    return [
        (INDENT + GAP.join(_padded(part, w, c.left or c.text) for part, c, w in zip(line, columns, widths))).rstrip()
        for line in zip_longest(*parts, fillvalue="")
    ]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _padded(text: str, width: int, left: bool = True) -> str:
    space = " " * (width - cell_len(text))
    return text + space if left else space + text


def _bottom(header: str, breaks: int) -> str:
    return "\n" * (breaks - header.count("\n")) + header


def _in_a_line(text: str) -> str:
    return " ".join(text.split("\n")).strip()

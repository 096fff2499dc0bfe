"""The parts of the page as its template shows them: a sentence, a chart and six columns first, all else folded."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from evaluation.runs import units
from reports.figures import style
from reports.figures.picture import Picture
from reports.load import Section
from reports.page.networks import packed
from reports.page.sources import Sources
from reports.statistics import reference
from reports.summary import summary
from reports.tables import Cell, Table
from reports.tables.shape import hoisted, turned

FIRST = ("front", "anytime", "regret", "ranks")  # figures that are not
PICTURES = 1_400_000  # characters of packed pictures
HEADLINE, MORE = "headline", "methods"

Files = Mapping[str, Sequence[str]]


class Tables:
    """Tables as the template shows them. A note that several of them have stands once, in the glossary."""

    def __init__(self, found: Iterable[Table], files: Files, sources: Sources, most: int | None) -> None:
        self.files, self.sources, self.most = files, sources, most
        counts = Counter(note for table in found for note in dict.fromkeys(table.notes))
        self.shared = [note for note, count in counts.items() if count > 1]

    def shown(self, table: Table, title: str = "") -> dict[str, Any]:
        """The first rows of a table; its title need not repeat that of its section."""
        narrow, constants = hoisted(table)
        if len(table.rows) == 1 and len(table.columns) > 8:
            narrow = turned(table)
        return {
            "name": table.name,
            "title": table.title.removesuffix(f": {title}"),
            "constants": constants,
            "notes": [note for note in table.notes if note not in self.shared],
            "referred": any(note in self.shared for note in table.notes),
            "files": self.files.get(table.name, ()),
            "columns": narrow.columns,
            "rows": [self._cells(row) for row in narrow.rows[: self.most]],
            "count": len(table.rows),
            "more": len(table.rows[self.most :]) if self.most else 0,
        }

    def _cells(self, row: Sequence[Cell]) -> list[dict[str, Any]]:
        """Text and sort key of each cell; the first of each source in a row leads there."""
        seen: set[str] = set()
        cells = []
        for cell in row:
            anchor = self.sources.anchor(cell.runs)
            cells.append(
                {
                    "text": cell.text,
                    "value": _sort_key(cell.value),
                    "anchor": "" if anchor in seen else anchor,
                    "best": cell.best,
                }
            )
            seen.add(anchor)
        return cells


def _sort_key(value: float | str | None) -> str:
    """As text; "" sorts behind everything."""
    if isinstance(value, str):
        return value
    return "" if value is None or value != value else f"{value:.12g}"


def block(
    section: Section, made: Sequence[Table], tables: Tables, pictures: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What the template shows of a section."""
    shown = {table.name.removeprefix(f"{section.name}-"): tables.shown(table, section.title) for table in made}
    words = summary(section)
    return {
        "name": section.name,
        "title": short_title(section),
        "facts": f"{section.title}: {counts(section)}. Data: {section.data}.",
        "headline": words.headline,
        "first": shown.pop(HEADLINE, None),
        "more": shown.pop(MORE, None),
        "tables": list(shown.values()),
        "course": words.course,
        "mark": (
            "A mark of the chart is a finalist; a line joins those that no other finalist of its method beats in both error "
            f"and {units.noun(section.unit)}, over all of the method's runs."
        ),
        "words": [
            ("By how much: of each run the finalist best on validation, mean ± standard deviation", words.amounts),
            ("At what cost: mean ± standard deviation over runs", words.costs),
            ("How sure we are", words.verdicts),
            ("What cannot be concluded", words.limits),
        ],
        **placed(pictures),
    }


def short_title(section: Section) -> str:
    record = section.runs[0].record
    names = dict.fromkeys(run.method for run in section.runs)
    listed = ", ".join(names) if len(names) < 4 else style.count(len(names), "method")
    return f"{record.dataset}{record.limit_note}, {record.space}, {record.protocol.name}: {listed}"


def counts(section: Section) -> str:
    methods, variants = len({run.method for run in section.runs}), len(section.variants)
    parts = [style.count(methods, "method")] + ([f"{variants} groups of settings"] if variants > methods else [])
    parts += [style.count(len(section.runs), "run"), style.count(len(section.finalists), "finalist")]
    return ", ".join(parts)


# -- pictures ----------------------------------------------------------------------------------------------------------


def placed(pictures: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Those that are shown at once, and those that are folded."""
    return {
        "pictures": [it for it in pictures if it["kind"] in FIRST],
        "folded_pictures": [it for it in pictures if it["kind"] not in FIRST],
    }


def pictures_by_block(
    pictures: Iterable[tuple[Picture, str]], files: Files, names: Collection[str], sections: Sequence[Section]
) -> dict[str, list[dict[str, Any]]]:
    """By block, "" for those of the whole report; pictures beyond the page's share are left to their files."""
    scales = {section.name: scale.sentence for section in sections if (scale := reference(section))}
    found: dict[str, list[dict[str, Any]]] = {}
    room = PICTURES
    for picture, svg in pictures:
        name, _, kind = picture.name.partition("-")
        content = packed(svg)
        fits = len(content) <= room
        room -= len(content) if fits else 0
        caption = picture.caption.replace(scales.get(name, "\n"), "").strip()  # the glossary has it
        found.setdefault(name if name in names else "", []).append(
            {
                "name": picture.name,
                "kind": kind,
                "title": picture.title,
                "caption": caption,
                "files": files.get(picture.name, ()),
                "packed": content if fits else "",
            }
        )
    return found

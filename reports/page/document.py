"""Puts the page together: words, tables, fronts, pictures, checklist and sources in one HTML file.

The file needs no network, and its content security policy forbids it one. Text from records is untrusted: the template
escapes all of it, JSON cannot end its script element, and pictures are images, in which nothing runs.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import plotly
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.checklist import checklist
from reports.figures import style
from reports.figures.picture import Picture
from reports.load import Loaded, Section
from reports.page.front import chart, on_fronts
from reports.page.limits import OTHERS, Point, limits, points_shown, runs_in_full
from reports.page.networks import Network, details, networks, packed
from reports.page.sources import Sources, run_block, run_line
from reports.summary import summary
from reports.tables import Cell, Table

HERE = Path(__file__).parent
SCRIPTS = ("unpack.js", "tables.js", "networks.js", "fronts.js")
PICTURES = 1_000_000  # characters of packed pictures: plotly takes 4.8 MB of the 8 that a page may have
ALL = ""  # the section of what concerns the whole report


def page(
    loaded: Loaded,
    tables: Mapping[str, Sequence[Table]],
    pictures: Sequence[tuple[Picture, str]],
    out: Path,
    command: str,
    files: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The text of ``index.html`` in the folder ``out``, which need not exist yet.

    ``tables`` are by the name of their section, "" for those of the whole report; ``pictures`` come with their SVG text,
    and belong to the section with whose name theirs begins. ``files`` are, by the name of a table or picture, the
    files, relative to ``out``, that hold it. ``command`` made the report.
    """
    sources = Sources(loaded)
    fronts = {point for section in loaded.sections for point in on_fronts(section)}
    limit, by_finalist = limits(loaded), networks(loaded, fronts)
    points, complete = points_shown(loaded, fronts, limit.points), runs_in_full(loaded, limit.runs)
    shown = _pictures(pictures, files or {}, loaded.sections)
    sections = [
        _section(section)
        | {
            "tables": [
                _table(t, files or {}, sources, limit.rows, section.title) for t in tables.get(section.name, ())
            ],
            "pictures": shown.get(section.name, []),
        }
        for section in loaded.sections
    ]
    content = {
        "command": command,
        "sections": sections,
        "tables": [_table(table, files or {}, sources, limit.rows) for table in tables.get(ALL, ())],
        "pictures": shown.get(ALL, []),
        "groups": _checklist(loaded),
        "left_out": loaded.left_out,
        "runs": _runs(loaded, sources, out, by_finalist, complete),
        "unmarked": {section.name: _unmarked(section, points) for section in loaded.sections},
        "listed": limit.listed,
        "total": (len(loaded.runs), len(loaded.finalists), len(loaded.sections)),
        "charts": [chart(section, sources, by_finalist, points) for section in loaded.sections],
        "networks": _networks(by_finalist, points, complete),
        "anchor": sources.anchor,
    }
    return _render(content, sources)


def _render(content: dict[str, Any], sources: Sources) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    body = environment.get_template("body.html").render(content)  # first, as it asks for anchors
    origins = [
        {"anchor": anchor, "title": sources.title(names), "runs": names} for names, anchor in sources.sets.items()
    ]
    scripts = [_plotly(), *((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)]
    return environment.get_template("page.html").render(
        body=body,
        origins=origins,
        numbers=sources.numbers,
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        **content,
    )


@cache
def _plotly() -> str:
    """The script that plotly's Python package carries."""
    file = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return file.read_text(encoding="utf-8").replace("</script", "<\\/script").replace("\r\n", "\n")


def _hash(script: str) -> str:
    """What the policy allows a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _networks(
    by_finalist: Mapping[Point, Network], points: Collection[Point], complete: Collection[str]
) -> dict[str, Any]:
    """The networks by number: their drawings, and details of those that a point or a run shown in full leads to."""
    distinct = {network.number: network for network in by_finalist.values()}
    needed = {network.number for point, network in by_finalist.items() if point in points or point[0] in complete}
    found = [details(distinct[number]) if number in needed else None for number in sorted(distinct)]
    return {"details": packed(json.dumps(found)), "drawings": [distinct[number].svg for number in sorted(distinct)]}


def _section(section: Section) -> dict[str, Any]:
    """What the template shows of a section beside its tables and pictures."""
    return {
        "name": section.name,
        "title": section.title,
        "data": section.data,
        "counts": _counts(section),
        "summary": summary(section),
    }


def _unmarked(section: Section, points: Collection[Point]) -> int:
    """How many finalists of a section are not among the points that its front shows."""
    names = {run.name for run in section.runs}
    return len(section.finalists) - sum(name in names for name, _ in points)


def _counts(section: Section) -> str:
    methods, variants = len({run.method for run in section.runs}), len(section.variants)
    parts = [style.count(methods, "method")] + ([f"{variants} groups of settings"] if variants > methods else [])
    parts += [style.count(len(section.runs), "run"), style.count(len(section.finalists), "finalist")]
    return ", ".join(parts)


def _table(
    table: Table, files: Mapping[str, Sequence[str]], sources: Sources, most: int | None, section: str = ""
) -> dict[str, Any]:
    """What the template shows of the first rows of a table, whose title need not repeat that of its section."""
    return {
        "name": table.name,
        "title": table.title.removesuffix(f": {section}"),
        "notes": table.notes,
        "files": files.get(table.name, ()),
        "columns": table.columns,
        "rows": [_cells(row, sources) for row in table.rows[:most]],
        "more": len(table.rows[most:]) if most else 0,
    }


def _cells(row: Sequence[Cell], sources: Sources) -> list[dict[str, Any]]:
    """Text, sort key and anchor of each cell; only the first link of a row to an anchor is a stop of the Tab key."""
    seen: set[str] = set()
    cells = []
    for cell in row:
        anchor = sources.anchor(cell.runs)
        cells.append({"text": cell.text, "value": _sort_key(cell.value), "anchor": anchor, "stop": anchor not in seen})
        seen.add(anchor)
    return cells


def _sort_key(value: float | str | None) -> str:
    """As text; "" sorts behind everything."""
    if isinstance(value, str):
        return value
    return "" if value is None or value != value else f"{value:.12g}"


def _pictures(
    pictures: Iterable[tuple[Picture, str]], files: Mapping[str, Sequence[str]], sections: Sequence[Section]
) -> dict[str, list[dict[str, Any]]]:
    """By section; pictures beyond the page's share are left to their files."""
    found: dict[str, list[dict[str, Any]]] = {}
    names = {section.name for section in sections}
    room = PICTURES
    for picture, svg in pictures:
        section = picture.name.partition("-")[0]
        content = packed(svg)
        fits = len(content) <= room
        room -= len(content) if fits else 0
        found.setdefault(section if section in names else ALL, []).append(
            {
                "name": picture.name,
                "title": picture.title,
                "caption": picture.caption,
                "files": files.get(picture.name, ()),
                "packed": content if fits else "",
            }
        )
    return found


def _checklist(loaded: Loaded) -> list[tuple[str, list[Any]]]:
    groups: dict[str, list[Any]] = {}
    for item in checklist(loaded):
        groups.setdefault(item.group, []).append(item)
    return list(groups.items())


def _runs(
    loaded: Loaded, sources: Sources, out: Path, by_finalist: dict, complete: Collection[str]
) -> list[dict[str, Any]]:
    """By section: its runs as the template shows them, and apart what all of them have in common.

    Those that are not ``complete`` have their place and a link to their record.
    """
    groups = []
    for section in loaded.sections:
        in_full = [run for run in section.runs if run.name in complete]
        blocks = [run_block(run, sources.anchor([run.name]), out, by_finalist) for run in in_full]
        others = [run_line(run, sources.anchor([run.name]), out) for run in section.runs if run.name not in complete]
        shared = [fact for fact in blocks[0]["facts"] if all(fact in b["facts"] for b in blocks)] if blocks else []
        if len(section.runs) == 1:
            shared = []
        for block in blocks:
            block["facts"] = [fact for fact in block["facts"] if fact not in shared]
        group = {
            "name": section.name,
            "title": section.title,
            "blocks": blocks,
            "others": others[:OTHERS],
            "more": len(others[OTHERS:]),
            "shared": shared,
        }
        groups.append(group)
    return groups

"""Puts the page together: words, tables, fronts, pictures, checklist and sources in one HTML file.

The file needs no network, and its content security policy forbids it one. Text from records is untrusted: the template
escapes all of it, JSON cannot end its script element, and pictures are images, in which nothing runs.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.checklist import checklist
from reports.figures.picture import Picture
from reports.load import Loaded, Section
from reports.page.blocks import Tables, block, pictures_by_block
from reports.page.front import chart, on_fronts
from reports.page.glossary import GLOSSARY
from reports.page.limits import OTHERS, Point, limits, points_shown, runs_in_full
from reports.page.networks import Network, details, networks, packed
from reports.page.searched import searched_block, searched_chart
from reports.page.sources import Sources, run_block, run_line
from reports.tables import Table

HERE = Path(__file__).parent
SCRIPTS = ("unpack.js", "tables.js", "networks.js", "axes.js", "fronts.js")
OPEN = 3  # comparisons that are not folded; what compares nothing is
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
    made = Tables([table for group in tables.values() for table in group], files or {}, sources, limit.rows)
    shown = pictures_by_block(pictures, files or {}, [*tables], loaded.sections)
    blocks = [searched_block(it, tables[it.name], made, shown.get(it.name, [])) for it in loaded.searches]
    charts = [searched_chart(it) for it in loaded.searches]
    for section in loaded.sections:
        charts.append(chart(section, sources, by_finalist, points))
        found = block(section, tables.get(section.name, ()), made, shown.get(section.name, []))
        compares = len({run.method for run in section.runs}) > 1
        blocks.append(found | {"compares": compares, "unmarked": _unmarked(section, points)})
    _fold(blocks)
    content = {
        "command": command,
        "blocks": blocks,
        "tables": [made.shown(table) for table in tables.get(ALL, ())],
        "pictures": shown.get(ALL, []),
        "groups": _checklist(loaded) if loaded.runs else [],
        "glossary": GLOSSARY,
        "notes": made.shared,
        "left_out": loaded.left_out,
        "runs": _runs(loaded, sources, out, by_finalist, complete),
        "listed": limit.listed,
        "total": (len(loaded.runs), len(loaded.finalists), len(loaded.sections)),
        "charts": charts,
        "networks": _networks(by_finalist, points, complete),
        "anchor": sources.anchor,
    }
    return _render(content, sources)


def _fold(blocks: Sequence[dict[str, Any]]) -> None:
    """The first comparisons are open, and the first block in any case."""
    left = OPEN
    for at, it in enumerate(blocks):
        it["open"] = at == 0 or (it["compares"] and left > 0)
        left -= it["open"]


def _render(content: dict[str, Any], sources: Sources) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    body = environment.get_template("body.html").render(content)  # first, as it asks for anchors
    origins = [
        {"anchor": anchor, "title": sources.title(names), "runs": names} for names, anchor in sources.sets.items()
    ]
    scripts = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return environment.get_template("page.html").render(
        body=body,
        origins=origins,
        numbers=sources.numbers,
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        **content,
    )


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


def _unmarked(section: Section, points: Collection[Point]) -> int:
    """How many finalists of a section are not among the points that its front shows."""
    names = {run.name for run in section.runs}
    return len(section.finalists) - sum(name in names for name, _ in points)


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
        for one in blocks:
            one["facts"] = [fact for fact in one["facts"] if fact not in shared]
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

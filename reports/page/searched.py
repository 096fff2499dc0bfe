"""What the page shows of a comparison on a table of trained networks."""

from collections.abc import Sequence
from typing import Any

from evaluation.runs import units
from reports.figures import style
from reports.page.blocks import Tables, placed
from reports.page.front import DASHES, SYMBOLS, WORDS, page_colour
from reports.searches import FRONTS, Proposal, Searched, cost_unit
from reports.summary import Statement
from reports.tables import Table


def searched_block(
    found: Searched, made: Sequence[Table], tables: Tables, pictures: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What the template shows of it."""
    first, more = (tables.shown(table, found.title) for table in made)
    facts = (
        f"{found.searches:,} searches under a budget of {found.budget}, costs by {found.cost_model}: {found.file.name}."
    )
    if found.reliability:
        facts += f" Errors are predicted: {found.reliability}"
    return {
        "name": found.name,
        "title": f"{found.title}: {style.count(len(found.curves), 'method')}, {found.searches:,} searches",
        "facts": facts,
        "headline": Statement(found.ranking.sentence),
        "first": first,
        "more": more,
        "tables": [],
        "course": (),
        "words": [],
        "mark": (
            "A mark of the chart is a network that the search of the median regret handed over, by its "
            f"{'predicted' if found.reliability else 'true'} error and cost; the line of the {found.front_name} joins those "
            "that no other network of the table beats."
        ),
        "compares": True,
        "unmarked": 0,
        **placed(pictures),
    }


def searched_chart(found: Searched) -> dict[str, Any]:
    """What the page's script draws of it."""
    unit, size = cost_unit(found)
    groups = {found.front_name: found.true_front, **found.typical}
    looks, labels = style.looks([*found.typical, found.front_name]), style.labels(groups)
    return {
        "name": found.name,
        "cost": units.noun(unit),
        "unit": unit,
        "validation": False,
        "arithmetics": [{"name": "approximate", "words": WORDS["approximate"]}],
        "variants": [
            {
                "name": labels[name],
                "colour": page_colour(looks[name]),
                "symbol": SYMBOLS.get(looks[name].marker, "circle"),
                "dash": DASHES[at % len(DASHES)],
                "points": [_point(one, size, name) for one in proposals],
            }
            for at, (name, proposals) in enumerate(groups.items())
        ],
    }


def _point(one: Proposal, size: float, name: str) -> dict[str, Any]:
    return {
        "network": None,
        "run": "",
        "label": "of the table" if name in FRONTS else "of the search of the median regret",
        "summary": one.summary,
        "circuits": "",
        "validation": None,
        "tested": {"approximate": round(100 * one.error, 6)},
        "cost": {"approximate": round(one.cost / size, 6)},
        "saved": [None, round(100 * one.saved, 6)],
        "best": False,
    }

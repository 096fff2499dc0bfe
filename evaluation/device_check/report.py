"""What the check found, as tables for a person and as JSON for a program."""

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from evaluation.device_check import environment
from evaluation.device_check.checks import ENVIRONMENT, EXACTNESS, Row
from evaluation.device_check.exactness import LAYER_TEST, UNUSED
from evaluation.device_check.speed import FLOATS, Times

WIDTH = 80
SCHEMA = 1


def as_json(rows: list[Row], times: Times, quick: bool, seconds: float) -> dict[str, Any]:
    """The whole result; ``exact`` is False once any sum was wrong, or where none was looked at."""
    exactness = [row for row in rows if row.section == EXACTNESS]
    search = times.search
    return {
        "schema": SCHEMA,
        "exact": any(row.done for row in exactness) and not any(row.failures for row in exactness),
        "complete": not any(row.left_out for row in rows),
        "quick": quick,
        "seconds": round(seconds, 1),
        "failures": [failure for row in rows for failure in row.failures],
        "left_out": {f"{row.section}, {row.name}": row.left_out for row in rows if row.left_out},
        "engines": {row.name: engine_state(row) for row in exactness if row.name != LAYER_TEST},
        "environment": next((row.values for row in rows if row.section == ENVIRONMENT), {}),
        "rows": [
            {"section": row.section, "name": row.name, "state": row.state, "checks": row.done, "note": row.note}
            | ({"values": row.values} if row.section not in (ENVIRONMENT, EXACTNESS) else {})
            for row in rows
        ],
        "speed": {
            **times.ratios(),
            "threads": times.threads,
            "engines": times.engines,
            "layers": times.layers,
            "kernels": times.kernels,
            "search_step": search or None,
        },
    }


def engine_state(row: Row) -> str:
    """Exact, wrong (and where first), unavailable (and why), or left out for want of time."""
    if UNUSED in row.values:
        return f"unavailable: {row.values[UNUSED]}"
    if row.failures:
        return f"wrong: {row.failures[0]}"
    return "exact" if row.done else "left out"


def show(console: Console, rows: list[Row], times: Times, seconds: float) -> None:
    """Tables of at most 80 columns, and the failures in full below them."""
    facts = next((row.values for row in rows if row.section == ENVIRONMENT and row.done), None)
    if facts:
        console.print(_facts(environment.lines(facts)), "")
    console.print(_results(rows), "")
    if times.engines:
        console.print(_engines(times), "")
    if times.layers or times.search:
        console.print(_ratios(times), "")
    failures = [failure for row in rows for failure in row.failures]
    for failure in failures[:5]:
        console.print(f"FAILED: {failure}", markup=False, highlight=False)
    if len(failures) > 5:
        console.print(f"and {len(failures) - 5} more failures", highlight=False)
    if any(row.left_out for row in rows):
        console.print("Left out for want of time: see the rows marked so; a larger --budget reaches them.")
    answer = f"{len(failures)} checks FAILED" if failures else "Nothing is wrong"
    console.print(f"{answer}, after {seconds:.0f} s.", highlight=False)


def wide(console: Console) -> Console:
    """Never narrower than the tables, so that no number is cut or wrapped."""
    console.width = max(WIDTH, min(console.width, 100))
    return console


def _table(*headers: str, numbers: Iterable[int] = ()) -> Table:
    table = Table(box=box.ASCII2, show_edge=False, pad_edge=False, safe_box=True)
    numbers = set(numbers)
    for at, header in enumerate(headers):
        last = at == len(headers) - 1 and at not in numbers
        table.add_column(header, justify="right" if at in numbers else "left", no_wrap=not last)
    return table


def _facts(lines: list[tuple[str, str]]) -> Table:
    table = _table(ENVIRONMENT, "")
    for label, text in lines:
        table.add_row(label, text)
    return table


def _results(rows: list[Row]) -> Table:
    table = _table("", "", "checks", "result", "", numbers=[2])
    last = ""
    for row in rows:
        if row.section != ENVIRONMENT:
            unused = UNUSED in row.values
            count, state = ("-", "-") if unused else (str(row.done), row.state)
            table.add_row(row.section if row.section != last else "", row.name, count, state, row.note)
            last = row.section
    return table


def _engines(times: Times) -> Table:
    headers = ("sums of", "table", "engine", "ms", "/ fp32", "/ TF32", "/ bf16")
    table = _table(*headers, numbers=[3, 4, 5, 6])
    last = ""
    for row in sorted(times.engines, key=lambda row: (row["shape"], row["table"] == "any", row["table"])):
        shape = row["shape"] if row["shape"] != last else ""
        last = row["shape"]
        ratios = (_number(row[f"vs_{kind}"]) for kind in FLOATS)
        table.add_row(shape, row["table"], row["engine"], _number(1e3 * row["seconds"], 3), *ratios)
    return table


def _ratios(times: Times) -> Table:
    table = _table("time / time of fp32, layers as they stand in a network", "", numbers=[1])
    for name, value in times.ratios().items():
        table.add_row(name, _number(value))
    for row in times.kernels:
        table.add_row(f"{row['what']}: by kernels / by torch", _number(row["seconds"] / row["by_torch"]))
    for name in ("fp32", "mixture"):
        step = times.search.get(name)
        if step:
            table.add_row(f"step of the supernet, {name}: ms", _number(1e3 * step["seconds"], 1))
            if step["launches"] is not None:
                table.add_row(f"step of the supernet, {name}: ms as a graph", _number(1e3 * step["graph_seconds"], 1))
                table.add_row(f"step of the supernet, {name}: launches", str(step["launches"]))
                table.add_row(f"step of the supernet, {name}: share of time busy", _number(step["busy_share"]))
    return table


def _number(value: float | None, decimals: int = 2) -> str:
    """Short enough for its column, whatever the value."""
    if value is None:
        return "-"
    return f"{value:.{decimals}f}" if value < 1000 else f"{value:.0f}"

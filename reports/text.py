"""The report as one Markdown file: the words and tables of every section, what was left out, what runs say of themselves."""

from collections.abc import Iterable, Mapping, Sequence

from reports.load import Loaded, Section
from reports.summary import Statement, summary
from reports.tables import Table, markdown
from spaces.files.untrusted_text import escape_markdown

PREFACE = (
    "Sections differ in data set, training limit, space, protocol, scope or energy accounting: never compare across them. A "
    "method's row is over its runs, of each the finalist that is best on validation. –: not measured. Every number "
    "in full is in finalists.csv and in tables/*.csv."
)


def report(loaded: Loaded, tables: Mapping[str, Sequence[Table]], command: str) -> str:
    """The text of ``report.md``. ``tables`` are by the name of their section, "" for those of the whole report."""
    parts = ["# Comparison", f"Made by: {escape_markdown(command)}", PREFACE]
    for found in loaded.searches:
        parts += [f"## {escape_markdown(found.title)}", f"**{escape_markdown(found.ranking.sentence)}**"]
        parts += [markdown(table) for table in tables[found.name]]
    for section in loaded.sections:
        parts += [f"## {escape_markdown(section.title)}", f"Data: {escape_markdown(section.data)}.", *_words(section)]
        parts += [markdown(table) for table in tables[section.name]]
    parts += [markdown(table) for table in tables.get("", ())]
    left_out = _bullets(f"{left.place}: {left.reason}" for left in loaded.left_out)
    parts += ["## Left out", left_out or "Nothing: every run that was found is in the tables."]
    for title, lines in (
        ("Notes on these runs", [f"{run.name}: {note}" for run in loaded.runs for note in run.notes]),
        ("Failures inside these runs", [f"{run.name}: {failure}" for run in loaded.runs for failure in run.failures]),
        ("Commands", [f"{run.name}: {run.record.command} → {run.record_file}" for run in loaded.runs]),
    ):
        if lines:
            parts += [f"## {title}", _bullets(lines)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _words(section: Section) -> list[str]:
    conclusions = summary(section)
    groups: list[tuple[str, Sequence[Statement]]] = [
        ("", conclusions.verdicts),
        ("", conclusions.amounts),
        ("", conclusions.costs),
        ("", conclusions.course),
        ("What these runs cannot show:", conclusions.limits),
    ]
    parts = [f"**{escape_markdown(conclusions.headline.text)}**"]
    for title, statements in groups:
        if statements:
            parts += [title] if title else []
            parts.append(_bullets(statement.text for statement in statements))
    return [*parts, escape_markdown(conclusions.explanation)] if conclusions.explanation else parts


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)

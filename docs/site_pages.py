"""Pages of the site that are made when it is built (a hook of MkDocs; see mkdocs.yml).

The first page, the changelog and the page for contributors are files of the repository's root; flags are what ``--help``
prints, and the reference is that of docstrings. A public name without one is a warning, which ends the build.
"""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger("mkdocs.hooks.site_pages")
ROOT_PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
# What users call from Python, or write something of their own against.
REFERENCE = {
    "Multipliers": (
        "spaces.multipliers.multiplier",
        "spaces.multipliers.catalogue",
        "spaces.multipliers.files.tables",
        "spaces.multipliers.products",
    ),
    "Arithmetic": ("spaces.arithmetic.layers", "spaces.arithmetic.emulate", "spaces.arithmetic.arithmetics"),
    "Spaces and costs": ("spaces.space", "spaces.shape", "spaces.registry", "spaces.costs.model", "spaces.costs.trace"),
    "Methods": ("methods.method", "methods.archive", "methods.supernet", "methods.fronts"),
    "Evaluation": (
        "evaluation.interface",
        "evaluation.result",
        "evaluation.benchmark.table",
        "evaluation.runs.record",
        "evaluation.training.tasks.task",
        "evaluation.searching.evaluators",
        "evaluation.searching.executors.executor",
    ),
    "Reports": ("reports.load", "reports.rows"),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of this folder."""
    pages = {page: _from_root(ROOT / source) for page, source in ROOT_PAGES.items()}
    for name, content in (pages | {"commands.md": _commands(), "reference.md": _reference()}).items():
        files.append(File.generated(config, name, content=content))
    return files


def _from_root(path: Path) -> str:
    """Links into this folder lead on; files that are none of the site's are named only."""
    text = re.sub(r'(\]\(|src=")docs/', r"\1", path.read_text(encoding="utf-8"))
    for name, source in {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}.items():
        text = text.replace(f"]({name}", f"]({source}")
    return re.sub(r"\[([^\]]*)\]\((?!https?://|#)(?!images/)([^)\s]*)\)", _kept, text)


def _kept(link: re.Match[str]) -> str:
    target = link[2].partition("#")[0]
    pages = (
        {path.name for path in Path(__file__).parent.glob("*.md")} | ROOT_PAGES.keys() | {"commands.md", "reference.md"}
    )
    return link[0] if target in pages else f"{link[1]} (`{target}`)"


# -- flags -------------------------------------------------------------------------------------------------------------


def _commands() -> str:
    """What every command line says of itself."""
    sys.path.insert(0, str(ROOT))
    from spaces.cli.programs import MODULES

    parts = [
        "# Commands and flags",
        "What each command prints for `--help`; `approxnas COMMAND` and `python -m MODULE` are the same.",
    ]
    for command, module in MODULES.items():
        parts += [f"## `approxnas {command}`", f"Module `{module.removesuffix('.__main__')}`."]
        parts += [f"```text\n{_help(['-c', _CALL, command])}\n```"]
    return "\n\n".join(parts)


_CALL = "import sys; sys.argv[0] = 'approxnas'; import approxnas; approxnas.main([*sys.argv[1:], '--help'])"


def _help(words: list[str]) -> str:
    environment = os.environ | {"COLUMNS": "78", "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    if done.returncode:
        log.warning("%s ended with %d: %s", words[-1], done.returncode, done.stderr.strip()[-300:])
    return done.stdout.strip()


# -- docstrings --------------------------------------------------------------------------------------------------------


def _reference() -> str:
    parts = ["# Python", "The parts that are meant to be called, or built upon, from Python."]
    loader = griffe.GriffeLoader(search_paths=[str(ROOT)])
    for title, modules in REFERENCE.items():
        parts.append(f"## {title}")
        for module in modules:
            for name in _undocumented(loader.load(module)):
                log.warning("%s has no docstring", name)
            parts.append(f"::: {module}\n    options:\n      heading_level: 3")
    return "\n\n".join(parts)


def _undocumented(part: Any) -> Iterator[str]:
    """Public modules, classes and functions, and those within them, that say nothing of themselves.

    What overrides something of a base has that one's docstring, and fields of dataclasses speak by name and type.
    """
    if not part.has_docstring:
        yield part.path
    for name, member in part.members.items():
        if name.startswith("_") or member.is_alias or not (member.is_class or member.is_function):
            continue
        if not (part.is_class and part.bases):
            yield from _undocumented(member)

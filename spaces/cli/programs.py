"""The suite's command lines: what they are called, by what they were started, and the suite's version."""

import importlib.metadata
import shutil
import sys
import textwrap
import tomllib
from pathlib import Path

from spaces.plugins import first_line

SCRIPT, DISTRIBUTION = "approxnas", "approxnas-bench"
MODULES = {
    "run": "evaluation.run",
    "train": "evaluation.train",
    "compare": "evaluation.compare",
    "campaign": "evaluation.campaign",
    "table": "evaluation.table",
    "report": "reports.build",
    "paper": "reports.paper.__main__",
    "multipliers": "spaces.multipliers.__main__",
    "export": "evaluation.export.__main__",
    "check": "evaluation.check_device",
}


def program(command: str) -> str:
    """How to call a command line: as a part of ``approxnas`` where that was called, else by its module."""
    if Path(sys.argv[0] if sys.argv else "").stem == SCRIPT:
        return f"{SCRIPT} {command}"
    return f"python -m {MODULES[command].removesuffix('.__main__')}"


def overview() -> str:
    """The help of ``approxnas``."""
    lines = {name: first_line(module).removeprefix("The command line: ") for name, module in MODULES.items()}
    usage = [
        f"usage: {SCRIPT} COMMAND [flags]",
        "",
        "Search networks on approximate 8-bit multipliers, and compare searches.",
    ]
    flags = {
        "COMMAND --help": "the flags of a command, and what they can be",
        "--version": "the version of the suite",
        "--tyro-print-completion bash": "a script that completes commands and flags; or zsh, or fish",
    }
    return "\n".join([*usage, "", listed(lines), "", listed(flags)])


def listed(lines: dict[str, str]) -> str:
    """Names, each with its line beside it, as wide as the terminal."""
    indent = max(map(len, lines)) + 4
    width = max(40, shutil.get_terminal_size().columns)
    wrap = textwrap.TextWrapper(width, subsequent_indent=" " * indent, break_on_hyphens=False)
    return "\n".join(wrap.fill(f"  {name:{indent - 2}}{line}") for name, line in lines.items())


def version() -> str:
    """The suite's: of the source that it is called from, or else of what was installed."""
    source = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if source.exists():
        return tomllib.loads(source.read_text(encoding="utf-8"))["project"]["version"]
    return importlib.metadata.version(DISTRIBUTION)

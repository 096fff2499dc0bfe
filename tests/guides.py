"""Follows a guide as a reader would: saves its files, runs its commands, compares what they print with what it shows.

Of a guide's fenced blocks,

* ``python`` and ``toml`` are files: the first line is a comment with the file's name;
* ``csv`` is a file whose name is the last code in the line above the block;
* ``sh`` is run line by line in the folder where the files are, or, below ``<!-- in the clone -->``, in this repository;
* ``text`` must be in what the ``sh`` block above it prints, each line somewhere, whatever the breaks and spaces; "…" is
  anything. If it begins with ``error:``, the last command must end with 2, else all with 0.

Commands of this suite run in this process, so that each need not import torch anew; all others are started. Of a run of
pytest, the tests are only collected: they are to be run where their caches are.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {  # module on a command line → module with its ``main`` and ``parse``
    **{name: name for name in ("evaluation.run", "evaluation.train", "reports.build")},
    **{name: f"{name}.__main__" for name in ("evaluation.export", "reports.paper", "spaces.multipliers")},
}
IN_THE_CLONE = "<!-- in the clone -->"
_FENCE = re.compile(r"([^\n]*)\n+```(\w+)\n(.*?)```\n", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block, its language, and the line of text above it."""

    language: str
    text: str
    above: str

    @property
    def file(self) -> str | None:
        """The name under which a reader saves it."""
        if self.language == "csv":
            return re.findall(r"`([^`]+)`", self.above)[-1]
        named = re.match(r"# (\S+\.\w+)\n", self.text)
        return named[1] if named and self.language in ("python", "toml") else None

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of an ``sh`` block."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a Markdown file, in order."""
    return [Block(language, text, above) for above, language, text in _FENCE.findall(path.read_text(encoding="utf-8"))]


@dataclass
class Reader:
    """Somebody who follows guides in a folder of their own."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    shown: list[str] = field(default_factory=list)  # what each ``sh`` block printed
    collected: int = 0  # tests that runs of pytest would have run

    def __post_init__(self) -> None:
        self.monkeypatch.chdir(self.folder)
        self.monkeypatch.syspath_prepend(str(self.folder))
        self.monkeypatch.setenv("PYTHONPATH", str(ROOT))
        self.monkeypatch.setenv("COLUMNS", "120")

    def follow(self, guide: Path) -> None:
        found = blocks(guide)
        for block, after in zip(found, [*found[1:], None]):
            if block.file:
                Path(block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "sh":
                expected = after.text if after and after.language == "text" else ""
                self._run(block, expected)
            else:  # a Python block without a name would be code that nobody has run
                assert block.language in ("text", "diff", "sh"), block.text

    def _run(self, block: Block, expected: str) -> None:
        printed, codes = [], []
        for words in block.commands:
            code, output = self.run(words, ROOT if block.above == IN_THE_CLONE else self.folder)
            codes.append(code)
            printed.append(output)
        self.shown.append("\n".join(printed))
        wanted = [0] * (len(codes) - 1) + [2 if expected.startswith("error:") else 0]
        assert codes == wanted, f"{block.text}\n{self.shown[-1]}"
        for line in expected.splitlines():
            pattern = ".*?".join(re.escape(part) for part in plain(line).split("…"))
            assert re.search(pattern, plain(self.shown[-1])), f"{line!r} is not in what this prints:\n{self.shown[-1]}"

    def run(self, words: list[str], folder: Path) -> tuple[int, str]:
        """The exit code and everything that the command printed."""
        if words[0] == "pip":
            return self._install(words)
        if words[:2] == ["python", "-m"] and words[2] in OWN:
            text = io.StringIO()
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                code = import_module(OWN[words[2]]).main(words[3:])
            return code, text.getvalue()
        if words[:3] == ["python", "-m", "pytest"]:
            return self._collect(words)
        if words[0] == "python":
            words = [sys.executable, *words[1:]]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        return done.returncode, done.stdout + done.stderr

    def _collect(self, words: list[str]) -> tuple[int, str]:
        """As the command would, but for running what it finds."""
        line = [sys.executable, *words[1:], "--collect-only", "-p", "no:cacheprovider"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        found = re.search(r"(\d+)/\d+ tests collected", done.stdout)
        assert found, done.stdout + done.stderr
        self.collected += int(found[1])
        return done.returncode, f"{found[1]} passed"

    def _install(self, words: list[str]) -> tuple[int, str]:
        """As ``pip install -e .``, but into a folder of its own, and without a network."""
        assert words == ["pip", "install", "-e", "."]
        if find_spec("setuptools") is None:
            pytest.skip("pip cannot build a package without setuptools")
        site = str(self.folder / "site")
        flags = ["--no-build-isolation", "--no-index", "--no-deps", "--quiet", "--target", site]
        line = [sys.executable, "-m", "pip", "install", *flags, "."]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
        self.monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), site]))
        self.monkeypatch.syspath_prepend(site)
        return done.returncode, done.stdout + done.stderr


def plain(text: str) -> str:
    """Without the spaces, breaks and rules of tables."""
    return " ".join(re.sub(r"[│─]", " ", text).split())


def commands(path: Path) -> Iterator[list[str]]:
    """The words of all command lines in a Markdown file: of its ``sh`` blocks, and ``python -m …`` in running text."""
    for block in blocks(path):
        if block.language == "sh":
            yield from block.commands
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in re.findall(r"`(python -m [^`]+)`", prose):
        yield shlex.split(line)

"""Genotypes as the code of DARTS prints them, ``Genotype(normal=[('sep_conv_3x3', 0), …], normal_concat=range(2, 6), …)``.

Such text is Python. It is parsed, and its literals are read; nothing in it is ever carried out.
"""

import ast
from typing import Any

from spaces.errors import InputError
from spaces.files.reading import parsing

CALL = "Genotype"
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")  # in the order of the namedtuple
LONGEST = 100_000  # characters; a genotypes.py of the literature has some thousands


def is_genotype(text: str) -> bool:
    """Whether a text, or a module such as genotypes.py, holds such a call."""
    return f"{CALL}(" in text.replace(" ", "")


def parse(text: str) -> dict[str, Any]:
    """The fields of the one genotype in ``text``, tuples as lists, ranges as lists of their numbers.

    Raises InputError for text that is no Python, for several genotypes, and for anything but literals and ``range``.
    """
    if len(text) > LONGEST:
        raise InputError(f"a text of {len(text):,} characters is too long for a genotype")
    with parsing("the genotype", "is not as DARTS prints it"):
        calls = {_name(node): call for node in ast.parse(text.strip()).body if (call := _call(node))}
    if len(calls) != 1:
        names = ", ".join(sorted(calls)) or f"none of the form {CALL}(normal=…, reduce=…)"
        raise InputError(f"holds {len(calls)} genotypes ({names}); leave one")
    (call,) = calls.values()
    found = dict(zip(FIELDS, call.args)) | {keyword.arg or "**": keyword.value for keyword in call.keywords}
    if not {"normal", "reduce"} <= found.keys() or len(call.args) > len(FIELDS):
        raise InputError("a genotype has normal=… and reduce=…")
    return {name: _literal(node) for name, node in found.items()}


def _call(node: ast.stmt) -> ast.Call | None:
    """What a statement assigns or is, if that is a genotype."""
    value = node.value if isinstance(node, (ast.Assign, ast.Expr)) else None
    return value if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == CALL else None


def _name(node: ast.stmt) -> str:
    """What the genotype is called; a number for one without a name."""
    if isinstance(node, ast.Assign):
        return ", ".join(ast.unparse(target) for target in node.targets)
    return f"that of line {node.lineno}"


def _literal(node: ast.expr) -> Any:
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(element) for element in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int)):
        return node.value
    shown = ast.unparse(node)[:60]
    if isinstance(node, ast.Call) and shown.startswith("range("):
        return shown
    raise InputError(f"the genotype holds {shown}; it may hold names of operations, numbers and range(…)")

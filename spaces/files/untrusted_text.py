"""Text from elsewhere, made safe for where it goes: a terminal, Markdown, LaTeX or a spreadsheet.

For HTML there is nothing here: the page's template escapes everything by itself.
"""

import re
import unicodedata

LONGEST = 2_000  # characters of one text on a terminal
# What LaTeX reads as commands, and what its fonts lack without further packages.
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "{''}", "`": "{`}", "-": "{-}", "*": "{*}", "[": "{[}", "]": "{]}",
    "±": r"$\pm$", "×": r"$\times$", "÷": r"$\div$", "−": r"$-$", "–": r"\textendash{}", "—": r"\textemdash{}",
    "→": r"$\rightarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "µ": r"$\mu$", "²": r"$^2$", "·": r"$\cdot$", "…": r"\ldots{}",
    "₊": r"$_+$", "₋": r"$_-$",
}  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t")  # a cell of text that begins so is a formula to a spreadsheet
# Beside control characters: those that turn the direction of what follows, which can make a name read as another.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def without_controls(text: str) -> str:
    """The text with a mark in place of every character that would act on a terminal; line ends stay."""
    return "".join(c if c == "\n" or _is_printed(c) else "\N{REPLACEMENT CHARACTER}" for c in text)


def _is_printed(character: str) -> bool:
    return character.isprintable() or (
        unicodedata.category(character) not in ("Cc", "Cs", "Co", "Cn") and character not in _TURNING
    )


def plain(text: str) -> str:
    """One line without control characters."""
    return without_controls(" ".join(text.split()))


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and a word on what was cut."""
    return text if len(text) <= longest else f"{text[:longest]} … (cut here, of {len(text):,} characters)"


def terminal_line(text: str) -> str:
    """One line for a terminal or a log: short, and without control characters."""
    return plain(shortened(text))


def escape_markdown(text: str) -> str:
    """One line of Markdown in which nothing acts as markup, nor becomes a link."""
    escaped = re.sub(r"([\\`*|<>\[\]&~$])", r"\\\1", plain(text))
    escaped = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)  # inside a word, as in mul8s_1KV8, it is harmless
    return re.sub(r"(?i)(?<=www)(?=\.)|(?=://)", r"\\", escaped)  # or GitHub makes links of them


def escape_latex(text: str) -> str:
    """One line of LaTeX text; a character that plain pdfLaTeX cannot set appears by its number, as in [U+4E2D]."""
    return "".join(LATEX.get(character) or _set(character) for character in plain(text))


def _set(character: str) -> str:
    accented = unicodedata.normalize("NFD", character)[0].isascii() and ord(character) < 0x100
    return character if character.isascii() or accented else f"{{[}}U+{ord(character):04X}{{]}}"


def csv_cell(value: object) -> object:
    """A value for a CSV file: text in one line that no spreadsheet takes for a formula; anything else as it is."""
    if not isinstance(value, str):
        return value
    line = plain(value)
    return f"'{line}" if line.startswith(FORMULA) else line

"""What commands print: JSON for scripts, tables for people. Whatever came out of a job is escaped first."""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence

import msgspec

from windlass.core.words import printable

_NOT_PLAIN = re.compile(r"[^\x20-\x7e\n]")


class Output:
    """Where a command answers: exactly one JSON document, or words."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.terminal = sys.stdout.isatty()

    def document(self, document: object) -> None:
        """Print one JSON document, in ASCII: nothing in it can drive a terminal."""
        text = msgspec.json.encode(document, enc_hook=str)
        if self.terminal:
            text = msgspec.json.format(text, indent=2)
        print(_NOT_PLAIN.sub(_escape, text.decode()))

    def say(self, text: str = "") -> None:
        """Print one line of words, unless a script is reading."""
        if not self.as_json:
            print(printable(text), flush=True)

    def notice(self, text: str) -> None:
        """Print one line of words for a person, beside the answer, which may be going into a pipe."""
        if not self.as_json and sys.stderr is not None:
            print(f"windlass: {printable(text)}", file=sys.stderr, flush=True)

    def block(self, text: str) -> None:
        """Print lines, set in: what a job wrote cannot pass for a line of ours."""
        for line in text.rstrip("\n").split("\n"):
            self.say(f"    {line.expandtabs(4)}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
        """Print columns: as wide as the terminal, in full where there is none. `empty` is said where no row is."""
        if self.as_json:
            return
        if not rows:
            print(printable(empty))
            return
        cells = [[printable(_cell(value)) for value in row] for row in rows]
        widths = [max(_width(row[n]) for row in [list(head), *cells]) for n in range(len(head))]
        most = shutil.get_terminal_size().columns if self.terminal else 0
        for row in [[name.upper() for name in head], *cells]:
            text = "  ".join(cell + " " * (widths[n] - _width(cell)) for n, cell in enumerate(row)).rstrip()
            print(_cut(text, most) if most else text)

    def facts(self, pairs: Sequence[tuple[str, object]]) -> None:
        """Print names and values below each other; a value of several lines is set in under its name."""
        if self.as_json:
            return
        wide = max((len(name) for name, value in pairs if value is not None), default=0)
        for name, value in pairs:
            if value is None:
                continue
            first, _, rest = str(value).rstrip("\n").partition("\n")
            print(f"{name:{wide}}  {printable(first)}")
            if rest:
                self.block(rest)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) > 0 for each in text)


def _cut(text: str, most: int) -> str:
    if _width(text) <= most:
        return text
    while _width(text) > most - 1:
        text = text[:-1]
    return text + "…"


def _escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))

#!/usr/bin/env python3
"""Writes the parts of docs/ that follow from the code, between `<!-- generated: NAME -->` and `<!-- end -->`.

    python scripts/docs.py           brings every page up to date
    python scripts/docs.py --check   says which are not, and exits with 1
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import windlass
from windlass.cli import windlass as command_line
from windlass.core import errors
from windlass.core.job import State
from windlass.core.machine import MOVES

DOCS = Path(__file__).parent.parent / "docs"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def chart() -> str:
    """The states and every legal move, from the table that the machine is made by."""
    moves = [
        f"    {source or '[*]'} --> {target}: {name}"
        for name, (sources, target) in MOVES.items()
        for source in sources
    ]
    ends = [f"    {state} --> [*]" for state in State if state.terminal]
    return "\n".join(["```mermaid", "stateDiagram-v2", *moves, *ends, "```"])


def error_table() -> str:
    """Every exception below its base, with its first words; those to be imported from `windlass` say so."""
    lines = ["| exception | kind of | |", "|---|---|---|"]
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.WindlassError):
            base = ", ".join(f"`{each.__name__}`" for each in kind.__bases__)
            public = "" if name in windlass.__all__ else " (`windlass.core.errors`)"
            lines.append(f"| `{name}`{public} | {base} | {' '.join((kind.__doc__ or '').split())} |")
    return "\n".join(lines)


def commands() -> str:
    """The help of every command."""
    return "\n\n".join(helps(command_line, "windlass"))


def helps(command: click.Command, path: str, parent: click.Context | None = None) -> Iterator[str]:
    # As the command itself would be called, in a terminal of a fixed width.
    asked: dict[str, Any] = {"info_name": path.rpartition(" ")[2], "terminal_width": 78, **command.context_settings}
    context = click.Context(command, parent, **asked)
    if parent is not None:
        yield f"{'##' if path.count(' ') == 1 else '###'} {path}\n\n```\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from helps(found, f"{path} {name}", context)


PARTS: dict[str, Callable[[], str]] = {"chart": chart, "errors": error_table, "commands": commands}


def generated(text: str) -> str:
    """A page with its generated parts as they should be."""
    return PART.sub(lambda found: found[1] + PARTS[found[2]]() + "\n" + found[3], text)


def outdated() -> dict[Path, str]:
    """The pages that are not up to date, with what they should be."""
    pages = {page: generated(page.read_text()) for page in sorted(DOCS.rglob("*.md"))}
    return {page: text for page, text in pages.items() if text != page.read_text()}


def main() -> int:
    """See the head of this file."""
    found = outdated()
    for page, text in found.items():
        print(page.relative_to(DOCS.parent))
        if "--check" not in sys.argv:
            page.write_text(text)
    return int(bool(found) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())

"""`windlass init`: a first application."""

from __future__ import annotations

import os
import shlex

import click

from windlass.cli.common import answers
from windlass.cli.exits import Refused
from windlass.cli.output import Output
from windlass.cli.template import TASKS, TEST


@click.command()
@click.argument("directory", default=".")
@answers
def init(directory: str, as_json: bool) -> None:
    """Write tasks.py, a few tasks to begin with, and test_tasks.py. Nothing that is there is overwritten."""
    files = {os.path.join(directory, "tasks.py"): TASKS, os.path.join(directory, "test_tasks.py"): TEST}
    for path in files:
        if os.path.lexists(path):
            raise Refused(f"{path} is there already; nothing was written")
    try:
        os.makedirs(directory, exist_ok=True)
        for path, text in files.items():
            with open(path, "x", encoding="utf-8") as file:  # not even what came about a moment ago
                file.write(text)
    except OSError as error:
        raise Refused(f"{error.filename or directory} cannot be written: {error.strerror}") from None
    out = Output(as_json=as_json)
    if as_json:
        out.document({"written": list(files)})
    out.say(f"wrote {' and '.join(files)}")
    there = "" if os.path.samefile(directory, ".") else f"cd {shlex.quote(directory)} && "
    out.say(f"next: {there}windlass dev tasks.py")

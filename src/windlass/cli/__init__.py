"""The command line. One file per noun; only the one that was asked for is imported."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from windlass.cli import exits
from windlass.core.words import near, redacted

COMMANDS = {
    # verb or noun: (where it is, what it does). The words stand here so that --help imports none of them.
    "demo": ("cli.demo:demo", "See it work: two workers and some jobs in a temporary directory."),
    "init": ("cli.init:init", "Write tasks.py, a few tasks to begin with, and their test."),
    "dev": ("cli.dev:dev", "Worker, API and autoreload in one terminal, for writing tasks."),
    "worker": ("cli.worker:worker", "Run an application's jobs: a supervisor and its workers."),
    "serve": ("cli.serve:serve", "Serve the HTTP API of an application."),
    "enqueue": ("cli.enqueue:enqueue", "Enqueue a job by its task's name."),
    "jobs": ("cli.jobs:jobs", "Look at jobs; retry, cancel, delete them; ask why one does not run."),
    "dead": ("cli.dead:dead", "Dead letters: read, edit, redrive, purge."),
    "queues": ("cli.queues:queues", "List, pause and resume queues."),
    "schedules": ("cli.schedules:schedules", "List, add, pause and run schedules; backfill the past."),
    "workers": ("cli.workers:workers", "List the workers that are alive."),
    "stats": ("cli.stats:stats", "Count jobs by state and by queue."),
    "deploy-check": ("cli.deploy_check:deploy_check", "Say which jobs the code about to be released cannot run."),
    "store": ("cli.store:store", "Migrate, examine, prune and copy the store."),
    "ledger": ("cli.ledger:ledger", "Check what the processes of a test run wrote down."),
    "bench": ("cli.bench:bench", "Measure this machine in half a minute."),
}


class _Unread(Exception):
    """Whoever read our output has closed it."""


class Commands(click.Group):
    """The commands of COMMANDS, imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The words, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported; None for a word that is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(f"windlass.{module}"), name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's own, which would not know what else might have been meant."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}.{near(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's own, which would answer a closed pipe with an exit code of its own."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _Unread from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])


@click.group(cls=Commands, epilog=exits.HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="windlass", message="windlass %(version)s")
def windlass() -> None:
    """Background jobs for Python, on the database you already have.

    The store is --url, else WINDLASS_URL, else [tool.windlass] of pyproject.toml, else sqlite:///windlass.db.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command; answers its exit code (see `exits`). A user's own mistake is one line, never a traceback."""
    as_json, debug = "--json" in arguments, "--debug" in arguments
    if sys.stdout is None:  # closed by whoever started us: an answer that nobody can get is better not worked for
        closed = "standard output is closed, so there is nowhere to answer; >/dev/null throws an answer away"
        return exits.tell(exits.Known(exits.FAILED, "Refused", closed), as_json=as_json)
    try:
        for word in arguments:
            if not _is_text(word):
                raise click.UsageError(f"{redacted(word)!a} is no text")
        code = windlass.main(list(arguments), prog_name="windlass", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, _Unread):
        # Whoever read our output has seen enough; Python must not complain about it once more at its exit.
        _forget_output()
        return exits.UNREAD
    except Exception as error:
        if _is_of_output(error):
            _forget_output()
            said = f"standard output cannot be written: {getattr(error, 'strerror', None) or error}"
            return exits.tell(exits.Known(exits.FAILED, "Refused", said), as_json=as_json)
        if debug:
            traceback.print_exc()
        known = exits.explain(error)
        if known is None:
            raise
        return exits.tell(known, as_json=as_json)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return code if isinstance(code, int) else exits.OK


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return True


def _is_of_output(error: Exception) -> bool:
    """Whether it was raised by a print, or a flush, of ours or click's: of a file that has no name."""
    if not isinstance(error, OSError) or error.filename is not None or error.__traceback__ is None:
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")) in {__name__, "windlass.cli.output", "click.utils"}


def _forget_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _have_standard_descriptors() -> None:
    """What was closed before we began (`2>&-`) leads nowhere. Left closed, its number would go to the next file that is
    opened, and whatever writes to standard error, here or in a worker, would write into that."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            fd = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(fd, True)
        # A command whose answer nobody can read says so; whatever else is written may get lost.
        if getattr(sys, name) is None and name != "stdout":
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - for good


def main() -> None:
    """The console script `windlass`."""
    _have_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without a letter gets its escape, not our traceback
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))

"""What is done to many jobs at once: chosen by id or by filter, tried with --dry-run, and accounted for one by one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import msgspec

from windlass.cli.common import Function, Place
from windlass.cli.exits import FAILED, NOT_FOUND, OK, Known, Refused, tell
from windlass.core.words import count, span

if TYPE_CHECKING:
    from windlass import Filter
    from windlass.ports.store import Selected

BATCH = 1_000
"""Jobs per transaction, so that no worker waits long behind an operator."""
COUNTED = 100 * BATCH
"""Where a dry run stops counting."""


class Act(msgspec.Struct, frozen=True):
    """One thing that can be done to jobs."""

    method: str
    """Of Client."""
    verb: str
    done: str
    reluctant: str
    """Said of a job that it left alone."""
    dangerous: bool = False


RETRY = Act("revive", "retry", "queued again", "is queued or running already, or another job has its key")
CANCEL = Act("cancel", "cancel", "cancelled", "has ended")
DELETE = Act("delete", "delete", "deleted", "is running", dangerous=True)
REDRIVE = Act("revive", "redrive", "queued again", "is no dead letter, or another job has its key")
PURGE = Act("delete", "purge", "deleted", "is no dead letter", dangerous=True)


def options(function: Function) -> Function:
    """Give a command IDS, --all and --dry-run."""
    for option in (
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        click.option("--all", "everything", is_flag=True, help="All of them, where no filter is given."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    ):
        function = option(function)
    return function


def run(
    place: Place,
    act: Act,
    wanted: Filter | None,
    ids: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    *,
    confirmed: bool = True,
    default: Filter | None = None,
    pace: int = 0,
    children: bool = False,
) -> int:
    """Do `act` to the jobs named by `ids`, or found by `wanted`, or by `default` (all there are) with --all; if it is a
    revive, `pace` microseconds apart; if it is a cancel, with their `children`."""
    from windlass import Filter

    if everything:
        wanted = wanted or default or Filter()
    if bool(ids) == (wanted is not None):
        raise click.UsageError(f"name what to {act.verb}: by ids, or else by a filter (or --all)")
    with place.app() as app:
        call = getattr(app.client, act.method)
        if pace:
            call = Paced(call, pace)
        if children:
            call = partial(call, children=True)
        if act.dangerous and not dry_run and not confirmed:
            _ask(place, act, call, ids, wanted)
        # A letter is dead or it is none: what was named by mistake is left alone.
        some = wanted if wanted is not None else default
        found = call(*ids, filter=some, dry_run=dry_run) if ids else through(call, some, dry_run=dry_run)
    # Of a family, whoever is its eldest has mostly ended.
    named = bool(ids) and not (children and (found.changed or found.asked))
    return report(place, act, found, dry_run=dry_run, named=named, pace=pace)


class Paced:
    """A revive in batches, in which every job has a due time of its own: the next batch goes on where one ended."""

    def __init__(self, call: Callable[..., Selected], pace: int) -> None:
        self._call = call
        self._pace = pace / 1e6
        self._done = 0

    def __call__(self, *ids: str, dry_run: bool = False, **how: Any) -> Selected:
        """See Client.revive."""
        found = self._call(*ids, dry_run=dry_run, delay=self._done * self._pace, every=self._pace, **how)
        self._done += 0 if dry_run else len(found.changed)
        return found


def through(
    call: Callable[..., Selected], wanted: Filter | None, *, dry_run: bool, after: str | None = None
) -> Selected:
    """An action in batches, once from the newest to the oldest: a filter may match millions, and a letter that died
    again while this went on would match again."""
    changed: dict[str, None] = {}
    asked: dict[str, None] = {}
    while True:
        some = call(filter=wanted, limit=COUNTED if dry_run else BATCH, dry_run=dry_run, after=after)
        changed.update(dict.fromkeys(some.changed))
        asked.update(dict.fromkeys(some.asked))
        after = some.next
        if dry_run or after is None:
            return msgspec.structs.replace(some, changed=tuple(changed), asked=tuple(asked), untouched=())


def may_ask(place: Place, act: Act) -> None:
    """Raises Refused where there is nobody to ask."""
    if place.as_json or not sys.stdin.isatty():
        raise Refused(f"{act.verb} cannot be undone; say --yes (and see first what it would do with --dry-run)", 2)


def _ask(place: Place, act: Act, call: Callable[..., Selected], ids: tuple[str, ...], wanted: Any) -> None:
    may_ask(place, act)
    confirm(act, len(ids) or len(through(call, wanted, dry_run=True).changed))


def confirm(act: Act, number: int) -> None:
    """Ask a person."""
    click.confirm(f"{act.verb.capitalize()} {count(number, 'job')}? This cannot be undone", abort=True, err=True)


def report(place: Place, act: Act, found: Selected, *, dry_run: bool, named: bool, pace: int = 0) -> int:
    """Say how it went, and answer the exit code."""
    if place.as_json:
        said = {name: ids for name, ids in msgspec.to_builtins(found).items() if name != "next"}
        place.document({**said, "dry_run": dry_run})
    else:
        would = "would be " if dry_run else ""
        at_least = "at least " if dry_run and len(found.changed) >= COUNTED else ""
        apart = f", {span(pace)} apart, the last in {span(pace * (len(found.changed) - 1))}" if pace else ""
        if found.changed or not found.asked:
            place.say(f"{at_least}{count(len(found.changed), 'job')} {would}{act.done}{apart if found.changed else ''}")
        if found.asked:
            place.say(f"{count(len(found.asked), 'running job')} {would}asked to stop")
    problems = [f"no job {each!a}" for each in found.missing]
    problems += [f"job {each!a} {act.reluctant}; left as it was" for each in found.untouched if named]
    code = NOT_FOUND if found.missing else FAILED if problems else OK
    kind = "JobNotFound" if found.missing else "Refused"
    for each in ["; ".join(problems)] if place.as_json and problems else problems:
        tell(Known(code, kind, each), as_json=place.as_json)
    return code

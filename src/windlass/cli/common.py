"""What commands share: their options, the store they work on, and how jobs are named by filters."""

from __future__ import annotations

import datetime as dt
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.exits import UNAVAILABLE, Refused
from windlass.cli.output import Output
from windlass.config import current_directory
from windlass.core.duration import micros
from windlass.core.errors import ConfigError
from windlass.core.job import State

if TYPE_CHECKING:
    from windlass import Filter, Windlass

Function = Callable[..., Any]


class Place(Output):
    """Where a command works and how it answers."""

    def __init__(self, url: str | None, target: str | None, *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        self.url = url
        self.target = target
        self._made: str | None = None

    @contextmanager
    def app(self, *, fresh: bool = False, private: bool = False, what: str = "--url") -> Iterator[Windlass]:
        """The application: that of --app, or one without tasks on the store that the settings name.

        A store that is not there is only made where that is what the command is for (`fresh`): a typing error in a
        path must not answer "no jobs". One that only this process can see is refused but where it is looked at as such
        (`private`): what a command does in it ends with the command. `what` is where its URL was given.
        """
        from windlass import Windlass
        from windlass.loading import load
        from windlass.runtime.shared import must_be_shared

        try:
            app = load(self.target) if self.target is not None else Windlass(self.url)
        except ConfigError as error:
            raise ConfigError(str(error).replace("the arguments of Windlass()", what)) from error
        with app:
            if not private:
                must_be_shared(app.engine.bare())
            path, missing = _seen(app)
            if not fresh:
                _must_exist(app, path, what, missing=missing)
            self._made = path if missing else None
            yield app

    def tell_of_new_store(self) -> None:
        """Say so if this command made the store that it wrote to: in another directory there may be the one meant."""
        if self._made is not None:
            self.notice(f"there was no store at {self._made}, so a new one was made there")


def _seen(app: Windlass) -> tuple[str, bool]:
    """Where the store is, and whether nothing is there."""
    opened = app.engine.bare()
    path = getattr(opened, "path", opened.url)
    return path, path != opened.url and not os.path.exists(path)


def _must_exist(app: Windlass, path: str, what: str, *, missing: bool) -> None:
    opened = app.engine.bare()
    if missing:
        problem = f"there is no store at {path}"
    elif opened.shell.run(opened.store.version()) == 0:
        problem = f"{path} is no Windlass store"  # somebody's own database, which must not get our tables unasked
    else:
        return
    named = "--url or WINDLASS_URL" if what == "--url" else what
    raise Refused(f"{problem}; name yours with {named}, or make one with `windlass store migrate`", UNAVAILABLE)


def places(function: Function) -> Function:
    """Give a command --url, --app, --json and --debug, and a Place as its first argument."""

    @click.option("--url", metavar="URL", help="The store, for instance sqlite:///jobs.db.")
    @click.option("--app", "target", metavar="MODULE:APP", help="An application: its store, its tasks' types.")
    @answers
    @functools.wraps(function)
    def with_place(url: str | None, target: str | None, as_json: bool, **options: Any) -> Any:
        if url is not None and target is not None:
            raise click.UsageError("--url and --app both name a store; give one of them")
        return function(Place(url, target, as_json=as_json), **options)

    return with_place


def answers(function: Function) -> Function:
    """Give a command --json and --debug."""

    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")
    @click.option("--debug", is_flag=True, help="Show where an error came from.")
    @functools.wraps(function)
    def without_debug(**options: Any) -> Any:
        del options["debug"]  # `run` looks for it itself, also in a line that cannot be parsed
        current_directory()  # or what is wrong comes out as a file that is not there, or a module
        return function(**options)

    return without_debug


def filters(function: Function) -> Function:
    """Give a command the options that select jobs, as the argument `chosen`: a Filter, or None if none was given."""

    @click.option("--queue", metavar="NAME", help="Of this queue.")
    @click.option("--task", metavar="NAME", help="Of this task.")
    @click.option("--tag", metavar="TAG", help="With this tag.")
    @click.option("--reason", metavar="REASON", help="With this reason, as `show` and `why` name it.")
    @click.option("--schedule", metavar="NAME", help="Of this schedule.")
    @click.option("--parent", metavar="ID", help="Children of this job.")
    @click.option("--since", metavar="TIME", help='Created at or after: "2h" ago, or 2026-11-22T10:00:00Z.')
    @click.option("--until", metavar="TIME", help="Created before.")
    @functools.wraps(function)
    def with_filter(
        queue: str | None,
        task: str | None,
        tag: str | None,
        reason: str | None,
        schedule: str | None,
        parent: str | None,
        since: str | None,
        until: str | None,
        **options: Any,
    ) -> Any:
        from windlass.ports.store import Filter

        chosen = Filter(
            queue=queue,
            task=task,
            tag=tag,
            reason=reason,
            schedule=schedule,
            parent=parent,
            since=_instant(since, "--since"),
            until=_instant(until, "--until"),
        )
        return function(chosen=chosen, **options)

    return with_filter


def states(function: Function) -> Function:
    """Give a command --state, several times or with commas, as a tuple of State."""

    def read(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[State, ...]:
        words = [word.strip() for value in values for word in value.split(",") if word.strip()]
        try:
            return tuple(dict.fromkeys(State(word) for word in words))
        except ValueError:
            raise click.BadParameter(f"must be of {', '.join(State)}") from None

    return click.option(
        "--state", "states", multiple=True, metavar="STATE", callback=read, help="In this state; may be repeated."
    )(function)


def is_given(chosen: Filter, states: tuple[State, ...] = ()) -> bool:
    """Whether a filter says anything at all."""
    from windlass.ports.store import Filter

    return bool(states) or chosen != Filter()


def _instant(text: str | None, option: str) -> int | None:
    return None if text is None else round(moment(text, option).timestamp() * 1e6)


def moment(text: str, option: str, zone: dt.tzinfo | None = None) -> dt.datetime:
    """A time as people write it: "2h" (ago), or an ISO 8601 instant; where that names no zone in `zone`, or else by the
    person's own clock.

    Raises UsageError naming `option`.
    """
    try:
        return dt.datetime.now(dt.UTC) - dt.timedelta(microseconds=micros(text, option))
    except ValueError:
        pass
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f'{option}: {text!r} is no time; write "2h" (ago) or 2026-11-22T10:00:00Z') from None
    if found.tzinfo is not None:
        return found
    if zone is not None:
        return found.replace(tzinfo=zone)
    try:
        return found.astimezone()  # a person's own clock
    except (OverflowError, ValueError, OSError):  # the first and the last days that dates know have no zone
        return found.replace(tzinfo=dt.UTC)

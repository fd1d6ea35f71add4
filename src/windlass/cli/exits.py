"""Exit codes that scripts can rely on, and the one line that a mistake gets."""

from __future__ import annotations

import sys

import click
import msgspec

from windlass.core import errors
from windlass.core.words import near, printable

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
UNAVAILABLE = 4
INTERRUPTED = 130
UNREAD = 141
"""What a shell says of one that died by SIGPIPE."""

HELP = """Exit codes: 0 done; 1 it failed, changed nothing, or is unhealthy; 2 wrong usage, setting or input;
3 no such job, task or schedule; 4 the store is unavailable, full, damaged or without a schema, or the queue is
full; 130 interrupted; 141 whoever read the output has closed it. A filter that matches nothing is done (0), so that a
script may be repeated; a group of dead letters that there is not is 3.
With --json an error is one JSON object on standard error. --debug shows where it came from."""

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.UnknownTask, NOT_FOUND),
    (errors.JobNotFound, NOT_FOUND),
    (errors.ScheduleNotFound, NOT_FOUND),
    (errors.ConfigError, USAGE),
    (errors.RegistrationError, USAGE),
    (errors.InvalidValue, USAGE),
    (errors.CapabilityMissing, USAGE),
    (errors.StoreError, UNAVAILABLE),
    (errors.QueueFull, UNAVAILABLE),
    (errors.WindlassError, FAILED),
)


HELP_WANTED = "Help"


class Refused(Exception):
    """A command that did not do what was asked, with the exit code that says why."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


class Known(msgspec.Struct, frozen=True):
    """An error that is somebody's mistake or mishap, not ours."""

    code: int
    kind: str
    message: str
    hint: str = ""
    retry_after: float | None = None
    """Seconds after which it may go better, where that is known."""


def explain(error: Exception) -> Known | None:
    """What to say about `error`; None if it is a defect, which deserves its traceback."""
    if isinstance(error, click.exceptions.Exit):
        return Known(error.exit_code, "Exit", "")
    if isinstance(error, Refused):
        return Known(error.code, "Refused", str(error))
    if isinstance(error, click.Abort):
        return Known(INTERRUPTED, "Interrupted", "interrupted")
    if type(error).__name__ == "NoArgsIsHelpError":  # older versions of click print the help themselves
        return Known(USAGE, HELP_WANTED, str(error))
    if isinstance(error, click.UsageError):
        hint = f"see `{error.ctx.command_path} --help`" if error.ctx else ""
        return Known(USAGE, "UsageError", _wrong_usage(error), hint)
    if isinstance(error, click.ClickException):
        return Known(error.exit_code, type(error).__name__, error.format_message())
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Known(code, type(error).__name__, str(error), retry_after=getattr(error, "retry_after", None))
    return None


def _wrong_usage(error: click.UsageError) -> str:
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return error.format_message()
    # click suggests hidden options too, and some that are hardly alike.
    parameters = error.ctx.command.get_params(error.ctx)
    shown = [name for each in parameters if not getattr(each, "hidden", False) for name in each.opts]
    return f"No such option {error.option_name!r}.{near(error.option_name, shown)}"


def tell(known: Known, *, as_json: bool) -> int:
    """Print `known` on standard error and answer its code."""
    if not known.message or sys.stderr is None:  # print would turn to standard output
        return known.code
    if known.kind == HELP_WANTED:
        print(known.message, file=sys.stderr)  # lines of our own, not to be escaped
        return known.code
    if as_json:
        more = {} if known.retry_after is None else {"retry_after": known.retry_after}
        said = msgspec.json.encode(
            {"error": known.message, "kind": known.kind, "exit_code": known.code, **more}
        ).decode()
    else:
        said = f"windlass: {known.message}" + (f" ({known.hint})" if known.hint else "")
    print(printable(said), file=sys.stderr)
    return known.code

"""`windlass enqueue`: a job by the name of its task."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from windlass.cli.common import Place, places
from windlass.cli.exits import FAILED, OK, Known, tell
from windlass.core import document
from windlass.core.duplicates import refuse_duplicates
from windlass.core.duration import seconds
from windlass.core.errors import InvalidJob, JobError, JobNotFound, ResultTimeout, UnknownTask
from windlass.core.why import explain
from windlass.core.words import near, span

if TYPE_CHECKING:
    from windlass import Job, Windlass

_KINDS: dict[type, str] = {str: "a text", bool: "true or false", type(None): "null"}
SHED = "shed"
FORMS = """write a list of arguments '[7, "a"]', or an object of named ones '{"user_id": 7}'"""


@click.command()
@click.argument("task")
@click.argument("args", default="[]")
@click.option("--queue", metavar="NAME", help="Instead of the task's own.")
@click.option("--priority", type=int, metavar="0..100", help="Larger first; 50 unless the task says otherwise.")
@click.option("--delay", metavar="TIME", help='Due after this time: "30s", "10m", "2h".')
@click.option("--at", metavar="INSTANT", help="Due at this instant: 2026-11-22T10:00:00Z.")
@click.option("--expires", metavar="TIME", help="If it has not started by then, it never will.")
@click.option("--timeout", metavar="TIME", help="Limit of one attempt.")
@click.option("--max-attempts", type=int, metavar="N", help="How often it is tried.")
@click.option("--key", "idempotency_key", metavar="KEY", help="Idempotency key: the same job, however often asked for.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="May be repeated.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--wait", metavar="TIME", help="Wait this long for the result and print it.")
@places
def enqueue(place: Place, task: str, args: str, wait: str | None, **options: Any) -> int:
    """Enqueue a job of TASK. ARGS is JSON: a list of arguments, or an object of named ones; - reads standard input.

    With --app the task must be one of the application's, and ARGS fit its types. Without, any name goes: the code of
    the task may be elsewhere.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if "at" in given:
        given["at"] = _instant(given["at"])
    if "headers" in given:
        given["headers"] = dict(header(each) for each in given["headers"])
    patience = None if wait is None else seconds(wait, "--wait")  # wrong ones, before anything is stored
    values = arguments(sys.stdin.read() if args == "-" else args, "ARGS")
    with place.app(fresh=True) as app:
        if place.target is not None and task not in app.tasks:
            known = ", ".join(sorted(app.tasks)) or "none at all"
            raise UnknownTask(f"{place.target} has no task {task!r}; it has {known}.{near(task, app.tasks)}")
        job = app.enqueue(task, values, **given)
        place.tell_of_new_store()
        if patience is None:
            place.say(job.id)
            if not job.created:
                place.notice("it was enqueued before, under the same key")
            elif _is_shed(job):
                place.notice("it was shed: its queue is full, so it is stored as cancelled and will not run")
            if place.as_json:
                place.document({"id": job.id, "created": job.created})
            return OK
        return _wait(place, app, job, patience)


def _is_shed(job: Job[Any]) -> bool:
    try:
        return job.refresh().reason == SHED
    except JobNotFound:  # it ran, and was deleted already
        return False


def arguments(text: str, where: str) -> Any:
    """The arguments in JSON text: a list, a dict, or a Call for [list, object]; raises InvalidJob naming `where`."""
    from windlass.declaration import Call

    try:
        value = msgspec.json.decode(text)
        refuse_duplicates(text, where)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        if _holds_half_a_character(text):
            raise InvalidJob(where, f"{_brief(text)} holds a lone surrogate, half of a character") from None
        raise InvalidJob(where, f"{_brief(text)} is not JSON ({error}); {FORMS}") from None
    if not isinstance(value, (list, dict)):
        raise InvalidJob(where, f"{_brief(text)} is {_KINDS.get(type(value), 'a number')}; {FORMS}")
    if where == "--payload" and isinstance(value, list) and _is_pair(value):
        return Call(tuple(value[0]), value[1])
    return value


def _holds_half_a_character(text: str) -> bool:
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        pass
    return False


def _is_pair(value: list[Any]) -> bool:
    """Whether this is a payload as it is stored and shown: [arguments, named ones]."""
    return len(value) == 2 and isinstance(value[0], list) and isinstance(value[1], dict)


def _wait(place: Place, app: Windlass, job: Job[Any], patience: float) -> int:
    """Print the result; what there is instead of one goes to standard error, and is in the document too."""
    failed, why = None, None
    try:
        job.result(timeout=patience)
    except ResultTimeout:
        why = explain(app.client.why(job.id)).sentence
        failed = Known(FAILED, "ResultTimeout", f"{job.id} has not ended within {span(patience * 1e6)}: {why}")
    except JobError as error:
        failed = Known(FAILED, type(error).__name__, str(error))
    record = job.refresh()
    if place.as_json:
        place.document(
            {
                "id": job.id,
                "created": job.created,
                "state": record.state.value,
                "reason": record.reason,
                "result": document.raw(record.result),
                "error": document.error(record.error),
                "why": why,
            }
        )
    elif record.result is not None:
        place.say(record.result)
    return OK if failed is None else tell(failed, as_json=place.as_json)


def _instant(text: str) -> Any:
    import datetime as dt

    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidJob("--at", f"{text!r} is no instant; write 2026-11-22T10:00:00Z") from None
    if moment.tzinfo is None:
        raise InvalidJob("--at", f"{text!r} has no time zone; write {moment.isoformat()}Z, or an offset such as +02:00")
    return moment


def header(text: str) -> tuple[str, str]:
    """A header written NAME=VALUE; raises InvalidJob."""
    name, mark, value = text.partition("=")
    if not mark or not name:
        raise InvalidJob("headers", f"{text!r} must be NAME=VALUE")
    return name, value


def _brief(text: str) -> str:
    text = text.strip()
    return ascii(text if len(text) <= 40 else text[:37] + "...")

"""What an exception means: as text, and for the question whether trying again can help."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import Any

from windlass.core.duration import seconds
from windlass.core.errors import Discard, InvalidJob, PayloadTooLarge, Retry, Snooze, WindlassError
from windlass.core.job import Discarded, ErrorInfo, Failed, Outcome, Snoozed
from windlass.runtime.registry import TaskDef

KIND_MOST = 512
PLACE_MOST = 256
MESSAGE_MOST = 8 * 1024
TRACE_MOST = 32 * 1024
"""Bytes kept of an exception's class name, place, message and traceback."""
REASON_MOST = 512
"""And of the reason that a handler gives for a retry, a snooze or a discard."""

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""HTTP answers that say "later": for these a Retry-After counts."""

RETRY_AFTER_MOST = 86_400.0
"""A remote side may ask for a day, not for a year."""


def failure(taskdef: TaskDef, error: BaseException) -> Outcome:
    """The outcome of a handler that raised `error`."""
    try:
        match error:
            case Retry():
                after = None if error.delay is None else seconds(error.delay, "Retry.delay")
                return Failed(describe(error), retry_after=after, reason=_reason(error, "retry asked for"))
            case Snooze():
                return Snoozed(seconds(error.delay, "Snooze.delay"), _reason(error, "snoozed"))
            case Discard():
                return Discarded(_reason(error, "discarded"), describe(error))
        permanent, after = classify(error, taskdef)
    except BaseException as broken:  # a delay that is none, an exception that cannot even be asked what it is
        return Failed(describe(broken))
    return Failed(describe(error), permanent, after, "permanent" if permanent else "failed")


def unbindable(error: BaseException) -> Outcome:
    """The payload could not be made into arguments: for good where it does not fit the signature; what the constructors
    of the user's types raised may pass."""
    return Failed(describe(error), permanent=isinstance(error, WindlassError), reason="payload")


def unstorable(error: Exception) -> Outcome:
    """The handler succeeded, but nobody could ever read its result: dead, with the reason, never stuck (I24)."""
    reason = "result_too_large" if isinstance(error, PayloadTooLarge) else "result_unserialisable"
    return Failed(describe(error), permanent=True, reason=reason)


def classify(error: BaseException, task: TaskDef) -> tuple[bool, float | None]:
    """(permanent, retry_after in seconds or None) for what a handler of `task` raised.

    The task's own `permanent` and `transient` decide, and of those the class nearest to the exception's. Otherwise
    a payload that does not fit is permanent, and everything else (time-outs and lost connections first of all) is worth
    another attempt; where an HTTP answer named the wait (Retry-After), that replaces the task's backoff.
    """
    for cls in type(error).__mro__:
        if cls in task.permanent:
            return True, None
        if cls in task.transient:
            return False, retry_after(error)
    return isinstance(error, InvalidJob), retry_after(error)


def retry_after(error: BaseException) -> float | None:
    """Seconds that a remote side asked for, if `error` is an HTTP client's exception that carries such an answer.

    Known by their shape: those of urllib and aiohttp have status and headers themselves, those of requests and httpx
    in `.response`.
    """
    for answer in (error, _attribute(error, "response")):
        status = next((s for name in ("status_code", "status", "code") if (s := _attribute(answer, name))), None)
        get = _attribute(_attribute(answer, "headers"), "get")
        if status in BUSY and callable(get):
            wait = _seconds(get("Retry-After") or get("retry-after"))
            return None if wait is None else min(max(wait, 0.0), RETRY_AFTER_MOST)
    return None


def describe(error: BaseException) -> ErrorInfo:
    """An exception as text that can be stored, whatever its own code does when it is asked: raises nothing."""
    return ErrorInfo(
        _head(_asked(_name, type(error), "its class has no name: {}"), KIND_MOST),
        _head(_asked(str, error, "its __str__ raised {}"), MESSAGE_MOST),
        _tail(_asked(_trace, error, "its traceback could not be written: {}"), TRACE_MOST),
        _head(_asked(place, error, ""), PLACE_MOST),
    )


def _asked(question: Callable[[Any], str], thing: Any, otherwise: str) -> str:
    """The answer, or in its place the kind of what asking raised: user code may do that, up to `sys.exit`."""
    try:
        return question(thing)
    except BaseException as second:
        with contextlib.suppress(BaseException):
            return f"<{otherwise.format(_name(type(second)))}>" if otherwise else ""
        return "<?>"


def _name(kind: type) -> str:
    # Past the metaclass, whose attributes may raise.
    module, name = (type.__dict__[each].__get__(kind) for each in ("__module__", "__qualname__"))
    return name if module == "builtins" else f"{module}.{name}"


def place(error: BaseException) -> str:
    """Module and function of the user's own code that an exception was in last, or failing that of a library's; never
    the line, which the next release moves. Empty where it was in neither."""
    own = foreign = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        kind = _kind(code.co_filename)
        if kind is not None:
            module = str(trace.tb_frame.f_globals.get("__name__", ""))
            where = f"{module if module != '__main__' else _stem(code.co_filename)}:{code.co_qualname}"
            own, foreign = (where, foreign) if kind else (own, where)
        trace = trace.tb_next
    return own or foreign


def _kind(file: str) -> bool | None:
    """True for the user's own files, False for installed ones, None for Windlass's and the interpreter's."""
    if _INSTALLED.search(file):
        return None if file.startswith(_OURS) else False
    return None if file.startswith(("<frozen", _LIBRARY, _OURS)) else True


def _stem(file: str) -> str:
    return os.path.basename(file).removesuffix(".py")


def _reason(error: Retry | Snooze | Discard, otherwise: str) -> str:
    """What the handler gave as its reason, as text that every store keeps whole: a NUL ends a text for some."""
    return _head(str(error.reason), REASON_MOST).replace("\0", "\\x00") or otherwise


def _attribute(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def _seconds(text: Any) -> float | None:
    """Retry-After is a number of seconds or an HTTP date."""
    if not isinstance(text, str):
        return None
    if text.strip().isdecimal():
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


def _trace(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


def _bytes(text: str) -> bytes:
    # A lone surrogate is no character, and no store would take it; a subclass of str may encode itself as it likes.
    return str.encode(text, errors="backslashreplace")


def _head(text: str, most: int) -> str:
    data = _bytes(text)
    return data.decode() if len(data) <= most else data[: most - 3].decode(errors="ignore") + "..."


def _tail(text: str, most: int) -> str:
    """The end of a traceback is what matters."""
    data = _bytes(text)
    return data.decode() if len(data) <= most else "..." + data[3 - most :].decode(errors="ignore")

"""Keys that follow from a job's arguments: for limits, and for what must be unique."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from windlass.core.errors import InvalidJob
from windlass.names import KEY_MOST

Key = str | Callable[..., str]
"""The name of a parameter, or a function of the job's arguments that answers text."""


def check_key(key: Any) -> None:
    """Raises ValueError for what can be no Key."""
    if key is not None and not (callable(key) or (isinstance(key, str) and key.isidentifier())):
        raise ValueError(f"key: {key!r} must be the name of a parameter, or a function of the arguments")


def key_of(key: Key, arguments: Mapping[str, Any], field: str) -> str:
    """The key of a job with these arguments, by name. Raises InvalidJob that names `field`."""
    text = _parameter(key, arguments, field) if isinstance(key, str) else _called(key, arguments, field)
    if not isinstance(text, str):
        raise InvalidJob(field, f"must answer a str, and answered a {type(text).__name__}")
    if not 0 < len(text) <= KEY_MOST or not text.isprintable():
        raise InvalidJob(field, f"{ascii(text)[:60]} must be printable text of 1 to {KEY_MOST} characters")
    return text


def _parameter(name: str, arguments: Mapping[str, Any], field: str) -> str:
    if name not in arguments:
        known = ", ".join(arguments) or "none by name"
        raise InvalidJob(field, f"{name!r} is no argument of this job, which has {known}")
    from windlass.core.codec import builtins, encode

    # As it stands in the payload, so that equal arguments have equal keys.
    value = builtins(arguments[name], field)
    return value if isinstance(value, str) else encode(value, field)


def _called(key: Callable[..., str], arguments: Mapping[str, Any], field: str) -> str:
    from inspect import signature

    try:
        wanted = signature(key).parameters.values()
        if not any(each.kind is each.VAR_KEYWORD for each in wanted):
            arguments = {each.name: arguments[each.name] for each in wanted if each.name in arguments}
        return key(**arguments)
    except Exception as error:
        raise InvalidJob(field, f"raised {type(error).__name__}: {error}") from error

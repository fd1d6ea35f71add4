"""A call of a task that could be typed, made up from its signature."""

from __future__ import annotations

import inspect
import json
import shlex
from typing import TYPE_CHECKING, Any

from windlass.declaration import PROVIDED, hints
from windlass.runtime.context import Context

if TYPE_CHECKING:
    from windlass import Windlass

VALUES: dict[Any, Any] = {int: 1, float: 1.5, str: "text", bool: True, list: [], dict: {}}


def command(app: Windlass, target: str) -> str | None:
    """`windlass enqueue ...` for the application's first task whose arguments can be made up; None if there is none."""
    for name, task in app.tasks.items():
        values = _arguments(task.function)
        if values is not None:
            said = f" {shlex.quote(json.dumps(values))}" if values else ""
            return f"windlass enqueue {name}{said} --app {shlex.quote(target)} --wait 10s"
    return None


def _arguments(function: Any) -> list[Any] | None:
    annotations = hints(function, "")
    values = []
    for parameter in inspect.signature(function).parameters.values():
        kind = annotations.get(parameter.name, Any)
        if kind is Context or parameter.default is PROVIDED:
            continue
        if parameter.default is not parameter.empty or parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            break
        value = VALUES.get(getattr(kind, "__origin__", kind))
        if value is None:
            return None
        values.append(value)
    return values

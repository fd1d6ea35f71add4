"""Finding the application that a command names. A user's mistake is a ConfigError without a traceback of ours."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from types import ModuleType

from windlass.app import Windlass
from windlass.core.errors import ConfigError, WindlassError

MACHINERY = (os.path.dirname(__file__), os.path.dirname(importlib.__file__), "<frozen")
"""Where the files begin that are between a command and the user's first line."""


def load(target: str) -> Windlass:
    """The application that `target` names: "module:attribute", "module", or a file.

    Raises ConfigError, also for what the module raised while it was imported: with the place, in one line; that error
    is its cause.
    """
    try:
        return load_app_file(target) if target.endswith(".py") else load_app(target)
    except WindlassError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            said = f"it calls sys.exit({error.code!r})"
        raise ConfigError(f"app: {target} cannot be imported: {said}{_last_place(error)}") from error


def own_trace(error: BaseException) -> str:
    """The traceback of what a module raised while it was imported, without the frames of those who imported it."""
    told = traceback.TracebackException.from_exception(error)
    links: list[traceback.TracebackException | None] = [told]
    while links:
        one = links.pop()
        if one is not None:
            kept = [frame for frame in one.stack if not frame.filename.startswith(MACHINERY)]
            one.stack = traceback.StackSummary.from_list(kept)
            links += [one.__cause__, one.__context__]
    return "".join(told.format())


def _last_place(error: BaseException) -> str:
    """File and line of the user's own code where an import failed."""
    if isinstance(error, SyntaxError):  # its text says so itself
        return ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(MACHINERY)]
    own = [frame for frame in frames if not frame.filename.startswith((sys.prefix, sys.base_prefix))] or frames
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def refuse_half_a_file(target: str) -> None:
    """Raise ConfigError for "tasks.py:app", which is neither a file nor a module."""
    name, _, attribute = target.partition(":")
    if name.endswith(".py"):
        module = name.removesuffix(".py").replace("/", ".")
        raise ConfigError(f"app: {target!r} is neither a file nor a module; write {module}:{attribute}, or {name}")


def load_app(target: str) -> Windlass:
    """Import `target`, "module" or "module:attribute", with the current directory on the path, and return its Windlass.

    Without an attribute, `app` is meant, or else the module's only Windlass. Raises ConfigError for what is not there;
    what the module itself raises while it is imported goes through.
    """
    name, _, attribute = target.partition(":")
    refuse_half_a_file(target)
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f'app: {target!r} must be "module:attribute", for instance "shop.jobs:app"')
    _on_path(os.getcwd())
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise ConfigError(f"app: there is no module {name!r} in {os.getcwd()} or on Python's path") from None
    return _application(module, attribute, target)


def load_app_file(path: str) -> Windlass:
    """Run the Python file at `path` as the module named by its stem, and return its Windlass; raises as `load_app`.

    The file's tasks are then named as if it had been imported, so that `python FILE` and a worker agree.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"app: there is no file {path!r}")
    name = os.path.basename(path).removesuffix(".py")
    if not name.isidentifier():
        raise ConfigError(f"app: {path!r}: a module cannot be named {name!r}; use letters, digits and _")
    full = os.path.abspath(path)
    known = sys.modules.get(name)
    if known is not None:
        if os.path.abspath(getattr(known, "__file__", None) or "") != full:
            raise ConfigError(f"app: {path!r}: there is a module {name!r} already; give the file another name")
        return _application(known, "", path)
    _on_path(os.getcwd())
    _on_path(os.path.dirname(full))
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise ConfigError(f"app: {path!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as for any import: its own parts may import it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return _application(module, "", path)


def _on_path(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


def _application(module: ModuleType, attribute: str, target: str) -> Windlass:
    if attribute:
        found = getattr(module, attribute, None)
        if isinstance(found, Windlass):
            return found
        what = f"is of type {type(found).__name__}, no Windlass" if hasattr(module, attribute) else "is not there"
        raise ConfigError(f"app: {target}: {attribute!r} {what}")
    if isinstance(app := getattr(module, "app", None), Windlass):
        return app
    several: list[Windlass] = []
    for each in vars(module).values():
        if isinstance(each, Windlass) and each not in several:
            several.append(each)
    if len(several) == 1:
        return several[0]
    problem = "it has several: say which, as module:attribute" if several else "it has no `app = Windlass()`"
    raise ConfigError(f"app: {target}: {problem}")

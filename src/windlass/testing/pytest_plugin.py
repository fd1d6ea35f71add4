"""The pytest plugin: the fixture `windlass_jobs`, and a guard that keeps tests away from the developer's own store.

Installed with Windlass. `windlass_app = "shop.tasks:app"` in pytest's configuration names the application; a project
with several overrides the fixture `windlass_app` where it needs another one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.testing.jobs import Jobs

MARKER = "windlass_store"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's settings."""
    parser.addini("windlass_app", 'The application of the fixture windlass_jobs: "module:attribute".', default="")
    parser.addini("windlass_guard", "Keep tests away from stores outside temporary directories.", "bool", default=True)


def pytest_configure(config: pytest.Config) -> None:
    """The plugin's marker."""
    config.addinivalue_line("markers", f"{MARKER}: this test may open whatever store its application names")


@pytest.fixture
def windlass_app(request: pytest.FixtureRequest) -> Windlass:
    """The application under test: that of the setting `windlass_app`, or override this fixture."""
    target = request.config.getini("windlass_app")
    if not target:
        raise pytest.UsageError(
            'windlass_jobs: which application? Set windlass_app = "module:app" in [tool.pytest.ini_options], or write '
            "a fixture `windlass_app` that returns it"
        )
    from windlass.loading import load_app

    return load_app(target)


@pytest.fixture
def windlass_jobs(windlass_app: Windlass) -> Iterator[Jobs]:
    """The application's jobs, on a memory store of their own with a clock that stands still; see windlass.testing."""
    from windlass.testing.jobs import engine

    with engine(windlass_app) as jobs:
        yield jobs


@pytest.fixture(autouse=True)
def _windlass_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that forgets `windlass_jobs` gets an error, not a job in the store of whoever runs it."""
    if not request.config.getini("windlass_guard") or request.node.get_closest_marker(MARKER) is not None:
        yield
        return
    from windlass.core.errors import ConfigError
    from windlass.engine import Engine
    from windlass.stores import SCHEMES

    before, root = Engine.opener, request.config.rootpath
    own = request.config.getoption("basetemp", None)

    def guarded(url: str, **options: Any) -> Any:
        known = url.partition("://")[0] in SCHEMES  # for others there is a better error
        if known and not harmless(url, str(root), None if own is None else str(own)):
            raise ConfigError(
                f"url: a test opened the store {_redacted(url)}, which is not in a temporary directory, or is among "
                "the project's own files. Use the "
                f"fixture windlass_jobs, or mark the test with @pytest.mark.{MARKER} if it means to"
            )
        return before(url, **options)

    # Not by pytest's own monkeypatch: used here it would be set up, and torn down, in another order for every test.
    Engine.opener = staticmethod(guarded)
    try:
        yield
    finally:
        Engine.opener = staticmethod(before)


def harmless(url: str, project: str = "", own: str | None = None) -> bool:
    """Whether a store is gone with the test, or lies where temporary files do; not in a `project` that lies there too,
    but for the directory `own` in which pytest is told to make its temporary ones."""
    scheme, _, path = url.partition("://")
    if scheme == "memory":
        return True
    if not scheme.startswith("sqlite"):
        return False
    temporary = os.path.realpath(tempfile.gettempdir())
    place = os.path.realpath(path[1:])
    among = _within(os.path.realpath(project), temporary) and _within(place, os.path.realpath(project))
    return _within(place, temporary) and (not among or (own is not None and _within(place, os.path.realpath(own))))


def _within(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip(os.sep) + os.sep)


def _redacted(url: str) -> str:
    from windlass.core.words import redacted

    return redacted(url)

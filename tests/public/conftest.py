"""An application over each store that exists; its store is closed and its environment is empty."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from windlass import Windlass

URLS = {"memory": "memory://", "sqlite": "sqlite:///{}/jobs.db", "stdlib": "sqlite+stdlib:///{}/jobs.db"}

Make = Callable[..., Windlass]


@pytest.fixture(autouse=True)
def no_settings_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WINDLASS_") and name != "WINDLASS_TEST_WORLD"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Windlass] = []

    def new(url: str = "memory://", **settings: Any) -> Windlass:
        made.append(Windlass(url.format(tmp_path), **settings))
        return made[-1]

    yield new
    for app in made:
        app.close()


@pytest.fixture(params=URLS)
def app(request: pytest.FixtureRequest, make: Make) -> Windlass:
    return make(URLS[request.param])


@pytest.fixture
def memory(make: Make) -> Windlass:
    return make()

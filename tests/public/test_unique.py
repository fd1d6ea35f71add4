"""What a task says about jobs of which one is enough, and what a caller is told."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from windlass import Context, DuplicateJob, State, Unique, Windlass
from windlass.core.errors import InvalidJob, RegistrationError
from windlass.core.job import Meta, UniqueKey


@pytest.fixture
def app():
    with Windlass("memory://") as app:
        yield app


def key(job) -> UniqueKey | None:
    return msgspec.json.decode(job.refresh().meta, type=Meta).unique


def test_all_arguments_are_the_key(app) -> None:
    """However they were given."""

    @app.task(unique=Unique())
    def task(ctx: Context, user: int, region: str = "eu") -> None: ...

    first = task.enqueue(7)
    with pytest.raises(DuplicateJob, match=first.id) as refused:
        task.enqueue(user=7, region="eu")
    assert refused.value.job_id == first.id
    assert task.enqueue(8).created
    assert task.enqueue(7, "us").created


def test_a_key_from_the_arguments(app) -> None:
    @app.task(unique=Unique("user", policy="return-existing"))
    def task(user: int, region: str = "eu") -> None: ...

    @app.task(unique=Unique(lambda user, **_: f"user {user}"))
    def other(user: int, region: str = "eu") -> None: ...

    first, again = task.enqueue(7), task.enqueue(7, "us")
    assert (again.id, first.created, again.created) == (first.id, True, False)
    assert key(first) == UniqueKey("7", "return-existing")
    assert key(other.enqueue(7)) == UniqueKey("user 7")


def test_using_says_it_for_one_job(app) -> None:
    @app.task
    def task(user: int) -> None: ...

    last = task.using(unique=Unique("user", policy="keep-last"))
    first, again = last.enqueue(7), last.using(delay="1h").enqueue(7)
    assert (again.id, again.state()) == (first.id, State.SCHEDULED)
    assert last.using(unique=None).enqueue(7).created
    assert app.enqueue("elsewhere", {"user": 1}, unique=Unique()).created
    with pytest.raises(DuplicateJob):
        app.enqueue("elsewhere", {"user": 1}, unique=Unique())
    with pytest.raises(DuplicateJob):
        app.enqueue("elsewhere", [2], unique=Unique())
        app.enqueue("elsewhere", [2], unique=Unique())


def test_a_debounce_and_a_throttle(app) -> None:
    @app.task(unique=Unique("user", policy="debounce", wait="2s", max_wait="10s"))
    def index(user: int) -> None: ...

    @app.task(unique=Unique("user", policy="throttle", window="1m"))
    def mail(user: int) -> None: ...

    job = index.enqueue(7)
    assert (key(job), job.state()) == (UniqueKey("7", "debounce", 10_000_000), State.SCHEDULED)
    assert index.enqueue(7).id == job.id
    first = mail.enqueue(7)
    assert key(first) == UniqueKey("7", "throttle", None, 60_000_000)
    first.cancel()
    assert mail.enqueue(7) == first
    for more in ({"delay": "1s"},):
        with pytest.raises(InvalidJob, match="^unique: a debounce says itself"):
            index.using(**more).enqueue(7)


def test_many_are_all_or_none(app) -> None:
    @app.task(unique=Unique("user"))
    def task(user: int) -> None: ...

    with pytest.raises(DuplicateJob):
        task.enqueue_many([(1,), (2,), (1,)])
    assert app.client.stats().states["queued"] == 0
    assert [job.created for job in task.enqueue_many([(1,), (2,)])] == [True, True]
    with pytest.raises(InvalidJob, match=r"^calls\[1\]\.unique: must answer a str"):
        task.using(unique=Unique(lambda user: user if user > 1 else "a")).enqueue_many([(1,), (2,)])


def test_on_an_event_loop(app) -> None:
    """Enqueues that share a transaction are told apart."""

    @app.task(unique=Unique("user"))
    async def task(user: int) -> None: ...

    async def both() -> list:
        return await asyncio.gather(*(task.aenqueue(n % 2) for n in range(6)), return_exceptions=True)

    answers = asyncio.run(both())
    assert [type(answer).__name__ for answer in answers] == ["Job"] * 2 + ["DuplicateJob"] * 4


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"key": "not a name"}, "key"),
        ({"policy": "maybe"}, "policy"),
        ({"policy": "debounce"}, "wait"),
        ({"policy": "throttle"}, "window"),
        ({"wait": "1s"}, "wait"),
        ({"window": "1s", "policy": "debounce", "wait": "1s"}, "window"),
        ({"policy": "debounce", "wait": "0s"}, "wait"),
        ({"policy": "debounce", "wait": "soon"}, "wait"),
        ({"policy": "debounce", "wait": "2s", "max_wait": "1s"}, "max_wait"),
    ],
)
def test_a_unique_checks_itself(given, field) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        Unique(**given)


def test_what_is_no_unique_is_refused(app) -> None:
    with pytest.raises(RegistrationError, match="task t: unique: True must be a Unique"):

        @app.task(name="t", unique=True)
        def task() -> None: ...

    @app.task(name="u", unique=Unique())
    def other() -> None: ...

    with pytest.raises(InvalidJob, match="^unique: cannot be given together with idempotency_key"):
        other.using(idempotency_key="k")

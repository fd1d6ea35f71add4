"""What a task says about how many of its jobs may run at once, and what becomes of it in the store."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest

from windlass import Context, Limit, Windlass
from windlass.core.errors import InvalidJob, RegistrationError
from windlass.core.job import KeyLimit, Meta
from windlass.ports.store import QueueRules


@pytest.fixture
def app():
    with Windlass("memory://") as app:
        yield app


def limits(job: Any) -> tuple[KeyLimit, ...]:
    return msgspec.json.decode(job.refresh().meta, type=Meta).limits


def test_a_number_limits_the_task(app) -> None:
    @app.task(name="t", limit=3)
    def task() -> None: ...

    assert limits(task.enqueue()) == (KeyLimit("t", 3),)
    assert limits(task.using(limit=1).enqueue()) == (KeyLimit("t", 1),)
    assert limits(task.using(limit=None).enqueue()) == ()


def test_a_key_from_a_parameter(app) -> None:
    @app.task(name="t", limit=1, limit_key="user")
    def task(ctx: Context, user: int | str = 7, *, other: str = "") -> None: ...

    @app.task(name="u", limit=1, limit_key="user")
    def by_uuid(user: uuid.UUID) -> None: ...

    calls = [task.call(7), task.call(user="ada, x"), task.call()]
    keys = ["7", "ada, x", "7"]
    assert limits(by_uuid.enqueue(uuid.UUID(int=1))) == (KeyLimit("u,00000000-0000-0000-0000-000000000001", 1),)
    assert [limits(job) for job in task.enqueue_many(calls)] == [(KeyLimit(f"t,{key}", 1),) for key in keys]


def test_a_key_from_a_function(app) -> None:
    @app.task(name="t", limit=2, limit_key=lambda user, **_: f"user:{user}")
    def task(user: int, region: str) -> None: ...

    @app.task(name="u", limit=2, limit_key=lambda region: region)
    def some(user: int, *rest: int, region: str = "eu") -> None: ...

    assert limits(task.enqueue(7, "eu")) == (KeyLimit("t,user:7", 2),)
    assert limits(some.enqueue(7, 1, 2)) == (KeyLimit("u,eu", 2),)


def test_several_limits_and_shared_ones(app) -> None:
    @app.task(name="t", limit=[10, Limit(1, key="user"), Limit(4, name="stripe")])
    def task(user: int) -> None: ...

    assert limits(task.enqueue(7)) == (KeyLimit("t", 10), KeyLimit("t,7", 1), KeyLimit("stripe", 4))


def test_children_and_names_carry_them_too(app) -> None:
    @app.task(name="t", limit=1, limit_key="user")
    def task(user: int) -> None: ...

    assert limits(app.enqueue("t", {"user": 3})) == (KeyLimit("t,3", 1),)
    assert limits(app.enqueue("elsewhere", {"user": 3}, limit=1, limit_key="user")) == (KeyLimit("elsewhere,3", 1),)
    assert task.new_job((4,), {}, None).meta == '{"limits":[["t,4",1]]}'


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (lambda user: user, "must answer a str, and answered a int"),
        (lambda user: 1 // 0, "raised ZeroDivisionError"),
        (lambda user, nobody: "", "raised TypeError"),
        (lambda user: "", "printable text of 1 to 255 characters"),
        (lambda user: "x" * 256, "printable text of 1 to 255 characters"),
        ("nobody", "'nobody' is no argument of this job, which has user"),
    ],
)
def test_a_key_that_cannot_be_had_is_refused_at_enqueue(app, key, said) -> None:
    @app.task(name="t", limit=1, limit_key=key)
    def task(user: int) -> None: ...

    with pytest.raises(InvalidJob, match=said) as refused:
        task.enqueue(7)
    assert refused.value.field == "limit_key"
    with pytest.raises(InvalidJob) as refused:
        task.enqueue_many([(7,)])
    assert refused.value.field == "calls[0].limit_key"
    assert app.client.stats().states["queued"] == 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": "three"}, "limit"),
        ({"limit": [1, 1]}, "limit"),
        ({"limit": [1] * 9}, "limit"),
        ({"limit_key": "user"}, "limit_key"),
        ({"limit": 1, "limit_key": "not a name"}, "limit_key"),
        ({"limit": Limit(1), "limit_key": "user"}, "limit_key"),
    ],
)
def test_what_is_no_limit_is_refused_at_registration(app, options, field) -> None:
    with pytest.raises(RegistrationError, match=rf"task t: {field}: "):

        @app.task(name="t", **options)
        def task(user: int) -> None: ...


@pytest.mark.parametrize(
    ("given", "field"), [({"most": 0}, "most"), ({"most": 1, "key": 7}, "key"), ({"most": 1, "name": "a,b"}, "name")]
)
def test_a_limit_checks_itself(given, field) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        Limit(**given)


def test_queues_are_limited_by_an_operator(app) -> None:
    assert app.client.limit("mail", 3) == QueueRules(limit=3)
    assert app.client.pause("mail") == {"mail": True}
    assert app.client.limit("mail", None) == QueueRules(paused=True)
    for bad in (0, -1, True, "3"):
        with pytest.raises(InvalidJob, match="^most: "):
            app.client.limit("mail", bad)
    with pytest.raises(InvalidJob, match="^queue: "):
        app.client.limit("a:b", 3)


async def _async_limit(app) -> None:
    assert await app.aclient.limit("mail", 3) == QueueRules(limit=3)
    assert await app.aclient.limit("mail", None) == QueueRules()


def test_the_async_client_says_the_same(app) -> None:
    import asyncio

    asyncio.run(_async_limit(app))

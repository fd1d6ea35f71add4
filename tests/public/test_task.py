"""Declaring tasks, calling them, and what enqueueing them stores."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import math
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.public.by_hand import Hand
from tests.public.conftest import Make
from windlass import Backoff, Context, PayloadInvalid, State, Windlass, WindlassError, provided
from windlass.core.errors import IdempotencyConflict, InvalidJob, PayloadTooLarge, RegistrationError, UnknownTask
from windlass.core.job import Meta, Policy
from windlass.core.placement import head_start, is_job_id, shard_of
from windlass.runtime.registry import Mode

if TYPE_CHECKING:
    from decimal import Decimal


class Pool:
    pass


def meta(app: Windlass, id: str) -> Meta:
    return msgspec.json.decode(app.client.fetch(id).meta, type=Meta)


# --- plain calls ---------------------------------------------------------------------------------------------------------


def test_a_task_is_called_as_the_function_it_is(memory: Windlass) -> None:
    @memory.task
    def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    @memory.task
    async def later(a: int) -> int:
        return a

    assert (add(1), add(1, b=5), asyncio.run(later(3))) == (3, 6, 3)
    assert (add.__name__, add.__doc__, str(inspect.signature(add))) == ("add", "Add.", "(a: 'int', b: 'int' = 2) -> 'int'")
    assert add("1", "2") == "12"  # type: ignore[arg-type, comparison-overlap]  # a plain call checks nothing
    with pytest.raises(TypeError, match="missing 1 required"):
        add()  # type: ignore[call-arg]


def test_a_missing_context_is_filled_with_a_detached_one(memory: Windlass) -> None:
    @memory.task
    def first(ctx: Context, a: int) -> str:
        ctx.progress(1, 2, "half")
        ctx.log("said")
        return f"{a} {ctx.attempt} {ctx.cancelled} {ctx.once('x', lambda: 5)}"

    @memory.task
    def last(a: int, ctx: Context = provided()) -> int:
        return a + ctx.attempt

    @memory.task
    def named(a: int, *, ctx: Context | None = None) -> int:
        return a + (ctx.attempt if ctx else 0)

    @memory.task
    def plain(a: int, ctx: Context) -> int:
        return a + ctx.attempt

    assert (first(5), first(a=5), last(1), last(a=1), named(1), plain(1)) == ("5 1 False 5", "5 1 False 5", 2, 2, 2, 2)  # type: ignore[call-arg]
    mine = Context()
    mine.attempt = 7
    assert (first.function(mine, 1), last(1, mine), named(1, ctx=mine), plain(1, ctx=mine)) == ("1 7 False 5", 8, 8, 8)
    assert first(mine, 1) == "1 7 False 5"  # type: ignore[call-arg, arg-type]


def test_a_resource_has_to_be_given_outside_a_worker(memory: Windlass) -> None:
    @memory.task
    def query(sql: str, pool: Pool = provided()) -> str:
        return sql + type(pool).__name__

    assert query("a", Pool()) == query("a", pool=Pool()) == "aPool"
    with pytest.raises(TypeError, match=r"query\(\) needs pool=...: outside a worker nobody provides it"):
        query("a")


# --- what is stored ------------------------------------------------------------------------------------------------------


def test_a_job_is_stored_as_it_was_asked_for(app: Windlass) -> None:
    @app.task(name="mail.send", queue="mail", priority=70, max_attempts=3, timeout="30s", tags=["a"], version=2)
    async def send(user_id: int, *, greeting: str = "hi") -> str:
        return greeting

    job = send.enqueue(7, greeting="hello")
    stored = job.refresh()
    assert is_job_id(job.id) and job.created
    assert (stored.task, stored.version, stored.queue, stored.priority) == ("mail.send", 2, "mail", 70)
    assert (stored.payload, stored.state, stored.attempt) == ('[[7],{"greeting":"hello"}]', State.QUEUED, 0)
    assert meta(app, job.id) == Meta(policy=Policy(max_attempts=3, timeout=30.0), tags=("a",))


def test_a_plain_job_carries_no_meta_at_all(app: Windlass) -> None:
    """Most jobs are plain, so this is bytes per job and a cache hit per claim."""

    @app.task
    def nothing() -> None: ...

    stored = nothing.enqueue().refresh()
    assert (stored.meta, stored.payload, stored.queue, stored.priority) == ("{}", "[[],{}]", "default", 50)


def test_using_overrules_for_its_own_jobs_only(app: Windlass) -> None:
    @app.task(queue="mail", max_attempts=3, tags=["a"])
    def send(user_id: int) -> None: ...

    other = send.using(queue="slow", max_attempts=9, backoff=Backoff(base="5s"), headers={"k": "v"}, result_ttl="1h")
    assert (send.options.queue, other.options.queue, type(other)) == ("mail", "slow", type(send))
    again = other.using(priority=0, timeout=None, grace="1s", tags=("b", "b"))
    job = again.enqueue(1)
    assert meta(app, job.id) == Meta(
        policy=Policy(max_attempts=9, backoff=Backoff(base=5.0), grace=1.0, result_ttl=3600.0),
        headers={"k": "v"},
        tags=("b",),
    )
    assert (job.refresh().queue, job.refresh().priority, send.enqueue(1).refresh().queue) == ("slow", 0, "mail")


def test_priority_is_a_head_start_in_the_claim(app: Windlass) -> None:
    @app.task
    def task(n: int) -> None: ...

    for n, priority in enumerate([10, 90, 50]):
        task.using(priority=priority).enqueue(n)
    hand = Hand(app)
    assert [hand.claim().payload for _ in range(3)] == ["[[1],{}]", "[[2],{}]", "[[0],{}]"]  # type: ignore[union-attr]


def test_head_start_follows_the_setting(make: Make) -> None:
    app = make(seconds_per_priority="2s")

    @app.task(priority=80)
    def task() -> None: ...

    assert task.new_job((), {}, None).head_start == head_start(80, 2.0) == 160_000_000


def test_delay_and_instant_and_expiry(app: Windlass) -> None:
    @app.task
    def task() -> None: ...

    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    delayed, at = task.using(delay="10m").enqueue().refresh(), task.using(at=soon).enqueue().refresh()
    assert delayed.state is at.state is State.SCHEDULED
    assert abs(delayed.due_at - delayed.created_at - 600_000_000) < 5 and at.due_at == round(soon.timestamp() * 1e6)
    past = task.using(at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)).enqueue()
    assert past.state() is State.QUEUED
    expires = task.using(expires="1m").enqueue().refresh()
    assert expires.expires_at is not None and abs(expires.expires_at - expires.created_at - 60_000_000) < 5
    assert task.using(expires=soon).enqueue().refresh().expires_at == round(soon.timestamp() * 1e6)
    # The later word counts, in either order.
    assert task.using(delay="10m").using(at=soon).options.after == 0
    assert task.using(at=soon).using(delay="1s").options.at is None


def test_a_partition_key_decides_the_shard(app: Windlass) -> None:
    @app.task
    def task(n: int) -> None: ...

    ids = [job.id for job in task.using(partition_key="user-7").enqueue_many([(n,) for n in range(20)])]
    assert {shard_of(id) for id in ids} == {shard_of(task.using(partition_key="user-7").enqueue(0).id)} == {801}
    assert len({shard_of(job.id) for job in task.enqueue_many([(n,) for n in range(20)])}) > 5
    assert meta(app, ids[0]).partition_key == "user-7"


# --- arguments -----------------------------------------------------------------------------------------------------------


def test_arguments_are_checked_against_the_signature(memory: Windlass) -> None:
    @memory.task
    def task(a: int, /, b: list[str] = [], *rest: int, c: str = "", **more: float) -> None: ...  # noqa: B006

    def payload(*args: Any, **kwargs: Any) -> str:
        return task.enqueue(*args, **kwargs).refresh().payload

    assert payload(1) == "[[1],{}]"
    assert payload(1, ["x"], 2, 3, c="y", z=1.5) == '[[1,["x"],2,3],{"c":"y","z":1.5}]'
    for args, kwargs, said in [
        ((), {}, "a: is missing; the task takes a, b, c"),
        (("1",), {}, "a: expected int, got str"),
        ((1, ["x", 2]), {}, "b[1]: expected str, got int"),
        ((1, [], 2, "3"), {}, "args[3]: expected int, got str"),
        ((1, {"x": 2}), {}, "b: expected a list, got a dict"),
        ((1,), {"z": "x"}, "z: expected float, got str"),
        ((1, []), {"b": []}, "b: is given twice, by position and by name"),
    ]:
        with pytest.raises(PayloadInvalid) as refused:
            payload(*args, **kwargs)
        assert str(refused.value) == said
    assert payload(1, a=2.0) == '[[1],{"a":2.0}]'  # `a` is by position only, so this is one of `more`


def test_wrong_names_and_counts_are_refused(memory: Windlass) -> None:
    @memory.task
    def task(a: int, ctx: Context, b: int = 0) -> None: ...

    for args, kwargs, said in [
        ((1, 2, 3), {}, "args[2]: is one too many; the task takes a, b"),
        ((1,), {"x": 1}, "x: is no argument of this task, which takes a, b"),
        ((1,), {"ctx": 1}, "ctx: is no argument of this task, which takes a, b"),
        ((1, 2), {"b": 2}, "b: is given twice, by position and by name"),
    ]:
        with pytest.raises(PayloadInvalid) as refused:
            task.enqueue(*args, **kwargs)
        assert str(refused.value) == said
    with pytest.raises(PayloadInvalid, match="x: is no argument of this task, which takes no arguments"):
        memory.task(name="none")(lambda: None).using().enqueue(x=1)


def test_arguments_behind_the_context_reach_the_handler(app: Windlass) -> None:
    seen = []

    @app.task
    def task(a: int, ctx: Context, b: int, *, c: int = 0) -> None:
        seen.append((a, ctx.attempt, b, c))

    task.enqueue(1, 2, c=3)  # type: ignore[arg-type, call-arg]
    task.enqueue(a=1, b=2)  # type: ignore[call-arg]
    hand = Hand(app)
    assert hand.work() and hand.work()
    assert seen == [(1, 1, 2, 3), (1, 1, 2, 0)]


def test_the_limit_of_a_payload_is_a_setting(make: Make) -> None:
    app = make(max_payload=1_000, max_depth=3)

    @app.task
    def task(x: Any) -> None: ...

    with pytest.raises(PayloadTooLarge, match="^payload: is 1007 bytes"):
        task.enqueue("x" * 998)
    with pytest.raises(PayloadInvalid, match="^payload: is nested more than 3 deep"):
        task.enqueue([[[[]]]])


# --- many ----------------------------------------------------------------------------------------------------------------


def test_many_are_stored_in_order(app: Windlass) -> None:
    @app.task
    def task(a: int, b: str = "") -> None: ...

    jobs = task.enqueue_many([(1,), {"a": 2, "b": "x"}, task.call(3, b="y"), (4, "z")])
    assert [job.refresh().payload for job in jobs] == [
        "[[1],{}]", '[[],{"a":2,"b":"x"}]', '[[3],{"b":"y"}]', '[[4,"z"],{}]',
    ]  # fmt: skip
    assert task.enqueue_many([]) == []
    assert asyncio.run(task.aenqueue_many([(1,)]))[0].state() is State.QUEUED


@pytest.mark.parametrize("bad", [("x",), {"c": 1}, 7, "1", (1, 2, 3)])
def test_many_are_all_or_none(app: Windlass, bad: Any) -> None:
    @app.task
    def task(a: int) -> None: ...

    with pytest.raises(PayloadInvalid, match=r"^calls\[1\]"):
        task.enqueue_many([(1,), bad])
    task.using(idempotency_key="k").enqueue(0)
    with pytest.raises(IdempotencyConflict):
        task.using(idempotency_key="k").enqueue_many([(0,), (1,)])
    assert app.client.stats(exact=True).states["queued"] == 1


# --- idempotency ---------------------------------------------------------------------------------------------------------


def test_an_idempotency_key_answers_the_same_job(app: Windlass) -> None:
    """I10b."""

    @app.task
    def charge(amount: int) -> int:
        return amount

    keyed = charge.using(idempotency_key="order-7")
    first, again = keyed.enqueue(5), asyncio.run(keyed.aenqueue(5))
    assert (first.created, again.created) == (True, False)
    assert first == again
    with pytest.raises(IdempotencyConflict) as refused:
        keyed.enqueue(6)
    assert (refused.value.key, refused.value.job_id) == ("order-7", first.id)
    assert Hand(app).work()
    assert keyed.enqueue(5).result(timeout=1) == 5


def test_a_key_belongs_to_its_task(app: Windlass) -> None:
    @app.task
    def one(n: int) -> None: ...

    @app.task
    def two(n: int) -> None: ...

    assert one.using(idempotency_key="k").enqueue(1).created
    assert two.using(idempotency_key="k").enqueue(1).created


# --- children ------------------------------------------------------------------------------------------------------------


def test_children_carry_correlation_parent_and_headers(app: Windlass) -> None:
    @app.task
    def leaf() -> None: ...

    @app.task
    def inner(ctx: Context) -> str:
        leaf.using(headers={"b": "own"}).enqueue()
        return ctx.correlation_id

    @app.task
    def outer(ctx: Context) -> str:
        return ctx.enqueue(inner)

    root = outer.using(headers={"a": "1", "b": "2"}).enqueue()
    hand = Hand(app)
    for _ in range(3):
        assert hand.work()
    child = root.result(timeout=1)
    assert app.job(child).result(timeout=1) == root.id
    grandchild = app.client.search().jobs[0]
    assert (meta(app, child).parent_id, meta(app, child).correlation_id) == (root.id, root.id)
    assert meta(app, child).headers == {"a": "1", "b": "2"}
    assert (meta(app, grandchild.id).parent_id, meta(app, grandchild.id).correlation_id) == (child, root.id)
    assert meta(app, grandchild.id).headers == {"a": "1", "b": "own"}
    assert meta(app, leaf.enqueue().id) == Meta()  # outside a job nothing of this is left


def test_a_child_exists_only_if_its_parent_completed(app: Windlass) -> None:
    @app.task
    def leaf() -> None: ...

    @app.task
    def parent(ctx: Context, fail: bool) -> None:
        ctx.enqueue(leaf.using(queue="leaves"))
        if fail:
            raise RuntimeError

    parent.enqueue(True)
    Hand(app).work()
    assert app.client.stats(exact=True).states["queued"] == 0
    parent.enqueue(False)
    Hand(app, "other").work()
    assert [queue.queue for queue in app.client.stats(exact=True).queues if queue.queued] == ["leaves"]


# --- by name -------------------------------------------------------------------------------------------------------------


def test_a_task_is_enqueued_by_its_name_without_its_code(app: Windlass) -> None:
    job = app.enqueue("reports.build", {"day": dt.date(2026, 1, 1)}, queue="reports", version=3, priority=90)
    stored = job.refresh()
    assert (stored.task, stored.version, stored.queue, stored.priority) == ("reports.build", 3, "reports", 90)
    assert stored.payload == '[[],{"day":"2026-01-01"}]'
    assert asyncio.run(app.aenqueue("x", [1, "a"])).refresh().payload == '[[1,"a"],{}]'
    assert app.enqueue("x").refresh().payload == "[[],{}]"


@pytest.mark.parametrize("version", [True, 0, -1, "2", 1.5, None, math.nan, 2**31, 10**5_000], ids=lambda v: str(type(v)))
def test_a_version_that_is_none_is_refused(app: Windlass, version: Any) -> None:
    said = r"^version: .* must be a whole number, 1\.\.2147483647$"
    with pytest.raises(InvalidJob, match=said):
        app.enqueue("x", version=version)
    with pytest.raises(InvalidJob, match=said):
        asyncio.run(app.aenqueue("x", version=version))
    with pytest.raises(InvalidJob, match=said):
        app.client.schedules.create("s", "x", every="1h", version=version)
    assert not app.client.search().jobs


def test_a_version_by_which_the_arguments_would_not_be_checked_is_refused(app: Windlass) -> None:
    @app.task(name="t", version=3)
    def t() -> None: ...

    assert [app.enqueue("t", version=version).refresh().version for version in (1, 3)] == [3, 3]
    with pytest.raises(InvalidJob, match=r"^version: 2 is not that of task 't' here, which is 3$"):
        app.enqueue("t", version=2)


def test_by_name_a_known_task_keeps_its_options_and_checks(app: Windlass) -> None:
    @app.task(name="known", queue="mine")
    def known(n: int) -> None: ...

    assert app.enqueue("known", [1]).refresh().queue == "mine"
    assert app.enqueue("known", [1], queue="theirs").refresh().queue == "theirs"
    with pytest.raises(PayloadInvalid, match="^n: expected int, got str"):
        app.enqueue("known", {"n": "1"})


@pytest.mark.parametrize("name", ["", "a\0b", " a", "a,b", "x" * 201, "\ud800", 7, None])
def test_a_bad_name_is_refused(memory: Windlass, name: Any) -> None:
    with pytest.raises(InvalidJob, match="^task: "):
        memory.enqueue(name)


def test_bad_arguments_by_name_are_refused(memory: Windlass) -> None:
    with pytest.raises(PayloadInvalid, match="^arguments: is a str, not a tuple of arguments"):
        memory.enqueue("x", "abc")
    with pytest.raises(PayloadInvalid, match=r"^arguments\[1\]: is not a str; arguments have names"):
        memory.enqueue("x", {1: 2})  # type: ignore[dict-item]
    with pytest.raises(InvalidJob, match="^colour: is no option; there are queue, priority"):
        memory.enqueue("x", colour="red")  # type: ignore[call-arg]
    with pytest.raises(UnknownTask):
        memory.named("x").taskdef()


# --- versions ------------------------------------------------------------------------------------------------------------


def test_upcasters_carry_an_old_payload_to_the_present(memory: Windlass) -> None:
    @memory.task(version=3)
    def send(user_id: int, *, greeting: str) -> None: ...

    @send.upcast(from_version=1)
    def _(user: str) -> Any:
        return (int(user),)

    @send.upcast(from_version=2)
    def _(user_id: int) -> Any:
        return send.call(user_id, greeting="hi")

    bind = send.taskdef().bind
    assert bind('[["7"],{}]', 1) == bind("[[7],{}]", 2) == bind('[[7],{"greeting":"hi"}]', 3) == ([7], {"greeting": "hi"})
    with pytest.raises(PayloadInvalid, match="^user: expected str, got int"):
        bind("[[7],{}]", 1)
    assert (memory.registry.can_run(send.name, 3), memory.registry.can_run(send.name, 4)) == (True, False)


def test_an_old_payload_without_an_upcaster_is_an_error(memory: Windlass) -> None:
    @memory.task(name="t", version=2)
    def task(n: int) -> None: ...

    with pytest.raises(PayloadInvalid, match="^payload: is of version 1, for which t has no upcaster"):
        task.taskdef().bind("[[1],{}]", 1)
    for wrong in (0, 2, 3):
        with pytest.raises(RegistrationError, match="must be 1 to 1, as the task's version is 2"):
            task.upcast(wrong)

    @task.upcast(1)
    def _(n: int) -> Any:
        return "no arguments"

    with pytest.raises(PayloadInvalid, match="^the answer of the upcaster from version 1: is a str"):
        task.taskdef().bind("[[1],{}]", 1)


# --- registration --------------------------------------------------------------------------------------------------------


def test_modes(memory: Windlass) -> None:
    async def a() -> None: ...
    def b() -> None: ...

    modes = [
        memory.task(name="1")(a), memory.task(name="2")(b), memory.task(name="3", executor="process")(a),
        memory.task(name="4", executor="process")(b), memory.task(name="5", exclusive=True)(b),
    ]  # fmt: skip
    assert [task.taskdef().mode for task in modes] == [Mode.ASYNC, Mode.THREAD] + [Mode.PROCESS] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"priority": 101}, "priority: 101 must be a whole number, 0..100"),
        ({"priority": True}, "priority: True must be a whole number, 0..100"),
        ({"max_attempts": 0}, "max_attempts: 0 must be a whole number, 1..10000"),
        ({"queue": "a,b"}, "queue: 'a,b' must be printable, without commas and without spaces at its ends"),
        ({"queue": "a:3"}, "queue: 'a:3' must have no colon"),
        ({"queue": ""}, "queue: '' must be text of 1 to 200 characters"),
        ({"queue": "\ud800"}, r"queue: '\ud800' must be printable, without commas and without spaces at its ends"),
        ({"timeout": "fast"}, "timeout: 'fast' is no duration"),
        ({"timeout": 0}, "timeout: 0 leaves no time at all; None is no limit"),
        ({"timeout": -1}, "timeout: -1 must be between 0 and"),
        ({"grace": None}, "grace: None is no duration"),
        ({"backoff": "1s"}, "backoff: '1s' must be a Backoff, for instance"),
        ({"tags": "abc"}, "tags: 'abc' must be a list of names"),
        ({"tags": [1]}, "tags: 1 must be text of"),
        ({"tags": [str(n) for n in range(21)]}, "tags: 21 tags are too many; the limit is 20"),
        ({"result_ttl": "x"}, "result_ttl: 'x' is no duration"),
        ({"crash_budget": 0}, "crash_budget: 0 must be"),
        ({"executor": "thread"}, 'executor: \'thread\' must be "process" or None'),
        ({"version": 0}, "version: 0 must be a whole number from 1"),
        ({"version": "2"}, "version: '2' must be a whole number from 1"),
        ({"exclusive": 1}, "exclusive: 1 must be True or False"),
        ({"transient": ["x"]}, "transient: 'x' is no exception class"),
        ({"permanent": 7}, "permanent: 7 must be a tuple of exception classes"),
        ({"permanent": (int,)}, "permanent: <class 'int'> is no exception class"),
        ({"delay": 1}, "delay: belongs to one job; say task.using(delay=...)"),
        ({"idempotency_key": "k"}, "idempotency_key: belongs to one job"),
        ({"retries": 3}, "retries: is no option; there are queue, priority"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(memory: Windlass, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        memory.task(name="t", **options)(lambda: None)
    assert str(refused.value).startswith(f"task t: {said}")
    assert "t" not in memory.tasks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delay": "1s", "at": dt.datetime(2100, 1, 1, tzinfo=dt.UTC)}, "at: cannot be given together with delay"),
        ({"delay": "2000w"}, "delay: '2000w' must be between 0 and"),
        ({"at": "tomorrow"}, "at: 'tomorrow' must be a datetime; for a duration there is delay"),
        ({"at": dt.datetime(2026, 1, 1)}, "at: 2026-01-01T00:00:00 has no time zone; write for instance"),
        ({"at": dt.datetime(1900, 1, 1, tzinfo=dt.UTC)}, "at: 1900-01-01T00:00:00+00:00 lies before 1970"),
        ({"expires": -1}, "expires: -1 must be between"),
        ({"expires": dt.datetime(2026, 1, 1)}, "expires: 2026-01-01T00:00:00 has no time zone"),
        ({"idempotency_key": ""}, "idempotency_key: '' must be printable text of 1 to 255 characters"),
        ({"idempotency_key": "a\nb"}, r"idempotency_key: 'a\nb' must be printable text"),
        ({"headers": ["a"]}, "headers: ['a'] must be a mapping of text to text"),
        ({"headers": {"a": 1}}, "headers: 'a': 1 must be text on both sides"),
        ({"headers": {"a": "\ud800"}}, r"headers: 'a': '\ud800' holds a lone surrogate"),
        ({"headers": {"a": "x" * 9_000}}, "headers: are more than 8192 bytes together"),
        ({"partition_key": 7}, "partition_key: 7 must be printable text"),
        ({"executor": "process"}, "executor: is no option; there are"),
    ],
    ids=str,
)
def test_a_wrong_option_of_one_job_is_named(memory: Windlass, options: dict[str, Any], said: str) -> None:
    task = memory.task(name="t")(lambda: None)
    with pytest.raises(InvalidJob) as refused:
        task.using(**options)
    assert str(refused.value).startswith(said) and refused.value.field in options


def test_what_is_no_function_is_no_task(memory: Windlass) -> None:
    class Callable_:
        def __call__(self) -> None: ...

    def generator() -> Any:
        yield 1

    async def stream() -> Any:
        yield 1

    for thing in (Callable_(), print, Callable_, 7):
        with pytest.raises(RegistrationError, match="is no function"):
            memory.task(thing)  # type: ignore[call-overload]
    for function in (generator, stream):
        with pytest.raises(RegistrationError, match="a generator has no result"):
            memory.task(function)


def test_signatures_that_cannot_work_are_refused(memory: Windlass) -> None:
    def two(a: Context, b: Context) -> None: ...
    def late(a: int, ctx: Context, /) -> None: ...
    def behind(a: int, ctx: Context, *rest: int) -> None: ...
    def untyped(a=provided()) -> None: ...  # type: ignore[no-untyped-def]
    def pool(a: Pool) -> None: ...
    def unread(a: Decimal) -> None: ...

    for function, said in [
        (two, "task two: parameter 'b' is a second Context"),
        (late, "task late: parameter 'ctx' cannot be passed by name, and follows one that the worker fills"),
        (behind, "task behind: parameter 'rest' cannot be passed by name, and follows one that the worker fills"),
        (untyped, "task untyped: parameter 'a' is provided(), but of which type?"),
        (pool, "task pool: parameter 'a': Pool cannot travel as JSON; annotate it with a type that can, or let an"),
        (unread, "task unread: an annotation cannot be read: name 'Decimal' is not defined."),
    ]:
        task = memory.task(name=function.__name__)(function)  # type: ignore[arg-type, call-overload]
        for use in (task.enqueue, task.taskdef, lambda: memory.registry):
            with pytest.raises(RegistrationError) as refused:
                use()
            assert str(refused.value).startswith(said)
        del memory.tasks[task.name]


def test_two_tasks_of_one_name_are_refused_but_a_reload_is_not(memory: Windlass) -> None:
    def declare() -> Any:
        @memory.task
        def task(n: int) -> None: ...

        return task

    first, second = declare(), declare()
    assert memory.tasks[first.name] is second
    with pytest.raises(RegistrationError, match="there is another of that name"):
        memory.task(name=first.name)(lambda: None)


def test_names(tmp_path: Path) -> None:
    """A file run as a script gives its tasks the names that a worker will know them by."""
    (tmp_path / "shop.py").write_text(
        textwrap.dedent("""
            from windlass import Windlass
            app = Windlass("memory://")
            @app.task
            def pay(): ...
            class Till:
                @staticmethod
                @app.task
                def count(): ...
            print(*app.tasks)
        """)
    )
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "jobs.py").write_text((tmp_path / "shop.py").read_text())

    def printed(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr

    assert printed("shop.py") == printed("-m", "shop") == printed("-c", "import shop") == "shop.pay shop.Till.count"
    assert printed("-m", "package.jobs") == "package.jobs.pay package.jobs.Till.count"
    assert printed(str(tmp_path / "package/jobs.py")) == "jobs.pay jobs.Till.count"


# --- hooks ---------------------------------------------------------------------------------------------------------------


def test_resources_are_known_by_what_hooks_return(memory: Windlass) -> None:
    @memory.task
    def query(sql: str, pool: Pool) -> None: ...

    with pytest.raises(RegistrationError, match="parameter 'pool': Pool cannot travel as JSON"):
        query.enqueue("x", Pool())

    @memory.on_worker_start
    async def connect() -> Any: ...

    connect.__annotations__["return"] = "AsyncIterator[Pool]"
    connect.__globals__["AsyncIterator"] = __import__("collections.abc").abc.AsyncIterator
    assert query.enqueue("x").refresh().payload == '[["x"],{}]'  # type: ignore[call-arg]
    with pytest.raises(PayloadInvalid, match="args\\[1\\]: is one too many"):
        query.enqueue("x", 1)  # type: ignore[arg-type]
    registry = memory.registry
    assert registry.tasks[query.name].resources == {"pool": Pool}
    assert registry.provides == {Pool: connect} and registry.start_hooks == [connect]


def test_hooks_that_cannot_work_are_refused(memory: Windlass) -> None:
    with pytest.raises(RegistrationError, match=r"on_worker_start: .*<lambda> must be a function without parameters"):
        memory.on_worker_start(lambda x: None)
    with pytest.raises(RegistrationError, match="on_worker_stop: .* must be a function without parameters"):
        memory.on_worker_stop(print)

    def pool() -> Pool: ...
    def again() -> Pool: ...

    memory.on_worker_start(pool)
    memory.on_worker_start(again)
    with pytest.raises(RegistrationError, match="two on_worker_start hooks return .*Pool"):
        _ = memory.registry


def test_a_resource_that_no_hook_provides_is_refused_when_a_worker_starts(memory: Windlass) -> None:
    """Not when it is enqueued: a web process need not import the hooks."""

    @memory.task(name="q")
    def query(sql: str, pool: Pool = provided()) -> None: ...

    assert query.enqueue("x")
    with pytest.raises(RegistrationError, match="task q: parameter 'pool': no on_worker_start hook returns .*Pool"):
        _ = memory.registry


def test_the_registry_names_the_queues(memory: Windlass) -> None:
    memory.task(name="a", queue="mail")(lambda: None)
    memory.task(name="b", queue="slow")(lambda: None)
    assert memory.registry.queues == ("default", "mail", "slow")


def test_an_application_shows_no_password(make: Make) -> None:
    app = make("sqlite://user:secret@host/{}/x.db")
    assert "secret" not in repr(app) and "user:***@host" in repr(app)


def test_every_error_is_a_windlass_error() -> None:
    import windlass.core.errors as errors

    assert all(issubclass(each, WindlassError) for each in vars(errors).values() if isinstance(each, type))


@pytest.mark.parametrize(
    ("code", "name"),
    [("<stdin>", "<stdin>.hello"), ("<python-input-3>", "<python-input-3>.hello"), ("my-script.py", "my-script.hello")],
)
def test_a_task_that_no_worker_can_import_is_warned_of(app: Windlass, code: str, name: str) -> None:
    """It would be enqueued, and wait for ever; with a name of its own, or run by a worker in this process, it is fine."""
    space: dict[str, Any] = {"__name__": "__main__", "app": app}
    text = "@app.task{}\ndef hello() -> None: ...\n"
    with pytest.warns(UserWarning, match=f"^task {name}: no worker can import a module called ") as warned:
        exec(compile(text.format(""), code, "exec"), space)
    assert [each.filename for each in warned] == [code]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(text.format("(name='hello')"), code, "exec"), space)
        exec(compile(text.format(""), "script.py", "exec"), space)
    assert set(app.tasks) == {name, "hello", "script.hello"}

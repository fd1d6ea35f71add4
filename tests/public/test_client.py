"""What operators ask of a store; the two clients are one."""

from __future__ import annotations

import ast
import asyncio
import inspect
from typing import Any

import pytest

from tests.public.by_hand import Hand
from windlass import Filter, JobNotFound, PayloadInvalid, State, Windlass, schedules
from windlass import client as module
from windlass.client import AsyncClient, Client
from windlass.core.errors import InvalidJob, InvalidValue
from windlass.core.job import LogLine
from windlass.ports.store import PruneRules
from windlass.schedules import AsyncSchedules, Schedules

GONE = "01890000-0000-7000-8000-000000000000"


def public(kind: type[Any]) -> list[str]:
    return sorted(name for name in vars(kind) if not name.startswith("_"))


@pytest.mark.parametrize(("blocking", "awaited"), [(Client, AsyncClient), (Schedules, AsyncSchedules)])
def test_the_clients_have_the_same_methods_and_signatures(blocking: type[Any], awaited: type[Any]) -> None:
    methods = public(blocking)
    assert methods == public(awaited)
    assert len(methods) >= 9
    for name in methods:
        one, two = getattr(blocking, name), getattr(awaited, name)
        if isinstance(one, property):
            assert isinstance(two, property)
            continue
        assert inspect.signature(one) == inspect.signature(two), name
        assert not inspect.iscoroutinefunction(one) and inspect.iscoroutinefunction(two), name
        assert one.__doc__, name


@pytest.mark.parametrize(("module", "name"), [(module, "Client"), (schedules, "Schedules")])
def test_the_clients_differ_in_nothing_but_colour(module: Any, name: str) -> None:
    """Word for word, so that nobody has to keep two bodies in step by eye."""
    tree = ast.parse(inspect.getsource(module))
    bodies = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in (name, f"Async{name}"):
            bodies[node.name] = [
                (function.name, [ast.unparse(line) for line in function.body[1:]])
                for function in node.body
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            ]

    def sync(line: str) -> str:
        plain = line.replace("await ", "").replace(".arun(", ".run(").replace(".aenqueue(", ".enqueue(")
        return plain.replace("AsyncSchedules", "Schedules")

    awaited = bodies[f"Async{name}"]
    assert bodies[name] == [(method, [sync(line) for line in lines]) for method, lines in awaited]


def test_every_operation_in_both_colours(app: Windlass) -> None:
    @app.task(max_attempts=1)
    def work(n: int) -> int:
        if n < 0:
            raise RuntimeError
        return n

    hand = Hand(app)

    async def scenario(call: Any) -> None:
        done, dead, waiting = work.enqueue(1), work.enqueue(-1), work.enqueue(2)
        hand.work()
        hand.work()
        job = await call("fetch", done.id)
        assert (job.state, job.result) == (State.COMPLETED, "1")
        assert [a.outcome for a in await call("attempts", dead.id)] == ["failed"]
        assert {j.id for j in (await call("search", Filter(states=(State.DEAD,)))).jobs} == {dead.id}
        page = await call("search", limit=2)
        rest = await call("search", limit=2, after=page.next)
        assert [j.id for j in page.jobs + rest.jobs] == sorted([done.id, dead.id, waiting.id], reverse=True)
        assert (await call("cancel", waiting.id, dry_run=True)).changed == (waiting.id,)
        assert (await call("cancel", waiting.id, dry_run=True, children=True)).changed == (waiting.id,)
        assert (await call("cancel", waiting.id, dead.id, children=True)).untouched == (dead.id,)
        assert (await call("revive", filter=Filter(states=(State.DEAD,)))).changed == (dead.id,)
        assert (await call("edit", dead.id, {"n": 5})).changed == (dead.id,)
        assert (await call("fetch", dead.id)).payload == '[[],{"n":5}]'
        assert (await call("why", dead.id)).job.state is State.QUEUED
        assert await call("pause", "default") == {"default": True} == await call("queues")
        assert hand.claim() is None
        assert await call("resume", "default") == {"default": False}
        held = hand.claim()
        assert held is not None
        app.opened.shell.run(app.opened.store.report([], [(held.token, LogLine(1, "info", "a")), (held.token, LogLine(2, "info", "b"))]))
        assert [line.message for line in await call("logs", dead.id, 1)] == ["b"]
        assert [worker.id for worker in await call("workers")] == ["hand"]
        hand.settle(held, hand.perform(held))
        assert (await call("stats", exact=True)).states["completed"] == 2
        assert (await call("prune", PruneRules(), limit=10)).jobs == 0
        assert (await call("prune")).done
        named = await call("enqueue", "elsewhere", [1], queue="other")
        assert set((await call("delete", done.id, dead.id, waiting.id, named.id)).changed) == {
            done.id, dead.id, waiting.id, named.id,
        }  # fmt: skip

    async def blocking(name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(app.client, name)(*args, **kwargs)

    async def awaited(name: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(app.aclient, name)(*args, **kwargs)

    asyncio.run(scenario(blocking))
    asyncio.run(scenario(awaited))


@pytest.mark.parametrize("limit", [-1, 0, True, "5", 1.5, None, 2**31, 10**5_000], ids=lambda v: str(type(v)))
def test_how_many_are_asked_for_is_a_whole_number_from_one(app: Windlass, limit: Any) -> None:
    ids = {app.enqueue("a").id for _ in range(3)}
    said = r"must be a whole number, 1\.\.2147483647$"
    client = app.client
    for call in (client.search, client.cancel, client.revive, client.delete, client.dead_groups, client.prune):
        with pytest.raises(InvalidJob, match=f"^limit: .*{said}"):
            call(limit=limit)
    with pytest.raises(InvalidJob, match=f"^sample: .*{said}"):
        client.latencies(sample=limit)
    with pytest.raises(InvalidJob, match=f"^limit: .*{said}"):
        asyncio.run(app.aclient.cancel(filter=Filter(queue="default"), limit=limit))
    assert {job.id for job in client.search(Filter(states=(State.QUEUED,))).jobs} == ids


@pytest.mark.parametrize("name", ["", "a,b", " a", "a:1", "x" * 201, 7])
def test_what_is_no_queue_is_not_paused(app: Windlass, name: Any) -> None:
    for call in (app.client.pause, app.client.resume):
        with pytest.raises(InvalidJob, match="^queue: "):
            call("fine", name)
    assert app.client.queues() == {}


@pytest.mark.parametrize("rules", [5, {}, "1d"])
def test_what_are_no_rules_prunes_nothing(app: Windlass, rules: Any) -> None:
    with pytest.raises(InvalidValue, match="^rules: .* must be PruneRules, or None"):
        app.client.prune(rules)


def test_edit_checks_as_enqueue_does(app: Windlass) -> None:
    @app.task
    def work(n: int) -> None: ...

    job = work.enqueue(1)
    with pytest.raises(PayloadInvalid, match="^n: expected int, got str"):
        app.client.edit(job.id, ["1"])
    elsewhere = app.enqueue("elsewhere", [1])
    with pytest.raises(PayloadInvalid, match=r"^args\[0\]: nan is not"):
        app.client.edit(elsewhere.id, [float("nan")])
    assert app.client.edit(elsewhere.id, {"any": "thing"}).changed
    assert Hand(app).claim("default").payload == "[[1],{}]"  # type: ignore[union-attr]
    assert app.client.edit(job.id, [2]).untouched == (job.id,)


@pytest.mark.parametrize("name", ["fetch", "why"])
def test_a_job_that_is_not_there(app: Windlass, name: str) -> None:
    with pytest.raises(JobNotFound) as missing:
        getattr(app.client, name)(GONE)
    assert missing.value.job_id == GONE
    with pytest.raises(JobNotFound):
        app.client.edit(GONE, [1])
    assert app.client.attempts(GONE) == [] == app.client.logs(GONE)


def test_writing_tells_the_listeners_and_reading_does_not(app: Windlass) -> None:
    import select

    @app.task
    def work() -> None: ...

    listener = app.opened.shell.listen()

    def told() -> bool:
        readable, _, _ = select.select([listener.fileno()], [], [], 0.05)
        listener.drain()
        return bool(readable)

    try:
        told()
        job = work.enqueue()
        assert told()
        job.state()
        app.client.stats()
        assert not told()
        for write in (lambda: app.client.cancel(job.id), lambda: app.client.revive(job.id), lambda: app.client.resume("default")):
            write()
            assert told()
        asyncio.run(work.aenqueue())
        assert told()
        asyncio.run(app.aclient.pause("default"))
        assert told()
    finally:
        listener.close()

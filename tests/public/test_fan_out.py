"""A job that enqueues thousands: in batches, each whole, and each child once, wherever it is killed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from tests.public.by_hand import Hand, HandRun
from windlass import Context, Filter, PayloadInvalid, Windlass, WindlassError
from windlass.core.errors import LeaseLost, OutcomeUnknown
from windlass.core.job import Meta, Released, Succeeded
from windlass.ports.plan import Plan, Steps
from windlass.testing.conformance.anomalies import Fault, failing
from windlass.testing.conformance.sizes import size


@pytest.fixture
def child(app: Windlass) -> Any:
    return app.task(name="child")(lambda n, word="": n)


_hands = itertools.count()


class Parent:
    """A job that runs, and its store."""

    def __init__(self, app: Windlass) -> None:
        if "parent" not in app.tasks:
            app.task(name="parent", queue="parents")(lambda: None)
        self.app = app
        self.hand = Hand(app, f"hand{next(_hands)}")
        app.enqueue("parent", headers={"trace": "1"})
        self.claim()

    def claim(self) -> None:
        held = self.hand.claim("parents")
        assert held is not None
        self.held = held
        self.run = HandRun(self.app, held)
        self.ctx = Context(self.run)

    def again(self) -> None:
        """Its worker is gone; another has it."""
        self.hand.settle(self.held, Released("gone"))
        self.claim()

    def end(self) -> None:
        self.hand.settle(self.held, Succeeded())

    def children(self) -> list[int]:
        jobs = self.app.client.search(Filter(parent=self.held.id), limit=20_000).jobs
        return [msgspec.json.decode(job.payload)[0][0] for job in reversed(jobs)]


@pytest.fixture
def parent(app: Windlass) -> Parent:
    return Parent(app)


def test_children_carry_what_children_carry(parent: Parent, child: Any) -> None:
    calls = [(0,), {"n": 1}, child.call(2, word="x")]
    assert parent.ctx.fan_out(child.using(priority=9, tags=["t"]), calls, batch=2) == 3
    jobs = [job for job in parent.app.client.search().jobs if job.task == "child"]
    assert [job.payload for job in reversed(jobs)] == ["[[0],{}]", '[[],{"n":1}]', '[[2],{"word":"x"}]']
    for job in jobs:
        meta = msgspec.json.decode(job.meta, type=Meta)
        assert (meta.parent_id, meta.correlation_id, meta.headers) == (parent.held.id, parent.held.id, {"trace": "1"})
        assert (job.priority, meta.tags) == (9, ("t",))
    assert parent.ctx.fan_out(child, calls) == 3  # the same once more
    assert len([job for job in parent.app.client.search().jobs if job.task == "child"]) == 3


def test_ids_follow_from_parent_name_and_place(parent: Parent, child: Any) -> None:
    parent.ctx.fan_out(child, [(n,) for n in range(5)], batch=2)
    ids = {job.id for job in parent.app.client.search().jobs if job.task == "child"}
    parent.ctx.fan_out(child, [(n,) for n in range(5)], batch=2, name="others")
    more = {job.id for job in parent.app.client.search().jobs if job.task == "child"}
    assert (len(ids), len(more)) == (5, 10)


def test_none_is_none(parent: Parent, child: Any) -> None:
    assert parent.ctx.fan_out(child, []) == 0


def test_a_generator_is_taken_by_and_by(parent: Parent, child: Any) -> None:
    taken: list[int] = []

    def calls() -> Iterator[tuple[int]]:
        for n in range(10):
            taken.append(n)
            yield (n,)

    fan = child.children(calls(), parent.run, "x", 0, 3)
    assert len(next(fan)) == 3
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("kill", ["before", "inside", "after"])
@pytest.mark.parametrize("color", ["sync", "async"])
def test_killed_at_every_batch(app: Windlass, child: Any, kill: str, color: str, record_property: Any) -> None:
    """Before a batch, at each statement of its transaction, and after its commit; then it goes on where it stopped."""
    batches, batch = size(4, 20, 100), 5
    calls = [(n,) for n in range(batches * batch)]
    kills = 0
    for fatal in range(batches + 1):
        for statement in range(1, 100) if kill == "inside" else (0,):
            parent = Parent(app)
            killed = attempt(parent, child, calls, batch, color, killer(kill, fatal, statement))
            if not killed:
                assert kill == "inside"  # past its last statement
                assert parent.children() == list(range(len(calls)))
                parent.end()
                break
            kills += 1
            stored = fatal if kill == "after" else fatal - 1
            assert parent.children() == list(range(max(0, stored) * batch))
            parent.again()
            assert attempt(parent, child, calls, batch, color, lambda number, plan: plan) is False
            assert parent.children() == list(range(len(calls)))
            parent.end()
    assert kills > batches
    record_property("proof", {"kills": kills, "children": kills * len(calls)})


Kill = Callable[[int, Plan[Any]], Plan[Any]]


def killer(how: str, fatal: int, statement: int) -> Kill:
    """Kills at the batch number `fatal` of an attempt; the first, number 0, is the question how many there are."""

    def troubled(number: int, plan: Plan[Any]) -> Plan[Any]:
        if number != fatal:
            return plan
        if how == "before":
            raise Fault("before")
        return failing(plan, statement) if how == "inside" else dying(plan)

    return troubled


def dying(plan: Plan[Any]) -> Plan[Any]:
    """It is committed; the answer comes to nobody."""
    return Plan(lambda: _marked(plan), "dying", write=True)


def _marked(plan: Plan[Any]) -> Steps[Any]:
    return (yield from plan)


def attempt(parent: Parent, child: Any, calls: Any, batch: int, color: str, kill: Kill) -> bool:
    """One attempt of the parent; answers whether it was killed."""
    number = 0
    store, shell = parent.app.opened.store, parent.app.opened.shell

    def next_plan(name: str, after: int, jobs: Any) -> Plan[Any]:
        nonlocal number
        plan = kill(number, store.fan_out(parent.held.token, name, after, jobs))
        number += 1
        return plan

    def fan_out(name: str, after: int, jobs: Any) -> int:
        plan = next_plan(name, after, jobs)
        answer = shell.run(plan)
        if plan.name == "dying":
            raise Fault("after")
        return answer

    async def afan_out(name: str, after: int, jobs: Any) -> int:
        plan = next_plan(name, after, jobs)
        answer = await parent.app.opened.async_shell().run(plan)
        if plan.name == "dying":
            raise Fault("after")
        return answer

    parent.run.fan_out, parent.run.afan_out = fan_out, afan_out  # type: ignore[method-assign]
    try:
        if color == "sync":
            parent.ctx.fan_out(child, calls, batch=batch)
        else:
            asyncio.run(_arun(parent, child, calls, batch))
    except Fault:
        return True
    return False


async def _arun(parent: Parent, child: Any, calls: Any, batch: int) -> None:
    await parent.ctx.afan_out(child, calls, batch=batch)


def test_ten_thousand(parent: Parent, child: Any) -> None:
    assert parent.ctx.fan_out(child, ((n,) for n in range(10_000))) == 10_000
    assert parent.app.client.stats(exact=True).states["queued"] == 10_000


def test_a_ghost_fans_out_nothing(parent: Parent, child: Any) -> None:
    """I4"""
    ghost = parent.ctx
    parent.ctx.fan_out(child, [(1,), (2,)])
    parent.again()
    with pytest.raises(LeaseLost):
        ghost.fan_out(child, [(n,) for n in range(5)], name="more")
    assert parent.children() == [1, 2]


def test_what_does_not_fit_is_named(parent: Parent) -> None:
    @parent.app.task(name="typed")
    def typed(n: int) -> None: ...

    with pytest.raises(PayloadInvalid, match=r"^calls\[3\].n: "):
        parent.ctx.fan_out(typed, [(1,), (2,), (3,), ("x",), (5,)], batch=2)
    queued = parent.app.client.stats(exact=True).states["queued"]
    assert queued == 2  # the batch before it


def test_where_it_cannot_be(parent: Parent, child: Any) -> None:
    for batch in (0, 10_001, True, "x"):
        with pytest.raises(ValueError, match="^batch: "):
            parent.ctx.fan_out(child, [(1,)], batch=batch)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^name: "):
        parent.ctx.fan_out(child, [(1,)], name="")
    with pytest.raises(ValueError, match="^name: 'windlass:children'"):
        parent.ctx.once("windlass:children", lambda: 1)
    with pytest.raises(WindlassError, match="needs a worker"):
        Context().fan_out(child, [(1,)])
    parent.run.begin_transaction()
    with pytest.raises(WindlassError, match="must come before ctx.transaction"):
        parent.ctx.fan_out(child, [(1,)])


def test_an_answer_that_is_lost_is_asked_for_again(app: Windlass, child: Any) -> None:
    from windlass.runtime.registry import Mode, TaskDef
    from windlass.runtime.run import Run

    parent = Parent(app)
    taskdef = app.registry.tasks["parent"]
    assert isinstance(taskdef, TaskDef)
    assert taskdef.mode is Mode.THREAD
    run = Run(parent.held, taskdef, 0, app.opened, lambda run, what: None)
    kind = type(app.opened.shell)
    real, lost = kind.run, 0

    def forgetful(self: Any, plan: Any, timeout: float | None = None) -> Any:
        nonlocal lost
        answer = real(self, plan, timeout)
        if plan.name == "fan_out" and lost < 1:
            lost += 1
            raise OutcomeUnknown("lost")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "run", forgetful)
        assert Context(run).fan_out(child, [(n,) for n in range(3)], batch=2) == 3
    assert lost == 1
    assert parent.children() == [0, 1, 2]


def test_for_real(app: Windlass) -> None:
    """A parent in a thread, and one on the loop, under an embedded worker."""
    app.task(name="leaf")(lambda n: n)

    @app.task(name="fan")
    def fan(ctx: Context) -> int:
        return ctx.fan_out(app.tasks["leaf"], [(n,) for n in range(25)], batch=10)

    @app.task(name="afan")
    async def afan(ctx: Context) -> int:
        return await ctx.afan_out(app.tasks["leaf"], [(n,) for n in range(25)], batch=10)

    worker = app.run_embedded()
    try:
        assert fan.enqueue().result(timeout=20) == 25
        assert afan.enqueue().result(timeout=20) == 25
    finally:
        worker.stop(10)
    assert sum(job.task == "leaf" for job in app.client.search(limit=100).jobs) == 50

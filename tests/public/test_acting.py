"""Many jobs at once, in transactions that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from windlass import Context, Filter, State, Windlass
from windlass.acting import CHUNK, acting, cancelling
from windlass.core.errors import InvalidJob
from windlass.core.job import NewJob
from windlass.ports.plan import NOW, Plan, Steps, drive
from windlass.ports.store import Children, Selected, Selection, Store


def asked(selection: Selection, found: int, **said: Any) -> list[tuple[Selection, bool]]:
    """What an action by `selection` asks of a store in which `found` jobs match: each with whether it writes."""
    seen: list[tuple[Selection, bool]] = []

    def act(given: Selection) -> Plan[Selected]:
        def steps() -> Steps[Selected]:
            yield NOW
            return Selected()

        seen.append((given, True))
        return Plan(steps, "act", write=True)

    steps = acting(act, selection)
    plan = next(steps)
    try:
        while True:
            given = seen[-1][0]
            seen[-1] = (given, plan.write)
            ids = given.ids or tuple(f"job {n}" for n in range(min(found, given.limit)))
            plan = steps.send(Selected(changed=ids))
    except StopIteration as end:
        assert len(end.value.changed) == min(found, selection.limit)
    return seen


def test_a_filter_is_looked_for_by_readers_and_acted_on_in_chunks() -> None:
    first, *rest = asked(Selection(filter=Filter(), limit=10_000), 2 * CHUNK + 1)
    assert (first[0].dry_run, first[1]) == (True, False)
    assert [(len(each.ids), each.filter, writes) for each, writes in rest] == [
        (CHUNK, Filter(), True), (CHUNK, Filter(), True), (1, Filter(), True)
    ]  # fmt: skip


def test_a_dry_run_writes_nothing() -> None:
    assert [(each.dry_run, writes) for each, writes in asked(Selection(filter=Filter(), dry_run=True), 5)] == [(True, False)]


def test_a_rate_goes_on_from_chunk_to_chunk() -> None:
    _, *rest = asked(Selection(filter=Filter(), delay=5, every=10), CHUNK + 1)
    assert [(each.delay, each.every) for each, _ in rest] == [(5, 10), (5 + CHUNK * 10, 10)]


class Tree:
    """A store of which only this much is asked: a root, and below it a complete tree."""

    def __init__(self, width: int, depth: int) -> None:
        self.width, self.depth = width, depth
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    def cancel(self, selection: Selection) -> Plan[Selected]:
        def steps() -> Steps[Selected]:
            yield NOW
            assert len(selection.ids) <= CHUNK and selection.children
            self.cancelled += selection.ids
            return Selected(changed=selection.ids)

        return Plan(steps, "cancel", write=True)

    def children(self, parents: Sequence[str], limit: int, after: str | None = None) -> Plan[Children]:
        def steps() -> Steps[Children]:
            yield NOW
            assert set(parents) <= set(self.cancelled), "or it may enqueue one more behind this look"
            grown = [each for each in parents if each.count(".") < self.depth]
            start = int(after or 0)
            found = [f"{each}.{n}" for each in grown for n in range(self.width)]
            page = found[start : start + limit]
            return Children(page, str(start + limit) if len(page) == limit else None)

        return Plan(steps, "children", write=False)


def test_of_a_family_each_is_cancelled_before_its_children_are_looked_for() -> None:
    """In chunks, and without more in mind than one page on each way down."""
    tree = Tree(width=8, depth=4)
    steps = cancelling(cast("Store", tree), Selection(("root",), children=True))
    plan, waiting = next(steps), 0
    try:
        while True:
            left = steps.gi_frame.f_locals.get("left", ())  # type: ignore[attr-defined]
            waiting = max(waiting, sum(len(parents) for parents, _ in left))
            plan = steps.send(drive(iter(plan), lambda _: [(0,)]))
    except StopIteration as end:
        assert sorted(end.value.changed) == sorted(tree.cancelled)
    assert len(tree.cancelled) == len(set(tree.cancelled)) == sum(8**n for n in range(5))
    assert waiting <= CHUNK * tree.depth


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+stdlib", "memory"])
def test_a_family_is_cancelled_wherever_it_is(scheme: str, tmp_path: Any) -> None:
    """I13: what a running parent enqueues while it is being cancelled, in each of the three ways, included."""
    url = "memory://" if scheme == "memory" else f"{scheme}:///{tmp_path}/jobs.db"
    with Windlass(url) as app:
        began, go = threading.Event(), threading.Event()

        @app.task
        def leaf(name: str) -> None:
            began.set()

        @app.task(queue="parents")
        def parent(ctx: Context) -> None:
            leaf.using(delay="1h").enqueue("early")
            began.set()
            go.wait(10)
            leaf.enqueue("late")
            ctx.fan_out(leaf, [("fanned out",)] * 3)
            ctx.enqueue(leaf, "with the completion")

        worker = app.run_embedded(queues="parents", concurrency=1)
        try:
            job = parent.enqueue()
            assert began.wait(10)
            began.clear()
            counted = app.client.cancel(job.id, children=True, dry_run=True)
            told = job.cancel(children=True)
            assert (told.asked, len(told.changed), counted) == ((job.id,), 1, told)
            go.set()
            while not job.state().terminal:
                time.sleep(0.01)
        finally:
            worker.stop()
        children = app.client.search(Filter(parent=job.id)).jobs
        assert [(each.state, each.attempt) for each in children] == [(State.CANCELLED, 0)] * len(children)
        assert len(children) == (5 if job.state() is State.CANCELLED else 6)
        assert asyncio.run(job.acancel(children=True)).untouched == (job.id,)


@pytest.mark.parametrize("scheme", ["sqlite", "memory"])
def test_a_family_found_by_a_filter_is_cancelled_by_whoever_begins_again(
    scheme: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I13: interrupted between the parents and their children; and children of one that has ended already."""
    with Windlass("memory://" if scheme == "memory" else f"{scheme}:///{tmp_path}/jobs.db") as app:
        parents = [job.id for job in app.named("parent").enqueue_many([()] * 3)]
        app.client.cancel(parents[2])
        young = [
            NewJob(id=CHILD[:-1] + str(n), task="child", payload="[[],{}]", meta=f'{{"parent_id":"{parent}"}}')
            for n, parent in enumerate(parents)
        ]
        app.opened.shell.run(app.opened.store.enqueue(young))
        children, wanted = app.opened.store.children, Filter(task="parent")
        monkeypatch.setattr(app.opened.store, "children", interrupted)
        with pytest.raises(KeyboardInterrupt):
            app.client.cancel(filter=wanted, children=True)
        assert [each.state for each in app.client.search(Filter(task="child")).jobs] == [State.QUEUED] * 3
        monkeypatch.setattr(app.opened.store, "children", children)
        assert len(app.client.cancel(filter=wanted, children=True, dry_run=True).changed) == 3
        assert set(app.client.cancel(filter=wanted, children=True).changed) == {job.id for job in young}
        assert app.client.cancel(filter=wanted, children=True).changed == ()


CHILD = "019e7044-8800-7000-8000-000000000000"


def interrupted(*_: object) -> Any:
    raise KeyboardInterrupt


def test_named_ones_that_match(tmp_path: Any) -> None:
    """With ids and a filter: those of the named that match it, and none that was not named."""
    with Windlass(f"sqlite:///{tmp_path}/jobs.db") as app:
        one, other = (job.id for job in app.named("t").enqueue_many([(), ()]))
        assert app.client.delete(one, filter=Filter()).changed == (one,)
        assert app.client.cancel(other, filter=Filter(states=(State.DEAD,))) == Selected(untouched=(other,))


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"filter": 5}, "filter"), ({"filter": Filter(states=("bogus",))}, "filter.states"),  # type: ignore[arg-type]
        ({"filter": Filter(states=5)}, "filter.states"), ({"filter": Filter(queue=5)}, "filter.queue"),  # type: ignore[arg-type]
        ({"filter": Filter(since="x")}, "filter.since"), ({"filter": Filter(), "limit": 0}, "limit"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_is_no_filter(said: dict[str, Any], field: str, tmp_path: Any) -> None:
    with Windlass(f"sqlite:///{tmp_path}/jobs.db") as app:
        app.named("t").enqueue()
        for act in (app.client.cancel, app.client.revive, app.client.delete, app.client.search):
            with pytest.raises(InvalidJob, match=f"^{field}: "):
                act(**said)
        with pytest.raises(InvalidJob, match="^ids: "):
            app.client.cancel(["a"])  # type: ignore[arg-type]
        assert app.client.cancel(filter=Filter(states="queued")).changed  # type: ignore[arg-type]


def test_all_of_them_are_reached(tmp_path: Any) -> None:
    with Windlass(f"sqlite:///{tmp_path}/jobs.db") as app:
        jobs = app.named("t").enqueue_many([()] * (CHUNK + 10))
        named = [job.id for job in jobs[: CHUNK + 5]]
        assert app.client.cancel(*named, "nobody").missing == ("nobody",)
        rest = app.client.cancel(filter=Filter(states=(State.QUEUED,)))
        assert sorted(rest.changed) == sorted(job.id for job in jobs[CHUNK + 5 :])
        again = app.client.revive(filter=Filter(states=(State.CANCELLED,)), every="1h")
        assert len(again.changed) == CHUNK + 10
        assert app.client.stats().states["scheduled"] == CHUNK + 9

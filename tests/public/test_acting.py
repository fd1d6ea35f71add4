"""Many jobs at once, in transactions that nobody has to wait for."""

from __future__ import annotations

from typing import Any

from windlass import Filter, State, Windlass
from windlass.acting import CHUNK, acting
from windlass.ports.plan import NOW, Plan, Steps
from windlass.ports.store import Selected, Selection


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
            ids = given.ids if given.filter is None else tuple(f"job {n}" for n in range(min(found, given.limit)))
            plan = steps.send(Selected(changed=ids))
    except StopIteration as end:
        assert len(end.value.changed) == min(found, selection.limit)
    return seen


def test_a_filter_is_looked_for_by_readers_and_acted_on_in_chunks() -> None:
    first, *rest = asked(Selection(filter=Filter(), limit=10_000), 2 * CHUNK + 1)
    assert (first[0].dry_run, first[1]) == (True, False)
    assert [(len(each.ids), each.filter, writes) for each, writes in rest] == [
        (CHUNK, None, True), (CHUNK, None, True), (1, None, True)
    ]  # fmt: skip


def test_a_dry_run_writes_nothing() -> None:
    assert [(each.dry_run, writes) for each, writes in asked(Selection(filter=Filter(), dry_run=True), 5)] == [(True, False)]


def test_a_rate_goes_on_from_chunk_to_chunk() -> None:
    _, *rest = asked(Selection(filter=Filter(), delay=5, every=10), CHUNK + 1)
    assert [(each.delay, each.every) for each, _ in rest] == [(5, 10), (5 + CHUNK * 10, 10)]


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

"""Schedules as a user says them, and as an operator handles them."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.public.by_hand import Hand
from windlass import Context, Limit, PayloadInvalid, Unique, Windlass
from windlass.core.errors import InvalidJob, InvalidSchedule, ScheduleNotFound
from windlass.core.job import KeyLimit, Meta, State
from windlass.core.schedule import CatchUp, Overlap
from windlass.ports.store import ScheduleChange
from windlass.runtime.scheduler import Scheduler
from windlass.schedule import ScheduleInfo, document

HOUR = timedelta(hours=1)
CHANGE = ScheduleChange(name="far", action="put", digest="by hand", timing="by hand", origin="operator")


def hour(ago: int = 0) -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - ago * HOUR


@pytest.fixture
def task(app: Windlass) -> Any:
    @app.task(name="t", queue="q", max_attempts=3)
    def task(n: int, ctx: Context, *, word: str = "") -> str:
        return f"{n} {word} {ctx.schedule} {ctx.tick and ctx.tick.isoformat()}"

    return task


def meta(app: Windlass, id: str) -> Meta:
    return msgspec.json.decode(app.client.fetch(id).meta, type=Meta)


def words(info: ScheduleInfo) -> tuple[Any, ...]:
    assert info.definition is not None
    rule = info.definition.rule
    return (rule.cron, rule.every, info.definition.payload, info.definition.queue, info.definition.priority)


# --- in code ---------------------------------------------------------------------------------------------------------


def test_code_says_what_runs_when(app: Windlass, task: Any) -> None:
    made = app.schedule(task, cron="0 3 * * *", arguments=(7,), timezone="Europe/Berlin", priority=80, jitter="5m")
    assert made.name == "t"
    assert repr(made) == "<schedule t>"
    definition = app.schedules["t"]
    assert (definition.task, definition.payload, definition.queue, definition.priority) == ("t", "[[7],{}]", "q", 80)
    assert (definition.rule.cron, definition.rule.timezone, definition.rule.jitter) == ("0 3 * * *", "Europe/Berlin", 300_000_000)
    assert msgspec.json.decode(definition.meta, type=Meta).policy.max_attempts == 3
    with pytest.raises(ScheduleNotFound):
        made.show()
    Scheduler(app.opened, "s", app.defined).tick()
    info = made.show(next=3)
    assert (info.name, info.paused, info.record.origin, len(info.next)) == ("t", False, "code", 3)
    assert {tick.hour for tick in info.next} == {3}
    assert str(info.next[0].tzinfo) == "Europe/Berlin"


def test_the_same_schedule_twice_is_one_and_another_of_its_name_is_refused(app: Windlass, task: Any) -> None:
    app.schedule(task, every="1h", arguments=(7,))
    app.schedule(task, every=3600, arguments=[7])
    app.schedule(task, every="1h", arguments=(8,), name="eight")
    assert set(app.schedules) == {"t", "eight"}
    with pytest.raises(InvalidSchedule, match="^name: 't' is another schedule"):
        app.schedule(task, every="1h", arguments=(8,))


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ({}, InvalidSchedule, "cron: say either cron or every"),
        ({"cron": "61 * * * *"}, InvalidSchedule, "cron.minute: "),
        ({"cron": "@daily", "timezone": "Berlin"}, InvalidSchedule, "timezone: 'Berlin' is no time zone; did you mean"),
        ({"every": "1h", "name": "a,b"}, InvalidSchedule, "name: 'a,b' must be printable"),
        ({"every": "1h", "arguments": ("x",)}, PayloadInvalid, "n: "),
        ({"every": "1h", "arguments": ()}, PayloadInvalid, "n: is missing"),
        ({"every": "1h", "arguments": {"n": 1, "m": 2}}, PayloadInvalid, "m: is no argument"),
        ({"every": "1h", "arguments": "x"}, PayloadInvalid, "arguments: is a str"),
        ({"every": "1h", "queue": "a:b"}, InvalidJob, "queue: 'a:b' must have no colon"),
        ({"every": "1h", "priority": 101}, InvalidJob, "priority: 101 must be"),
        ({"every": "1h", "colour": 1}, InvalidJob, "colour: is no option"),
        ({"every": "1h", "delay": 1}, InvalidSchedule, "delay: belongs to one job"),
        ({"every": "1h", "at": hour()}, InvalidSchedule, "at: belongs to one job"),
        ({"every": "1h", "idempotency_key": "k"}, InvalidSchedule, "idempotency_key: belongs to one job"),
        ({"every": "1h", "expires": hour()}, InvalidSchedule, "expires: must be a duration"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_written(
    app: Windlass, task: Any, said: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as refused:
        app.schedule(task, **{"arguments": (7,)} | said)
    assert str(refused.value).startswith(message)
    assert app.schedules == {}
    said = {"name": "s", "arguments": (7,)} | said
    with pytest.raises(kind) as refused:
        app.client.schedules.create(said.pop("name"), task, said.pop("arguments"), **said)
    assert str(refused.value).startswith(message)
    assert app.client.schedules.list() == []


# --- by an operator --------------------------------------------------------------------------------------------------


def test_create_show_edit_pause_resume_delete(app: Windlass, task: Any) -> None:
    schedules = app.client.schedules
    info = schedules.create("s", "t", {"n": 7}, cron="0 * * * *", tags=["a"], headers={"h": "1"}, limit=3)
    assert words(info) == ("0 * * * *", None, '[[],{"n":7}]', "q", 50)
    assert (info.record.origin, info.record.revision, len(info.next)) == ("operator", 1, 5)
    assert schedules.create("s", "t", {"n": 7}, cron="0 * * * *", tags=["a"], headers={"h": "1"}, limit=3) == info
    with pytest.raises(InvalidSchedule, match="^name: there is a schedule called 's'"):
        schedules.create("s", "t", {"n": 8}, cron="0 * * * *")
    assert schedules.list() == [msgspec.structs.replace(info, next=info.next[:1])]

    edited = schedules.edit("s", (8,), every="30m", overlap="queue", catch_up="none", priority=70, max_attempts=9)
    assert words(edited) == (None, 1_800_000_000, "[[8],{}]", "q", 70)
    assert edited.definition is not None
    assert (edited.definition.rule.overlap, edited.definition.rule.catch_up) == (Overlap.QUEUE, CatchUp.NONE)
    kept = msgspec.json.decode(edited.definition.meta, type=Meta)
    assert (kept.tags, kept.headers, kept.policy.max_attempts) == (("a",), {"h": "1"}, 9)
    assert edited.record.revision == 2
    assert schedules.edit("s", every="30m").record.revision == 2
    back = schedules.edit("s", cron="@daily", start=hour(), end=hour(-48))
    assert words(back)[:2] == ("@daily", None)
    endless = schedules.edit("s", start=None, end=None)
    assert endless.definition is not None
    assert (endless.definition.rule.start, endless.definition.rule.end) == (None, None)

    assert schedules.pause("s").paused
    assert document(schedules.show("s"))["state"] == "paused"
    assert not schedules.resume("s").paused
    schedules.delete("s")
    assert schedules.list() == []


def test_limits_outlive_an_edit_of_the_arguments(app: Windlass) -> None:
    """I9: those that the schedule was given itself; those of its task follow the arguments."""

    @app.task(name="pay", limit=Limit(2, key="who"))
    def pay(who: str) -> None: ...

    schedules = app.client.schedules

    def limits(name: str) -> tuple[KeyLimit, ...]:
        definition = schedules.show(name).definition
        assert definition is not None
        return msgspec.json.decode(definition.meta, type=Meta).limits

    schedules.create("of its own", pay, {"who": "ada"}, every="1h", limit=Limit(3, name="bank"))
    schedules.edit("of its own", {"who": "bob"})
    assert limits("of its own") == (KeyLimit("bank", 3),)
    schedules.create("of the task", pay, {"who": "ada"}, every="1h")
    schedules.edit("of the task", {"who": "bob"})
    assert limits("of the task") == (KeyLimit("pay,bob", 2),)
    schedules.create("out of date", pay, {"who": "ada"}, every="1h", limit=Limit(3, name="bank"))
    definition = schedules.show("out of date").definition
    assert definition is not None
    text = msgspec.structs.replace(definition, payload='[[],{"whom":"ada"}]').text
    app.opened.shell.run(
        app.opened.store.change_schedules([msgspec.structs.replace(CHANGE, name="out of date", definition=text)])
    )
    schedules.edit("out of date", {"who": "bob"})  # what the code no longer takes can be mended
    assert limits("out of date") == (KeyLimit("bank", 3),)
    schedules.create("of both", pay, {"who": "ada"}, every="1h", limit=Limit(3, name="bank", key="who"))
    with pytest.raises(InvalidSchedule, match="^arguments: its limits or its unique key may follow from them"):
        schedules.edit("of both", {"who": "bob"})
    assert limits("of both") == (KeyLimit("bank,ada", 3),)


@pytest.mark.parametrize("timing", [{"cron": "0 * * * *"}, {"every": "1h"}])
def test_a_schedule_that_leaves_the_calendar_hides_no_other(app: Windlass, task: Any, timing: dict[str, Any]) -> None:
    """I23, also where another version or a hand put it there."""
    schedules = app.client.schedules
    for field in ("start", "end"):
        with pytest.raises(InvalidSchedule, match=f"^{field}: 9999-12-31.* lies behind the year 9998"):
            schedules.create("far", task, (1,), **timing, **{field: datetime(9999, 12, 31, 23, 59, tzinfo=UTC)})
    info = schedules.create("far", task, (1,), **timing, start=datetime(9998, 12, 31, 23, 30, tzinfo=UTC))
    schedules.create("near", task, (1,), every="1h")
    assert [each.year for each in info.next] == ([9998] if "every" in timing else [])
    assert [each.name for each in schedules.list()] == ["far", "near"]
    assert info.definition is not None
    text = info.definition.text.replace(str(info.definition.rule.start), str(2**62))
    app.opened.shell.run(app.opened.store.change_schedules([msgspec.structs.replace(CHANGE, definition=text)]))
    assert [(each.name, each.next == ()) for each in schedules.list()] == [("far", True), ("near", False)]
    Scheduler(app.opened, "s", app.defined).tick()


def test_an_edit_says_what_it_cannot(app: Windlass, task: Any) -> None:
    schedules = app.client.schedules
    schedules.create("s", "t", (7,), every="1h")
    for said, message in [
        ({"limit": 3}, "limit: cannot be edited"),
        ({"cron": "0 * * * *", "every": "1h"}, "every: cannot be given together"),
        ({"timezone": "x"}, "timezone: "),
        ({"delay": 3}, "delay: belongs"),
        ({"arguments": ("x",)}, "n: "),
        ({"queue": ""}, "queue: "),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            schedules.edit("s", **said)  # type: ignore[arg-type]
    assert schedules.show("s").record.revision == 1


def test_what_is_not_there(app: Windlass) -> None:
    schedules = app.client.schedules
    for act in (schedules.show, schedules.pause, schedules.resume, schedules.delete, schedules.run, schedules.edit):
        with pytest.raises(ScheduleNotFound, match="there is no schedule called 'none'"):
            act("none")
    with pytest.raises(ScheduleNotFound):
        schedules.backfill("none", hour(2), hour(1))


@pytest.mark.parametrize("given", [None, 5, print])
def test_what_is_no_task_has_no_schedule(app: Windlass, given: Any) -> None:
    with pytest.raises(InvalidSchedule, match="^task: .* must be a task or the name of one"):
        app.client.schedules.create("nightly", given, every="1h")
    assert app.client.schedules.list() == []


@pytest.mark.parametrize("count", ["x", -1, 1.5, True, None, 1_001])
def test_ticks_are_counted_in_whole_numbers(app: Windlass, task: Any, count: Any) -> None:
    app.client.schedules.create("nightly", task, [1], every="1h")
    with pytest.raises(InvalidSchedule, match="^next: .* must be a whole number, 0..1,000"):
        app.client.schedules.show("nightly", count)
    assert app.client.schedules.show("nightly", 0).next == ()


def test_a_task_whose_code_is_elsewhere(app: Windlass) -> None:
    info = app.client.schedules.create("s", "elsewhere.task", [1, "two"], every="1h", version=3)
    assert info.definition is not None
    assert (info.definition.task, info.definition.version, info.definition.payload) == ("elsewhere.task", 3, '[[1,"two"],{}]')
    assert words(app.client.schedules.edit("s", [2]))[2] == "[[2],{}]"


def test_a_schedule_of_running_code_is_not_deleted_but_paused(app: Windlass, task: Any) -> None:
    app.schedule(task, every="1h", arguments=(7,))
    Scheduler(app.opened, "s", app.defined).tick()
    with pytest.raises(InvalidSchedule, match="^name: 't' is defined by code that runs"):
        app.client.schedules.delete("t")
    assert app.client.schedules.edit("t", priority=9).record.origin == "edited"
    with pytest.raises(InvalidSchedule, match="would come back"):
        app.client.schedules.delete("t")
    assert app.client.schedules.pause("t").paused


def test_what_a_newer_version_made_is_listed_all_the_same(app: Windlass, task: Any) -> None:
    from windlass.ports.store import ScheduleChange

    newer = ScheduleChange(name="new", action="put", definition='{"rule":{"moon":"full"}}', digest="d", timing="t")
    app.opened.shell.run(app.opened.store.change_schedules([newer]))
    (info,) = app.client.schedules.list()
    assert (info.definition, info.next) == (None, ())
    assert document(info)["task"] is None
    for act in (app.client.schedules.run, app.client.schedules.edit):
        with pytest.raises(InvalidSchedule, match="a newer version of Windlass made the schedule"):
            act("new")
    assert app.client.schedules.pause("new").paused


# --- runs ------------------------------------------------------------------------------------------------------------


def test_run_now(app: Windlass, task: Any) -> None:
    schedules = app.client.schedules
    before = schedules.create("s", "t", (7,), cron="0 0 1 1 *").record
    schedules.pause("s")
    job = schedules.run("s")
    found = meta(app, job.id)
    assert (found.schedule, found.limits) == ("s", (KeyLimit(",schedule,s", 1),))
    assert abs(found.tick / 1e6 - datetime.now(UTC).timestamp()) < 60
    after = schedules.show("s").record
    assert (after.cursor, after.next_at, after.paused) == (before.cursor, before.next_at, True)
    assert (after.fired, after.last_job, after.last_tick) == (1, job.id, None)
    hand = Hand(app)
    held = hand.claim("q")
    assert held is not None
    second = schedules.run("s")
    assert hand.claim("q") is None  # it waits for the first
    assert second.refresh().state is State.BLOCKED
    hand.settle(held, hand.perform(held))
    hand.work("q")
    assert job.result(timeout=5).startswith("7  s 20")
    assert second.state() is State.COMPLETED


def test_a_run_whose_unique_key_is_taken_is_the_job_that_has_it(app: Windlass) -> None:
    """And that job does not become the schedule's own."""

    @app.task(name="only", queue="q", unique=Unique(policy="return-existing"))
    def only(n: int) -> None: ...

    theirs = only.using(delay="1h").enqueue(1)
    app.client.schedules.create("s", only, (1,), every="1h", overlap="cancel-previous")
    assert [app.client.schedules.run("s").id for _ in range(2)] == [theirs.id] * 2
    assert theirs.state() is State.SCHEDULED
    assert app.client.schedules.show("s").record.last_job is None


def test_a_tick_as_the_handler_sees_it(app: Windlass, task: Any) -> None:
    app.client.schedules.create("s", "t", {"n": 7, "word": "w"}, every="1h")
    done = app.client.schedules.backfill("s", hour(1), hour())
    assert (len(done.ticks), done.enqueued, done.already) == (1, 1, 0)
    held = Hand(app).work("q")
    assert held is not None
    assert app.job(held.id).result(timeout=5) == f"7 w s {hour(1).isoformat()}"


def test_backfill_once_each_however_often(app: Windlass, task: Any) -> None:
    """Killed half-way, and run again; beside what was fired."""
    schedules = app.client.schedules
    schedules.create("s", "t", (7,), cron="0 * * * *")
    dry = schedules.backfill("s", hour(24), hour(), dry_run=True)
    assert (len(dry.ticks), dry.enqueued, dry.already) == (24, 24, 0)
    assert dry.ticks[0] == hour(24)
    assert dry.ticks[-1] == hour(1)
    assert app.client.search().jobs == []
    assert schedules.backfill("s", hour(10), hour(5)).enqueued == 5
    assert schedules.backfill("s", hour(24), hour(), dry_run=True).already == 5
    done = schedules.backfill("s", hour(24), hour())
    assert (done.enqueued, done.already) == (19, 5)
    assert schedules.backfill("s", hour(24), hour()).enqueued == 0
    jobs = app.client.search(limit=100).jobs
    assert sorted(meta(app, job.id).tick or 0 for job in jobs) == [round(hour(n).timestamp() * 1e6) for n in range(24, 0, -1)]
    assert {job.state for job in jobs} == {State.QUEUED}
    hand = Hand(app)
    assert hand.claim("q") is not None
    assert hand.claim("q") is None  # one after the other
    schedules.run("s")
    assert hand.claim("q") is not None  # and the schedule's own beside them


def test_a_backfill_that_is_killed_at_every_batch(app: Windlass, task: Any) -> None:
    """Cut off in each of its transactions, and run again."""
    schedules = app.client.schedules
    schedules.create("s", "t", (7,), every="1m")
    start, end = hour(10), hour(5)
    kind = type(app.opened.shell)
    run, lives, batches = kind.run, 0, 0

    def mortal(self: Any, plan: Any, timeout: float | None = None) -> Any:
        nonlocal batches
        answer = run(self, plan, timeout)
        if plan.name == "backfill" and plan.write:
            batches += 1
            if batches > lives:
                raise KeyboardInterrupt
        return answer

    for lives in range(3):  # noqa: B007 - `mortal` reads it
        batches = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind, "run", mortal)
            with pytest.raises(KeyboardInterrupt):
                schedules.backfill("s", start, end)
        assert app.client.stats(exact=True).states["queued"] == 100 * (lives + 1)
    done = schedules.backfill("s", start, end)
    assert (done.enqueued, done.already) == (0, 300)
    assert app.client.stats(exact=True).states["queued"] == 300


def test_a_backfill_has_bounds(app: Windlass, task: Any) -> None:
    schedules = app.client.schedules
    schedules.create("s", "t", (7,), every="1m")
    for start, end, limit, message in [
        (hour(2), hour(), 100, "limit: the range has more than 100 ticks"),
        (hour(1), hour(2), 100, "end: .* is not after start"),
        (hour(1), hour(-2), 100, "end: .* lies in the future"),
        (hour(1).replace(tzinfo=None), hour(), 100, "start: .* has no time zone"),
        (hour(1), hour(), 0, "limit: 0 must be"),
    ]:
        with pytest.raises(InvalidSchedule, match=f"^{message}"):
            schedules.backfill("s", start, end, limit=limit)
    assert app.client.stats(exact=True).states["queued"] == 0


def test_the_same_for_an_event_loop(app: Windlass, task: Any) -> None:
    async def story() -> None:
        schedules = app.aclient.schedules
        info = await schedules.create("s", "t", (7,), every="1h")
        assert await schedules.list() == [msgspec.structs.replace(info, next=info.next[:1])]
        assert (await schedules.edit("s", priority=9)).record.revision == 2
        assert (await schedules.pause("s")).paused
        assert not (await schedules.resume("s")).paused
        assert len((await schedules.show("s", 7)).next) == 7
        job = await schedules.run("s")
        assert (await job.arefresh()).priority == 9
        assert (await schedules.backfill("s", hour(3), hour())).enqueued == 3
        made = app.schedule(task, every="1h", arguments=(7,), name="code")
        with pytest.raises(ScheduleNotFound):
            await made.ashow()
        await schedules.delete("s")

    asyncio.run(story())


# --- for real --------------------------------------------------------------------------------------------------------


def test_an_embedded_worker_fires(app: Windlass) -> None:
    seen: list[datetime | None] = []
    enough = threading.Event()

    @app.task(name="each")
    def each(ctx: Context) -> None:
        seen.append(ctx.tick)
        if len(seen) == 2:
            enough.set()

    made = app.schedule(each, cron="* * * * * *")
    worker = app.run_embedded()
    try:
        assert enough.wait(20)
    finally:
        worker.stop(5)
    first, second = [tick for tick in seen[:2] if tick is not None]
    assert second - first == timedelta(seconds=1)
    assert made.show().record.fired >= 2


def test_queued_ticks_run_one_after_the_other(app: Windlass) -> None:
    together: list[int] = []
    running = 0
    enough = threading.Event()

    @app.task(name="slow")
    async def slow() -> None:
        nonlocal running
        running += 1
        together.append(running)
        await asyncio.sleep(0.05)
        running -= 1
        if len(together) == 5:
            enough.set()

    app.client.schedules.create("s", slow, overlap="queue", every="1h")
    for _ in range(5):
        app.client.schedules.run("s")
    worker = app.run_embedded()
    try:
        assert enough.wait(20)
    finally:
        worker.stop(5)
    assert together == [1] * 5


def test_cancel_previous_stops_what_runs(app: Windlass) -> None:
    started, cancelled = threading.Event(), threading.Event()

    @app.task(name="long")
    async def long(ctx: Context) -> str:
        started.set()
        try:
            await asyncio.sleep(0 if cancelled.is_set() else 60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "second"

    app.client.schedules.create("s", long, overlap="cancel-previous", every="1h")
    first = app.client.schedules.run("s")
    worker = app.run_embedded()
    try:
        assert started.wait(20)
        second = app.client.schedules.run("s")
        assert second.result(timeout=30) == "second"
    finally:
        worker.stop(5)
    assert cancelled.is_set()
    assert first.state() is State.CANCELLED

"""Anomalies: every plan fails at its first statement, its second, its third ... until it passes. After each failure
nothing has changed, and in the end it has done what it does where nothing fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from windlass.core.flow import Bounds
from windlass.core.job import (
    Discarded,
    ErrorInfo,
    Failed,
    Held,
    LogLine,
    NewJob,
    Policy,
    Progress,
    Snoozed,
    Succeeded,
    Transition,
)
from windlass.core.machine import complete, decide, park, release, retry
from windlass.ports.plan import Plan, Steps, chain
from windlass.ports.store import (
    ClaimRequest,
    Death,
    Departure,
    Filter,
    PruneRules,
    QueueChange,
    QueueRules,
    Quota,
    ScheduleChange,
    Selection,
    Standing,
    Tick,
)
from windlass.testing.clock import ManualClock
from windlass.testing.conformance.schedules import put
from windlass.testing.conformance.world import DAY, HOUR, MINUTE, SECOND, Opener, World, open_world, report, told

T = TypeVar("T")

CALM = '{"policy":{"backoff":{"jitter":0}}}'
"""The meta of jobs for which two stores must decide the same."""
ONE = '{"policy":{"backoff":{"jitter":0}},"limits":[["one",1]]}'
LAST = '{"policy":{"backoff":{"jitter":0}},"unique":["last","replace"]}'
THROTTLED = '{"policy":{"backoff":{"jitter":0}},"unique":["throttled","throttle",null,3600000000]}'
NARROW = ClaimRequest(3, (Quota("narrow", 3),))
LINE = ClaimRequest(3, (Quota("line", 3),))
ALL = ClaimRequest(50, (Quota("default", 50), Quota("line", 50)))


class Fault(Exception):
    """What a driver raises when its connection breaks."""


APPLIED = object()


def failing(plan: Plan[T], at: int) -> Plan[T]:
    """`plan`, with a Fault in the place of its `at`-th statement, counted from 1; just past its last one, the fault
    comes when all is done but the commit."""

    def steps() -> Steps[T]:
        inner = iter(plan)
        count = 1
        try:
            wanted = next(inner)
            while count != at:
                wanted = inner.send((yield wanted))
                count += 1
        except StopIteration as end:
            if count + 1 == at:
                raise Fault(f"before the commit of {plan.name}") from None
            return end.value  # type: ignore[no-any-return]
        finally:
            inner.close()
        raise Fault(f"at statement {at} of {plan.name}")

    return Plan(steps, plan.name, write=plan.write)


class Scene:
    """Jobs, tokens and workers to act on; the same in every world whose clock stands the same."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.beat("w2")
        self.waiting = [world.put(meta=CALM, queue="line", idempotency_key=f"key {n}") for n in range(4)]
        self.limited = [world.put(meta=ONE, queue="narrow") for _ in range(3)]
        self.unique = world.running("w3", meta=LAST)
        self.parent = world.running("w4", meta=CALM)
        self.delayed = world.put(meta=CALM, after=HOUR, expires_after=2 * HOUR)
        self.runs = [world.running(meta=CALM, expires_after=DAY) for _ in range(12)]
        self.dead = world.running(meta=CALM)
        world.end(self.dead, Discarded())
        self.old = world.running(meta=CALM, idempotency_key="old")
        world.end(self.old, Succeeded('"r"'))
        self.ghost = world.running("w0", meta=CALM)
        world.run(world.store.reap([Death(worker="w0", observed=True, explained=True)]))

    def steps(self) -> dict[str, Callable[[], Plan[Any]]]:
        """Every writing operation, in an order in which each finds something to do."""
        world, store = self.world, self.world.store
        return {
            "enqueue": self._enqueue,
            "claim": lambda: self._claim(LINE),
            "claim_ids": lambda: store.claim_ids("w2", self.world.next_seq("w2"), [self.waiting[3]]),
            "settle": self._settle,
            "settle and claim": lambda: chain(self._complete(), self._claim(LINE)),
            "enqueue beside an owner": lambda: self._enqueue_unique(queue="line"),
            "enqueue in another's place": lambda: self._enqueue_unique(queue="narrow", after=HOUR),
            "let the successor in": lambda: store.settle("w3", [complete(self.unique.token, "1", DAY)]),
            "revive an owner": lambda: store.revive(Selection((self.unique.id,))),
            "bound a queue": lambda: store.queues([QueueChange("full", bounds=Bounds(1, shed=True))]),
            "enqueue into a full queue": lambda: store.enqueue(self._known(world.jobs(3, queue="full"))),
            "claim under a limit": lambda: self._claim(NARROW),
            "free a limit": self._free,
            "let the blocked in": lambda: self._claim(NARROW),
            "cancel the blocked": lambda: store.cancel(Selection(tuple(self.limited[2:]))),
            "snooze": lambda: store.settle("w1", [decide(self._take(), Policy(), Snoozed(5.0), 0.0)]),
            "report": self._report,
            "once": lambda: store.once(self.runs[0].token, "charge", "1"),
            "recover": lambda: store.recover("w2", 1),
            "beat": lambda: store.beat([report("w1"), report("w2"), report("w5"), report("w0")]),
            "cancel": lambda: store.cancel(Selection((self.runs[1].id, self.delayed, self.dead.id))),
            "revive": lambda: store.revive(Selection((self.dead.id, self.delayed))),
            "revive by filter": lambda: store.revive(Selection(filter=Filter(queue="default"))),
            "redrive": lambda: store.revive(Selection((self.old.id,), delay=HOUR)),
            "edit": lambda: store.edit(self.dead.id, "[[1],{}]"),
            "claim what came due": lambda: self._late(2 * HOUR, lambda: self._claim(ALL)),
            "reap": self._reap,
            "promote": lambda: self._late(2 * HOUR, lambda: store.promote(100)),
            "queues": lambda: store.queues([QueueChange("line", paused=True), QueueChange("b", limit=2)]),
            "delete": lambda: store.delete(Selection((self.old.id, self.waiting[3], self.world.job().id))),
            "schedules": lambda: store.change_schedules(
                [put("s"), put("p"), put("q"), ScheduleChange(name="q", action="delete")]
            ),
            "edit a schedule": lambda: store.change_schedules([put("s", "other", "other"), put("p", origin="code")]),
            "fire": self._fire,
            "fire and cancel": lambda: self._late(MINUTE, self._fire),
            "pause": lambda: store.change_schedules([ScheduleChange(name=name, action="pause") for name in "sp"]),
            "resume": lambda: store.change_schedules([ScheduleChange(name="s", action="resume")]),
            "fan out": self._fan_out,
            "cancel with children": lambda: store.cancel(Selection((self.parent.id, self.dead.id), children=True)),
            "enqueue a child too late": self._late_child,
            "complete with children too late": lambda: store.settle("w4", [self._complete_late()]),
            "lead": lambda: store.lead("maintainer", "a", SECOND),
            "resign": lambda: store.resign("maintainer", "a"),
            "prune": lambda: self._late(30 * DAY, lambda: store.prune(PruneRules(completed=DAY), 1_000)),
            "identity": lambda: store.identity("a name"),
            "depart": lambda: store.depart("there", 20),
            "put some back": lambda: store.dismiss([], self._aside()[:3]),
            "arrive": lambda: store.arrive("there", self._departure()),
            "dismiss": lambda: store.dismiss(self._aside(), []),
            "adopt": lambda: store.adopt(Standing(queues={"new": QueueRules(paused=True)}, term=99, revision=99)),
            "migrate": store.migrate,
        }

    def _departure(self) -> Departure:
        """What is set aside."""
        return self.world.run(self.world.store.depart("there", 20))

    def _aside(self) -> list[str]:
        return [parcel.job.id for parcel in self._departure().jobs]

    def _fire(self) -> Plan[Any]:
        world, now = self.world, self.world.clock()
        (at,) = world.run(world.store.schedules(("s",)))
        jobs = world.jobs(3, meta=CALM)
        world.known |= dict.fromkeys(job.id for job in jobs)
        moves = ((now - 1, jobs[0], "queue"), (now, jobs[1], "cancel-previous"), (now, jobs[2], "skip"))
        ticks, cursor = [], at.cursor
        for to, job, overlap in moves:
            tick = Tick(schedule="s", revision=at.revision, cursor=cursor, to=to, next_at=to + 1)
            ticks.append(msgspec.structs.replace(tick, job=job, overlap=overlap))
            cursor = to
        return world.store.fire(ticks)

    def _fan_out(self) -> Plan[Any]:
        jobs = self.world.jobs(3, meta=CALM)
        self.world.known |= dict.fromkeys(job.id for job in jobs)
        return self.world.store.fan_out(self.parent.token, "windlass:x", 0, jobs)

    def _late_child(self) -> Plan[Any]:
        world = self.world
        meta = f'{{"parent_id":"{self.parent.id}","unique":["late","reject"]}}'
        return world.store.enqueue(self._known([world.job(meta=meta, idempotency_key="late"), world.job(meta=CALM)]))

    def _complete_late(self) -> Transition:
        children = self._known([self.world.job(meta=f'{{"parent_id":"{self.parent.id}"}}')])
        return complete(self.parent.token, "1", DAY, tuple(children))

    def _take(self) -> Held:
        """A run that no other step acts on."""
        return self.runs.pop()

    def _late(self, span: int, plan: Callable[[], Plan[Any]]) -> Plan[Any]:
        self.world.clock.set(self.world.clock() + span)
        return plan()

    def _claim(self, request: ClaimRequest) -> Plan[Any]:
        return self.world.store.claim("w2", self.world.next_seq("w2"), request)

    def _known(self, jobs: list[NewJob]) -> list[NewJob]:
        self.world.known |= dict.fromkeys(job.id for job in jobs)
        return jobs

    def _enqueue_unique(self, **given: Any) -> Plan[Any]:
        world = self.world
        jobs = [world.job(meta=LAST, **given), *world.jobs(2, meta=THROTTLED, **given), world.job(**given)]
        world.known |= dict.fromkeys(job.id for job in jobs)
        return world.store.enqueue(jobs)

    def _free(self) -> Plan[Any]:
        [held] = [held for held in self.world.run(self.world.store.held("w2")) if held.id == self.limited[0]]
        return self.world.store.settle("w2", [complete(held, "1", DAY)])

    def _complete(self) -> Plan[Any]:
        return self.world.store.settle("w1", [complete(self._take().token, "1", DAY)])

    def _enqueue(self) -> Plan[Any]:
        world = self.world
        new = world.job(meta=CALM, idempotency_key="new", expires_after=HOUR)
        jobs = [new, world.job(meta=CALM, idempotency_key="new"), world.job(meta=CALM, after=HOUR), new]
        world.known |= dict.fromkeys(job.id for job in jobs)
        return world.store.enqueue([*jobs, world.job(idempotency_key="key 0")])

    def _settle(self) -> Plan[Any]:
        world = self.world
        a, b, c, d, e = (self._take() for _ in range(5))
        children = (world.job(meta=CALM), world.job(meta=CALM, after=HOUR, idempotency_key="child"))
        world.known |= dict.fromkeys(child.id for child in children)
        return world.store.settle(
            "w1",
            [
                complete(a.token, '"r"', DAY, children),
                retry(b.token, SECOND, ErrorInfo("E"), "failed"),
                release(c.token, "stop"),
                park(d.token, HOUR, "unknown_task"),
                decide(e, Policy(), Failed(ErrorInfo("E"), permanent=True), 0.0),
                complete(self.ghost.token, "1", DAY),
                complete(a.token, "2", DAY),
            ],
        )

    def _report(self) -> Plan[Any]:
        tokens = (self.runs[0].token, self.ghost.token)
        lines = [(token, LogLine(1, "info", "x")) for token in tokens for _ in range(2)]
        return self.world.store.report([(token, Progress(1.0)) for token in tokens], lines)

    def _reap(self) -> Plan[Any]:
        guilty, *executing = [held.id for held in self.runs[:3]]
        death = Death(worker="w1", observed=True, executing=tuple(executing), guilty=((guilty, "hard_timeout"),))
        return self.world.store.reap([death])


class Anomalies:
    """The chapter `anomalies`."""

    open: Opener

    def test_every_plan_is_all_or_nothing(self, world: World, tmp_path: Path) -> None:
        """I7: at whatever statement it is cut off; and a plan that is started again is the same plan."""
        world.need("atomic_batch")
        place = tmp_path / "untroubled"
        place.mkdir()
        faults = 0
        with open_world(type(self).open, place, world.kind, ManualClock(world.clock())) as twin:
            troubled, untroubled = Scene(world).steps(), Scene(twin).steps()
            assert world.dump() == twin.dump()
            for name in troubled:
                plan, expected = troubled[name](), twin.run(untroubled[name]())
                answer, failed = self._run_through(world, name, plan, twin.dump())
                faults += failed
                assert answer is APPLIED or told(answer) == told(expected), name
                assert world.dump() == twin.dump(), name
            world.healthy()
        world.figures |= {"plans": len(troubled), "faults": faults}

    def _run_through(self, world: World, name: str, plan: Plan[T], done: Any) -> tuple[T | object, int]:
        """The answer, or APPLIED where the plan had done all that it does when it was cut off."""
        before, whole = world.dump(), "atomic_plan" in world.store.capabilities
        for at in range(1, 500):
            try:
                answer = world.run(failing(plan, at))
            except Fault:
                now = world.dump()
            else:
                return answer, at - 1
            if not whole and now != before:
                if now != done:  # some of the batch: sent again, it ends as if nothing had been in the way
                    world.run(plan)
                assert world.dump() == done, f"{name}: cut off at statement {at}, and sent again"
                return APPLIED, at
            assert now == before, f"{name}: something was changed although it failed at statement {at}"
        raise AssertionError(f"{name}: 500 statements and no end")

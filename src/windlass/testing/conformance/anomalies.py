"""Anomalies: every plan fails at its first statement, its second, its third ... until it passes. After each failure
nothing has changed, and in the end it has done what it does where nothing fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from windlass.core.job import Discarded, ErrorInfo, Failed, Held, LogLine, Policy, Progress, Snoozed, Succeeded
from windlass.core.machine import complete, decide, park, release, retry
from windlass.ports.plan import Plan, Steps, chain
from windlass.ports.store import (
    ClaimRequest,
    Death,
    Filter,
    PruneRules,
    QueueChange,
    Quota,
    Selection,
)
from windlass.testing.clock import ManualClock
from windlass.testing.conformance.world import DAY, HOUR, SECOND, Opener, World, open_world, report

T = TypeVar("T")

CALM = '{"policy":{"backoff":{"jitter":0}}}'
"""The meta of jobs for which two stores must decide the same."""


class Fault(Exception):
    """What a driver raises when its connection breaks."""


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
        self.delayed = world.put(meta=CALM, after=HOUR, expires_after=2 * HOUR)
        self.runs = [world.running(meta=CALM, expires_after=DAY) for _ in range(12)]
        self.dead = world.running(meta=CALM)
        world.end(self.dead, Discarded())
        self.old = world.running(meta=CALM, idempotency_key="old")
        world.end(self.old, Succeeded('"r"'))
        self.ghost = world.running("w0", meta=CALM)
        world.run(world.store.reap([Death(worker="w0", observed=True, explained=True)]))

    def take(self) -> Held:
        """A run that no other step acts on."""
        return self.runs.pop()


def steps(scene: Scene) -> dict[str, Callable[[], Plan[Any]]]:
    """Every writing operation, in an order in which each finds something to do."""
    world, store = scene.world, scene.world.store
    request = ClaimRequest(3, (Quota("line", 3),))
    wide = ClaimRequest(50, (Quota("default", 50), Quota("line", 50)))

    def late(span: int, plan: Callable[[], Plan[Any]]) -> Callable[[], Plan[Any]]:
        def after() -> Plan[Any]:
            world.clock.set(world.clock() + span)
            return plan()

        return after

    def settle_mixed() -> Plan[Any]:
        a, b, c, d, e = (scene.take() for _ in range(5))
        children = (world.job(meta=CALM), world.job(meta=CALM, after=HOUR, idempotency_key="child"))
        world.known |= dict.fromkeys(child.id for child in children)
        return store.settle(
            "w1",
            [
                complete(a.token, '"r"', DAY, children),
                retry(b.token, SECOND, ErrorInfo("E"), "failed"),
                release(c.token, "stop"),
                park(d.token, HOUR, "unknown_task"),
                decide(e, Policy(), Failed(ErrorInfo("E"), permanent=True), 0.0),
                complete(scene.ghost.token, "1", DAY),
                complete(a.token, "2", DAY),
            ],
        )

    def enqueue() -> Plan[Any]:
        new = world.job(meta=CALM, idempotency_key="new", expires_after=HOUR)
        jobs = [new, world.job(meta=CALM, idempotency_key="new"), world.job(meta=CALM, after=HOUR), new]
        world.known |= dict.fromkeys(job.id for job in jobs)
        return store.enqueue([*jobs, world.job(idempotency_key="key 0")])

    def report_all() -> Plan[Any]:
        held = scene.runs[0]
        tokens = (held.token, scene.ghost.token)
        lines = [(token, LogLine(1, "info", "x")) for token in tokens for _ in range(2)]
        return store.report([(token, Progress(1.0)) for token in tokens], lines)

    def settle_and_claim() -> Plan[Any]:
        held = scene.take()
        return chain(
            store.settle("w1", [complete(held.token, "1", DAY)]), store.claim("w2", world.next_seq("w2"), request)
        )

    def settle_snoozed() -> Plan[Any]:
        return store.settle("w1", [decide(scene.take(), Policy(), Snoozed(5.0), 0.0)])

    def reap() -> Plan[Any]:
        ids = [held.id for held in scene.runs]
        return store.reap(
            [Death(worker="w1", observed=True, executing=tuple(ids[1:3]), guilty=((ids[0], "hard_timeout"),))]
        )

    return {
        "enqueue": enqueue,
        "claim": lambda: store.claim("w2", world.next_seq("w2"), request),
        "claim_ids": lambda: store.claim_ids("w2", world.next_seq("w2"), [scene.waiting[3]]),
        "settle": settle_mixed,
        "settle and claim": settle_and_claim,
        "snooze": settle_snoozed,
        "report": report_all,
        "once": lambda: store.once(scene.runs[0].token, "charge", "1"),
        "recover": lambda: store.recover("w2", 1),
        "beat": lambda: store.beat([report("w1"), report("w2"), report("w5"), report("w0")]),
        "cancel": lambda: store.cancel(Selection((scene.runs[1].id, scene.delayed, scene.dead.id))),
        "revive": lambda: store.revive(Selection((scene.dead.id, scene.delayed))),
        "revive by filter": lambda: store.revive(Selection(filter=Filter(queue="default"))),
        "edit": lambda: store.edit(scene.dead.id, "[[1],{}]"),
        "claim what came due": late(2 * HOUR, lambda: store.claim("w2", world.next_seq("w2"), wide)),
        "reap": reap,
        "promote": late(2 * HOUR, lambda: store.promote(100)),
        "queues": lambda: store.queues([QueueChange("line", paused=True), QueueChange("b", paused=False)]),
        "delete": lambda: store.delete(Selection((scene.old.id, scene.waiting[3], world.job().id))),
        "lead": lambda: store.lead("maintainer", "a", SECOND),
        "resign": lambda: store.resign("maintainer", "a"),
        "prune": late(30 * DAY, lambda: store.prune(PruneRules(completed=DAY), 1_000)),
        "migrate": store.migrate,
    }


class Anomalies:
    """The chapter `anomalies`."""

    open: Opener

    def test_every_plan_is_all_or_nothing(self, world: World, tmp_path: Path) -> None:
        """I7: at whatever statement it is cut off; and a plan that is started again is the same plan."""
        place = tmp_path / "untroubled"
        place.mkdir()
        faults = 0
        with open_world(type(self).open, place, world.kind, ManualClock(world.clock())) as twin:
            troubled, untroubled = steps(Scene(world)), steps(Scene(twin))
            assert world.dump() == twin.dump()
            for name in troubled:
                plan = troubled[name]()
                answer, failed = self._run_through(world, name, plan)
                faults += failed
                assert answer == twin.run(untroubled[name]()), name
                assert world.dump() == twin.dump(), name
            world.healthy()
        world.notes.append(f"{faults} faults in {len(troubled)} plans")

    def _run_through(self, world: World, name: str, plan: Plan[T]) -> tuple[T, int]:
        before = world.dump()
        for at in range(1, 500):
            try:
                answer = world.run(failing(plan, at))
            except Fault:
                changed = world.dump() != before
            else:
                return answer, at - 1
            assert not changed, f"{name}: something was changed although it failed at statement {at}"
        raise AssertionError(f"{name}: 500 statements and no end")

"""The schedules that the code of a simulated life defines, and what its operators do to them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.core.backoff import Backoff
from windlass.core.job import Meta, Policy
from windlass.core.schedule import CatchUp, Definition, Overlap, Rule, digest, read, run_job
from windlass.ports.plan import NOW, Plan, Steps
from windlass.ports.store import Fired, ScheduleChange, Store, Tick
from windlass.testing.clock import EPOCH
from windlass.testing.simulation.handlers import TASK
from windlass.testing.simulation.scheduler import SECOND
from windlass.testing.simulation.ticks import EVERY_MINUTE

if TYPE_CHECKING:
    from windlass.testing.simulation.handlers import Act

Code = tuple[ScheduleChange, ...]
"""What one version of the application defines."""
RUNS: tuple[list[Act], ...] = (
    [["work", 0.05]],
    [["work", 0.7]],
    [["work", 4.0]],
    [["fail", 0.1], ["work", 0.2]],
    [["snooze", 1.5]],
    [["fail", 0.1]],
    [["crash", 0.2]],
)


def draw_versions(dice: random.Random, trouble: float) -> tuple[Code, ...]:
    """The versions of the code that run one after the other; most define no schedule."""
    names = [f"schedule-{n}" for n in range(dice.choice((0, 0, 1, 2)))]
    first = tuple(shown(name, draw_definition(dice, trouble), "code") for name in names)
    if not names or dice.random() < 0.6:
        return (first,)
    return (first, tuple(shown(name, draw_definition(dice, trouble), "code") for name in names))


def draw_definition(dice: random.Random, trouble: float) -> Definition:
    """It ends soon after the trouble, or no life would."""
    often = dice.random() < 0.8
    policy = Policy(max_attempts=2, backoff=Backoff(base=0.5, jitter=0.0), timeout=5.0, grace=0.5)
    rule = Rule(
        cron=None if often else EVERY_MINUTE,
        every=dice.choice((1, 2, 5)) * SECOND if often else None,
        overlap=dice.choice(list(Overlap)),
        catch_up=dice.choice(list(CatchUp)),
        catch_up_limit=dice.randint(1, 4),
        jitter=dice.choice((0, 0, SECOND)),
        start=EPOCH + dice.randint(1, 3) * SECOND + 700_000 if often and dice.random() < 0.3 else None,
        end=EPOCH + round((trouble * 0.8 + dice.random() * 4) * SECOND),
    )
    payload = msgspec.json.encode([[dice.choice(RUNS)], {}]).decode()
    meta = msgspec.json.encode(Meta(policy=policy)).decode()
    return Definition(rule=rule, task=TASK, payload=payload, meta=meta)


def shown(name: str, definition: Definition, origin: str) -> ScheduleChange:
    """A definition as it is shown to a store."""
    return ScheduleChange(
        name=name,
        action="put",
        definition=definition.text,
        digest=digest(definition.text),
        timing=definition.rule.timing,
        origin=origin,
    )


def run_now(store: Any, name: str, id: str) -> Plan[Fired | None]:
    """As `windlass.schedules` has it: the job of a schedule now, under an id of the caller's."""
    seam: Store = store

    def steps() -> Steps[Fired | None]:
        now = (yield NOW)[0][0]
        found = yield from seam.schedules((name,))
        if not found:
            return None
        schedule, definition = found[0], read(found[0].definition)
        overlap = definition.rule.overlap
        tick = Tick(
            schedule=name,
            revision=schedule.revision,
            cursor=schedule.cursor,
            to=schedule.cursor,
            next_at=schedule.next_at,
            job=run_job(id, name, definition, now),
            overlap="queue" if overlap is Overlap.SKIP else overlap.value,
            manual=True,
        )
        return (yield from seam.fire((tick,)))[0]

    return Plan(steps, "run", write=True, hint=True)

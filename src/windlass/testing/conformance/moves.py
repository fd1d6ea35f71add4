"""Random operations, as values: what to do next, knowing what was answered so far."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from windlass.core.flow import Bounds
from windlass.core.job import (
    Cancelled,
    Discarded,
    ErrorInfo,
    Failed,
    Held,
    LogLine,
    Lost,
    Meta,
    NewJob,
    Outcome,
    Progress,
    Released,
    Snoozed,
    State,
    Succeeded,
    Token,
    Transition,
)
from windlass.core.machine import decide
from windlass.core.placement import job_id
from windlass.ports.store import (
    Claimed,
    ClaimRequest,
    Death,
    DueSchedules,
    Filter,
    PruneRules,
    QueueChange,
    Quota,
    Schedule,
    ScheduleChange,
    Selection,
    Tick,
    WorkerReport,
    token_hash,
)
from windlass.testing.conformance.world import DAY, HOLD, HOUR, MINUTE, SECOND

QUEUES = ("a", "b")
TASKS = ("t", "u")
SCHEDULES = ("s1", "s2")
KEYS = ("k1", "k2", None, None, None)
METAS = (
    '{"policy":{"backoff":{"jitter":0}}}',
    '{"policy":{"backoff":{"jitter":0},"max_attempts":2,"result_ttl":60},"tags":["x"]}',
    '{"policy":{"backoff":{"jitter":0},"crash_budget":2,"loss_budget":3}}',
    '{"policy":{"backoff":{"jitter":0}},"limits":[["one",1]]}',
    '{"policy":{"backoff":{"jitter":0}},"limits":[["one",2],["two",2]]}',
    '{"policy":{"backoff":{"jitter":0},"max_attempts":1},"limits":[["two",1],["three",3]]}',
    '{"policy":{"backoff":{"jitter":0}},"unique":["x"]}',
    '{"policy":{"backoff":{"jitter":0}},"unique":["x","return-existing"],"limits":[["one",1]]}',
    '{"policy":{"backoff":{"jitter":0},"max_attempts":2},"unique":["x","replace"]}',
    '{"policy":{"backoff":{"jitter":0}},"unique":["x","keep-last"],"tags":["x"]}',
    '{"policy":{"backoff":{"jitter":0}},"unique":["y","debounce",2000000],"limits":[["two",1]]}',
    '{"policy":{"backoff":{"jitter":0}},"unique":["y","throttle",null,3000000]}',
)
"""No jitter: where a store decides by itself, it must come to what the model comes to."""
SPANS = (1, SECOND // 2, SECOND, 2 * SECOND, 10 * SECOND, HOLD, HOLD + 1, MINUTE, HOUR, 25 * HOUR)
WEIGHTS = {
    "enqueue": 12,
    "claim": 14,
    "settle": 16,
    "advance": 10,
    "beat": 6,
    "report": 3,
    "once": 3,
    "reap": 4,
    "lapsed": 1,
    "recover": 2,
    "claim_ids": 3,
    "held": 1,
    "cancel": 4,
    "revive": 4,
    "edit": 1,
    "delete": 2,
    "promote": 1,
    "prune": 2,
    "queues": 2,
    "change_schedules": 3,
    "fire": 4,
    "due": 2,
    "fan_out": 2,
    "search": 2,
    "dead_groups": 1,
    "endings": 1,
    "children": 1,
    "stats": 1,
    "why": 2,
    "workers": 1,
    "lead": 2,
    "resign": 1,
    "audit": 1,
}


class Call(msgspec.Struct, frozen=True):
    """One operation with its arguments."""

    name: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(_brief(arg) for arg in self.args)})"


class Moves:
    """Draws operations that are likely to mean something, and some that are not."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._sent: list[NewJob] = []
        self._grants: list[Held] = []
        self._workers: list[str] = ["w0"]
        self._seqs: dict[str, int] = {}
        self._schedules: dict[str, Schedule] = {}
        """As they were read last."""
        self._fingerprint = ""

    def next(self, now: int) -> Call:
        """The next operation, at the store's time `now`."""
        (name,) = self._dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        return Call(name, getattr(self, f"draw_{name}")(now))

    def learn(self, call: Call, answer: Any) -> None:
        """Remember what was granted, so that it can be settled, rightly or wrongly; and where schedules stand."""
        if isinstance(answer, DueSchedules):
            self._schedules |= {each.name: each for each in answer.schedules}
        if call.name == "change_schedules" and isinstance(answer, list):
            self._schedules |= {each.schedule.name: each.schedule for each in answer if each.schedule}
        if isinstance(answer, Claimed):
            self._grants += answer.jobs
            del self._grants[:-40]
        if call.name == "dead_groups" and answer:
            self._fingerprint = answer[0].fingerprint

    # --- what to draw from ---------------------------------------------------------------------------------

    def _worker(self) -> str:
        """One of the latest few, or a new one."""
        if self._dice.random() < 0.1:
            self._workers.append(f"w{len(self._workers)}")
        return self._dice.choice(self._workers[-4:])

    def _id(self) -> str:
        if self._sent and self._dice.random() < 0.97:
            return self._dice.choice(self._sent[-30:]).id
        return job_id(1, self._dice.randbytes(10))

    def _held(self) -> Held | None:
        """The latest grants are the likeliest; older ones are mostly ghosts."""
        return (
            self._dice.choice(self._grants[-8:] if self._dice.random() < 0.8 else self._grants)
            if self._grants
            else None
        )

    def _token(self) -> Token:
        held = self._held()
        return held.token if held else Token(self._id(), 1)

    def _filter(self, now: int) -> Filter:
        pick = self._dice.choice
        return Filter(
            states=tuple(self._dice.sample(list(State), pick((0, 0, 1, 2)))),
            queue=pick((None, None, *QUEUES)),
            task=pick((None, None, *TASKS)),
            tag=pick((None, None, None, "x")),
            schedule=pick((None, None, None, "s")),
            ended_before=pick((None, None, None, now, now - MINUTE)),
            fingerprint=pick((None, None, None, "", self._fingerprint)),
            parent=self._id() if self._dice.random() < 0.1 else None,
        )

    def _selection(self, now: int) -> tuple[Selection]:
        dry = self._dice.random() < 0.1
        if self._dice.random() < 0.15:
            return (Selection(filter=self._filter(now), limit=100_000, dry_run=dry),)
        ids = dict.fromkeys(self._id() for _ in range(self._dice.randint(1, 3)))
        return (Selection(tuple(ids), dry_run=dry),)

    # --- operations ----------------------------------------------------------------------------------------

    def draw_enqueue(self, now: int) -> tuple[list[NewJob]]:
        if self._sent and self._dice.random() < 0.1:
            return ([self._dice.choice(self._sent)],)
        jobs = [self._new(now) for _ in range(self._dice.randint(1, 4))]
        self._sent += jobs
        return (jobs,)

    def _new(self, now: int) -> NewJob:
        pick, chance = self._dice.choice, self._dice.random
        return NewJob(
            id=job_id(now // 1_000, self._dice.randbytes(10)),
            task=pick(TASKS),
            payload=f"[[{self._dice.randint(0, 2)}],{{}}]",
            meta=self._meta(),
            version=pick((1, 1, 2)),
            queue=pick(QUEUES),
            head_start=pick((0, 0, MINUTE)),
            after=pick((0, 0, 0, SECOND, MINUTE)),
            at=pick((now + HOUR, now - HOUR)) if chance() < 0.1 else None,
            expires_after=pick((SECOND, HOUR)) if chance() < 0.2 else None,
            idempotency_key=pick(KEYS),
            digest=pick("de"),
        )

    def _meta(self) -> str:
        """That of a child now and then, also of a job that is not there or that ended long ago."""
        meta: str = self._dice.choice(METAS)
        if self._dice.random() < 0.8:
            return meta
        parent = self._grants[-1].id if self._grants and self._dice.random() < 0.5 else self._id()
        return f'{{"parent_id":"{parent}",{meta[1:]}'

    def draw_claim(self, now: int) -> tuple[str, int, ClaimRequest]:
        worker = self._worker()
        queues = self._dice.sample(QUEUES, self._dice.randint(1, 2))
        quotas = tuple(Quota(queue, self._dice.randint(1, 4)) for queue in queues)
        exclude = ((self._dice.choice(TASKS), 1),) if self._dice.random() < 0.2 else ()
        request = ClaimRequest(self._dice.randint(1, 6), quotas, exclude, suspects=self._dice.random() < 0.2)
        return worker, self._seq(worker), request

    def _seq(self, worker: str) -> int:
        self._seqs[worker] = self._seqs.get(worker, 0) + 1
        return self._seqs[worker]

    def draw_claim_ids(self, now: int) -> tuple[str, int, list[str]]:
        worker = self._worker()
        return worker, self._seq(worker), [self._id() for _ in range(self._dice.randint(1, 3))]

    def draw_settle(self, now: int) -> tuple[str, list[Transition]]:
        helds = [self._held() for _ in range(self._dice.randint(1, 4))]
        return "w0", [self._transition(held, now) for held in helds if held]

    def _transition(self, held: Held, now: int) -> Transition:
        return decide(held, msgspec.json.decode(held.meta, type=Meta).policy, self._outcome(now), 0.5)

    def _outcome(self, now: int) -> Outcome:
        error = ErrorInfo("E", str(self._dice.randint(0, 9)))
        outcomes: list[Outcome] = [
            Succeeded("1"),
            Succeeded("2", children=tuple(self._new(now) for _ in range(self._dice.randint(0, 2)))),
            Failed(error),
            Failed(error, permanent=True, reason="bad"),
            Failed(error, retry_after=2.0),
            Snoozed(self._dice.choice((0.0, 5.0)), "later"),
            Released("stop"),
            Released("unknown_task", delay=1.0),
            Discarded("no use", error),
            Cancelled(),
            Lost(True),
        ]
        outcome = self._dice.choice(outcomes)
        if isinstance(outcome, Succeeded):
            self._sent += outcome.children
        return outcome

    def draw_report(self, now: int) -> tuple[list[tuple[Token, Progress]], list[tuple[Token, LogLine]]]:
        progress = [(self._token(), Progress(float(n), at=now)) for n in range(self._dice.randint(0, 2))]
        lines = [(self._token(), LogLine(now, "info", str(n))) for n in range(self._dice.randint(0, 2))]
        return progress, lines

    def draw_once(self, now: int) -> tuple[Token, str, str | None]:
        return self._token(), self._dice.choice("xy"), self._dice.choice(("1", "2", None))

    def draw_recover(self, now: int) -> tuple[str, int]:
        worker = self._worker()
        return worker, max(0, self._seqs.get(worker, 0) - self._dice.choice((0, 0, 1)))

    def draw_beat(self, now: int) -> tuple[list[WorkerReport]]:
        return ([self._said(worker) for worker in {self._worker(): 1, self._worker(): 1}],)

    def _said(self, worker: str) -> WorkerReport:
        token = self._token()
        return WorkerReport(
            id=worker,
            supervisor="s",
            host="h",
            pid=1,
            hold=HOLD,
            busy=self._dice.randint(0, 3),
            held=self._dice.randint(0, 1),
            held_hash=token_hash(token),
        )

    def draw_reap(self, now: int) -> tuple[list[Death]]:
        ids = [self._id() for _ in range(3)]
        executing = None if self._dice.random() < 0.3 else tuple({held.id for held in self._grants[-4:]})
        return (
            [
                Death(
                    worker=self._worker(),
                    observed=self._dice.random() < 0.5,
                    reaper=self._worker(),
                    executing=executing,
                    alone=self._dice.random() < 0.3,
                    explained=self._dice.random() < 0.2,
                    stopped=self._dice.random() < 0.1,
                    guilty=((ids[0], "hard_timeout"),),
                    detail="signal 9",
                )
            ],
        )

    def draw_lapsed(self, now: int) -> tuple[str]:
        return (self._worker(),)

    draw_held = draw_lapsed

    draw_delete = _selection

    def draw_cancel(self, now: int) -> tuple[Selection]:
        (selection,) = self._selection(now)
        return (msgspec.structs.replace(selection, children=self._dice.random() < 0.5),)

    def draw_children(self, now: int) -> tuple[list[str], int]:
        return [self._id()], 1_000

    def draw_revive(self, now: int) -> tuple[Selection]:
        (selection,) = self._selection(now)
        pick = self._dice.choice
        return (msgspec.structs.replace(selection, delay=pick((0, 0, SECOND)), every=pick((0, 0, SECOND // 2))),)

    def draw_edit(self, now: int) -> tuple[str, str]:
        return self._id(), "[[9],{}]"

    def draw_advance(self, now: int) -> tuple[int]:
        return (self._dice.choice(SPANS),)

    def draw_promote(self, now: int) -> tuple[int]:
        return (100_000,)

    def draw_prune(self, now: int) -> tuple[PruneRules, int]:
        pick, ages = self._dice.choice, (None, 0, MINUTE, DAY)
        rules = PruneRules(
            pick(ages), pick(ages), pick(ages), pick(ages), workers=HOUR, keys=self._dice.choice((HOUR, DAY))
        )
        return rules, self._dice.choice((2, 1_000))

    def draw_queues(self, now: int) -> tuple[list[QueueChange]]:
        pick = self._dice.choice
        bounds = pick((None, None, Bounds(), Bounds(3), Bounds(2, shed=True), Bounds(age=SECOND), Bounds(4, MINUTE)))
        rules = pick((True, False, False, None)), pick((None, None, 0, 1, 3)), bounds
        return ([QueueChange(pick(QUEUES), *rules)],)

    def draw_change_schedules(self, now: int) -> tuple[list[ScheduleChange]]:
        return ([self._change() for _ in range(self._dice.randint(1, 2))],)

    def _change(self) -> ScheduleChange:
        pick = self._dice.choice
        said = pick("defg")
        return ScheduleChange(
            name=pick(SCHEDULES),
            action=pick(("put", "put", "put", "put", "pause", "resume", "delete")),
            definition=said,
            digest=f"#{said}",
            timing=said if said in "de" else "f",
            origin=pick(("code", "operator")),
        )

    def draw_due(self, now: int) -> tuple[int]:
        return (self._dice.choice((1, 10)),)

    def draw_fire(self, now: int) -> tuple[list[Tick]]:
        return ([self._tick(now) for _ in range(self._dice.randint(1, 3))],)

    def _tick(self, now: int) -> Tick:
        """Mostly what a scheduler would fire that read the schedule just now; sometimes what one that slept would."""
        pick, chance = self._dice.choice, self._dice.random
        at = self._schedules.get(pick(SCHEDULES))
        if at is None:
            at = Schedule(
                name=pick(SCHEDULES),
                revision=1,
                definition="d",
                origin="code",
                paused=False,
                cursor=now,
                next_at=now,
                created_at=now,
                changed_at=now,
                seen_at=None,
            )
        to = pick((now, now, now, at.cursor, at.cursor + SECOND, now + 1))
        job = None if chance() < 0.1 else self._new(now)
        if job is not None:
            self._sent.append(job)
        return Tick(
            schedule=at.name,
            revision=at.revision,
            cursor=at.cursor,
            to=to,
            next_at=pick((None, to + MINUTE, to + MINUTE)),
            job=job,
            overlap=pick(("skip", "queue", "cancel-previous")),
            manual=chance() < 0.1,
        )

    def draw_fan_out(self, now: int) -> tuple[Token, str, int, list[NewJob]]:
        jobs = [self._new(now) for _ in range(self._dice.randint(0, 2))]
        self._sent += jobs
        return self._token(), "windlass:x", self._dice.choice((0, 0, 1, 2)), jobs

    def draw_search(self, now: int) -> tuple[Filter, int]:
        return self._filter(now), self._dice.choice((3, 100))

    def draw_dead_groups(self, now: int) -> tuple[int]:
        return (self._dice.choice((1, 100)),)

    def draw_endings(self, now: int) -> tuple[int]:
        return (self._dice.choice((2, 100)),)

    def draw_stats(self, now: int) -> tuple[bool]:
        return (True,)

    def draw_why(self, now: int) -> tuple[str]:
        return (self._id(),)

    def draw_workers(self, now: int) -> tuple[()]:
        return ()

    draw_audit = draw_workers

    def draw_lead(self, now: int) -> tuple[str, str, int, int]:
        pick = self._dice.choice
        return pick(("maintainer", "lock")), pick("abcd"), pick((SECOND, MINUTE)), pick((1, 2, 3))

    def draw_resign(self, now: int) -> tuple[str, str]:
        return self._dice.choice(("maintainer", "lock")), self._dice.choice("abcd")


def _brief(value: Any) -> str:
    """As Python would write it, without the fields that say nothing new."""
    if isinstance(value, list | tuple):
        inner = ", ".join(_brief(each) for each in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if not isinstance(value, msgspec.Struct):
        return repr(value)
    told = [
        f"{field.name}={_brief(getattr(value, field.name))}"
        for field in msgspec.structs.fields(value)
        if field.required or getattr(value, field.name) != field.default
    ]
    return f"{type(value).__name__}({', '.join(told)})"

"""The exhaustive small-scope model: every state that two workers and two jobs can get into, and every step between.

The steps are the memory store's own plans, with `core.machine` in them, and what a worker may do between two of them:
claim, beat, settle, recover, crash, come back; each also with its answer lost. Time is in ticks and counts from now,
workers go by the seat they sit in, fences by whether they are the one: so the state space is finite although nothing
in it has a bound of its own, and the search ends when no step leads to a state that is not known (it is *closed*).
Each step is judged by the checker of simulated lives; in each state the store's own audit must be silent; and from
each state there must be a way to one in which every job has ended.

A step that breaks something is shown with the shortest way to it, since the search goes breadth first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from windlass.core.backoff import Backoff
from windlass.core.job import Cancelled, ErrorInfo, Failed, Held, Meta, NewJob, Outcome, Policy, State, Succeeded
from windlass.core.machine import decide
from windlass.ports.plan import Plan, drive
from windlass.ports.store import ClaimRequest, Death, Quota, Selection, WorkerReport, token_hash
from windlass.stores.memory import MemoryStore
from windlass.testing.simulation.checker import Checker
from windlass.testing.simulation.ledger import Commit, Ledger
from windlass.testing.simulation.world import Dump

TICK = 1_000_000
HOLD = TICK
SECOND_TRY = Backoff(base=1.0, factor=1.0, jitter=0.0)
POLICIES = (
    Policy(max_attempts=2, backoff=SECOND_TRY, crash_budget=1, loss_budget=2, result_ttl=0),
    Policy(max_attempts=1, backoff=SECOND_TRY, crash_budget=1, loss_budget=1, result_ttl=0),
)
"""The first job may fail once and be lost once; the others may not, and are there to be taken for it."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """How large the world is."""

    workers: int = 2
    jobs: int = 2
    delay: int = 1
    """Ticks until the last job comes due; the others are due at once."""
    lost_answers: bool = True
    """Whether each step of a worker may also lose its answer."""


class Seat(msgspec.Struct, frozen=True):
    """A place for a worker, and who sits there."""

    id: str = ""
    """As the store knows it; empty: nobody."""
    dead: bool = False
    """The process is gone, and its jobs were not taken over."""
    seq: int = 0
    lost_claim: bool = False
    """The answer to its last claim was lost."""
    held: Held | None = None
    outcome: str = ""
    """It has sent this and got no answer: it will send the same again."""
    told: bool = False
    """It knows that its job is asked to cancel."""


class Step(NamedTuple):
    """One thing that can happen."""

    name: str
    seat: int = -1
    other: Any = None
    lost: bool = False
    """The answer does not arrive."""

    def __str__(self) -> str:
        who = f" w{self.seat}" if self.seat >= 0 else ""
        what = "" if self.other is None else f" {self.other}"
        return f"{self.name}{who}{what}" + (" (answer lost)" if self.lost else "")


class Found(msgspec.Struct, frozen=True):
    """What a search found."""

    states: int
    steps: int
    violations: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    """The shortest way to the violation."""


class Node:
    """A state: the store's tables, the seats, the judge, the time."""

    def __init__(self, store: MemoryStore, seats: tuple[Any, ...], checker: Checker, now: int, made: int) -> None:
        self.store = store
        self.seats = seats
        self.checker = checker
        self.now = now
        self.made = made
        """Worker ids given out so far."""

    def copy(self, make: Callable[[], MemoryStore]) -> Node:
        """A node of its own with all that this one holds."""
        store = make()
        ours, theirs = store.data, self.store.data
        for id, row in theirs.jobs.items():
            ours.jobs.place(id, row)
        for name in ("attempts", "workers", "schedules", "revisions"):
            for key, value in getattr(theirs, name).items():
                getattr(ours, name).place(key, value)
        ours.enqueued = theirs.enqueued
        return Node(store, self.seats, self.checker, self.now, self.made)

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Whatever is done to it meanwhile is undone."""
        before = (self.seats, self.checker, self.now, self.made)
        self.checker = self.checker.copy()
        yield
        self.store.data.roll_back()
        self.seats, self.checker, self.now, self.made = before

    def do(self, operation: str, *given: Any) -> Any:
        """Run one plan, and have its answer judged."""
        plan: Plan[Any] = getattr(self.store, operation)(*given)
        answer = drive(iter(plan), lambda _: [(self.now,)])
        self.checker.judge(Commit(self.now, 0.0, self.now / TICK, "model", operation, given, answer))
        return answer

    def sit(self, at: int, seat: Any) -> None:
        """Somebody's place has changed."""
        self.seats = (*self.seats[:at], seat, *self.seats[at + 1 :])

    @property
    def ended(self) -> bool:
        """Whether every job has ended."""
        return all(row.state.terminal for row in self.store.data.jobs.values())


class Search:
    """Goes through all that can happen; what that is, a model says."""

    stuck = "I2: from here no job can ever end"
    """What is said of a state from which no way leads to a good end."""
    mercy = frozenset({"cancel"})
    """Steps on which no such way may depend."""

    def __init__(self, make: Callable[[], MemoryStore]) -> None:
        """`make` makes the store whose plans are the steps; a broken one is a twin that must be caught."""
        self._make = make

    def search(self, most: int = 1_000_000) -> Found:
        """Go on until the space is closed or a violation is found. Raises RuntimeError past `most` states."""
        first = self._first()
        known: dict[Any, tuple[Any, Step | None]] = {self._key(first): (None, None)}
        back: dict[Any, list[Any]] = {}
        ends: list[Any] = []
        queue = deque([first])
        steps = 0
        while queue:
            node = queue.popleft()
            here = self._key(node)
            for step in list(self._steps(node)):
                steps += 1
                with node.tried():
                    self._take(node, step)
                    there = self._key(node)
                    new = there not in known
                    wrong = node.checker.violations or (self._problems(node) if new else [])
                    if wrong:
                        return Found(len(known), steps, tuple(wrong), (*_path(known, here), str(step)))
                    if step.name not in self.mercy:
                        back.setdefault(there, []).append(here)
                    if new:
                        known[there] = (here, step)
                        queue.append(node.copy(self._make))
                        if self._over(node):
                            ends.append(there)
            if len(known) > most:
                raise RuntimeError(f"more than {most} states: the scope is too large, or something grows without end")
        stuck = known.keys() - _reaching(ends, back)
        if stuck:
            nearest = min((_path(known, each) for each in stuck), key=len)
            return Found(len(known), steps, (self.stuck,), nearest)
        return Found(len(known), steps)

    def _first(self) -> Node:
        """Where it begins."""
        raise NotImplementedError

    def _steps(self, node: Node) -> Iterator[Step]:
        """What can happen now."""
        raise NotImplementedError

    def _take(self, node: Node, step: Step) -> None:
        """Have it happen."""
        raise NotImplementedError

    def _key(self, node: Node) -> Any:
        """Equal for states that differ in nothing that can matter."""
        raise NotImplementedError

    def _problems(self, node: Node) -> list[str]:
        """What is wrong with a state, however it came about."""
        raise NotImplementedError

    def _over(self, node: Node) -> bool:
        """Whether it is a good end."""
        raise NotImplementedError


class Model(Search):
    """Workers and jobs."""

    def __init__(self, make: Callable[[], MemoryStore] = MemoryStore, scope: Scope | None = None) -> None:
        """See Search."""
        super().__init__(make)
        self._scope = scope or Scope()

    def _key(self, node: Node) -> Any:
        return key(node)

    def _problems(self, node: Node) -> list[str]:
        return _state_problems(node)

    def _over(self, node: Node) -> bool:
        return node.ended

    def _first(self) -> Node:
        node = Node(self._make(), (Seat(),) * self._scope.workers, Checker(Ledger(), Dump({}, {}, [], 0, []), ()), 0, 0)
        node.now = 1_000 * TICK
        last = self._scope.jobs - 1
        jobs = [
            NewJob(
                id=f"00000000-0000-7000-8000-{n:012d}",
                task="t",
                payload="[[],{}]",
                meta=msgspec.json.encode(Meta(policy=POLICIES[min(n, 1)])).decode(),
                after=self._scope.delay * TICK if n == last else 0,
            )
            for n in range(self._scope.jobs)
        ]
        node.do("enqueue", jobs)
        node.store.data.commit()
        return node

    # --- what can happen ---------------------------------------------------------------------------------------------

    def _steps(self, node: Node) -> Iterator[Step]:
        yield Step("tick")
        yield Step("promote")
        for row in node.store.data.jobs.values():
            if not row.state.terminal and not row.cancelling:
                yield Step("cancel", -1, int(row.new.id[-4:]))
        for at, seat in enumerate(node.seats):
            if not seat.id:
                yield Step("start", at)
            elif seat.dead:
                yield Step("bury", at, "alone")
                yield Step("bury", at, "among others")
            else:
                yield from self._of_a_worker(node, at, seat)
            if seat.id:
                for other, reaper in enumerate(node.seats):
                    if other != at and reaper.id and not reaper.dead:
                        yield Step("reap", other, at)

    def _of_a_worker(self, node: Node, at: int, seat: Seat) -> Iterator[Step]:
        yield Step("crash", at)
        for lost in (False, True) if self._scope.lost_answers else (False,):
            yield Step("beat", at, None, lost)
            if seat.lost_claim:
                yield Step("recover", at, None, lost)
            elif seat.held is None:
                yield Step("claim", at, None, lost)
            else:
                words = ["success", "failure", "cancelled"] if seat.told else ["success", "failure"]
                for word in [seat.outcome] if seat.outcome else words:
                    yield Step("settle", at, word, lost)

    # --- what it does ------------------------------------------------------------------------------------------------

    def _take(self, node: Node, step: Step) -> None:
        if step.name == "tick":
            node.now += TICK
        elif step.name == "promote":
            node.do("promote", 10)
        elif step.name == "cancel":
            node.do("cancel", Selection((f"00000000-0000-7000-8000-{step.other:012d}",)))
        else:
            getattr(self, f"_{step.name}")(node, step.seat, node.seats[step.seat], step)

    def _start(self, node: Node, at: int, _: Seat, step: Step) -> None:
        node.made += 1
        seat = Seat(id=f"w{at}.{node.made}")
        node.checker.begun.add(seat.id)
        node.do("beat", [_report(seat)])
        node.sit(at, seat)

    def _beat(self, node: Node, at: int, seat: Seat, step: Step) -> None:
        [answer] = node.do("beat", [_report(seat)])
        if step.lost:
            return
        if answer.taken:
            node.sit(at, Seat())  # it stops what it does, and ends
        elif seat.held is not None and seat.held.id in answer.cancel:
            node.sit(at, _with(seat, told=True))

    def _claim(self, node: Node, at: int, seat: Seat, step: Step) -> None:
        request = ClaimRequest(1, (Quota("default", 1),))
        claimed = node.do("claim", seat.id, seat.seq + 1, request)
        if not claimed.jobs and claimed.alive:
            # Suspects run alone; a worker with one seat is alone anyway.
            suspects = ClaimRequest(1, (Quota("default", 1),), suspects=True)
            claimed = node.do("claim", seat.id, seat.seq + 1, suspects)
        if step.lost:
            node.sit(at, _with(seat, seq=seat.seq + 1, lost_claim=True))
        elif not claimed.alive:
            node.sit(at, Seat())
        else:
            node.sit(at, _with(seat, seq=seat.seq + 1, held=claimed.jobs[0] if claimed.jobs else None))

    def _recover(self, node: Node, at: int, seat: Seat, step: Step) -> None:
        granted = node.do("recover", seat.id, seat.seq)
        if not step.lost:
            node.sit(at, _with(seat, lost_claim=False, held=granted[0] if granted else None))

    def _settle(self, node: Node, at: int, seat: Seat, step: Step) -> None:
        assert seat.held is not None
        node.do("settle", seat.id, [decide(seat.held, _policy(node, seat.held), OUTCOMES[step.other], 0.0)])
        gone = _with(seat, held=None, outcome="", told=False)
        node.sit(at, _with(seat, outcome=step.other) if step.lost else gone)

    def _crash(self, node: Node, at: int, seat: Seat, step: Step) -> None:
        node.checker.dead.add(seat.id)
        node.sit(at, _with(seat, dead=True))

    def _bury(self, node: Node, at: int, seat: Seat, step: Step) -> None:
        """Its supervisor has seen it die."""
        running = (seat.held.id,) if seat.held and not seat.outcome else ()
        alone = step.other == "alone" and bool(running)
        node.do("reap", [Death(worker=seat.id, observed=True, executing=running, alone=alone)])
        node.sit(at, Seat())

    def _reap(self, node: Node, at: int, seat: Seat, step: Step) -> None:
        """Somebody else finds that its lease ran out, or thinks so."""
        victim = node.seats[step.other]
        [answer] = node.do("reap", [Death(worker=victim.id, observed=False, reaper=seat.id)])
        if answer.taken and victim.dead:
            node.sit(step.other, Seat())


OUTCOMES: dict[str, Outcome] = {
    "success": Succeeded(),
    "failure": Failed(ErrorInfo("E")),
    "cancelled": Cancelled(),
}


def _policy(node: Node, held: Held) -> Policy:
    return node.checker.jobs[held.id].policy


def _with(seat: Seat, **changes: Any) -> Seat:
    return msgspec.structs.replace(seat, **changes)


def _report(seat: Seat) -> WorkerReport:
    held = seat.held
    return WorkerReport(
        id=seat.id, supervisor="s", host="h", pid=1, hold=HOLD, held=int(held is not None),
        held_hash=token_hash(held.token) if held else 0,
    )  # fmt: skip


# --- states ----------------------------------------------------------------------------------------------------------


def key(node: Node) -> Any:
    """What of a state can matter for anything to come: instants count from now, ids by the seat, fences by whether they
    are the one; what has ended has ended, however it came there."""
    seats = [_seat_key(node, seat) for seat in node.seats]
    rows = node.store.data.jobs
    going = [id for id in rows if not rows[id].state.terminal]
    line = tuple(sorted(going, key=lambda id: (rows[id].rank, rows[id].seq)))
    # Which worker sits where is of no account: of two states that differ in nothing else one stands for both.
    found = []
    for order in ((0, 1), (1, 0)) if len(seats) == 2 else ((0,),):
        seat_of = {node.seats[at].id: place for place, at in enumerate(order) if node.seats[at].id}
        found.append((tuple(seats[at] for at in order), tuple(_job_key(node, id, seat_of) for id in rows)))
    return line, min(found, key=hash)


def _seat_key(node: Node, seat: Seat) -> Any:
    if not seat.id:
        return None
    now, checker, held = node.now, node.checker, seat.held
    token: tuple[Any, ...] | None = None
    if held is not None:
        row = node.store.data.jobs[held.id]
        if row.fence == held.fence:
            token = (held.id, row.state is State.RUNNING, seat.outcome, seat.told)
        else:  # a ghost's: whether its fence has a receipt decides what it will be answered
            receipt = any(attempt.fence == held.fence for attempt in node.store.data.attempts.get(held.id, ()))
            token = (held.id, receipt, held.fence in checker.jobs[held.id].applied, seat.outcome)
    worker = node.store.data.workers.get(seat.id)
    lease = checker.leases.get(seat.id)
    if worker is None or lease is None:
        return "unknown", worker is None, lease is None, token
    if worker.taken and seat.id in checker.taken:
        return "taken", seat.dead, token  # whatever it asks, it is told to go
    side = (worker.taken, *_lease_key(worker.lease_until, worker.since, now))
    told = (seat.id in checker.taken, *_lease_key(lease.until, lease.since, now))
    if seat.dead:  # it will judge nobody any more, so how long it beat is of no account
        begun = held is not None and not seat.outcome
        return "dead", token[:2] if token and begun else None, side[:2], told[:2]
    return seat.lost_claim, seat.lost_claim and worker.closed >= seat.seq, token, side, told


def _lease_key(until: int, since: int, now: int) -> tuple[int, int]:
    return (-1, 0) if until < now else (until - now, min(HOLD, now - since))


def _job_key(node: Node, id: str, seat_of: dict[str, int]) -> Any:
    row, job, now = node.store.data.jobs[id], node.checker.jobs[id], node.now
    if row.state.terminal:
        return row.state, job.ended, job.holder is not None
    holder = None if job.holder is None else (seat_of.get(job.holder[0], -1), job.holder[2])
    runs = row.state is State.RUNNING
    return (
        row.state,
        (row.attempt, row.crashes, row.losses, row.suspect, row.cancelling),
        (seat_of.get(row.worker or ""), _last_claim(node, row)) if runs else max(0, row.comes_due - now),
        (holder, job.asked, job.ended, job.failures, job.crashes, job.losses, job.suspect),
        None if runs else max(0, job.not_before - now),
    )


def _last_claim(node: Node, row: Any) -> bool:
    """Whether the claim that granted it is the last one of its worker."""
    return any(seat.id == row.worker and seat.seq == row.grant for seat in node.seats)


def _state_problems(node: Node) -> list[str]:
    """What is wrong with a state, however it came about."""
    problems = [f"I3: {text}" for text in drive(iter(node.store.audit()), lambda _: [(node.now,)])]
    for id, job in node.checker.jobs.items():
        row = node.store.data.jobs.get(id)
        if row is None:
            problems.append(f"I1: {id} is gone")
            continue
        runs = None if row.state is not State.RUNNING else (row.worker, row.fence)
        told = None if job.holder is None else job.holder[:2]
        if runs != told:
            problems.append(f"I5: {id} is held by {runs} in the store, by {told} as its answers say")
        if (row.state if row.state.terminal else None) != job.ended:
            problems.append(f"I2: {id} is {row.state}, as the answers say it ended: {job.ended}")
        if (row.crashes, row.losses) != (job.crashes, job.losses) and row.state is not State.CANCELLED:
            problems.append(f"I6: {id}: {row.crashes} crashes, {row.losses} losses")
        if row.attempt > job.policy.max_attempts:
            problems.append(f"I6: {id}: attempt {row.attempt}")
    return problems


def _path(known: dict[Any, tuple[Any, Step | None]], state: Any) -> tuple[str, ...]:
    steps: list[str] = []
    while True:
        before, step = known[state]
        if step is None:
            return tuple(reversed(steps))
        steps.append(str(step))
        state = before


def _reaching(ends: list[Any], back: dict[Any, list[Any]]) -> set[Any]:
    """All states from which one of `ends` can be reached."""
    found = set(ends)
    queue = deque(ends)
    while queue:
        for before in back.get(queue.popleft(), ()):
            if before not in found:
                found.add(before)
                queue.append(before)
    return found

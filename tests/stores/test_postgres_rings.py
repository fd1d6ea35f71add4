"""I30: dead rows do not pile up in front of the claims, though some transaction keeps vacuum from taking them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.faults.kit import new_job
from tests.stores.postgres_server import PLACES, database
from windlass import stores
from windlass.core.errors import StoreUnavailable
from windlass.core.machine import complete, release, snooze
from windlass.ports.plan import Plan, Statement, Steps
from windlass.ports.store import ClaimRequest, Opened, PruneRules, Quota
from windlass.testing import ManualClock
from windlass.testing.conformance.world import report

REQUEST = ClaimRequest(20, (Quota("default", 20),))


@pytest.fixture
def opened(tmp_path: Any) -> Iterator[Opened]:
    opened = stores.open(PLACES.url(tmp_path))
    opened.shell.run(opened.store.migrate())
    opened.store.dead_most = 100  # type: ignore[attr-defined]
    rested(opened)
    yield opened
    opened.close()
    PLACES.recycle()


@pytest.fixture
def pin() -> Iterator[psycopg.Connection]:
    """A transaction that is older than everything, and has read nothing of ours."""
    with psycopg.connect(database()) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1 FROM pg_class").fetchall()
        yield connection
        connection.rollback()


def parts(opened: Opened) -> dict[str, list[tuple[int, int, int]]]:
    """Of each ring: part, whether it is in use, and its pages."""
    schema = opened.store.schema  # type: ignore[attr-defined]
    with psycopg.connect(database()) as connection:
        rings = dict(connection.execute(f"SELECT name, current FROM {schema}.rings").fetchall())
        size = lambda name: connection.execute(f"SELECT pg_relation_size('{schema}.{name}') / 8192").fetchone()[0]
        return {name: [(part, part == now, size(f"{name}_{part}")) for part in (0, 1)] for name, now in rings.items()}


def situation(opened: Opened) -> dict[str, Any]:
    """What may be in the way of a part that is to be truncated."""
    schema = opened.store.schema  # type: ignore[attr-defined]
    asked = {
        "rings": f"SELECT *, extract(epoch FROM clock_timestamp()) FROM {schema}.rings",
        "rows": f"SELECT tableoid::regclass, xmin, xmax FROM {schema}.ready",
        "locks": "SELECT relation::regclass, locktype, mode, granted, pid FROM pg_locks WHERE pid <> pg_backend_pid()",
        "sessions": "SELECT pid, backend_type, state, xact_start, query FROM pg_stat_activity WHERE state IS NOT NULL",
    }
    with psycopg.connect(database()) as connection:
        return {name: connection.execute(text).fetchall() for name, text in asked.items()}  # type: ignore[arg-type]


def chores(opened: Opened) -> int:
    """A round of them; answers how many were put off."""
    late = 0
    for chore in opened.store.chores(PruneRules()):  # type: ignore[attr-defined]
        try:
            opened.shell.run(chore)
        except StoreUnavailable:
            late += 1
    return late


def rested(opened: Opened) -> None:
    """Whoever had this schema before may have left a part that was about to be truncated."""
    store: Any = opened.store
    settled, store.settled = store.settled, 0
    for _ in range(100):
        if not any(pages for found in parts(opened).values() for _, used, pages in found if not used):
            break
        chores(opened)
    else:
        raise AssertionError(f"the rings do not come to rest: {situation(opened)}")
    store.settled = settled


def turned(opened: Opened) -> None:
    """The rings turn, whatever the server has counted."""

    def steps() -> Steps[None]:
        for name, _, _, empty, _ in (yield Statement("rings")):
            if empty:
                yield Statement("ring_turn", (name,))

    opened.shell.run(Plan(steps, "turn", write=True))


def work(opened: Opened, worker: str, ended: Counter[str], seqs: Iterator[int], lock: threading.Lock) -> None:
    """Run jobs until none are left, some of them in several goes."""
    run, store = opened.shell.run, opened.store
    run(store.beat([report(worker)]))
    dice, empty = random.Random(worker), 0
    while empty < 200:
        held = run(store.claim(worker, next(seqs), REQUEST)).jobs
        empty = 0 if held else empty + 1
        moves = [
            release(each.token, "again") if (chance := dice.random()) < 0.1
            else snooze(each.token, 0, "again") if chance < 0.2
            else complete(each.token, "1", 10**12)
            for each in held
        ]  # fmt: skip
        for move, answer in zip(moves, run(store.settle(worker, moves)), strict=True):
            assert answer == "applied"
            if move.state == "completed":
                with lock:
                    ended[move.id] += 1


def test_every_job_ends_once_while_the_rings_turn(opened: Opened, pin: Any) -> None:
    opened.store.settled = 0  # type: ignore[attr-defined]
    ended: Counter[str] = Counter()
    over, lock = threading.Event(), threading.Lock()
    turns: Counter[Any] = Counter()

    def turn() -> None:
        while not over.wait(0.02):
            turned(opened)
            turns["late"] += chores(opened)
            for name, found in parts(opened).items():
                turns[name, next(part for part, used, _ in found if used)] += 1

    keeper = threading.Thread(target=turn)
    keeper.start()
    jobs: list[str] = []
    workers = [
        threading.Thread(target=work, args=(opened, f"w{n}", ended, iter(range(1, 10**6)), lock)) for n in range(3)
    ]
    for thread in workers:
        thread.start()
    for _ in range(60):
        batch = [new_job() for _ in range(50)]
        jobs += [job.id for job in batch]
        opened.shell.run(opened.store.enqueue(batch))
    for thread in workers:
        thread.join()
    over.set()
    keeper.join()
    assert ended == Counter(jobs)
    assert opened.shell.run(opened.store.audit()) == []
    assert turns["ready", 0] and turns["ready", 1], turns
    assert turns["held", 0] and turns["held", 1], turns


def test_what_was_left_is_emptied_although_vacuum_may_not(opened: Opened, pin: Any) -> None:
    run, store = opened.shell.run, opened.store
    run(store.beat([report("w")]))
    kept = new_job(priority=0, head_start=-(10**15))
    run(store.enqueue([kept]))
    before = next(part for part, used, _ in parts(opened)["ready"] if used)
    for seq in range(1, 40):
        run(store.enqueue([new_job() for _ in range(10)]))
        held = run(store.claim("w", seq, ClaimRequest(10, (Quota("default", 10),)))).jobs
        run(store.settle("w", [complete(each.token, "1", 10**12) for each in held]))
    for _ in range(150):
        # What the server counts, it tells with some delay.
        run(store.enqueue([]))
        chores(opened)
        found = parts(opened)["ready"]
        if found[1 - before][1] and found[before][2] == 0:
            break
        threading.Event().wait(0.1)
    assert found[before] == (before, False, 0), "emptied to the last page"
    assert found[1 - before] == (1 - before, True, 1), "the last living row has moved"
    (last,) = run(store.claim("w", 99, REQUEST)).jobs
    assert last.id == kept.id
    assert run(store.audit()) == []


def test_a_part_that_somebody_uses_is_left_alone(opened: Opened) -> None:
    """A transaction that enqueues and does not end: the part waits for it, and nobody waits for the part for long."""
    store: Any = opened.store
    store.settled = 0
    with psycopg.connect(database()) as connection:
        unused = next(part for part, used, _ in parts(opened)["ready"] if not used)
        connection.execute(
            f"INSERT INTO {store.schema}.ready (part, lane, queue, rank, seq) VALUES ({unused}, 0, 'q', 1, 1)"
        )
        assert chores(opened) == 1
        opened.shell.run(store.enqueue([new_job()]), 0.5)
        connection.rollback()
    assert chores(opened) == 0, "nothing lives there: it is noted"
    assert chores(opened) == 0
    assert parts(opened)["ready"][unused][2] == 0


def test_a_dump_that_is_just_beginning_has_the_last_rows(opened: Opened, pin: psycopg.Connection) -> None:
    """A snapshot keeps nobody from truncating: it sees what moved where it was, until it can have locked that."""
    store: Any = opened.store
    opened.shell.run(store.enqueue([new_job() for _ in range(3)]))
    pin.rollback()
    pin.execute("SELECT 1 FROM pg_class")
    before = next(part for part, used, _ in parts(opened)["ready"] if used)
    turned(opened)
    for _ in range(3):
        chores(opened)
        assert parts(opened)["ready"][before][2] > 0
    assert len(pin.execute(f"SELECT 1 FROM {store.schema}.ready").fetchall()) == 3
    pin.rollback()
    late = 0
    for _ in range(300):
        threading.Event().wait(0.1)
        late += chores(opened)
        if not parts(opened)["ready"][before][2]:
            break
    else:
        raise AssertionError(f"it is never truncated; {late} chores were put off; {situation(opened)}")


@pytest.fixture
def wary(tmp_path: Any) -> Iterator[tuple[Opened, ManualClock]]:
    """A store to which every walk is a long one."""
    clock = ManualClock()
    opened = stores.open(PLACES.url(tmp_path), clock=clock)
    opened.shell.run(opened.store.migrate())
    opened.store.dead_most, opened.store.slow = -1, 0  # type: ignore[attr-defined]
    yield opened, clock
    opened.close()
    PLACES.recycle()


def test_what_is_urgent_waits_for_one_claim_that_looks_at_all(wary: tuple[Opened, ManualClock]) -> None:
    """Where claims start behind the dead rows; and each job is given once, in order."""
    (opened, clock), seq = wary, iter(range(1, 100))
    run, store = opened.shell.run, opened.store
    request = lambda most: ClaimRequest(most, (Quota("default", most),))
    claim = lambda most: [job.id for job in run(store.claim("w", next(seq), request(most))).jobs]
    run(store.beat([report("w")]))
    jobs = [new_job() for _ in range(9)]
    run(store.enqueue(jobs))
    ids = [job.id for job in jobs]
    assert claim(2) == ids[:2]
    urgent = [new_job(head_start=n * 10**9) for n in (1, 2)]
    run(store.enqueue(urgent[:1]))
    assert claim(2) == ids[2:4], "the line that was seen a moment ago"
    clock.advance(2.0)
    assert claim(2) == [urgent[0].id, ids[4]]
    run(store.enqueue(urgent[1:]))
    assert claim(1) == [ids[5]]
    assert claim(10) == [urgent[1].id, *ids[6:]], "where that line has too few, all is looked at"
    assert claim(2) == []
    assert run(store.audit()) == []


def test_every_job_ends_once_where_claims_start_behind_the_dead_rows(opened: Opened, pin: Any) -> None:
    opened.store.dead_most, opened.store.slow = -1, 0  # type: ignore[attr-defined]
    ended: Counter[str] = Counter()
    lock = threading.Lock()
    workers = [
        threading.Thread(target=work, args=(opened, f"w{n}", ended, iter(range(1, 10**6)), lock)) for n in range(3)
    ]
    for thread in workers:
        thread.start()
    jobs = [new_job(head_start=n % 7 * 10**6) for n in range(1_500)]
    for first in range(0, len(jobs), 50):
        opened.shell.run(opened.store.enqueue(jobs[first : first + 50]))
    for thread in workers:
        thread.join()
    assert ended == Counter(job.id for job in jobs)
    assert opened.shell.run(opened.store.audit()) == []

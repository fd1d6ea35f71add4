"""What completed long ago goes by the part: nothing else does (I1), and nobody is kept waiting for it."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from tests.stores.postgres_server import PLACES, database
from windlass import stores
from windlass.core.errors import StoreError, StoreTimeout
from windlass.core.job import Discarded, ErrorInfo, Failed, LogLine, Progress, State, Succeeded
from windlass.core.machine import complete
from windlass.core.placement import job_id
from windlass.ports.plan import Plan, Steps
from windlass.ports.store import ClaimRequest, Opened, Pruned, PruneRules, Quota, Selection
from windlass.stores.postgres.connection import SETTINGS
from windlass.stores.postgres.parts import PARTS, SETTLED, SHARE, part_at
from windlass.stores.postgres.statements import load_scripts
from windlass.stores.postgres.store import PostgresStore
from windlass.task import new_ids
from windlass.testing import ManualClock
from windlass.testing.conformance.departure import Departures, look
from windlass.testing.conformance.sizes import seeds
from windlass.testing.conformance.world import DAY, HOUR, World, report

RULES = PruneRules(completed=5 * DAY, dead=None, cancelled=None, expired=None)
NAMES = ("attempts", "once", "progress", "logs", "merged", "keys", "past_keys", "unique_keys")


class Site(World):
    """A store whose parts are a day long and worth emptying however little is in them; a part has just begun."""

    def __init__(self, path: Path, worth: int = 0) -> None:
        clock = ManualClock(20_000 * DAY)
        super().__init__(lambda place, clock: stores.open(PLACES.url(place), clock=clock), path, clock, "sync")
        self.run(self.store.migrate())
        self.mine.worth = worth
        self.connection = psycopg.connect(database(), autocommit=True)
        self.sql(f"UPDATE windlass.parts SET since = 0, width = {DAY // 1_000}")

    @property
    def mine(self) -> PostgresStore:
        assert isinstance(self.store, PostgresStore)
        return self.store

    def tend(self, rules: PruneRules = RULES) -> None:
        """As the maintainer does: what is put off, as vacuum has its table just now, is tried again."""
        for chore in self.mine.chores(rules):
            for again in range(20):
                try:
                    self.run(chore)
                    break
                except StoreTimeout:
                    assert again < 19

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(text.replace("windlass.", f"{self.mine.schema}."))
        return cursor.fetchall() if cursor.description else []

    def files(self) -> set[int]:
        """What the parts of `jobs` lie in: a part that was emptied lies in another file."""
        return {row[0] for row in self.sql(
            f"SELECT pg_relation_filenode(to_regclass('windlass.jobs_' || n)) FROM generate_series(0, {PARTS - 1}) n"
        )}  # fmt: skip

    def part(self, id: str) -> int:
        return int(self.sql(f"SELECT part FROM windlass.jobs WHERE id = '{id}'")[0][0])

    def completed(self, count: int = 1, **given: Any) -> list[str]:
        """Jobs that are through."""
        helds = [self.running(**given) for _ in range(count)]
        for held in helds:
            self.end(held, Succeeded("1"))
        return [held.id for held in helds]

    def old(self, count: int = 60) -> list[str]:
        """Jobs that are through, so many that it is worth it to move some others out of their part."""
        self.beat("w1")
        ids = self.enqueued(count)
        while held := self.claim(limit=100).jobs:
            self.run(self.store.settle("w1", [complete(each.token, "1", 10**15) for each in held]))
        return ids

    def enqueued(self, count: int) -> list[str]:
        jobs = self.jobs(count)
        self.enqueue(*jobs)
        return [job.id for job in jobs]

    def emptied(self, rules: PruneRules = RULES, limit: int = 100) -> int:
        """Pruned until done; those are waited for who may have a snapshot from before something was moved."""
        jobs = self.prune(rules, limit)
        self.clock.advance(SETTLED / 1e6)
        return jobs + self.prune(rules, limit)

    def prune(self, rules: PruneRules = RULES, limit: int = 100) -> int:
        """Until done; how many jobs it was."""
        jobs = 0
        for _ in range(200):
            pruned = self.run(self.store.prune(rules, limit))
            jobs += pruned.jobs
            if pruned.done:
                return jobs
        raise AssertionError("prune does not come to an end")

    def left(self, *ids: str) -> list[str]:
        return [id for id, job in zip(ids, self.run(self.store.fetch(list(ids))), strict=True) if job is not None]

    def close(self) -> None:
        self.connection.close()
        super().close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    assert found.run(found.store.audit()) == []
    found.close()
    PLACES.recycle()


def test_ids_tell_the_part(site: Site) -> None:
    """In turn, by the day; what tells no time is in none of them; the number of a job tells it as well."""
    first = [site.put(id=job_id(n * DAY // 1_000, bytes(8))) for n in range(20_000, 20_010)]
    assert [site.part(id) for id in first] == [n % PARTS for n in range(20_000, 20_010)]
    odd = ["0" * 8 + "-0000-4000-8000-" + "0" * 12, "x", "z" * 8 + "-zzzz-7zzz-8zzz-" + "z" * 12, "é" * 20, "--------------7"]
    for id in odd:
        site.put(id=id)
    assert [site.part(id) for id in odd] == [15] * len(odd)
    assert site.sql("SELECT count(*) FROM windlass.jobs WHERE part <> seq & 15") == [(0,)]


def test_a_part_goes_as_a_whole_once_all_of_it_is_old(site: Site) -> None:
    ids = site.completed(20)
    site.clock.advance("23h")
    ids += site.completed(5)
    files = site.files()
    site.clock.set(20_006 * DAY - 1)
    assert (site.prune(), site.left(*ids), site.files()) == (0, ids, files)
    site.clock.set(20_006 * DAY)
    before = site.sql("SELECT sum(n_tup_del) FROM pg_stat_user_tables")
    assert site.prune() == 25
    assert site.left(*ids) == []
    assert len(site.files() - files) == 1
    assert site.sql("SELECT pg_relation_size('windlass.jobs_0') + pg_relation_size('windlass.ended_0')") == [(0,)]
    assert site.sql("SELECT sum(n_tup_del) FROM pg_stat_user_tables") == before
    files = site.files()
    assert (site.prune(), site.files()) == (0, files)


def test_little_goes_one_by_one_at_its_time(tmp_path: Path) -> None:
    site = Site(tmp_path, worth=8 * 1024 * 1024)
    ids = site.completed(3)
    site.clock.advance("5d")
    assert (site.prune(), site.left(*ids)) == (3, [])
    site.close()
    PLACES.recycle()


def test_all_that_may_still_be_wanted_stays(site: Site) -> None:
    """Every kind of job, with its history, keys, limits and logs: just as it was, in another part, and it goes on from
    there. What has completed is gone with the part."""
    site.beat("w1")
    gone = site.old(200)
    late = site.running()
    running, waiting = site.running(), site.put(after=300 * DAY)
    queued = site.put(queue="other", expires_after=300 * DAY)
    dead = site.running(meta='{"policy":{"max_attempts":2}}')
    site.end(dead, Failed(ErrorInfo("E"), retry_after=1.0))
    site.clock.advance("2s")
    site.run(site.store.promote(10))
    again = site.run(site.store.claim_ids("w1", site.next_seq("w1"), [dead.id])).jobs[0]
    site.end(again, Failed(ErrorInfo("E"), retry_after=1.0))
    retrying = site.running()
    site.end(retrying, Failed(ErrorInfo("E"), retry_after=300 * 86_400.0))
    owner = site.running(meta='{"unique":["u","keep-last",null]}', idempotency_key="own", digest="d")
    follower = site.put(meta='{"unique":["u","keep-last",null]}')
    limited = [site.put(meta='{"limits":[["one",1]]}', queue="limited") for _ in range(2)]
    site.claim(limit=1, queue="limited")
    site.claim(limit=1, queue="limited")
    site.run(site.store.report([(running.token, Progress(1, 2))], [(running.token, LogLine(1, "info", "x"))]))
    site.run(site.store.once(running.token, "first", "1"))
    zoo = [id for id in Departures().zoo(site) if site.fetch(id).state is not State.COMPLETED]
    site.clock.set(20_001 * DAY + HOUR)
    site.end(late, Succeeded("1"))
    stay = [late.id, running.id, waiting, queued, dead.id, retrying.id, owner.id, follower, *limited, *zoo]
    assert {site.part(id) for id in stay} == {0}
    before = [look(site, site.opened, id) for id in stay]
    states = {job["job"].state for job in before if job}
    assert states == {*State}
    site.clock.set(20_006 * DAY)
    files = site.files()
    assert site.emptied() > len(gone)
    assert len(site.files() - files) == 1
    assert {site.part(id) for id in stay} == {14}
    assert [look(site, site.opened, id) for id in stay] == before
    assert site.left(*gone) == []
    assert site.run(site.store.audit()) == []
    for id in stay:
        assert site.enqueue(site.job(id=id))[0].inserted  # sent again: known
    assert site.sql("SELECT id FROM windlass.jobs GROUP BY id HAVING count(*) > 1") == []
    assert site.run(site.store.once(running.token, "first", "2")) == "1"
    for held in (running, owner):
        assert site.end(held, Succeeded("1")) == "applied"
    assert follower in {job.id for job in site.claim(limit=100).jobs}
    (other,) = site.claim(queue="other").jobs
    assert (other.id, site.end(other, Succeeded("1"))) == (queued, "applied")
    assert site.run(site.store.revive(Selection((dead.id,)))).changed == (dead.id,)
    site.clock.advance("1h")
    site.prune()
    assert site.left(*stay) == [id for id in stay if id != late.id], "what ended late goes by itself"


def test_the_order_of_a_line_stays(site: Site) -> None:
    """What has stood in it since long ago, in parts old and new, before and behind what came in between."""
    first = site.enqueued(5)
    site.beat("w1")
    between = [site.put(queue="done") for _ in range(100)]
    while held := site.claim(queue="done", limit=100).jobs:
        site.run(site.store.settle("w1", [complete(each.token, "1", 10**15) for each in held]))
    last = site.enqueued(5)
    site.clock.set(20_006 * DAY)
    new = site.enqueued(5)
    assert site.emptied() == len(between)
    assert [site.part(id) for id in (*first, *last, *new)] == [14] * 10 + [20_006 % PARTS] * 5
    site.beat("w1")
    assert [site.claim(limit=1).jobs[0].id for _ in range(15)] == [*first, *last, *new]


def test_where_most_would_have_to_move_jobs_go_one_by_one(site: Site) -> None:
    gone, stay = site.old(20), [site.put(after=300 * DAY) for _ in range(6)]
    site.clock.set(20_006 * DAY)
    files = site.files()
    assert site.prune() == len(gone)
    assert (site.files(), {site.part(id) for id in stay}, site.left(*gone)) == (files, {0}, [])


def test_a_dump_that_is_just_beginning_has_all_that_stays(site: Site) -> None:
    """A snapshot keeps nobody from truncating: it sees what was moved where it was, until it can have locked that."""
    site.old()
    stay = site.put(after=300 * DAY)
    site.clock.set(20_006 * DAY)
    with psycopg.connect(database()) as dump:
        dump.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        dump.execute("SELECT 1 FROM pg_class")
        site.prune()
        assert site.part(stay) == 14
        site.clock.advance(SETTLED / 1e6 - 1)
        site.prune()
        seen = dump.execute(f"SELECT id FROM {site.mine.schema}.jobs WHERE id = '{stay}'").fetchall()
        assert seen == [(stay,)]
        site.clock.advance("2s")
        assert site.prune() == 0, "the dump has it now"
    site.clock.advance("61s")
    assert site.prune() == 60


def test_whoever_changes_a_job_is_not_waited_for(site: Site) -> None:
    """A transaction of somebody's that has a key in hand keeps nobody from working, and its part is emptied later."""
    site.old()
    given = {"meta": '{"unique":["u","replace",null]}'}
    stay = site.put(after=300 * DAY, **given)
    site.clock.set(20_006 * DAY)
    with psycopg.connect(database()) as connection:
        mine = stores.open(PLACES.url(site._path), clock=site.clock)
        mine.own(connection).run(site.store.enqueue([site.job(payload="[[9],{}]", after=300 * DAY, **given)]))
        assert site.prune() == 0
        assert (site.part(stay), site.fetch(stay).payload) == (0, "[[],{}]")
        connection.commit()
        mine.close()
    site.clock.advance("61s")
    assert site.emptied() == 60
    assert (site.part(stay), site.fetch(stay).payload) == (14, "[[9],{}]")


def test_large_jobs_move_a_few_at_a_time(site: Site) -> None:
    """Who moves them has all moves to himself: he ends after a moment."""
    site.old(200)
    dice = random.Random(1)  # what repeats itself is stored small
    stay = [site.put(after=300 * DAY, payload=json.dumps([[dice.randbytes(100_000).hex()], {}])) for _ in range(40)]
    site.clock.set(20_006 * DAY)
    steps = 0
    while not site.run(site.store.prune(RULES, 100)).done:
        steps += site.mine.keeping
    assert steps > 1
    site.clock.advance("61s")
    assert site.prune() == 200
    assert site.left(*stay) == stay


def test_many_rows_of_few_jobs_are_all_found(site: Site) -> None:
    """Old jobs whose rows in one table are more than are looked at in one step."""
    site.beat("w1")
    for n in range(12):
        held = site.running(idempotency_key=f"k{n}", digest="d")
        site.run(site.store.report([], [(held.token, LogLine(n, "info", "x")) for n in range(20)]))
        site.end(held, Succeeded("1"))
    site.old(100)
    site.clock.set(20_006 * DAY)
    files = site.files()
    assert site.prune(limit=7) == 112
    assert len(site.files() - files) == 1
    assert site.sql("SELECT count(*) FROM windlass.logs") == [(0,)]
    assert site.sql("SELECT count(*) FROM windlass.keys WHERE free_at IS NULL") == [(0,)]


def test_a_move_that_was_not_committed_loses_nothing(site: Site) -> None:
    """Each step remembers what it did before it knows that it is committed: the last one looks again."""
    old, stay = site.old(), [site.put(after=300 * DAY) for _ in range(3)]
    site.clock.set(20_006 * DAY)
    while not site.mine.keeping:
        site.run(site.store.prune(RULES, 100))
    plan = site.store.prune(RULES, 100)

    def fails() -> Steps[None]:
        yield from iter(plan)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        site.run(Plan(fails, "keep", write=True))
    assert not site.mine.keeping
    assert site.prune() == 0
    site.clock.advance("61s")
    assert site.emptied() == len(old)
    assert site.left(*old, *stay) == stay


@pytest.mark.parametrize("steps", range(5))
def test_what_is_revived_meanwhile_stays(site: Site, steps: int) -> None:
    """Between any two steps."""
    old, stay = site.old(), site.put(after=300 * DAY)
    site.clock.set(20_006 * DAY)
    for _ in range(steps):
        assert not site.run(site.store.prune(RULES, 100)).done
    assert site.run(site.store.revive(Selection((old[7],)))).changed == (old[7],)
    for _ in range(4):
        site.emptied()
    assert site.left(*old, stay) == [old[7], stay]
    site.beat("w1")
    assert [job.id for job in site.claim().jobs] == [old[7]]


@pytest.mark.parametrize("name", NAMES)
def test_who_has_rows_elsewhere_goes_one_by_one(site: Site, name: str) -> None:
    """I19: a key is kept for a day, also of a job that is gone."""
    rules = PruneRules(completed=5 * HOUR, keys=HOUR)
    site.sql(f"UPDATE windlass.parts SET width = {HOUR // 1_000}")
    plain = site.completed(3)
    given: dict[str, Any] = {"idempotency_key": "k", "digest": "d"} if name in ("keys", "past_keys") else {}
    if name == "unique_keys":
        given["meta"] = '{"unique":["u","throttle",null,864000000000]}'
    if name == "merged":
        given["meta"] = '{"unique":["u","debounce",1000000]}'
    held = site.running(**given)
    if name == "attempts":
        site.end(held, Failed(ErrorInfo("E"), retry_after=1.0))
        site.clock.advance("2s")
        site.run(site.store.promote(10))
        held = site.run(site.store.claim_ids("w1", site.next_seq("w1"), [held.id])).jobs[0]
    if name == "merged":
        site.sql(f"INSERT INTO windlass.merged SELECT 'gone', seq FROM windlass.jobs WHERE id = '{held.id}'")
    if name == "once":
        site.run(site.store.once(held.token, "n", "1"))
    if name == "progress":
        site.run(site.store.report([(held.token, Progress(1, 2))], []))
    if name == "logs":
        site.run(site.store.report([], [(held.token, LogLine(1, "info", "x"))]))
    site.end(held, Succeeded("1"))
    rows = f"SELECT count(*) FROM windlass.{name} WHERE seq IN (SELECT seq FROM windlass.jobs WHERE id = '{held.id}')"
    if name == "past_keys":
        site.clock.advance("2h")
        site.prune(rules)
    assert site.sql(rows) == [(1,)]
    full_at = part_at(site.part(held.id), HOUR, 5 * HOUR, site.clock()).full_at
    site.clock.set(full_at + 5 * HOUR)
    files = site.files()
    assert site.prune(rules) == 4
    assert site.left(*plain, held.id) == []
    assert len(site.files() - files) == 1
    if name in ("keys", "past_keys"):
        assert site.sql("SELECT count(*) FROM windlass.past_keys") == [(0,)]
    elif name != "unique_keys":
        assert site.sql(f"SELECT count(*) FROM windlass.{name}") == [(0,)]


@pytest.mark.parametrize("seed", seeds(2, 20, 200))
def test_the_same_as_one_by_one(tmp_path: Path, seed: int) -> None:
    """Whatever comes, and however it ends: a month later, by the part or by the row, the same jobs are there."""
    dice = random.Random(seed)
    left = {}
    script = [dice.random() for _ in range(300)]
    for way, worth in (("part", 0), ("row", 10**12)):
        place = tmp_path / way
        place.mkdir()
        site = Site(place, worth)
        emptied, ids = set(site.files()), []
        for n, chance in enumerate(script):
            site.clock.advance(f"{int(chance * 7_919) % 120}m")
            kind = int(chance * 10_007) % 8
            if kind == 7:
                ids.append(site.put(after=int(chance * 30) * DAY))
            elif kind == 6:
                ids.append(site.running(f"w{n}", idempotency_key=f"k{n}").id)
            elif kind == 5:
                held = site.running()
                site.end(held, Discarded())
                ids.append(held.id)
            else:
                ids += site.completed(kind, **({"idempotency_key": f"{n}"} if kind == 1 else {}))
            if n % 7 == 0:
                site.prune()
        for _ in range(12):
            site.clock.advance("12h")
            site.emptied()
        left[way] = site.left(*ids)
        assert site.run(site.store.audit()) == []
        assert (site.files() == emptied) == (way == "row")
        site.close()
    PLACES.recycle()
    assert left["part"] == left["row"]


def test_who_keeps_a_part_is_not_waited_for(site: Site) -> None:
    """A transaction of somebody's who has put something into it: another time. It is in nobody's way, and nothing of it
    is lost."""
    old = site.completed(3)
    site.clock.set(20_006 * DAY)
    files = site.files()
    with psycopg.connect(database()) as connection:
        mine = stores.open(PLACES.url(site._path), clock=site.clock)
        job = site.job(id=job_id(20_000 * DAY // 1_000, b"\1" * 8))
        mine.own(connection).run(site.store.enqueue([job]))
        assert site.prune() == 0
        assert (site.files(), site.left(*old)) == (files, old)
        connection.commit()
        mine.close()
    site.clock.advance("61s")
    assert site.prune() == 3
    assert site.left(*old, job.id) == [job.id]
    site.beat("w1")
    assert [held.id for held in site.claim().jobs] == [job.id]


def test_what_comes_between_two_steps_stays(site: Site) -> None:
    """An id of long ago, as of a client that was cut off: before, between and after the steps in which a part goes."""
    old = site.old()
    site.clock.set(20_006 * DAY)
    late, steps = [], 0
    while not site.run(site.store.prune(RULES, 100)).done:
        steps += 1
        late.append(site.put(id=job_id(20_000 * DAY // 1_000, bytes([steps]) * 8)))
    assert steps == 3
    site.clock.advance("61s")
    site.emptied()
    site.beat("w1")
    assert site.left(*old, *late) == late
    assert sorted(held.id for held in site.claim().jobs) == sorted(late)


def test_a_pruner_may_stop_between_two_steps(site: Site) -> None:
    """Whoever comes next, and knows nothing of it, does it all."""
    old = [id for n in range(7) for id in site.completed(idempotency_key=f"k{n}")]
    site.clock.set(20_006 * DAY)
    removed = 0
    for steps in range(3):
        other = site.another()
        other.store.worth = 0  # type: ignore[attr-defined]
        removed += sum(site.run_on(other, other.store.prune(RULES, 2)).jobs for _ in range(steps))
    assert len(site.left(*old)) == 7 - removed > 0
    assert removed + site.prune(limit=2) == 7
    assert site.left(*old) == []


def test_what_is_kept_longer_or_shorter_makes_other_parts(site: Site) -> None:
    """Ids that are stored keep their part: one that is sent again is known, whatever is said meanwhile, and whatever the
    clocks say."""
    width = lambda: site.sql("SELECT since, width FROM windlass.parts")[0]
    ids, last = [*site.completed(2), site.put(id=job_id((site.clock() + 25 * HOUR) // 1_000, bytes(8)))], 0
    for n, hours in enumerate((5, 50, 500)):
        site.mine._resize_at = 0
        site.tend(PruneRules(completed=hours * HOUR))
        since, wide = width()
        assert wide == hours * HOUR // SHARE // 1_000
        assert since >= last and since > (site.clock() + 23 * HOUR) // 1_000
        last = since
        ids += [site.put(), site.put(id=job_id(since - 1, bytes([n + 1] * 8))), site.put(id=job_id(since, bytes([n + 1] * 8)))]
        assert [site.part(id) for id in ids[-3:-1]] == [15, 15], "of a time before it counts"
        site.sql(f"DELETE FROM windlass.jobs WHERE id = '{ids.pop()}'")
        site.sql("DELETE FROM windlass.ready r WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = r.seq)")
        site.clock.set(site.clock() + (-2 if n == 1 else 2) * HOUR)
        for id in ids:
            assert site.enqueue(site.job(id=id))[0].inserted
            assert len(site.sql(f"SELECT 1 FROM windlass.jobs WHERE id = '{id}'")) == 1
    site.mine._resize_at = 0
    before = width()
    site.tend(PruneRules(completed=510 * HOUR))
    assert width() == before, "not worth it"
    far = site.put(id=job_id((site.clock() + 20 * DAY) // 1_000, bytes(8)))
    for _ in range(2):
        site.tend(PruneRules(completed=5 * HOUR))
        assert width() == before, "an id far ahead"
    assert site.part(far) < 15
    site.tend(PruneRules(completed=None))


def test_a_resize_that_cannot_be_had_is_not_tried_all_the_time(site: Site) -> None:
    site.put(id=job_id((site.clock() + 20 * DAY) // 1_000, bytes(8)))
    locks = 0
    for n in range(70):
        plan = site.mine.chores(PruneRules(completed=HOUR))[-1]
        steps = []
        site.run(Plan(lambda plan=plan, steps=steps: _noted(iter(plan), steps), "chore", write=True))
        locks += "parts_lock" in steps
        site.clock.advance("1s")
    assert locks == 2


def _noted(steps: Steps[Any], names: list[str]) -> Steps[Any]:
    """As it is, with the names of its statements written down."""
    rows: Any = None
    try:
        while True:
            statement = steps.send(rows)
            names.append(statement.name)
            rows = yield statement
    except StopIteration as end:
        return end.value


def test_a_prune_that_fails_keeps_nothing_else(site: Site) -> None:
    """I23: whatever is wrong with one part, what else is old goes."""
    old, cancelled = site.completed(3), site.put()
    site.run(site.store.cancel(Selection((cancelled,))))
    site.clock.set(20_006 * DAY)
    site.sql("ALTER FUNCTION windlass.part_known RENAME TO part_unknown")
    try:
        with pytest.raises(StoreError):
            site.run(site.store.prune(RULES, 100))
        rules = replace(RULES, cancelled=DAY)
        assert site.prune(rules) == 1
        assert site.left(*old, cancelled) == old
    finally:
        site.sql("ALTER FUNCTION windlass.part_unknown RENAME TO part_known")
    site.clock.advance("2m")
    assert site.prune() == 3


def test_an_old_step_of_somebody_else_counts_for_nothing(site: Site) -> None:
    """Who began to empty a part in one turn does not go on with it in another."""
    site.completed(3)
    site.clock.set(20_006 * DAY)
    other = site.another()
    other.store.worth = 0  # type: ignore[attr-defined]
    assert site.run_on(other, other.store.prune(RULES, 100)) == Pruned(done=False)
    assert site.prune() == 3
    site.clock.set(20_008 * DAY)
    ids = site.completed(4)
    site.clock.set(20_014 * DAY)
    pruned = []
    while not (pruned and pruned[-1].done):
        pruned.append(site.run_on(other, other.store.prune(RULES, 100)))
    assert [each.jobs for each in pruned if each.jobs] == [4]
    assert site.left(*ids) == []


@pytest.mark.parametrize("name", ["ready_window", "ready_window_from", "ready_by_id", "promote_ready"])
def test_a_plan_that_is_made_over_empty_parts_finds_jobs_by_their_numbers(site: Site, name: str) -> None:
    """It is kept, while the part is filled: it must not read all of it for each row."""
    site.enqueue(*site.jobs(1_000))
    site.sql("DELETE FROM windlass.ready")
    site.sql("TRUNCATE windlass.jobs")
    site.sql("VACUUM ANALYZE windlass.jobs")
    (part,) = load_scripts(site.mine.schema)[name].parts
    for setting, value in SETTINGS.items():
        site.sql(f"SET {setting} = {value}")
    site.sql(f"PREPARE looked_at AS {part.sql.decode()}")
    given = {"ready_by_id": "0, '[]'", "promote_ready": "0, 1"}.get(name, "0, 0, 'default', 10, 0, 0")
    plan = "\n".join(row[0] for row in site.sql(f"EXPLAIN EXECUTE looked_at({given})"))
    assert "seq = r.seq" in plan
    assert not re.search(r"Filter: .*seq = (r|j\w*|gone)\.seq", plan), plan


def test_while_everybody_works(tmp_path: Path) -> None:
    """Enqueuers, workers and a pruner whose parts last for an instant: every job ends once, none is lost."""
    site = Site(tmp_path)
    site.sql("UPDATE windlass.parts SET width = 200")
    over, problems = threading.Event(), []
    ids: list[str] = []
    ended: list[str] = []
    opened = [stores.open(PLACES.url(tmp_path)) for _ in range(4)]  # by the server's own clock, as the ids
    rules = PruneRules(completed=1_000_000)
    emptied = [0]

    def guarded(work: Any, *args: Any) -> None:
        try:
            work(*args)
        except BaseException as problem:
            problems.append(problem)
            over.set()

    def pruner(mine: Opened) -> None:
        store: Any = mine.store
        store.worth = 0
        while not over.is_set():
            store._left_alone.clear()
            pruned: Pruned = mine.shell.run(store.prune(rules, 50))
            emptied[0] += pruned.jobs

    def worker(mine: Opened, name: str) -> None:
        run, store, seq = mine.shell.run, mine.store, 0
        run(store.beat([report(name)]))
        while not (over.is_set() and len(ended) >= len(ids)):
            seq += 1
            held = run(store.claim(name, seq, ClaimRequest(20, (Quota("default", 20),)))).jobs
            answers = run(store.settle(name, [complete(each.token, "1", 10**9) for each in held]))
            assert set(answers) <= {"applied"}
            ended.extend(each.id for each in held)

    threads = [threading.Thread(target=guarded, args=(pruner, opened[0]))]
    threads += [threading.Thread(target=guarded, args=(worker, opened[n], f"w{n}")) for n in (1, 2)]
    for thread in threads:
        thread.start()
    run, store = opened[3].shell.run, opened[3].store
    for _ in range(120):
        batch = [site.job(id=id) for id in new_ids(20)]
        ids += [job.id for job in batch]
        run(store.enqueue(batch))
    over.wait(2)
    over.set()
    for thread in threads:
        thread.join(60)
    assert not problems, problems
    assert sorted(ended) == sorted(ids)
    assert emptied[0] > 0
    assert run(store.audit()) == []
    for each in opened:
        each.close()
    site.close()
    PLACES.recycle()


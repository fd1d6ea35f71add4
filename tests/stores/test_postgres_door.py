"""Jobs that come in by SQL, from psql or another language: stored as the Python client stores them, or refused by name."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from tests.stores.postgres_server import PLACES, database
from tests.worker.harness import World, task
from windlass import Windlass, stores
from windlass.core.errors import IdempotencyConflict
from windlass.core.flow import Bounds
from windlass.core.job import Meta, State
from windlass.core.placement import is_job_id
from windlass.limits import Limit
from windlass.ports.store import FOREVER, Opened, QueueChange

DAY = 86_400_000_000


class Door:
    """A store, and a connection that knows nothing of Windlass."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.run = opened.shell.run
        self.run(opened.store.migrate())
        self.schema = str(opened.store.schema)  # type: ignore[attr-defined]
        self.connection = self.another()

    def another(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        return psycopg.connect(database(), autocommit=autocommit)

    def sql(self, text: str, *parameters: Any, on: psycopg.Connection[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement that is written for the schema `windlass`."""
        cursor = (on or self.connection).execute(text.replace("windlass.", f'"{self.schema}".'), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def put(self, arguments: str, *parameters: Any, on: psycopg.Connection[Any] | None = None) -> str:
        return str(self.sql(f"SELECT windlass.enqueue({arguments})", *parameters, on=on)[0][0])

    def job(self, id: str) -> dict[str, Any]:
        cursor = self.connection.execute(f'SELECT * FROM "{self.schema}".job(%s)', (id,))
        assert cursor.description is not None
        (row,) = cursor.fetchall()
        return dict(zip([column.name for column in cursor.description], row, strict=True))

    def count(self) -> int:
        return int(self.sql("SELECT count(*) FROM windlass.jobs")[0][0])

    def sound(self) -> None:
        assert self.run(self.opened.store.audit()) == []


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    opened = stores.open(PLACES.url(tmp_path))
    found = Door(opened)
    yield found
    found.connection.close()
    opened.close()
    PLACES.recycle()


def test_a_job_from_sql_runs_and_is_read(door: Door) -> None:
    good = door.put("""'greet', '[["Ada"], {"word": "Hello"}]'""")
    bad = door.put("""'fail', '[[], {}]', max_attempts => 1""")
    assert is_job_id(good) and good < bad
    assert (door.job(good)["state"], door.job(good)["attempt"], door.job(good)["started"]) == ("queued", 0, None)

    def fail() -> None:
        raise LookupError("no such host")

    world = World(None, task("greet", lambda name, word: f"{word}, {name}"), task("fail", fail), opened=door.opened)
    world.registry.tasks["greet"] = task("greet", lambda args, kwargs: f"{kwargs['word']}, {args[0]}", bind=bound)
    world.work()
    found = door.job(good)
    assert (found["state"], found["result"], found["attempt"], found["worker"]) == ("completed", '"Hello, Ada"', 1, "w1")
    assert found["created"] <= found["due"] <= found["started"] <= found["finished"]
    found = door.job(bad)
    assert (found["state"], found["reason"], json.loads(found["error"])["kind"]) == ("dead", "attempts_exhausted", "LookupError")
    assert door.sql("SELECT * FROM windlass.job('nobody')") == []
    world.sound()


def bound(payload: str, _: int) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs = json.loads(payload)
    return [args, kwargs], {}


def test_it_is_stored_as_the_python_client_stores_it(door: Door, tmp_path: Path) -> None:
    """Row for row: what is not the same is an id, an instant, or how JSON is spelt."""
    app = Windlass(PLACES.url(tmp_path))
    pairs: list[tuple[dict[str, Any], str]] = [
        ({}, ""),
        ({"queue": "mail", "priority": 80}, ", queue => 'mail', priority => 80"),
        ({"delay": "2h", "expires": "3h"}, ", delay => '2 hours', expires => '3 hours'"),
        ({"tags": ["a", "b"], "max_attempts": 3}, ", tags => ARRAY['a', 'b'], max_attempts => 3"),
        ({"timeout": "90s", "limit": [2, Limit(3, name="all")]},
         """, timeout => '1 minute 30 seconds', limits => '{"t": 2, "all": 3}'"""),
        ({"idempotency_key": "order 7"}, ", idempotency_key => 'order 7'"),
    ]  # fmt: skip
    for options, said in pairs:
        ours = app.enqueue("t", [1], **options).id
        door.sql("DELETE FROM windlass.keys")  # they would be one job
        theirs = door.put(f"'t', '[[1],{{}}]'{said}")
        rows = []
        for id in (ours, theirs):
            (row,) = door.sql(
                """SELECT j.task, j.version, j.tenant, j.queue, j.priority, j.head_start, j.rank - j.due, j.payload, j.meta,
                          j.due - j.created, j.expires - j.created, j.attempt, j.crashes, j.losses, j.fence, j.lane,
                          (SELECT (r.part, r.lane, r.queue, r.rank = j.rank) FROM windlass.ready r WHERE r.seq = j.seq),
                          (SELECT (w.part, w.due = j.due, w.state) FROM windlass.waiting w WHERE w.seq = j.seq),
                          (SELECT x.expires = j.expires FROM windlass.expiring x WHERE x.seq = j.seq),
                          (SELECT (k.tenant, k.task, k.key, k.seq = j.seq, k.free_at) FROM windlass.keys k WHERE k.id = j.id)
                   FROM windlass.jobs j WHERE j.id = %s""",
                id,
            )
            rows.append((*row[:8], app.client.fetch(id).meta and meta_of(row[8]), *row[9:]))
        assert rows[0] == rows[1] or options.get("idempotency_key"), options
        assert rows[0][:-1] == rows[1][:-1]
    app.close()
    door.sound()


def meta_of(text: str) -> dict[str, Any]:
    """In one order: limits by key are not in that of the list."""
    found = json.loads(text)
    return {name: sorted(value) if name == "limits" else value for name, value in found.items()}


REFUSED = {
    "no JSON": ("payload", "'t', 'Dear diary'"),
    "cut off": ("payload", """'t', '[["a"],{'"""),
    "empty": ("payload", "'t', ''"),
    "an object": ("payload", """'t', '{"a": 1}'"""),
    "one part": ("payload", "'t', '[[]]'"),
    "three parts": ("payload", "'t', '[[], {}, {}]'"),
    "three parts, one null": ("payload", "'t', '[[], {}, null]'"),
    "the wrong way round": ("payload", "'t', '[{}, []]'"),
    "null": ("payload", "'t', 'null'"),
    "NULL": ("payload", "'t', NULL"),
    "NaN": ("payload", "'t', '[[NaN], {}]'"),
    "escaped NUL": ("payload", "'t', '[[\"a\\u0000b\"], {}]'"),
    "lone surrogate": ("payload", "'t', '[[\"\\ud800\"], {}]'"),
    "10 MB": ("payload", "'t', '[[\"' || repeat('x', 10000000) || '\"], {}]'"),
    "depth 100,000": ("payload", "'t', '[[' || repeat('[', 100000) || repeat(']', 100000) || '], {}]'"),
    "no task": ("task", "''"),
    "NULL task": ("task", "NULL"),
    "spaces": ("task", "' t '"),
    "a line feed": ("task", "E'a\\nb'"),
    "a comma": ("task", "'a,b'"),
    "a long name": ("task", "repeat('x', 201)"),
    "queue with a colon": ("queue", "'t', queue => 'a:b'"),
    "NULL queue": ("queue", "'t', queue => NULL"),
    "negative priority": ("priority", "'t', priority => -1"),
    "large priority": ("priority", "'t', priority => 101"),
    "version 0": ("version", "'t', version => 0"),
    "a negative delay": ("delay", "'t', delay => '-1 second'"),
    "a delay of centuries": ("delay", "'t', delay => '300 years'"),
    "before 1970": ("at", "'t', at => '1066-10-14'"),
    "never": ("at", "'t', at => 'infinity'"),
    "at and delay": ("at", "'t', at => '2031-01-01', delay => '1 hour'"),
    "expired": ("expires", "'t', expires => '-1 hour'"),
    "empty key": ("idempotency_key", "'t', idempotency_key => ''"),
    "long key": ("idempotency_key", "'t', idempotency_key => repeat('k', 256)"),
    "bell in a key": ("idempotency_key", "'t', idempotency_key => E'\\x07'"),
    "empty tag": ("tags", "'t', tags => ARRAY['']"),
    "NULL tag": ("tags", "'t', tags => ARRAY[NULL]"),
    "21 tags": ("tags", "'t', tags => ARRAY(SELECT n::text FROM generate_series(1, 21) n)"),
    "limits as a list": ("limits", "'t', limits => '[[\"a\", 1]]'"),
    "limit 0": ("limits", "'t', limits => '{\"a\": 0}'"),
    "limit one and a half": ("limits", "'t', limits => '{\"a\": 1.5}'"),
    "limit as text": ("limits", "'t', limits => '{\"a\": \"1\"}'"),
    "a key of a schedule": ("limits", "'t', limits => '{\",schedule,s\": 1}'"),
    "a long limit": ("limits", "'t', limits => jsonb_build_object(repeat('k', 3000), 1)"),
    "nine limits": ("limits", "'t', limits => (SELECT jsonb_object_agg(n, n) FROM generate_series(1, 9) n)"),
    "no attempts": ("max_attempts", "'t', max_attempts => 0"),
    "no time": ("timeout", "'t', timeout => '0 seconds'"),
    "years of time": ("timeout", "'t', timeout => '9999999 hours'"),
    "a step that is none": ("seconds_per_priority", "'t', seconds_per_priority => -1"),
    "a step without end": ("seconds_per_priority", "'t', seconds_per_priority => 1e300"),
}  # fmt: skip


def test_what_cannot_be_is_refused_by_name(door: Door) -> None:
    """I24: at the door, with the parameter; and nothing is stored."""
    for name, (field, call) in REFUSED.items():
        with pytest.raises(psycopg.Error) as caught:
            door.put(call)
        said = caught.value.diag.message_primary or ""
        assert said.startswith(field), f"{name}: {said}"
        assert caught.value.sqlstate == "22023", name
        assert len(said) < 300, name
    assert door.count() == 0
    door.put("'t', E'[[\"\\u00e9\", 1e400, 12345678901234567890.5, {\"a\": null}], {\"\": -0.0}]'")


def test_what_is_no_number_or_text_at_all(door: Door) -> None:
    for call in ("'t', version => 2147483648", "'t', priority => 'high'", "'t', seconds_per_priority => 'NaN'", "'t', nonsense => 1"):
        with pytest.raises(psycopg.Error):
            door.put(call)
    assert door.count() == 0


def test_it_is_part_of_the_callers_transaction(door: Door) -> None:
    with door.another(autocommit=False) as other:
        gone = door.put("'t'", on=other)
        other.rollback()
        kept = door.put("'t'", on=other)
        with pytest.raises(pg.InvalidParameterValue), other.transaction():
            door.put("'t', priority => 1000", on=other)
        assert door.count() == 0
        other.commit()
    assert door.sql("SELECT id FROM windlass.jobs") == [(kept,)]
    assert gone != kept
    door.sound()


def test_a_thousand_in_one_statement_keep_their_order(door: Door) -> None:
    rows = door.sql("SELECT windlass.enqueue('t', format('[[%s],{}]', n)) FROM generate_series(1, 1000) n")
    ids = [row[0] for row in rows]
    assert ids == sorted(set(ids))
    assert all(is_job_id(id) for id in ids)
    near = int(ids[0].replace("-", "")[:12], 16) / 1_000
    assert abs(near - time.time()) < 60
    assert door.sql("SELECT id FROM windlass.jobs ORDER BY seq") == [(id,) for id in ids]


@pytest.mark.parametrize("may", ["producer", "reader"])
def test_who_may_enqueue_and_who_may_only_read(door: Door, may: str) -> None:
    """The functions have no rights of their own."""
    name = f"door_{may}_{door.schema}_{os.getpid()}"
    door.connection.execute(door.opened.roles_sql())  # type: ignore[attr-defined]
    door.connection.execute(f"CREATE ROLE {name} LOGIN IN ROLE {door.schema}_{may}")
    try:
        url = database().split("://")[1].rpartition("@")[2]
        with psycopg.connect(f"postgresql://{name}@{url}", autocommit=True) as theirs:
            if may == "producer":
                id = door.put("'t', idempotency_key => 'k', delay => '1 hour', expires => '2 hours'", on=theirs)
                door.sql("UPDATE windlass.keys SET free_at = 0")
                assert door.put("'t', idempotency_key => 'k'", on=theirs) != id
                bound_queue(door, Bounds(depth=1, shed=True))
                assert door.job(door.put("'t', idempotency_key => 's'", on=theirs))["reason"] == "shed"
            else:
                id = door.put("'t'")
                with pytest.raises(pg.InsufficientPrivilege):
                    door.put("'t'", on=theirs)
            assert door.sql("SELECT id FROM windlass.job(%s)", id, on=theirs) == [(id,)]
            with pytest.raises(pg.InsufficientPrivilege):
                door.sql("DELETE FROM windlass.workers", on=theirs)
    finally:
        for role in (name, *(f"{door.schema}_{each}" for each in ("migrator", "worker", "producer", "reader"))):
            door.connection.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}")


# --- idempotency keys -----------------------------------------------------------------------------------------------


def test_one_key_is_one_job_however_many_ask_at_once(door: Door) -> None:
    """I10b."""
    found: list[str] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        with door.another() as mine:
            gate.wait()
            found.extend(door.put("'t', '[[1], {}]', idempotency_key => %s", f"k{n}", on=mine) for n in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 160
    assert len(set(found)) == door.count() == 20
    door.sound()


def test_a_key_with_another_payload_is_a_conflict(door: Door, tmp_path: Path) -> None:
    first = door.put("'t', '[[1], {\"a\": 1, \"b\": 2}]', idempotency_key => 'k'")
    assert door.put("'t', '[[1],{\"b\":2,\"a\":1}]', idempotency_key => 'k'") == first
    assert door.put("'other', '[[1], {}]', idempotency_key => 'k'") != first
    for call in ("'t', '[[2], {}]'", "'t', '[[1], {\"a\": 1, \"b\": 2}]', version => 2"):
        with pytest.raises(pg.UniqueViolation, match=f"idempotency_key: job {first} has it"):
            door.put(f"{call}, idempotency_key => 'k'")
    app = Windlass(PLACES.url(tmp_path))
    with pytest.raises(IdempotencyConflict):  # the two languages do not spell JSON alike
        app.enqueue("t", [1], idempotency_key="k")
    app.close()
    assert door.count() == 2


def test_a_key_is_free_a_day_after_the_end(door: Door) -> None:
    first = door.put("'t', idempotency_key => 'k'")
    world = World(None, task("t", lambda *_: 1), opened=door.opened)
    world.work()
    assert door.put("'t', idempotency_key => 'k'") == first
    door.sql(f"UPDATE windlass.ended SET finished = finished - {DAY}")
    second = door.put("'t', idempotency_key => 'k'")
    assert second != first
    assert door.put("'t', idempotency_key => 'k'") == second
    assert door.sql("SELECT id, key FROM windlass.past_keys") == [(first, "k")]
    # One whose job went to another store is never free; one that has outlived its job says when it will be.
    for free_at, same in ((FOREVER, True), (0, False)):
        door.sql("UPDATE windlass.keys SET free_at = %s", free_at)
        assert (door.put("'t', idempotency_key => 'k'") == second) is same
    assert door.sql("SELECT count(*) FROM windlass.past_keys") == [(1,)]
    door.sound()


# --- bounded queues, limits, hints ----------------------------------------------------------------------------------


def bound_queue(door: Door, bounds: Bounds) -> None:
    door.run(door.opened.store.queues([QueueChange(queue="default", bounds=bounds)]))


def test_a_full_queue_takes_no_more(door: Door) -> None:
    bound_queue(door, Bounds(depth=2))
    door.put("'t', queue => 'other'")
    door.put("'t', delay => '1 hour'")
    door.put("'t'")
    second = door.put("'t', idempotency_key => 'k'")
    with pytest.raises(pg.ConfigurationLimitExceeded, match="queue: 'default' is full"):
        door.put("'t'")
    assert door.put("'t', idempotency_key => 'k'") == second
    bound_queue(door, Bounds(age=60_000_000))
    door.put("'t'")
    door.sql("UPDATE windlass.jobs SET due = due - 61000000")
    with pytest.raises(pg.ConfigurationLimitExceeded):
        door.put("'t'")
    bound_queue(door, Bounds(depth=1, shed=True))
    shed = door.put("'t', idempotency_key => 's', expires => '1 hour'")
    assert (door.job(shed)["state"], door.job(shed)["reason"]) == ("cancelled", "shed")
    assert door.put("'t', idempotency_key => 's'") != shed  # the next request is not the one that was shed
    door.sound()


def test_several_at_once_do_not_fill_one_place(door: Door) -> None:
    bound_queue(door, Bounds(depth=3))
    gate, refused = threading.Barrier(6), []

    def ask() -> None:
        with door.another() as mine:
            gate.wait()
            try:
                door.put("'t'", on=mine)
            except pg.ConfigurationLimitExceeded:
                refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(refused), door.count()) == (3, 3)


def test_limits_and_expiry_hold(door: Door) -> None:
    """I9."""
    running, most = [0], [0]

    def work(*_: Any) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02)
        running[0] -= 1

    for _ in range(6):
        door.put("""'t', limits => '{"t": 2}'""")
    late = door.put("'t', expires => '0 seconds'")
    World(None, task("t", work), opened=door.opened, concurrency=6).work()
    assert most == [2]
    assert door.job(late)["state"] == "expired"
    door.sound()


def test_rows_go_where_the_rings_say(door: Door) -> None:
    door.sql("UPDATE windlass.rings SET current = 1")
    door.put("'t'")
    door.put("'t', delay => '1 hour'")
    found = door.sql("SELECT (SELECT part FROM windlass.ready), (SELECT part FROM windlass.waiting)")
    door.sql("UPDATE windlass.rings SET current = 0")
    assert found == [(1, 1)]


def test_a_listener_hears_of_it_and_the_sequence_moves(door: Door) -> None:
    """Of several transactions that are open at once only one notifies: they would flush one after the other."""
    with door.another() as listening, door.another(autocommit=False) as slow, door.another(autocommit=False) as quick:
        listening.execute(f'LISTEN "windlass:{door.schema}"')
        seen = door.sql("SELECT last_value FROM windlass.changes_seq")
        door.put("'t'", on=slow)
        door.put("'t'", on=slow)
        door.put("'t'", on=quick)
        quick.commit()
        assert list(listening.notifies(timeout=0.1, stop_after=1)) == []
        slow.commit()
        assert len(list(listening.notifies(timeout=5, stop_after=1))) == 1
        assert list(listening.notifies(timeout=0.05, stop_after=1)) == []
        assert door.sql("SELECT last_value FROM windlass.changes_seq") > seen


def test_the_meta_is_one_that_workers_read(door: Door) -> None:
    import msgspec

    door.put("""'t', tags => '{a}', limits => '{"t": 2}', max_attempts => 3, timeout => '1.5 seconds'""")
    ((meta,),) = door.sql("SELECT meta FROM windlass.jobs")
    found = msgspec.json.decode(meta, type=Meta)
    assert (found.tags, found.limits[0].most, found.policy.max_attempts, found.policy.timeout) == (("a",), 2, 3, 1.5)
    assert door.job(door.put("'t', '[[1],{}]'"))["state"] == State.QUEUED

"""I23, I24: rows that somebody put into the tables by hand, past the door. Each is parked or ends itself; its neighbours
run, nothing crashes, and whoever looks at it is shown it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from tests.stores.postgres_server import PLACES, database
from tests.worker.harness import World
from windlass import Windlass
from windlass.cli import run
from windlass.core.flow import Bounds
from windlass.core.job import Job, State
from windlass.core.placement import is_job_id, job_id
from windlass.ports.store import ClaimRequest, Death, Filter, PruneRules, Quota, Selection
from windlass.testing.conformance.world import report

MOST = 2**63 - 1
FAR = 2**61
HEAD = 500_000_000
"""That of the good jobs, so that each bad one stands between two of them."""
DEEP = "[" * 50_000
ROWS: dict[str, dict[str, Any]] = {
    # payloads
    "no JSON": {"payload": "Dear diary"},
    "empty payload": {"payload": ""},
    "another shape": {"payload": '{"a": 1}'},
    "deep payload": {"payload": DEEP},
    "10 MB": {"payload": json.dumps([["x" * 10_000_000], {}])},
    "escaped NUL": {"payload": '[["a\\u0000b"], {}]'},
    "lone surrogate": {"payload": '[["\\ud800"], {}]'},
    # tasks and versions
    "unknown task": {"task": "nobody.knows"},
    "no task": {"task": ""},
    "task of control characters": {"task": "\x1b[31m\n\r"},
    "version 0": {"version": 0},
    "negative version": {"version": -MOST},
    "huge version": {"version": MOST},
    # queues and tenants
    "no queue": {"queue": ""},
    "queue with commas": {"queue": "a,b:c"},
    "tenant": {"tenant": "somebody"},
    # numbers
    "negative priority": {"priority": -MOST},
    "huge priority": {"priority": MOST},
    "rank of its own": {"rank": -5},
    "created long ago": {"created": -FAR},
    "created at the end of time": {"created": FAR},
    "due long ago": {"due": -FAR, "rank": -FAR},
    "due never": {"due": FAR, "rank": FAR, "line": "waiting"},
    "behind all": {"head_start": -FAR, "rank": FAR},
    "before all": {"head_start": FAR, "rank": -FAR, "task": "fail"},
    "expired long ago": {"expires": -FAR},
    "expired just now": {"expires": 1},
    "expires never": {"expires": FAR},
    "attempts spent": {"attempt": 10**9},
    "crashes spent": {"crashes": 10**9, "losses": 10**9, "task": "fail"},
    "a large fence": {"fence": 2**62},
    # ids
    "id that is none": {"id": "x"},
    "empty id": {"id": ""},
    "id in capitals": {"id": "01A2187D-A465-70C8-B446-B704A5DA94A2"},
    # meta
    "meta no JSON": {"meta": "Dear diary"},
    "empty meta": {"meta": ""},
    "meta null": {"meta": "null"},
    "meta list": {"meta": "[]"},
    "deep meta": {"meta": '{"limits":' + DEEP},
    "deep unknown meta": {"meta": '{"other":' + DEEP + "]" * 50_000 + "}"},
    "meta of wrong types": {"meta": '{"tags": 7, "policy": [], "limits": 1, "unique": "u", "parent_id": {}}'},
    "tags of numbers": {"meta": '{"tags": [1, null]}'},
    "headers of lists": {"meta": '{"headers": {"a": []}}'},
    "NUL in meta": {"meta": '{"tags": ["a\\u0000b"]}'},
    "long number in meta": {"meta": f'{{"cost": {"9" * 5_000}}}'},
    "negative timeout": {"meta": '{"policy": {"timeout": -5}}'},
    "endless timeout": {"meta": '{"policy": {"timeout": 1e300, "grace": 1e300}}'},
    "endless grace": {"meta": '{"policy": {"timeout": 5, "grace": 1e300}}'},
    "negative grace": {"meta": '{"policy": {"timeout": 5, "grace": -1e9}}'},
    "endless result": {"meta": '{"policy": {"result_ttl": 1e300}}'},
    "long result": {"meta": '{"policy": {"result_ttl": 1e13}}'},
    "negative result": {"meta": '{"policy": {"result_ttl": -1e13}}'},
    "endless backoff": {"meta": '{"policy": {"backoff": {"base": 1e300, "max": 1e300}}}', "payload": "[[],{}]", "task": "fail"},
    "negative budgets": {"meta": '{"policy": {"max_attempts": -1, "crash_budget": -1}}', "task": "fail"},
    "limit 0": {"meta": '{"limits": [["none", 0]]}'},
    "negative limit": {"meta": '{"limits": [["minus", -1]]}'},
    "huge limit": {"meta": f'{{"limits": [["huge", {2**70}]]}}'},
    "limit without end": {"meta": f'{{"limits": [["end", {MOST}]]}}'},
    "limit twice": {"meta": '{"limits": [["twice", 1], ["twice", 2]]}'},
    "long limit": {"meta": json.dumps({"limits": [["k" * 100_000, 1]]})},
    "a thousand limits": {"meta": json.dumps({"limits": [[f"k{n}", 1] for n in range(1_000)]})},
    "limits as objects": {"meta": '{"limits": {"a": 1}}'},
    "NUL limit": {"meta": '{"limits": [["a\\u0000b", 1]]}'},
    "unique of nobody": {"meta": '{"unique": ["u", "replace"]}'},
    "unknown policy": {"meta": '{"unique": ["v", "whatever"]}'},
    "long unique key": {"meta": json.dumps({"unique": ["u" * 100_000, "reject"]})},
    "NUL unique key": {"meta": '{"unique": ["a\\u0000b", "reject"]}'},
    "a parent that is none": {"meta": '{"parent_id": "nobody"}'},
    "schedule of nobody": {"meta": '{"schedule": "s", "tick": -1}'},
}
REFUSED: dict[str, dict[str, Any]] = {
    "huge head start": {"head_start": MOST},
    "negative head start": {"head_start": -MOST},
    "created before time": {"created": -MOST},
    "created at the end of time": {"created": MOST},
    "due before time": {"due": -MOST},
    "due never": {"due": MOST, "rank": MOST},
    "expired long ago": {"expires": -MOST},
    "expires never": {"expires": MOST},
    "most attempts": {"attempt": 2**31 - 1},
    "negative attempts": {"attempt": -5},
    "most crashes": {"crashes": 2**31 - 1, "losses": 2**31 - 1},
    "most fence": {"fence": MOST},
    "negative fence": {"fence": -MOST},
    "a lane of its own": {"lane": 7},
    "long id": {"id": "y" * 2_000},
    "payload without end": {"payload": "x" * (64 * 1024 * 1024 + 1)},
    "meta without end": {"meta": "x" * (1024 * 1024 + 1)},
    "long queue": {"queue": "".join(map(chr, range(0x4E00, 0x5600)))},
}
"""With these no claim could count on: the tables take none of them."""


class Site:
    """A store with good jobs, and a bad one in each place between them."""

    def __init__(self, path: Path) -> None:
        self.url = PLACES.url(path)
        self.app = Windlass(self.url)

        @self.app.task(name="echo", max_attempts=1)
        async def echo(value: Any = None) -> Any:
            return value

        @self.app.task(name="fail", max_attempts=2)
        async def fail() -> None:
            raise ValueError("as told")

        self.app.client.stats()
        self.run, self.store = self.app.engine.run, self.app.opened.store
        self.schema = self.app.opened.store.schema
        self.connection = psycopg.connect(database(), autocommit=True)
        self.bad: dict[str, str] = {}
        self.good: list[str] = []

    def close(self) -> None:
        self.connection.close()
        self.app.close()

    def put(self, name: str, given: dict[str, Any]) -> None:
        """By hand, in the words of somebody who has read the tables."""
        self.good.append(self.app.enqueue("echo", [1]).id)
        ((now,),) = self.connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchall()
        row = {
            "id": job_id(now // 1_000, len(self.bad).to_bytes(10, "big")), "tenant": "", "task": "echo", "version": 1,
            "queue": "default", "priority": 50, "head_start": HEAD, "created": now, "due": now, "rank": now - HEAD,
            "expires": None, "payload": "[[],{}]", "meta": "{}", "attempt": 0, "crashes": 0, "losses": 0, "fence": 0, "lane": 0, **given,
        }  # fmt: skip
        line = row.pop("line", "ready")
        names = ", ".join(row)
        places = ", ".join(["%s"] * len(row))
        insert = f'INSERT INTO "{self.schema}".jobs ({names}) VALUES ({places}) RETURNING seq'
        ((seq,),) = self.connection.execute(insert, list(row.values())).fetchall()
        if line == "ready":
            self.connection.execute(
                f'INSERT INTO "{self.schema}".ready (part, lane, queue, rank, seq) VALUES (0, %s, %s, %s, %s)',
                (row["lane"], row["queue"], row["rank"], seq),
            )
        else:
            self.connection.execute(
                f'INSERT INTO "{self.schema}".waiting (part, seq, due, state) VALUES (0, %s, %s, %s)', (seq, row["due"], "scheduled")
            )
        self.bad[name] = row["id"]
        self.good.append(self.app.enqueue("echo", [1]).id)

    def sound(self) -> None:
        """A unique key that only the job's meta knows is one of the bad things, and the auditor says so."""
        assert [found for found in self.run(self.store.audit()) if "no unique key" not in found] == []

    def states(self) -> dict[str, tuple[str, str | None]]:
        rows = self.connection.execute(f'SELECT w.id, f.state, f.reason FROM unnest(%s::text[]) w (id), "{self.schema}".job(w.id) f', (list(self.bad.values()),))
        found = {id: (state, reason) for id, state, reason in rows.fetchall()}
        return {name: found[id] for name, id in self.bad.items()}

    def work(self, *, concurrency: int = 8, chores: bool = False) -> None:
        """Until the good ones have ended, and a good one that comes last of all."""
        world = World(None, opened=self.app.opened, concurrency=concurrency)
        world.registry = self.app.registry

        async def done(_: Any) -> None:
            store, run = self.store, self.run
            for good in (self.good, [self.app.enqueue("echo", [2]).id], [self.app.enqueue("echo", [3]).id]):
                while any(not job.state.terminal for job in run(store.fetch(good))):
                    for chore in store.chores(PruneRules()) if chores else ():
                        run(chore)
                    await asyncio.sleep(0.01)

        world.work(done)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.close()
    PLACES.recycle()


PARKED = {
    **dict.fromkeys(("unknown task", "no task", "task of control characters"), "unknown_task"),
    **dict.fromkeys((name for name in ROWS if name.startswith(("meta ", "empty meta"))), "unknown_version"),
}
"""What nobody here can run waits, uncharged."""


def test_one_bad_row_stops_nobody(site: Site) -> None:
    """Bad ones at every place in line, and one slot less in each window for it."""
    for name, given in ROWS.items():
        site.put(name, given)
    site.work()
    site.run(site.store.promote(100))  # as a supervisor does now and then
    states = site.states()
    assert not [name for name, (state, _) in states.items() if state == "running"]
    for name, reason in PARKED.items():
        last = site.run(site.store.attempts(site.bad[name]))[-1]
        assert (states[name][0] in ("scheduled", "queued"), last.outcome, last.reason) == (True, "released", reason), name
    unserved = {"no queue", "queue with commas", "due never"}
    ended = {name for name, (state, _) in states.items() if State(state).terminal}
    tried = {name for name, id in site.bad.items() if site.run(site.store.attempts(id))}
    assert ROWS.keys() - ended - tried - {"behind all", "limit 0"} == unserved
    assert states["limit 0"] == ("blocked", "limit")
    assert {name for name, (state, _) in states.items() if state == "expired"} == {"expired long ago", "expired just now"}
    for name in ("no JSON", "empty payload", "another shape", "deep payload", "lone surrogate", "version 0", "negative version"):
        assert states[name] == ("dead", "payload"), name
    assert states["id that is none"] == ("dead", "id")
    assert states["before all"][0] == "retrying"
    site.sound()


def test_the_tables_take_no_number_that_nobody_can_count_on(site: Site) -> None:
    for name, given in REFUSED.items():
        with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.ProgramLimitExceeded)):
            site.put(name, given)
    site.connection.execute(f'DELETE FROM "{site.schema}".jobs WHERE queue <> %s', ("default",))  # only its place was refused
    site.work()


@pytest.mark.parametrize("name", ["expired just now", "id that is none", "unknown task", "deep unknown meta", "limit 0"])
def test_a_worker_with_one_slot_gets_past_it(site: Site, name: str) -> None:
    for n in range(3):
        site.put(name, {**ROWS[name], "rank": 0, **({"id": f"id {n}"} if "id" in name else {})})
    site.work(concurrency=1)


APP = """
from windlass import Windlass
app = Windlass()

@app.task(name="echo")
async def echo(value: object = None) -> object: ...

@app.task(name="fail")
async def fail() -> None: ...
"""


def test_whoever_looks_at_them_is_shown_them(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after they were claimed."""
    (tmp_path / "hostile_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    for name, given in ROWS.items():
        site.put(name, given)
    for _ in range(2):
        for command in (("jobs", "list", "--limit", "1000"), ("stats",), ("stats", "--exact"), ("deploy-check", "hostile_app:app")):
            for form in ((), ("--json",)):
                code = run([*command, "--url", site.url, *form])
                said = capsys.readouterr()
                assert code in (0, 1), (command, said.err[-1_000:])
                assert "Traceback" not in said.err
                assert not form or json.loads(said.out)
        for name, id in site.bad.items():
            for command in ("show", "why"):
                if is_job_id(id):
                    assert run(["jobs", command, id, "--url", site.url]) == 0, (name, command, capsys.readouterr())
                    assert run(["jobs", command, id, "--url", site.url, "--json"]) == 0, (name, command, capsys.readouterr())
            assert "\x1b" not in capsys.readouterr().out
        site.work()


def test_a_takeover_and_an_operator_get_all_of_them(site: Site) -> None:
    """A worker dies with all of them in its hands; then somebody cancels, redrives and deletes whatever there is."""
    for name, given in ROWS.items():
        site.put(name, given)
    queues = tuple(Quota(name, 1_000) for name in ("default", "", "a,b:c"))
    site.run(site.store.beat([report("dead"), report("next")]))
    held = site.run(site.store.claim("dead", 1, ClaimRequest(1_000, queues))).jobs
    assert len(held) > len(ROWS)
    site.run(site.store.beat([report("dead", held=len(held))]))
    assert site.run(site.store.reap([Death(worker="dead", observed=True)]))[0].jobs == len(held)
    site.sound()
    everything = Selection(filter=Filter(), limit=1_000)
    site.run(site.store.cancel(everything))
    site.run(site.store.promote(100))
    ids = tuple(site.bad.values())
    assert all(job.state.terminal for job in site.run(site.store.fetch(ids)) if job.tenant == "")
    site.run(site.store.revive(Selection(ids, delay=1_000, every=1_000)))
    site.run(site.store.delete(Selection(ids)))
    assert site.run(site.store.fetch(ids)) == [None] * len(ids)
    site.sound()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_they_are_copied(site: Site, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As they are, there and back; what cannot be stored where it goes stays, and is named."""
    for name, given in ROWS.items():
        site.put(name, given)
    site.work()
    (tmp_path / "there").mkdir()
    there = f"sqlite:///{tmp_path}/there.db" if kind == "sqlite" else PLACES.url(tmp_path / "there")
    before = {id: told(site.run(site.store.fetch([id]))[0]) for id in site.bad.values()}
    for here, other in ((site.url, there), (there, site.url)):
        code = run(["store", "copy", here, other, "--json"])
        said = capsys.readouterr()
        assert code == 0, said
        assert json.loads(said.out)["verified"], said
    assert {id: told(site.run(site.store.fetch([id]))[0]) for id in site.bad.values()} == before


def told(job: Job | None) -> Any:
    """A blocked job arrives as queued: the limit is the claim's to find."""
    assert job is not None
    return msgspec.structs.replace(job, state="queued", reason=None) if job.state == "blocked" else job


LINES = {
    "another rank": "UPDATE {s}.ready SET rank = rank - 1 WHERE seq = {q}",
    "another queue": "UPDATE {s}.jobs SET queue = 'elsewhere' WHERE seq = {q}",
    "twice": "INSERT INTO {s}.ready (part, lane, queue, rank, seq) SELECT part, lane, queue, rank - 1, seq FROM {s}.ready"
    " WHERE seq = {q}",
    "in both parts": "INSERT INTO {s}.ready (part, lane, queue, rank, seq) SELECT 1 - part, lane, queue, rank, seq FROM {s}.ready"
    " WHERE seq = {q}",
    "three hundred jobs that are none": "INSERT INTO {s}.ready (part, lane, queue, rank, seq) SELECT part, lane, queue, rank - n, -n"
    " FROM {s}.ready, generate_series(1, 300) n WHERE seq = {q}",
    "waiting as well": "INSERT INTO {s}.waiting (part, seq, due, state) VALUES (0, {q}, 0, 'scheduled')",
    "a job that is none, waiting": "INSERT INTO {s}.waiting (part, seq, due, state) VALUES (0, -5, 0, 'scheduled')",
    "ended as well": "INSERT INTO {s}.ended (part, seq, state, finished, fence)"
    " VALUES ({q} & 15, {q}, 'completed', 1, 1)",
    "held by nobody as well": "INSERT INTO {s}.held (part, id, seq, worker, grant_seq, fence, attempt, started)"
    " SELECT 0, id, seq, 'nobody', 1, 1, 1, 1 FROM {s}.jobs WHERE seq = {q}",
    "an end of nothing": "INSERT INTO {s}.expiring (expires, seq) VALUES (1, -7)",
}


@pytest.mark.parametrize("bounds", ["", "x", "[]", "{", '{"depth":"a"}', '{"depth":-1}', '{"depth":1.5}', '{,"depth":1}', "null", '{"odd":1}'])
def test_a_queue_takes_no_bounds_that_nobody_can_read(site: Site, bounds: str) -> None:
    """Every enqueue reads them, of all queues."""
    put = f'INSERT INTO "{site.schema}".queues (name, paused, bounds) VALUES (%s, 0, %s)'
    with pytest.raises(psycopg.errors.CheckViolation, match="bounds"):
        site.connection.execute(put, ("q", bounds))
    site.connection.execute(put, ("p", '{"depth":1,"age":7,"shed":true}'))
    assert site.run(site.store.queues([]))["p"].bounds == Bounds(1, 7, True)
    site.connection.execute(f'DELETE FROM "{site.schema}".queues')


@pytest.mark.parametrize("name", LINES)
def test_a_line_in_which_somebody_put_what_does_not_belong_there(site: Site, name: str) -> None:
    """Before a claim came upon it, or while it fails at it: with the chores of one supervisor, the good ones run."""
    site.put("x", {})
    ((seq,),) = site.connection.execute(f'SELECT seq FROM "{site.schema}".jobs WHERE id = %s', (site.bad["x"],)).fetchall()
    site.connection.execute(LINES[name].format(s=f'"{site.schema}"', q=seq))
    site.work(chores=True)
    if name != "held by nobody as well":
        assert site.states()["x"][0] in ("completed", "queued"), site.states()
        site.sound()


def test_what_another_store_has_and_this_one_refuses_stays_there(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is named; the others come."""
    there = f"sqlite:///{tmp_path}/there.db"
    with Windlass(there) as app:
        ids = [app.enqueue("echo", [n]).id for n in range(5)]
        session = app.opened.shell.session()  # type: ignore[attr-defined]
        session.connection.execute("UPDATE windlass_jobs SET created = ? WHERE id = ?", (-MOST, ids[1]))
        session.connection.execute("UPDATE windlass_jobs SET expires = ? WHERE id = ?", (MOST, ids[3]))
        session.commit()
    assert run(["store", "copy", there, site.url, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert {each["id"] for each in said["refused"]} == {ids[1], ids[3]}
    assert [job is not None for job in site.run(site.store.fetch(ids))] == [True, False, True, False, True]
    site.sound()

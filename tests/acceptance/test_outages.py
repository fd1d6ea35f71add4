"""Trouble with a PostgreSQL server, under load: what was acknowledged is kept, nothing is done twice without a reason, no
stale holder writes, and claims resume within 10 s (I1, I4, I27)."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.bad_server import OURS
from tests.acceptance.duty import Duty, duty, proven
from tests.acceptance.rig import eventually
from tests.faults.small_disk import small_disk
from tests.stores.postgres_server import Server
from tests.stores.proxy import WAYS, Proxy
from windlass import Windlass
from windlass.core.errors import StoreUnavailable
from windlass.testing import ledger
from windlass.testing.conformance.sizes import seeds, size

KILLS = size(2, 10, 200)
BACKENDS = size(20, 200, 2_000)
ROUNDS = size(1, 5, 50)
FAILOVERS = size(1, 10, 100)


@pytest.mark.timeout(180 + 30 * KILLS)
def test_the_server_is_in_trouble(record_property: Any) -> None:
    """Every process of it is killed, at any moment; its backends are terminated one by one, whatever they are at; and
    somebody else takes all the connections that there are. Health says so until it is over."""
    [seed] = seeds(1, 1, 1)
    dice = random.Random(seed)
    server = Server("max_connections=40")
    url = f"{server.url.replace('postgres@', 'app@')}/postgres"  # a superuser has connections kept for him
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as admin:
        admin.execute("CREATE ROLE app LOGIN")
        admin.execute("ALTER DATABASE postgres OWNER TO app")
    with duty(url, seed) as d:
        for number in range(KILLS):
            d.runs(dice.randint(5, 60))
            kill(d, server, dice.choice((0.0, 0.3, 1.0)), doctor=number == 0)
            d.recovers(time.monotonic())
            assert d.health() == 200
        with psycopg.connect(f"{server.url}/postgres", autocommit=True) as admin:
            terminate(d, admin, dice)
            d.recovers(time.monotonic())
            for _ in range(ROUNDS):
                d.runs()
                crowd(d, url, admin)
                d.recovers(time.monotonic())
        assert d.complaints() <= {"StoreUnavailable", "OutcomeUnknown"}
        report = proven(d, record_property)
    server.remove()
    assert report["counts"]["faults"] == KILLS + BACKENDS + ROUNDS


def kill(d: Duty, server: Server, seconds: float, *, doctor: bool) -> None:
    """The server, for about so many seconds."""
    with d.fault("SIGKILL server"):
        server.kill()
        assert d.health() == 503
        assert not doctor or "cannot be reached" in d.doctor()
        time.sleep(seconds)
        server.start()


def terminate(d: Duty, admin: psycopg.Connection[Any], dice: random.Random) -> None:
    """Backends, one by one."""
    for _ in range(BACKENDS):
        pids = [row[0] for row in admin.execute(OURS).fetchall()]
        with d.fault("terminated backend"):
            admin.execute("SELECT pg_terminate_backend(%s)", (dice.choice(pids),))
        time.sleep(dice.uniform(0.0, 0.1))


def crowd(d: Duty, url: str, admin: psycopg.Connection[Any]) -> None:
    """Somebody else has all connections for a second."""
    with d.fault("no connection left"):
        others = crowd_out(url, admin)
        with pytest.raises(StoreUnavailable, match="connection slots|too many clients"):
            d.app.client.stats()
        assert d.health() == 503
        time.sleep(1.0)
        for each in others:
            each.close()


def crowd_out(url: str, admin: psycopg.Connection[Any]) -> list[psycopg.Connection[Any]]:
    """Take all connections that there are, and then those that others had, until they have none."""
    taken: list[psycopg.Connection[Any]] = []
    while True:
        try:
            taken.append(psycopg.connect(url))
        except psycopg.OperationalError:
            if not admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({OURS}) ours").fetchall():
                return taken


@pytest.mark.timeout(120 + 180 * ROUNDS)
def test_the_route_is_bad(record_property: Any) -> None:
    """In each way in which a network is; it heals, or what it has forgotten stays forgotten."""
    [seed] = seeds(1, 1, 1)
    dice = random.Random(seed)
    server = Server()
    route = Proxy(f"{server.url}/postgres")
    with duty(route.url, seed) as d:
        for number in range(ROUNDS):
            for name, spoil in WAYS.items():
                d.runs(5)
                with d.fault(name):
                    spoil(route)
                    time.sleep(0.6 if number == 0 else dice.uniform(0.1, 12.0))
                    route.mode = "pass"
                d.recovers(time.monotonic())
        report = proven(d, record_property)
    route.close()
    server.remove()
    assert report["counts"]["faults"] == ROUNDS * len(WAYS)


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_a_disk_is_full(record_property: Any) -> None:
    """I31: that of the data, and the server refuses what would make it grow; that of the log, and the server dies."""
    [seed] = seeds(1, 1, 1)
    place = Path(tempfile.mkdtemp(prefix="windlass-disks-"))  # whoever runs the server may not look into pytest's own
    place.chmod(0o755)
    with small_disk(place / "data", 64) as data, small_disk(place / "log", 24) as log:
        (data.path / "base").mkdir()
        (log.path / "wal").mkdir()
        server = Server("max_wal_size=8MB", "min_wal_size=2MB", data=data.path / "base", wal=log.path / "wal")
        with duty(f"{server.url}/postgres", seed) as d:
            for _ in range(ROUNDS):
                d.runs()
                with d.fault("data disk full"):
                    data.fill()
                    eventually(lambda: "StoreFull" in d.complaints())
                    time.sleep(1.0)
                    data.free()
                d.recovers(time.monotonic())
                with d.fault("log disk full"):
                    log.fill()
                    eventually(lambda: not written(server))
                    assert d.health() == 503
                    log.free()
                    server.restore()
                d.recovers(time.monotonic())
            assert d.complaints() <= {"StoreFull", "StoreUnavailable", "OutcomeUnknown"}
            proven(d, record_property)
        server.remove()
    shutil.rmtree(place)


def written(server: Server) -> bool:
    """Whether the server could write a part of its log."""
    try:
        with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'filler', 'x'), pg_switch_wal()")
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", range(FAILOVERS))
def test_a_failover_loses_commits(number: int, record_property: Any) -> None:
    """A copy that lags is promoted. What was acknowledged and had not reached it is gone, and nothing else is; those who
    held a job in the future that was lost write nothing under their old fences. Nor is a lock's number given again."""
    seed = seeds(1, 1, 1)[0] + number
    primary = Server()
    line = Proxy(primary.url)
    copy = Server(Server.following(line.port), of=primary)
    route = Proxy(f"{primary.url}/postgres")
    with duty(route.url, seed) as d:
        d.runs()
        later = [d.app.enqueue("tests.acceptance.load.steps", [3.0], delay=1.0).id for _ in range(4)]
        caught = copied(primary, copy)
        line.mode = "freeze"
        lost = [d.app.enqueue("tests.acceptance.load.steps", [3.0]).id for _ in range(4)]
        fences = [fence(d.app) for _ in range(3)]
        d.runs()
        eventually(lambda: {*later, *lost} <= {line.job for line in d.look() if line.what == "start"})
        # What runs now has lost its right to, as if it had been stopped past its lease.
        with d.fault("failover", "stop", d.pids()):
            failed = time.monotonic()
            primary.kill()
            line.close()
            route.target = ("127.0.0.1", copy.port)
            copy.promote()
        d.recovers(time.monotonic())
        assert fence(d.app) > fences[-1], "the new primary has forgotten who had it"
        d.runs()
        d.rest()
        history = ledger.History.of(d.r.ledger)
        report = ledger.check(history)
        acked = {line.job: line.at for line in d.look() if line.what == "acked"}
        gone = {problem.job for problem in report.problems if problem.rule == "lost"}
        assert [problem for problem in report.problems if problem.job not in gone or acked[problem.job] < caught] == []
        for job in (*later, *lost):
            story = history.jobs[job]
            ghosts = [run.fence for run in story.runs.values() if run.start < failed]
            assert not [each for each in story.effects if each.fence in ghosts and each.since > failed]
        d.prove(record_property, {**report.counts, "lost with the primary": len(gone)})
    route.close()
    primary.remove()
    copy.remove()


def fence(app: Windlass) -> int:
    """The number under which somebody has a lock for a moment."""
    with app.lock("what the copy does not know of") as lock:
        return lock.fence


def copied(primary: Server, copy: Server) -> float:
    """Wait until all that is committed on the primary has reached the copy; answers an instant before that."""
    now = time.monotonic()
    with psycopg.connect(f"{primary.url}/postgres") as asked:
        [sent] = asked.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or [None]
    with psycopg.connect(f"{copy.url}/postgres", autocommit=True) as asked:
        question = "SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn"
        eventually(lambda: (asked.execute(question, (sent,)).fetchone() or [False])[0])
    return now

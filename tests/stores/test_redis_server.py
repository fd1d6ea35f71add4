"""What a Redis store does about its server: settings, full memory, users, restarts, failovers, clusters."""

from __future__ import annotations

import select
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import new_job
from tests.stores.redis_server import Started, binary, free_port
from windlass import Windlass, stores
from windlass.core.errors import (
    CapabilityMissing,
    ConfigError,
    OutcomeUnknown,
    SchemaError,
    StoreError,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
)
from windlass.core.job import NewJob, State
from windlass.core.machine import complete
from windlass.ports.store import ClaimRequest, Filter, Opened, PruneRules, Quota, WorkerReport
from windlass.runtime.relay import Relay
from windlass.stores.redis.rights import roles

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def shared() -> Iterator[Started]:
    started = Started()
    yield started
    started.end()


@contextmanager
def started(*options: str) -> Iterator[Started]:
    server = Started(*options)
    try:
        yield server
    finally:
        server.end()


@contextmanager
def opened(url: str, *, migrated: bool = True) -> Iterator[Opened]:
    with closing(stores.open(url)) as found:
        if migrated:
            found.shell.run(found.store.migrate())
        yield found


def claim(store: Opened, seq: int = 1, limit: int = 100) -> list[Any]:
    report = WorkerReport(id="w", supervisor="s", host="h", pid=1, hold=15_000_000)
    store.shell.run(store.store.beat([report]))
    return store.shell.run(store.store.claim("w", seq, ClaimRequest(limit, (Quota("default", limit),)))).jobs


def enqueue(store: Opened, *jobs: NewJob) -> list[str]:
    jobs = jobs or (new_job(),)
    assert all(answer.inserted for answer in store.shell.run(store.store.enqueue(jobs)))
    return [job.id for job in jobs]


# --- urls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://host/0?prefix=a b", "prefix"),
        ("redis://host/0?prefix={a}", "prefix"),
        ("redis://host/0?pool=1", "pool"),
        ("redis://host/0?pool=many", "pool"),
        ("redis://host/0?durability=sure", "durability"),
        ("redis://user:p@ss@host/0", "@"),
        ("redis://host:port/0", "host"),
        ("redis+sentinel://host", "/NAME"),
        ("redis+sentinel:///name", "at least one sentinel"),
        ("redis+cluster:///0", "at least one node"),
    ],
)
def test_a_url_that_cannot_be_right(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        stores.open(url)
    assert "p@ss" not in str(raised.value)


def test_two_stores_on_one_server(shared: Started) -> None:
    """Each under its own prefix, and nothing outside of it."""
    with opened(f"{shared.url}?prefix=one") as one, opened(f"{shared.url}?prefix=two") as two:
        (id,) = enqueue(one)
        assert claim(two) == []
        assert [held.id for held in claim(one)] == [id]
    with shared.client() as client:
        assert {key.split(b":")[0] for key in client.keys("*")} >= {b"one", b"two"}


def test_through_a_socket() -> None:
    # Not pytest's directory, whose path may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="windlass-") as place, started("--unixsocket", f"{place}/s") as server:
        assert server.pid
        with opened(f"unix://{place}/s?db=1") as store:
            (id,) = enqueue(store)
            assert [held.id for held in claim(store)] == [id]


def test_nobody_answers() -> None:
    with opened(f"redis://127.0.0.1:{free_port()}/0", migrated=False) as store, pytest.raises(StoreUnavailable):
        store.shell.run(store.store.version())


def test_a_wrong_password_is_said_and_not_shown(shared: Started) -> None:
    url = shared.url.replace("redis://", "redis://somebody:secret@")
    with opened(url, migrated=False) as store:
        assert "secret" not in store.url
        with pytest.raises(StoreUnavailable, match="does not let us in") as raised:
            store.shell.run(store.store.version())
        assert "secret" not in str(raised.value)


def test_a_database_is_no_transaction_of_ours(shared: Started) -> None:
    with opened(shared.url) as store, pytest.raises(CapabilityMissing, match="caller_transaction"):
        store.own(object())


def test_numbers_that_lua_cannot_count_with_are_refused(shared: Started) -> None:
    """Named, and before anything is sent."""
    with opened(shared.url) as store:
        far = NewJob(id="far", task="t", payload="[[],{}]", at=2**53)
        with pytest.raises(CapabilityMissing, match="wide_numbers: at of job far"):
            store.shell.run(store.store.enqueue([far]))


# --- settings ------------------------------------------------------------------------------------------------------


def test_a_server_that_evicts_is_refused() -> None:
    with started("--maxmemory-policy", "allkeys-lru") as server, opened(server.url, migrated=False) as store:
        with pytest.raises(StoreError, match="noeviction"):
            store.shell.run(store.store.migrate())
        assert any(each.verdict == "bad" and "evicts" in each.note for each in readings(store)) or readings(store)


def readings(store: Any) -> list[Any]:
    return list(store.diagnose())


def test_full_memory_keeps_out_and_lets_go(shared: Started) -> None:
    """Enqueue says so and applies nothing; what is there is claimed, settled and pruned, until there is room again."""
    with started("--maxmemory-policy", "noeviction") as server, opened(server.url) as store:
        ids = enqueue(store, *(NewJob(id=f"j{n:03}", task="t", payload=f'["{"x" * 20_000}"]') for n in range(100)))
        with server.client() as client:
            used = client.info("memory")["used_memory"]
            client.config_set("maxmemory", used - 500_000)
        late = new_job()
        with pytest.raises(StoreFull, match="memory is full"):
            store.shell.run(store.store.enqueue([late]))
        assert [each.verdict for each in readings(store) if each.name == "memory"] == ["bad"]
        held = claim(store)
        assert [each.id for each in held] == ids
        words = store.shell.run(store.store.settle("w", [complete(each.token, "1", DAY) for each in held]))
        assert set(words) == {"applied"}
        with pytest.raises(StoreFull):
            store.shell.run(store.store.enqueue([late]))
        assert store.shell.run(store.store.prune(PruneRules(completed=0), 1_000)).jobs == 100
        assert store.shell.run(store.store.enqueue([late]))[0].inserted
        assert store.shell.run(store.store.audit()) == []


def test_scripts_that_were_flushed_come_back(shared: Started) -> None:
    with opened(f"{shared.url}?prefix=flushed") as store:
        enqueue(store)
        with shared.client() as client:
            client.script_flush()
        enqueue(store)
        assert len(claim(store)) == 2


def test_what_is_sent_too_late_never_comes_true(shared: Started) -> None:
    """A server that was busy while its caller gave up does not do it afterwards."""
    with opened(f"{shared.url}?prefix=late") as store, shared.client() as client:
        job = new_job()
        client.client_pause(1_000, all=True)
        with pytest.raises(OutcomeUnknown):
            store.shell.run(store.store.enqueue([job]), 0.3)
        time.sleep(1.0)
        assert store.shell.run(store.store.fetch([job.id])) == [None]


def test_a_clock_that_was_set_ahead_stops_nobody(shared: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is in the server's time, as it was when the connection was made: it is asked again."""
    with opened(f"{shared.url}?prefix=ahead") as store:
        enqueue(store)
        for _, wire in store.shell.pool._idle:  # type: ignore[attr-defined]
            wire.ahead -= 3_600_000_000
        enqueue(store)
        assert len(claim(store)) == 2


# --- durability ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_on_disk_before_it_is_acknowledged(fsync: str) -> None:
    """I1: killed with -9 at any moment, all that was acknowledged is there. Where nobody can say so, it is refused."""
    with started("--appendonly", "yes", "--appendfsync", fsync) as server:
        with server.client() as client:
            version = tuple(int(each) for each in client.info("server")["redis_version"].split(".")[:2])
        url = f"{server.url}?durability=disk"
        if fsync == "everysec" and version < (7, 2):
            with opened(url, migrated=False) as store, pytest.raises(StoreError, match="appendfsync always"):
                store.shell.run(store.store.migrate())
            return
        with opened(url) as store:
            ids = enqueue(store)
            server.kill()
            server.begin()
            assert [held.id for held in claim(store)] == ids


def test_no_file_no_disk(shared: Started) -> None:
    with opened(f"{shared.url}?durability=disk", migrated=False) as store, pytest.raises(StoreError, match="appendonly"):
        store.shell.run(store.store.migrate())


def test_no_replica_to_acknowledge(shared: Started) -> None:
    """It was applied, and the caller learns that it is not where the profile says."""
    with opened(f"{shared.url}?prefix=alone") as store:
        assert store.shell.run(store.store.version()) == 1
    with opened(f"{shared.url}?prefix=alone&durability=replica", migrated=False) as store:
        with pytest.raises(OutcomeUnknown, match="has not reached a replica"):
            store.shell.run(store.store.enqueue([new_job()]), 0.3)


# --- users ---------------------------------------------------------------------------------------------------------


def test_the_users_that_are_printed_are_enough(shared: Started) -> None:
    """For all that a worker does, and for all that a reader does; and a reader can do nothing else."""
    with shared.client() as client:
        for line in roles("guarded").replace("CHANGE-ME", "secret").splitlines():
            if not line.startswith("#"):
                client.execute_command(*line.split())
    worker, reader = (
        f"redis://{name}:secret@127.0.0.1:{shared.port}/0?prefix=guarded" for name in ("windlass", "windlass_reader")
    )
    with opened(worker) as works, opened(reader, migrated=False) as reads:
        listener = works.shell.listen()
        (id,) = enqueue(works)
        assert select.select([listener.fileno()], [], [], 5.0)[0]
        listener.close()
        held = claim(works)
        works.shell.run(works.store.settle("w", [complete(held[0].token, "1", DAY)]))
        works.shell.run(works.store.prune(PruneRules(), 10))
        assert works.shell.run(works.store.depart("there", 10)).number == 1
        assert [each.state for each in reads.shell.run(reads.store.search(Filter(), 10)).jobs] == []
        assert reads.shell.run(reads.store.stats()).states["completed"] == 0
        assert reads.shell.run(reads.store.why(id)) is None
        assert reads.shell.run(reads.store.audit()) == []
        for plan in (reads.store.enqueue([new_job()]), reads.store.migrate()):
            with pytest.raises(StoreError, match="windlass store roles"):
                reads.shell.run(plan)
    with opened(worker.replace("prefix=guarded", "prefix=other"), migrated=False) as elsewhere:
        with pytest.raises(StoreError, match="windlass store roles"):
            elsewhere.shell.run(elsewhere.store.migrate())


# --- search --------------------------------------------------------------------------------------------------------


def test_a_search_for_what_is_rare_looks_at_few(shared: Started) -> None:
    """Whatever it is searched by, among thousands of others."""
    with opened(f"{shared.url}?prefix=rare") as store:
        run = store.shell.run
        for n in range(20):
            enqueue(store, *(NewJob(id=f"a{n:02}{m:03}", task="common", payload="[[],{}]") for m in range(500)))
        rare = NewJob(id="b", task="rare", queue="other", payload="[[],{}]", meta='{"tags":["odd"]}', after=DAY)
        enqueue(store, rare)
        for n in range(20):
            enqueue(store, *(NewJob(id=f"c{n:02}{m:03}", task="common", payload="[[],{}]") for m in range(500)))
        for wanted in (
            Filter(task="rare"),
            Filter(queue="other"),
            Filter(tag="odd"),
            Filter(states=(State.SCHEDULED,)),
            Filter(states=(State.SCHEDULED, State.DEAD), task="rare"),
        ):
            before = calls(shared)
            assert [job.id for job in run(store.store.search(wanted, 10)).jobs] == ["b"], wanted
            assert calls(shared) - before <= 6, wanted
        assert run(store.store.search(Filter(states=(State.DEAD,)), 10)).jobs == []


def calls(server: Started) -> int:
    """Scripts that were run."""
    with server.client() as client:
        return sum(
            client.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "evalsha_ro")
        )


def test_labels_that_are_no_longer_true_go(shared: Started) -> None:
    """By the maintainer's chores, and with the last job of their block."""
    with opened(f"{shared.url}?prefix=labels") as store, shared.client() as client:
        run, labels = store.shell.run, lambda: {bytes(each) for each in client.zrange("labels:{0}:labels", 0, -1)}
        enqueue(store, *(NewJob(id=f"a{n:03}", task="t", payload="[[],{}]") for n in range(300)))
        held = claim(store, limit=300)
        run(store.store.settle("w", [complete(each.token, "1", DAY) for each in held]))
        assert any(each.startswith(b"squeued") for each in labels())
        for _ in range(3):
            for chore in store.store.chores(PruneRules()):
                run(chore)
        assert not any(each.startswith(b"squeued") for each in labels())
        assert any(each.startswith(b"scompleted") for each in labels())
        assert run(store.store.audit()) == []
        while not run(store.store.prune(PruneRules(completed=0), 100)).done:
            pass
        assert labels() == set()


# --- hints ---------------------------------------------------------------------------------------------------------


def test_one_hint_for_all_that_comes_meanwhile(shared: Started) -> None:
    """And none is missed: whoever listens again learns what came in between."""
    with opened(f"{shared.url}?prefix=hints") as store, opened(f"{shared.url}?prefix=hints") as other:
        listener = store.shell.listen()
        seen, over = [], threading.Event()

        def listen() -> None:
            while not over.is_set():
                if select.select([listener.fileno()], [], [], 0.05)[0]:
                    listener.drain()
                    seen.extend(each.id for each in claim(store, int(time.time() * 1e6), 1_000))

        thread = threading.Thread(target=listen)
        thread.start()
        sent = []
        for n in range(200):
            sent += enqueue(other)
            time.sleep(0.0002 * (n % 20))
        end = time.monotonic() + 10
        while len(seen) < len(sent) and time.monotonic() < end:
            time.sleep(0.01)
        over.set()
        thread.join()
        listener.close()
        assert sorted(seen) == sorted(sent)


def test_a_listener_survives_its_server() -> None:
    with started("--appendonly", "yes") as server, opened(server.url) as store:
        listener = store.shell.listen()
        server.kill()
        server.begin()
        assert select.select([listener.fileno()], [], [], 10.0)[0], "what was said meanwhile, nobody heard"
        listener.drain()
        deadline = time.monotonic() + 10
        while True:
            try:
                enqueue(store)
                break
            except (StoreUnavailable, OutcomeUnknown):
                assert time.monotonic() < deadline
        assert select.select([listener.fileno()], [], [], 5.0)[0]
        listener.close()


# --- several servers -----------------------------------------------------------------------------------------------


def test_the_primary_is_found_by_its_sentinels() -> None:
    """And the next one, when it is gone; what the replica had is there."""
    with ExitStack() as stack:
        primary = stack.enter_context(started())
        replica = stack.enter_context(started("--replicaof", f"127.0.0.1 {primary.port}"))
        sentinels = [stack.enter_context(sentinel(primary.port)) for _ in range(3)]
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        with opened(f"redis+sentinel://{hosts}/jobs/0") as store:
            held = enqueue(store)
            with primary.client() as client:
                assert client.wait(1, 5_000) == 1
            primary.kill()
            deadline = time.monotonic() + 30
            while True:
                try:
                    found = claim(store, int(time.time() * 1e6))
                    break
                except (StoreUnavailable, StoreTimeout, OutcomeUnknown):
                    assert time.monotonic() < deadline, "nobody has become the primary"
                    time.sleep(0.1)
            assert [each.id for each in found] == held
            with replica.client() as client:
                assert client.info("replication")["role"] == "master"


@contextmanager
def sentinel(port: int) -> Iterator[int]:
    mine = free_port()
    server = Started.__new__(Started)
    server.port = mine
    server.place = Path(tempfile.mkdtemp(prefix="windlass-sentinel-"))
    server.url = f"redis://127.0.0.1:{mine}"
    settings = server.place / "sentinel.conf"
    settings.write_text(
        f"port {mine}\nbind 127.0.0.1\ndaemonize yes\npidfile {server.place}/pid\ndir {server.place}\n"
        f"sentinel monitor jobs 127.0.0.1 {port} 2\nsentinel down-after-milliseconds jobs 500\n"
        "sentinel failover-timeout jobs 3000\n"
    )
    server._command = [str(binary()), str(settings), "--sentinel"]
    server.begin()
    try:
        yield mine
    finally:
        server.end()


def test_a_cluster_of_three() -> None:
    """All keys of a store lie on one node, which is found from any."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(3)]  # else it is the port and 10,000, which may be no port
        nodes = [
            stack.enter_context(started("--cluster-enabled", "yes", "--cluster-port", str(bus))) for bus in buses
        ]
        gather(nodes, buses)
        for node in nodes:
            with opened(f"redis+cluster://127.0.0.1:{node.port}?prefix=c") as store:
                enqueue(store)
        with opened(f"redis+cluster://127.0.0.1:1,127.0.0.1:{nodes[1].port}?prefix=c") as store:
            assert len(claim(store)) == 3
            assert store.shell.run(store.store.audit()) == []


def gather(nodes: list[Started], buses: list[int]) -> None:
    """Make a cluster of servers, each with a third of the slots."""
    each = 16_384 // len(nodes) + 1
    for n, node in enumerate(nodes):
        with node.client() as client:
            slots = range(n * each, min((n + 1) * each, 16_384))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", slots[0], slots[-1])
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
    with nodes[0].client() as client:
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
    for node in nodes:
        with node.client() as client:
            for _ in range(500):
                if b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True):
                    break
                time.sleep(0.02)
            else:
                raise AssertionError("they do not become a cluster")


def test_an_outbox_hands_on(shared: Started, tmp_path: Path) -> None:
    """What commits in a database comes to Redis once, in its order, with its delay."""
    path = tmp_path / "app.db"
    with closing(Windlass(f"{shared.url}?prefix=outbox", outbox=f"sqlite+stdlib:///{path}")) as app:
        connection = sqlite3.connect(path)
        with app.outbox(connection):
            jobs = [app.enqueue("t", [n]) for n in range(3)]
            later = app.enqueue("t", [3], delay="1h")
        connection.commit()
        with pytest.raises(CapabilityMissing, match="app.outbox"), app.transaction(connection):
            pass
        connection.close()
        relay = Relay(app.opened, app.engine.open_outbox, "me")
        while relay.tick() == 0.0:
            pass
        relay.stop()
        assert [held.id for held in claim(app.opened)] == [job.id for job in jobs]
        assert later.state() == "scheduled"


def test_no_schema_no_jobs(shared: Started) -> None:
    with opened(f"{shared.url}?prefix=empty", migrated=False) as store, pytest.raises(SchemaError, match="migrate"):
        store.shell.run(store.store.enqueue([new_job()]))


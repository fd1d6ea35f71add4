"""The PostgreSQL store in earnest: real workers, a real server, and the end of either."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.stores.postgres_server import Server
from windlass import Windlass
from windlass.core.errors import StoreError
from windlass.core.job import State

APP = """
import os, time
from windlass import Context, Windlass
app = Windlass()

@app.task(name="work")
def work(n: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return n

@app.task(name="demanding")
def demanding(ctx: Context) -> None:
    ctx.once("kept", os.getpid)
    ctx.transaction().execute("SELECT pg_sleep(0.02)")

@app.task(name="pid")
def pid(ctx: Context) -> int:
    if ctx.once("first", os.getpid) == os.getpid():
        ctx.progress(1)  # who kills before this kills nobody's first run
        time.sleep(600)  # until its worker dies, however long the machine takes to come that far
    return os.getpid()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.remove()


class Site:
    """An application, and supervisors that work for it."""

    def __init__(self, url: str, path: Path) -> None:
        self.url, self.path = url, path
        (path / "site_app.py").write_text(APP)
        self.app = Windlass(url)
        self.app.client.stats()
        self.supervisors: list[subprocess.Popen[bytes]] = []

    def start(self, processes: int = 2, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "windlass", "worker", "site_app:app", "--processes", str(processes)]
        log = (self.path / f"log{len(self.supervisors)}").open("wb")
        environ = os.environ | {"WINDLASS_URL": self.url, "WINDLASS_HOLD": "3s"} | environment
        process = subprocess.Popen(command, cwd=self.path, env=environ, stderr=log)
        log.close()
        self.supervisors.append(process)
        return process

    def until(self, true: Callable[[], Any], patience: float = 30.0) -> Any:
        deadline = time.monotonic() + patience
        while True:
            try:
                if found := true():
                    return found
            except StoreError:
                pass
            if time.monotonic() > deadline:
                logs = "\n".join((self.path / f"log{n}").read_text() for n in range(len(self.supervisors)))
                raise AssertionError(f"it never came: {logs[-4_000:]}")
            time.sleep(0.05)

    def states(self) -> dict[str, int]:
        return self.app.client.stats(exact=True).states

    def close(self) -> None:
        for process in self.supervisors:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.supervisors:
            process.wait(40)
        assert self.app.engine.run(self.app.opened.store.audit()) == []
        self.app.close()


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Iterator[Site]:
    site = Site(f"{server.url}/postgres?schema=s{abs(hash(str(tmp_path)))}", tmp_path)
    yield site
    site.close()


def test_a_killed_worker_is_recovered_at_once(site: Site) -> None:
    """I8: within a second, for its supervisor sees its end."""
    site.start()
    job = site.app.enqueue("pid")
    site.until(lambda: site.app.client.fetch(job.id).progress)
    (victim,) = {w.pid for w in site.app.client.workers() if w.id == site.app.client.fetch(job.id).worker}
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    site.until(lambda: site.app.client.attempts(job.id))
    assert time.monotonic() - killed < 1.0
    assert job.result(timeout=20) != victim


def test_a_killed_supervisor_is_judged_by_the_kernel(site: Site) -> None:
    """Two supervisors of one machine and one URL meet in one run directory."""
    first = site.start(1)
    job = site.app.enqueue("pid")
    site.until(lambda: site.app.client.fetch(job.id).progress)
    site.start(1)
    site.until(lambda: len(site.app.client.workers()) == 2)
    first.kill()
    killed = time.monotonic()
    site.until(lambda: site.app.client.attempts(job.id), 10)
    assert time.monotonic() - killed < 2.5, "hold/3 and a little, and not the whole lease of 3 s"
    assert job.result(timeout=20)


def test_where_only_leases_judge(site: Site) -> None:
    """As between machines."""
    first = site.start(1, WINDLASS_LIVENESS="lease")
    job = site.app.enqueue("pid")
    site.until(lambda: site.app.client.fetch(job.id).progress)
    site.start(1, WINDLASS_LIVENESS="lease")
    site.until(lambda: len(site.app.client.workers()) == 2)
    time.sleep(4)  # whoever judges must have beaten for a whole hold
    first.kill()
    assert job.result(timeout=30)
    assert [attempt.outcome for attempt in site.app.client.attempts(job.id)] == ["lost", "succeeded"]


def test_no_acknowledged_job_is_lost_when_the_server_dies(site: Site, server: Server) -> None:
    """I1, I2, I27: while jobs are enqueued and run, the server is killed and started again; afterwards each ran."""
    site.start()
    site.app.enqueue("work", [-1]).result(timeout=20)
    told: Counter[str] = Counter()
    acknowledged: list[str] = []
    over = threading.Event()

    def enqueue() -> None:
        n = 0
        while not over.is_set():
            try:
                acknowledged.append(site.app.enqueue("work", [n]).id)
                told["acknowledged"] += 1
            except StoreError as error:
                told[type(error).__name__] += 1
                time.sleep(0.01)
            n += 1

    threads = [threading.Thread(target=enqueue) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.7)
        server.stop()
        time.sleep(0.2)
        server.start()
    time.sleep(0.5)
    over.set()
    for thread in threads:
        thread.join()
    restarted = time.monotonic()
    site.until(lambda: not {"queued", "running"} & {name for name, count in site.states().items() if count})
    assert time.monotonic() - restarted < 12
    found = site.app.opened.shell.run(site.app.opened.store.fetch(acknowledged))
    assert {job and job.state for job in found} == {State.COMPLETED}
    assert len(acknowledged) > 50, told
    assert told["StoreUnavailable"] + told["OutcomeUnknown"] > 0, told


OURS = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'windlass' AND client_port IS NOT NULL
"""


def most_connections(site: Site, server: Server, jobs: list[Any]) -> int:
    """How many there are, at the most, until the jobs have ended."""
    most = 0
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        while site.states()["completed"] < len(jobs):
            [count] = connection.execute(OURS).fetchone()
            most = max(most, count)
            assert not site.states()["dead"]
    return most


def test_a_supervisor_keeps_to_its_connections(site: Site, server: Server) -> None:
    """What the documentation says: one for each worker, three for its supervisor, two for who enqueues and waits."""
    site.start(4)
    jobs = [site.app.enqueue("work", [n, 0.01]) for n in range(300)]
    assert 4 + 2 < most_connections(site, server, jobs) <= 4 + 3 + 2


def test_handlers_that_use_the_store_keep_to_the_pool(server: Server, tmp_path: Path) -> None:
    """Whatever they do at once: so many for each worker, and so many transactions of theirs, of each of which the last
    one's connection may be leaving still."""
    site = Site(f"{server.url}/postgres?schema=demanding&pool=2", tmp_path)
    site.start(3)
    jobs = [site.app.enqueue("demanding", []) for _ in range(200)]
    most = most_connections(site, server, jobs)
    site.close()
    assert 3 + 3 + 2 < most <= 3 * (2 + 2 + 2) + 3 + 2

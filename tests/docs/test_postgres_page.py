"""The commands of docs/reference/postgresql.md that need a server, as they stand there, against a real one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.docs.pages import REPOSITORY, Block, blocks
from tests.docs.session import environment, free_port
from tests.faults.kit import new_job
from tests.stores.postgres_server import NOBODY, Server
from windlass import Context, Windlass, stores
from windlass.core.machine import complete
from windlass.ports.store import ClaimRequest, Death, Quota
from windlass.testing.conformance.world import report

PAGE = REPOSITORY / "docs/reference/postgresql.md"


def under(heading: str) -> list[Block]:
    """The bash blocks of one section."""
    text = PAGE.read_text()
    heads = [(m[1], text.count("\n", 0, m.start()) + 1) for m in re.finditer(r"^## (.+)$", text, re.MULTILINE)]
    place = next(n for n, (name, _) in enumerate(heads) if name == heading)
    begin, end = heads[place][1], heads[place + 1][1] if place + 1 < len(heads) else 10**9
    return [each for each in blocks(PAGE) if each.language == "bash" and begin < each.line < end]


class Machine:
    """A server with an archive of its log, and a shell beside it."""

    def __init__(self, path: Path) -> None:
        self.archive = Path(path / "archive")
        self.archive.mkdir()
        for each in (path, self.archive):
            each.chmod(0o777)
        self.server = Server("wal_level=logical", "archive_mode=on", f"archive_command=cp %p {self.archive}/.%f && mv {self.archive}/.%f {self.archive}/%f")
        self.place = path / "shell"
        self.place.mkdir()
        self.place.chmod(0o777)
        (path / "user").mkdir()
        self._environment = environment(path / "user")
        self._environment["PATH"] = f"{self.server._binaries}{os.pathsep}{self._environment['PATH']}"

    def run(self, block: Block, *, server: bool = False, **variables: str) -> str:
        """Run a block; as whom the server belongs to, if it is about its files."""
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if server and os.getuid() == 0 else {}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text], cwd=self.place, env=self._environment | variables,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False, **who,
        )  # fmt: skip
        logs = "".join(log.read_text()[-2_000:] for log in self.place.glob("base/log")) if done.returncode else ""
        assert done.returncode == 0, f"line {block.line}: {done.stdout}{logs}"
        return done.stdout

    def database(self, name: str) -> str:
        """A new database, without a store."""
        with psycopg.connect(f"{self.server.url}/postgres", autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}")
        return f"{self.server.url}/{name}"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    path = Path(tempfile.mkdtemp(prefix="windlass-machine-"))  # pytest's own directories are closed to other users
    found = Machine(path)
    yield found
    found.server.remove()
    shutil.rmtree(path, ignore_errors=True)


def store(url: str) -> Windlass:
    """An application on it, with its schema."""
    app = Windlass(url)
    app.client.stats()
    return app


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_from_sql_in_any_language(machine: Machine) -> None:
    url = machine.database("door")
    with store(url) as app:
        block, names = under("From SQL, in any language")
        said = machine.run(block, URL=url)
        assert re.search(r"scheduled \|\s+\|\s+0 \|", said), said
        assert app.client.stats().states["queued"] == 1
        assert [each.queue for each in app.client.stats().queues] == ["default", "mail"]
        (machine.place / "tasks.py").write_text(TASKS)
        assert machine.run(names, URL=url).split() == ["tasks.send_email", "named"]
        assert {each.task for each in app.client.search().jobs} == {"tasks.send_email"}


TASKS = """
from windlass import Windlass

app = Windlass("memory://")

@app.task
def send_email(to: str) -> None: ...

@app.task(name="named")
def other() -> None: ...
"""


def test_in_a_transaction_of_your_own(machine: Machine) -> None:
    """The tasks of the page; and what is said of an exception that is caught between the block and the commit."""
    url = machine.database("own")
    (text,) = [each.text for each in blocks(PAGE) if "ctx.atransaction()" in each.text]
    with store(url) as app, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE balances (account text, cents int); INSERT INTO balances VALUES ('ada', 0)")
        space: dict[str, Any] = {"app": app, "Context": Context, "__name__": "tasks"}
        exec("from __future__ import annotations\n" + text, space)
        embedded = app.run_embedded()
        for name in ("book", "abook"):
            space[name].enqueue("ada", 500).result(timeout="20s")
        assert connection.execute("SELECT cents FROM balances").fetchall() == [(1000,)]
        embedded.stop(5)
        ids = []
        for savepoint in (False, True):
            with psycopg.connect(url) as mine:
                mine.execute("SELECT 1")
                around = mine.transaction() if savepoint else nullcontext()
                with suppress(KeyError), around, app.transaction(mine):
                    ids.append(space["book"].enqueue("ada", 1).id)
                    raise KeyError
        assert [job is not None for job in app.engine.run(app.opened.store.fetch(ids))] == [True, False]


def test_schema_and_roles(machine: Machine) -> None:
    """On an empty database, by what is pasted; each login can do what it is for."""
    url = machine.database("roles")
    (block,) = under("Schema and roles")
    machine.run(block, URL=url)
    place = url.partition("@")[2]
    for login, may in LOGINS.items():
        opened = stores.open(f"postgresql://{login}@{place}")
        rights = {each.name: each.note for each in opened.diagnose()}["rights"]  # type: ignore[attr-defined]
        assert (login, rights) == (login, may)
        opened.close()
    # After an upgrade it is run again, and on another server it is restored.
    (again,) = [line for line in block.text.splitlines() if line.startswith("windlass store roles")]
    machine.run(Block("bash", again, block.line), URL=url)
    copied(machine, url)


LOGINS = {
    "shop_deploy": "may work, operate and enqueue",
    "shop_jobs": "may work, operate and enqueue",
    "shop_web": "may enqueue and read",
    "shop_reports": "may read",
}


def copied(machine: Machine, old: str) -> None:
    """The roles first, and then the database with all that was granted."""
    drill, roles = under("Backup and restore")[1:3]
    dump, create, restore = drill.text.splitlines()[:3]
    another = Server()
    try:
        to = f"{another.url}/postgres"
        machine.run(Block("bash", f"{dump}\n{roles.text}", roles.line), OLD=old, ANOTHER=to)
        new = f"{another.url}/restored"
        machine.run(Block("bash", f"{create}\n{restore}", drill.line), OLD=to, RESTORED=new)
        with Windlass(new.replace("postgres@", "shop_jobs@")) as app:
            app.enqueue("t")
            assert app.opened.missing_for_work() == ""  # type: ignore[attr-defined]
    finally:
        another.remove()


def test_logical_replication(machine: Machine) -> None:
    """Rows are told apart without a primary key, and numbers go on behind the old ones."""
    identity, sequences = under("Upgrading")
    old, new = machine.database("published"), machine.database("subscribed")
    with store(old) as app:
        first = app.enqueue("t", [1]).id
        machine.run(identity, OLD=old)
        machine.run(Block("bash", 'pg_dump --schema-only "$OLD" | psql -q "$NEW"', 0), OLD=old, NEW=new)
        with psycopg.connect(old, autocommit=True) as here, psycopg.connect(new, autocommit=True) as there:
            here.execute("CREATE PUBLICATION moving FOR ALL TABLES")
            here.execute("SELECT pg_create_logical_replication_slot('moving', 'pgoutput')")
            there.execute(f"CREATE SUBSCRIPTION moving CONNECTION '{old}' PUBLICATION moving WITH (create_slot = false)")
            second = app.enqueue("t", [2]).id
            app.client.delete(first)
            asked = "SELECT array_agg(j.id) FROM windlass.jobs j JOIN windlass.ready USING (seq)"
            copying = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
            until(lambda: there.execute(copying).fetchall() == [(0,)])
            until(lambda: there.execute(asked).fetchall() == [([second],)])
            machine.run(sequences, OLD=old, NEW=new)
            there.execute("DROP SUBSCRIPTION moving")
    with store(new) as app:
        third = app.enqueue("t", [3]).id
        assert [each.id for each in app.client.search().jobs] == [third, second]
        assert app.engine.run(app.opened.store.audit()) == []


def test_what_to_watch(machine: Machine) -> None:
    url = machine.database("watch")
    with store(url) as app:
        app.enqueue("t", [1])
        (block,) = under("What to watch")
        said = machine.run(block, URL=url)
        assert re.search(r"default \|\s+1\n", said), said
        assert "ready_0" in said
        assert "idle" not in said
        assert int(re.findall(r"^(\d+) kB$", said, re.MULTILINE)[-1]) > 0, said


def hold(app: Windlass, worker: str) -> Any:
    """One job, in the hands of a worker."""
    run, plans = app.engine.run, app.opened.store
    run(plans.beat([report(worker)]))
    (held,) = run(plans.claim(worker, 1, ClaimRequest(1, (Quota("default", 1),)))).jobs
    return held


def test_the_restore_drill(machine: Machine) -> None:
    """Step by step; a job that ran at the backup ran to its end since, and one was enqueued since."""
    old = machine.database("shop")
    drill = under("Backup and restore")[1]
    lines = drill.text.splitlines()
    backup, rest = Block("bash", lines[0], drill.line), Block("bash", "\n".join(lines[1:]), drill.line + 1)
    with store(old) as before:
        for n in range(3):
            before.enqueue("t", [n])
        before.client.schedules.create("nightly", "t", cron="0 3 * * *")
        held = hold(before, "old")
        machine.run(backup, OLD=old)
        run, plans = before.engine.run, before.opened.store
        assert run(plans.settle("old", [complete(held.token, "1", 10**12)])) == ["applied"]
        later = before.enqueue("t", [4]).id
        new = f"{machine.server.url}/restored"
        said = machine.run(rest, OLD=old, RESTORED=new)
        assert "queue 'default' is paused" in said
        assert held.id in said
        with store(new) as after:
            run, plans = after.engine.run, after.opened.store
            assert run(plans.audit()) == []
            assert after.client.pause("default") == {"default": True}
            assert run(plans.fetch([later])) == [None]
            assert {each.name: each.paused for each in after.client.schedules.list()} == {"nightly": True}
            # A supervisor takes over what ran; the worker of before can end nothing here.
            run(plans.reap([Death(worker="old", observed=True)]))
            assert run(plans.settle("old", [complete(held.token, "1", 10**12)])) == ["stale"]
            run(plans.beat([report("new")]))
            asks = [ClaimRequest(9, (Quota("default", 9),), suspects=suspects) for suspects in (False, True)]
            assert [run(plans.claim("new", n, ask)).jobs for n, ask in enumerate(asks, 1)] == [[], []]
            after.client.resume("default")
            again = [each for n, ask in enumerate(asks, 3) for each in run(plans.claim("new", n, ask)).jobs]
            assert len(again) == 3
            assert max(each.fence for each in again if each.id == held.id) > held.fence
            assert run(plans.settle("old", [complete(held.token, "1", 10**12)])) == ["stale"]
            assert set(run(plans.settle("new", [complete(each.token, "1", 10**12) for each in again]))) == {"applied"}


def test_to_a_point_in_time(machine: Machine) -> None:
    """What was there at the instant is there again, and what came after is not."""
    old = machine.database("mistake")
    base, restore = under("Backup and restore")[3:]
    with psycopg.connect(f"{machine.server.url}/postgres", autocommit=True) as admin:
        # What a copy finds in its own files: the server's other settings were given on its command line.
        admin.execute(f"ALTER SYSTEM SET unix_socket_directories = '{machine.place}'")
        admin.execute("ALTER SYSTEM SET listen_addresses = '127.0.0.1'")
        admin.execute("ALTER SYSTEM SET max_connections = 200")
    with store(old) as app:
        first = app.enqueue("t", [1]).id
        machine.run(base, server=True, OLD=machine.server.url + "/postgres")
        second = app.enqueue("t", [2]).id
        with psycopg.connect(old, autocommit=True) as connection:
            ((instant,),) = connection.execute("SELECT clock_timestamp()").fetchall()
            time.sleep(0.1)
            app.engine.run(app.opened.store.enqueue([new_job()]))
            app.client.delete(first, second)
            ((last,),) = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchall()
    until(lambda: (machine.archive / last).exists())
    port = free_port()
    block = Block("bash", restore.text.replace("5433", port), restore.line)
    try:
        restored = f"postgresql://postgres@127.0.0.1:{port}/mistake"
        machine.run(block, server=True, ARCHIVE=str(machine.archive), INSTANT=str(instant), RESTORED=restored)
        with store(restored) as app:
            assert "standby" not in {each.name for each in app.opened.diagnose()}  # type: ignore[attr-defined]
            assert app.client.stats().states["queued"] == 2
            assert {app.client.fetch(id).state for id in (first, second)} == {"queued"}
            assert app.engine.run(app.opened.store.audit()) == []
            app.enqueue("t", [3])
    finally:
        stop = Block("bash", "pg_ctl --pgdata=base --mode=immediate stop || true", 0)
        machine.run(stop, server=True)

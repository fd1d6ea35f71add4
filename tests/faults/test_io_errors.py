"""I31: every write, flush, truncation and deletion that an operation asks of the disk fails in its turn.

After each failure the caller has been told no more than is true, also of the file as a crash at that very moment would
leave it; the store is whole; and the same shell does the work once the disk does.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.disk import Disk, faulty
from tests.faults.kit import (
    KINDS,
    REPOSITORY,
    broken,
    count,
    dump,
    migrated,
    new_job,
    open_store,
    opened_store,
    raw,
    sample,
    typed,
)
from tests.worker.harness import FakeLink, World, task
from windlass.core.errors import OutcomeUnknown, StoreError, StoreFull, StoreUnavailable
from windlass.core.job import ErrorInfo
from windlass.core.machine import bury, complete, release, retry
from windlass.ports.plan import Plan
from windlass.ports.store import ClaimRequest, Death, Quota, WorkerReport
from windlass.stores.sqlite import shell
from windlass.testing import ManualClock
from windlass.testing.conformance.sizes import size

HOUR = 3_600_000_000
JOBS = [new_job() for _ in range(8)]
FRESH = [new_job(), new_job(after=HOUR), new_job(idempotency_key="k", digest="d", expires_after=HOUR)]
CHILD = new_job(task="tests.child")
REQUEST = ClaimRequest(3, (Quota("default", 3),))
BEAT = WorkerReport(id="w1", supervisor="s", host="h", pid=1, hold=HOUR)


def hold(opened: Any) -> None:
    run, store = opened.shell.run, opened.store
    run(store.enqueue(JOBS))
    run(store.beat([BEAT]))
    run(store.claim("w1", 1, ClaimRequest(4, (Quota("default", 4),))))


def settled(opened: Any) -> Plan[Any]:
    tokens = opened.shell.run(opened.store.held("w1"))
    first, second, third, fourth = sorted(tokens, key=lambda token: token.id)
    return opened.store.settle(
        "w1",
        [
            complete(first, '"r"', HOUR, (CHILD,)),
            retry(second, HOUR, ErrorInfo("E"), "failed"),
            bury(third, "discarded", "no", None, HOUR),
            release(fourth, "stop"),
        ],
    )


class Operation(NamedTuple):
    """`prepare` a store, then `make` the plan; `again` is what one sends when the answer did not come."""

    prepare: Callable[[Any], Any]
    make: Callable[[Any], Plan[Any]]
    again: Callable[[Any], Any] | None = None


def claim_again(opened: Any) -> None:
    """As a worker does: take what was granted, or else claim under the next number."""
    if not opened.shell.run(opened.store.recover("w1", 1)):
        opened.shell.run(opened.store.claim("w1", 2, REQUEST))


OPERATIONS = {
    "enqueue": Operation(lambda o: o.shell.run(o.store.enqueue(JOBS)), lambda o: o.store.enqueue(FRESH)),
    "claim": Operation(
        lambda o: (o.shell.run(o.store.enqueue(JOBS)), o.shell.run(o.store.beat([BEAT]))),
        lambda o: o.store.claim("w1", 1, REQUEST),
        claim_again,
    ),
    "settle": Operation(hold, settled),
    "reap": Operation(
        hold,
        lambda o: o.store.reap([Death(worker="w1", observed=True, executing=(JOBS[0].id,), alone=True)]),
    ),
    "migrate": Operation(lambda o: None, lambda o: o.store.migrate()),
}


class Bench:
    """One operation on one kind of store, to be run under as many faults as one likes."""

    def __init__(self, kind: str, name: str, folder: Path, disk: Disk) -> None:
        self.kind, self.disk, self.folder = kind, disk, folder
        self.operation = OPERATIONS[name]
        self.clock = ManualClock()
        self._template = folder / "template.db"
        if name == "migrate":
            with raw(kind[:6], self._template) as connection:
                # Not the creation of the file but of the schema is what fails here.
                connection.execute(f"PRAGMA journal_mode = {'DELETE' if kind == 'stdlib' else 'WAL'}")
        else:
            with migrated(kind, self._template, clock=self.clock) as opened:
                self.operation.prepare(opened)
        self.before = dump(kind, self._template)
        with self.scene() as opened:
            plan = self.operation.make(opened)
            disk.arm("eio", 0)
            opened.shell.run(plan)
            self.requests = disk.rest()
        self.after = dump(kind, self._path)
        assert self.before != self.after

    @contextmanager
    def scene(self) -> Iterator[Any]:
        """The store as it was before, open, beside another connection: without one, closing ours after a failure would
        tidy away what another process is going to find."""
        self._path = self.folder / "jobs.db"
        for name in self.folder.iterdir():
            if name.name.startswith("jobs.db"):
                shutil.rmtree(name) if name.is_dir() else name.unlink()
        shutil.copyfile(self._template, self._path)
        with raw(self.kind, self._path) as bystander:
            bystander.execute("SELECT count(*) FROM sqlite_master").fetchall()
            with opened_store(self.kind, self._path, clock=self.clock) as opened:
                opened.shell.run(opened.store.version())  # so that opening is not what fails
                yield opened

    def strike(self, act: str, at: int, *, lasting: bool = False, reads: bool = False) -> str:
        """Run the operation with one fault; answers how it ended. Asserts everything."""
        where = f"{act} at {at}, {'' if lasting else 'not '}lasting, of {self.requests}"
        with self.scene() as opened:
            plan = self.operation.make(opened)
            self.disk.arm(act, at, lasting=lasting, reads=reads)
            try:
                opened.shell.run(plan)
                ended = "done"
            except StoreError as error:
                typed(error, StoreFull if act == "full" else StoreError)
                ended = "unknown" if isinstance(error, OutcomeUnknown) else "refused"
            struck = self.disk.struck
            self.disk.rest()
            if ended != "done":
                assert struck, where
            if ended == "unknown":
                assert not opened.shell._idle, "a connection whose flush failed is kept"
            found = self.crashed()
            possible = {"done": [self.after], "refused": [self.before], "unknown": [self.before, self.after]}[ended]
            assert found in possible, f"{where}: {ended}, but a crash then leaves otherwise"
            (self.operation.again or (lambda o: o.shell.run(plan)))(opened)
            assert opened.shell.run(opened.store.audit()) == [], where
        assert same(dump(self.kind, self._path), self.after), where
        assert broken(self.kind, self._path) == [], where
        return ended if struck else "passed"

    def crashed(self) -> dict[str, list[Any]]:
        """What the next process finds if this one is killed now: the files, without what only this one knows."""
        copy = self.folder / "crash.db"
        for tail in ("", "-wal", "-journal", "-shm"):
            (self.folder / f"crash.db{tail}").unlink(missing_ok=True)
            if tail != "-shm" and Path(f"{self._path}{tail}").exists():
                shutil.copyfile(f"{self._path}{tail}", f"{copy}{tail}")
        assert broken(self.kind, copy) == []
        return dump(self.kind, copy)


def same(found: dict[str, list[Any]], wanted: dict[str, list[Any]]) -> bool:
    """But for the numbers under which a worker claims, which grow with each try."""
    drop = {"windlass_held": 3, "windlass_workers": 15}
    cut = lambda rows, at: sorted((row[:at] + row[at + 1 :] for row in map(tuple, rows)), key=repr)
    return {t: cut(rows, drop.get(t, 99)) for t, rows in found.items()} == {
        t: cut(rows, drop.get(t, 99)) for t, rows in wanted.items()
    }


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_request_fails_once(kind: str, name: str, place: Path, record_property: Any) -> None:
    """I31: applied, or not, or unknown; never said to be the one while it is the other."""
    with faulty(kind) as disk:
        bench = Bench(kind, name, place, disk)
        assert any(asked.startswith("sync") for asked in bench.requests)
        numbers = range(1, len(bench.requests) + 1)
        ends = [bench.strike("eio", at) for at in numbers]
        some = sample(numbers, size(12, 10_000, 10_000))
        ends += [bench.strike(act, at) for act in ("torn", "full") for at in some]
        ends += [bench.strike("eio", at, lasting=True) for at in some]
    assert {"refused", "unknown"} <= set(ends)
    count(record_property, kind=kind, operation=name, requests=len(numbers), faults=len(ends) - ends.count("passed"))


@pytest.mark.parametrize("name", ["enqueue", "settle"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_read_fails_once(kind: str, name: str, place: Path, record_property: Any) -> None:
    """I31: a page that cannot be read is an error of ours, and nothing is changed on the strength of it."""
    ends: list[str] = []
    with faulty(kind) as disk:
        bench = Bench(kind, name, place, disk)
        for at in range(1, 40):
            ends.append(bench.strike("eio", at, reads=True))
            if ends[-1] == "passed":
                break
    assert ends[0] in {"refused", "done"}
    assert ends[-1] == "passed"
    count(record_property, kind=kind, operation=name, reads=len(ends) - 1)


@pytest.mark.parametrize("act", ["eio", "torn", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_on_a_disk_that_fails_now_and_then(kind: str, act: str, place: Path, record_property: Any) -> None:
    """I2, I31: claims whose answer was lost are recovered, outcomes are settled again: each job runs and ends once."""
    seed = int(os.environ.get("WINDLASS_SEED") or random.randrange(1 << 32))
    dice = random.Random(seed)
    ran: list[int] = []
    struck: list[int] = []

    async def work(n: int) -> int:
        ran.append(n)
        await asyncio.sleep(0.002)
        return n

    def child(n: int) -> int:
        ran.append(n)
        return n

    with faulty(kind) as disk:
        opened = open_store(kind, place / "jobs.db")
        tasks = [task("work", work), task("in a thread", child)]
        with World(place, *tasks, opened=opened, concurrency=4) as world:
            jobs = [world.enqueue_many(name, [(n,) for n in range(150)]) for name in ("work", "in a thread")]

            async def until_done(link: FakeLink) -> None:
                for _ in range(8):
                    disk.arm(act, dice.randint(1, 12), lasting=act == "full")
                    await world.until(lambda: bool(disk.struck) or world.states()["completed"] == 300)
                    disk.rest()
                    struck.append(disk.struck)
                    ended = world.states()["completed"]
                    await world.until(lambda ended=ended: world.states()["completed"] > ended or ended == 300)
                await world.until_done(link)

            world.work(until_done)
            assert sum(struck) >= 2, f"seed {seed}"
            assert sorted(ran) == sorted([*range(150)] * 2)
            assert {len(world.attempts(job)) for ids in jobs for job in ids} == {1}
            assert world.states()["completed"] == 300
            world.sound()
    assert broken(kind, place / "jobs.db") == []
    count(record_property, kind=kind, act=act, struck=sum(struck))


def test_a_false_answer_would_be_seen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that calls a failed flush "not applied", and one that calls it done."""
    real = shell.commit

    def certain(driver: Any) -> None:
        try:
            real(driver)
        except OutcomeUnknown as error:
            raise StoreUnavailable("nothing was applied") from error

    def careless(driver: Any) -> None:
        with suppress(StoreError):
            real(driver)

    with faulty("apsw") as disk:
        bench = Bench("apsw", "enqueue", place, disk)
        flush = len(bench.requests)
        assert bench.requests[-1] == "sync wal"
        assert bench.strike("eio", flush) == "unknown"
        monkeypatch.setattr(shell, "commit", certain)
        with pytest.raises(AssertionError, match="refused, but a crash then leaves otherwise"):
            bench.strike("eio", flush)
        monkeypatch.setattr(shell, "commit", careless)
        with pytest.raises(AssertionError, match="done, but a crash then leaves otherwise"):
            bench.strike("eio", 2)


PROGRAM = """
import sys
from tests.faults.kit import migrated, new_job
from windlass.core.errors import OutcomeUnknown
from pathlib import Path
acked = unknown = 0
with migrated(sys.argv[1], Path(sys.argv[2])) as opened:
    for _ in range(30):
        job = new_job()
        try:
            opened.shell.run(opened.store.enqueue([job]))
        except OutcomeUnknown:
            unknown += 1
            opened.shell.run(opened.store.enqueue([job]))
        print(job.id)
    assert unknown, "no flush failed"
    assert opened.shell.run(opened.store.audit()) == []
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_flush_that_the_kernel_fails(kind: str, tmp_path: Path) -> None:
    """I31: EIO from fdatasync itself, every ninth time, through whatever layers there are: unknown, then sent again."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace, which injects the error, is not installed")
    path = tmp_path / "jobs.db"
    with migrated(kind, path):
        pass
    inject = "inject=fsync,fdatasync:error=EIO:when=9+9"
    command = [strace, "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject]
    python = [sys.executable, "-c", PROGRAM, kind[:6], str(path)]
    done = subprocess.run([*command, *python], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this system does not let strace work")
    assert done.returncode == 0, done.stderr
    with migrated(kind, path) as opened:
        acked = done.stdout.split()
        assert [job and job.id for job in opened.shell.run(opened.store.fetch(acked))] == acked
        assert len(acked) == len(set(acked)) == 30
        assert opened.shell.run(opened.store.audit()) == []
    assert broken(kind, path) == []

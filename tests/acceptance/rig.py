"""Real supervisors, real workers, a real file; and the client that enqueues and looks afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from windlass.core.backoff import Backoff
from windlass.core.job import Job, KeyLimit, Meta, NewJob, Policy, UniqueKey
from windlass.core.placement import job_id
from windlass.ports.store import Opened, WorkerInfo
from windlass.stores import open as open_store
from windlass.testing import ledger

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
PATIENCE = 30.0
SOON = Backoff(base="50ms", factor=1, jitter=0)
LIMITED = Policy(max_attempts=2, timeout=0.3, grace=0.3, backoff=SOON)
FEW = Policy(max_attempts=2, backoff=SOON)
POLICIES = {
    "gil_hog": LIMITED,
    "gil_hog_process": LIMITED,
    "endless_payload": LIMITED,
    "exiting_payload": FEW,
    "stop_loop": FEW,
    "abort": FEW,
}
PROGRAM = "import sys; from windlass.cli import main; sys.exit(main())"
RELOADING = """
import sys
from windlass.runtime.supervisor import Supervisor
from windlass.stores import open
sys.exit(Supervisor(sys.argv[2], open, processes=1, reload=True).run())
"""  # what `windlass dev` does, without its API


def eventually(what: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait until `what()` is true, and answer it."""
    deadline = time.monotonic() + patience
    while not (answer := what()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
    return answer


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for task in _list(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            for child in children:
                found += tree(int(child))
    return found


def command(pid: int) -> bytes:
    """The command line of a process; empty for a zombie, "windlass" for one that is gone, which is as good."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"windlass"


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped, or it is gone."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if stat.read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return False
    return True


class Supervised:
    """One `windlass worker` with its workers."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.pid = process.pid

    def signal_tree(self, number: int) -> list[int]:
        """Send a signal to the supervisor and everything below it; answers whom it was sent to."""
        pids = tree(self.pid)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def kill(self) -> None:
        """SIGKILL to the supervisor alone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self, patience: float = PATIENCE) -> int:
        """SIGTERM, and wait; answers the exit code."""
        self.process.terminate()
        return self.process.wait(patience)


def stop_tree(victim: Supervised) -> None:
    """SIGSTOP everything of it, and wait until it has."""
    assert len(victim.signal_tree(signal.SIGSTOP)) >= 2
    while not _stops(victim):
        # A child that was stopped between vfork and exec: until then its parent cannot stop. On with them, and again.
        victim.signal_tree(signal.SIGCONT)


def _stops(victim: Supervised) -> bool:
    """Whether all of it stops soon."""
    deadline = time.monotonic() + 2.0
    # Again and again, for what was just being started; and what is inside a system call stops when it comes back from
    # there.
    while not all(stopped(pid) for pid in victim.signal_tree(signal.SIGSTOP)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Rig:
    """A store in a directory of its own, and whatever works on it."""

    def __init__(self, directory: Path, url: str = "", **environment: str) -> None:
        """`url` is that of a PostgreSQL store; without, it is a file in the directory."""
        self.directory = directory
        self.ledger = directory / "ledger"
        self.ledger.mkdir()
        self.url = url or f"sqlite:///{directory}/jobs.db"
        self.opened: Opened = open_store(self.url)
        self.run(self.opened.store.migrate())
        self.environment = {"WINDLASS_URL": self.url, "LEDGER": str(self.ledger), **environment}
        self.supervised: list[Supervised] = []
        self.acked: list[str] = []

    def close(self) -> None:
        """End what is left, hard."""
        for each in self.supervised:
            for pid in tree(each.pid) if each.process.poll() is None else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)
            each.process.wait(PATIENCE)
        self.opened.close()

    def supervise(
        self, *options: str, target: str = str(HERE / "proving_ground.py"), reload: bool = False, **environment: str
    ) -> Supervised:
        """Start a supervisor; its workers may not be there yet."""
        log = self.directory / f"log-{len(self.supervised)}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", RELOADING if reload else PROGRAM, "worker", target, *options],
                cwd=REPOSITORY,
                env={**os.environ, **self.environment, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.supervised.append(Supervised(process, log))
        eventually(lambda: b"supervisor starts" in log.read_bytes() or b"worker runs" in log.read_bytes())  # before that, a SIGTERM is Python's to handle
        return self.supervised[-1]

    def run(self, plan: Any) -> Any:
        return self.opened.shell.run(plan)

    def enqueue(
        self,
        task: str,
        *calls: Sequence[Any],
        limits: Sequence[KeyLimit] = (),
        unique: UniqueKey | None = None,
        crowd: dict[str, int] | None = None,
        **fields: Any,
    ) -> list[str]:
        """One job per tuple of arguments. By hand, since this process has not imported the application. `crowd` is a
        limit that does not ride with the job: its queue's."""
        policy = POLICIES.get(task, Policy(backoff=SOON))
        meta = msgspec.json.encode(Meta(policy=policy, limits=tuple(limits), unique=unique)).decode()
        jobs = [
            NewJob(
                id=job_id(time.time_ns() // 1_000_000, os.urandom(10)),
                task=f"proving_ground.{task}",
                payload=msgspec.json.encode([list(call), {}]).decode(),
                meta=meta,
                **fields,
            )
            for call in calls
        ]
        answers = self.run(self.opened.store.enqueue(jobs))
        self.opened.shell.hint()
        for answer in answers:
            ledger.write(str(self.ledger), "acked", answer.id, limits=crowd or {})
        self.acked += [answer.id for answer in answers]
        return [answer.id for answer in answers]

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the server; or the file, by the standard library's SQLite: in another process, as two libraries in one
        spoil each other's locks. Redis has no such rows."""
        if self.url.startswith("redis:"):
            return []
        if self.url.startswith("postgresql:"):
            with psycopg.connect(self.url.partition("?")[0], autocommit=True) as connection:
                asked = connection.execute(statement)
                return asked.fetchall() if asked.description else []
        program = "import sqlite3, sys, json; print(json.dumps(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()))"
        path = self.directory / "jobs.db"
        done = subprocess.run([sys.executable, "-c", program, path, statement], check=True, capture_output=True)
        return [tuple(row) for row in msgspec.json.decode(done.stdout)]

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Nobody can write to the store meanwhile."""
        program = """if True:
            import sqlite3, sys
            locking = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
            locking.execute("BEGIN IMMEDIATE")
            print("locked", flush=True)
            sys.stdin.read()
        """
        command = [sys.executable, "-c", program, str(self.directory / "jobs.db")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            yield
            process.communicate()

    def job(self, job: str) -> Job:
        found = self.run(self.opened.store.fetch([job]))[0]
        assert found is not None
        return found

    def jobs(self) -> list[Job]:
        return [job for job in self.run(self.opened.store.fetch(self.acked)) if job is not None]

    def all_ended(self) -> bool:
        """Asked cheaply, so that it may be asked often; and then of every job itself."""
        waiting = any(self.run(self.opened.store.stats()).states.get(state) for state in WAITING)
        return not waiting and all(job.state.terminal for job in self.jobs())

    def workers(self) -> list[WorkerInfo]:
        """Those that may claim, as the store sees them."""
        return [w for w in self.run(self.opened.store.workers()) if not w.taken]

    def lines(self, job: str | None = None, what: str | None = None) -> list[ledger.Line]:
        """What others than this process wrote down."""
        return [
            line
            for line in ledger.read(self.ledger)
            if line.actor != os.getpid() and job in (None, line.job) and what in (None, line.what)
        ]

    def started(self, job: str, times: int = 1) -> ledger.Line:
        """Wait until a job has started that often; answers the last start."""
        return eventually(lambda: len(lines := self.lines(job, "start")) >= times and lines[-1])

    def kill(self, pid: int) -> None:
        """SIGKILL to one process, written down, so that a limit is known to be free again."""
        since = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        ledger.write(str(self.ledger), "fault", note="killed", kind="kill", since=since, pids=(pid,))

    def history(self) -> ledger.History:
        """What all actors wrote down, and what the store holds now."""
        (self.ledger / "store.jsonl").unlink(missing_ok=True)
        ledger.export(self.opened, self.ledger)
        return ledger.History.of(self.ledger)

    def violations(self, *, exactly_once: bool = False, starts_most: int = 99) -> list[str]:
        """What is wrong. Not each test writes its faults down, so a run may go without an explanation here."""
        history = self.history()
        found = [str(problem) for problem in ledger.check(history, without=("unexplained",)).problems]
        for job in self.acked:
            ends = [run.end < float("inf") for run in history.jobs[job].runs.values()]
            if exactly_once and ends != [True]:
                found.append(f"job {job} started {len(ends)} times and ended {sum(ends)} times")
            if len(ends) > starts_most:
                found.append(f"job {job} started {len(ends)} times, {starts_most} at most")
        return found + self.run(self.opened.store.audit())

    def logs(self) -> str:
        return "\n".join(each.log.read_text() for each in self.supervised)


WAITING = ("queued", "scheduled", "retrying", "running", "blocked")


@contextlib.contextmanager
def rig(directory: Path, url: str = "", **environment: str) -> Iterator[Rig]:
    made = Rig(directory, url, **environment)
    try:
        yield made
    except BaseException:
        print(made.logs()[-8_000:])
        raise
    finally:
        made.close()

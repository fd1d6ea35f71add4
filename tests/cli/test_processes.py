"""Commands that run until they are told to stop, as real processes; and those that start such."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import World
from windlass import Windlass
from windlass.core.job import LogLine, Succeeded
from windlass.runtime.supervisor import SAME_SIGNAL

PATIENCE = 30.0


def eventually(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (answer := what()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
    return answer


class Running:
    """`windlass ...` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.log = Path(f"{arguments[0]}.log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "windlass", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, words: str) -> str:
        def look() -> bool:
            assert self.process.poll() is None or words in self.said, self.said
            return words in self.said

        eventually(look)
        return next(line for line in self.said.splitlines() if words in line)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Running]:
    command = Running(*arguments)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.process.pid, signal.SIGKILL)
            command.process.wait()


@pytest.fixture
def app(world: World, tasks: str) -> Windlass:
    """By name only: the code is the worker's."""
    return world.app


@pytest.mark.parametrize("processes", ["2", "0"])
def test_worker_runs_jobs_and_stops_when_told(app: Windlass, world: World, processes: str) -> None:
    """I26: a SIGTERM ends it cleanly, with 0."""
    jobs = [app.enqueue("tasks.add", [n, 1]) for n in range(20)]
    with running("worker", "tasks:app", "--processes", processes) as worker:
        assert [job.result(timeout=PATIENCE) for job in jobs] == [n + 1 for n in range(20)]
        found = world.json("workers")["workers"]
        assert len(found) == max(1, int(processes))
        assert {each["alive"] for each in found} == {True}
        assert "tasks.add" in found[0]["tasks"]
        assert "tasks.send@2" in found[0]["tasks"]
        assert worker.stop() == 0
    assert world.json("workers")["workers"] == []
    assert world.json("stats", "--exact")["states"]["completed"] == 20


@pytest.mark.parametrize("processes", ["1", "0"])
def test_a_second_signal_ends_patience(app: Windlass, world: World, processes: str) -> None:
    """I26. A thread cannot be ended from outside: a supervisor kills its worker, an embedded worker can only leave.
    Either way something was cut short, so the exit code is 1."""
    Path("stuck.py").write_text(
        "import time\nfrom windlass import Windlass\napp = Windlass('sqlite:///jobs.db')\n"
        "@app.task\ndef sleep() -> None:\n    time.sleep(60)\n"
    )
    job = app.enqueue("stuck.sleep")
    with running("worker", "stuck.py", "--processes", processes, "--stop-timeout", "50s") as worker:
        eventually(lambda: job.state() == "running")
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(SAME_SIGNAL + 0.2)  # sooner, it would be taken for the first, passed on twice
        assert worker.process.poll() is None
        for _ in range(10):
            worker.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(2 * SAME_SIGNAL)
                break
        assert worker.process.wait(PATIENCE / 3) == 1


def test_an_embedded_worker_that_dies_takes_its_process_along(world: World) -> None:
    """I27: whoever keeps processes alive must be able to see it."""
    Path("dying.py").write_text(
        "from windlass import Windlass\nfrom windlass.runtime.worker import Worker\n"
        "app = Windlass('sqlite:///jobs.db')\n"
        "async def dies(self): raise RuntimeError('a bug')\nWorker.run = dies\n"
    )
    with running("worker", "dying.py", "--processes", "0") as worker:
        assert worker.process.wait(PATIENCE) == 1
        assert "the embedded worker failed" in worker.said


def test_worker_takes_queues_and_files(app: Windlass, world: World) -> None:
    mail, other = app.enqueue("tasks.add", [1, 1], queue="mail"), app.enqueue("tasks.add", [1, 1])
    with running("worker", "tasks.py", "--processes", "1", "--queues", "mail", "--concurrency", "3", "--json") as worker:
        assert mail.result(timeout=PATIENCE) == 2
        found = world.json("workers")["workers"][0]
        assert (found["queues"], found["slots"]) == (["mail"], 3)
        assert other.state() == "queued"
        assert world.json("jobs", "why", other.id)["cause"] == "queue_unserved"
        assert worker.stop(signal.SIGINT) == 0
    assert all(json.loads(line)["level"] in ("info", "warning") for line in worker.said.splitlines())


BROKEN = [
    # what is in broken.py, and what the last line says
    ("import part\n", "app: broken.py cannot be imported: ZeroDivisionError: division by zero ({here}/part.py, line 2)"),
    ("x = 1\n", "app: broken.py: it has no `app = Windlass()`"),
    ("import sys\nsys.exit(3)\n", "app: broken.py cannot be imported: it calls sys.exit(3) ({here}/broken.py, line 2)"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN, ids=["part", "none", "exit"])
def test_worker_whose_application_cannot_be_loaded_says_so_once(world: World, text: str, said: str) -> None:
    """However many workers find it; and of the traceback only what the user wrote, not how it was imported."""
    Path("broken.py").write_text(text)
    Path("part.py").write_text("def fail():\n    1 / 0\n\nfail()\n")
    said = said.format(here=world.directory)
    with running("worker", "broken.py", "--processes", "3") as worker:
        assert worker.process.wait(PATIENCE) == 2
    *lines, last = worker.said.splitlines()
    assert last == f"windlass: {said}"
    told = [document for line in lines if (document := json.loads(line))["level"] != "info"]
    ((event, reason, trace),) = [(each["event"], each["reason"], each.get("trace")) for each in told]
    assert (event, reason) == ("the application cannot be loaded", said)
    assert len(lines) <= 5  # the supervisor starts, and its three workers do
    if "part" in text:
        assert trace.startswith("Traceback (most recent call last):\n  File ")
        assert [line.split('"')[1] for line in trace.splitlines() if "File " in line] == [
            f"{world.directory}/{name}.py" for name in ("broken", "part", "part")
        ]


def test_worker_says_on_which_store_it_works_and_what_may_be_a_typing_error(app: Windlass, world: World) -> None:
    with running("worker", "tasks.py", "--processes", "2", "--queues", "mial,other,default", "--json") as worker:
        worker.says('"worker runs"')
        assert worker.stop() == 0
    lines = [json.loads(line) for line in worker.said.splitlines()]
    runs = [each for each in lines if each["event"] == "worker runs"]
    assert {(each["store"], each["queues"]) for each in runs} == {(f"{world.directory}/jobs.db", "mial,other,default")}
    warned = [each for each in lines if each["level"] == "warning"]
    assert [(each["queue"], each.get("perhaps")) for each in warned] == [("mial", "mail"), ("other", None)]


def test_worker_refuses_a_store_that_each_of_its_processes_would_have_for_itself(world: World) -> None:
    Path("kept.py").write_text("from windlass import Windlass\napp = Windlass('memory://')\n")
    running = Running("worker", "kept.py", "--processes", "1")
    assert running.process.wait(PATIENCE) == 2
    assert "durable: memory:// lives in one process, and no other sees its jobs" in running.said
    assert running.said.count("worker starts") == 1


def test_logs_are_followed_to_the_end(world: World) -> None:
    id = world.enqueue()
    held = world.claim()
    line = lambda text: world.do(world.store.report([], [(held.token, LogLine(1, "info", text))]))
    line("first")
    with running("jobs", "logs", id, "--follow") as follower:
        follower.says("first")
        line("second")
        follower.says("second")
        assert follower.process.poll() is None
        line("last")
        world.settle(held, Succeeded())
        assert follower.process.wait(PATIENCE) == 0
    assert [each.split()[-1] for each in follower.said.splitlines()] == ["first", "second", "last"]


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.status, json.loads(answer.read())


def test_serve(app: Windlass, world: World) -> None:
    with running("serve", "tasks:app", "--port", "0", "--json") as server:
        url = json.loads(server.says('"url"'))["url"]
        assert url.startswith("http://127.0.0.1:")
        assert json.loads(server.says('"url"'))["store"] == f"{world.directory}/jobs.db"
        assert ask(f"{url}/healthz") == (200, {"status": "ok"})
        status, job = ask(f"{url}/api/v1/jobs", {"task": "tasks.add", "args": [1, 2]})
        assert (status, job["state"]) == (202, "queued")
        assert world.json("jobs", "show", job["id"])["payload"] == [[1, 2], {}]
        taken = url.rpartition(":")[2]
        ran = world.run("serve", "tasks:app", "--port", taken)
        assert ran.code == 2
        assert f"--port: 127.0.0.1 port {taken} cannot be served: Address already in use" in ran.err
        assert server.stop() == 0


def test_serve_says_on_which_store_it_works(app: Windlass, world: World) -> None:
    with running("serve", "tasks:app", "--port", "0") as server:
        assert server.says("serving on ").endswith(f", store {world.directory}/jobs.db (Ctrl-C ends it)")


def test_serve_ends_although_somebody_waits(app: Windlass, world: World) -> None:
    """A stop answers those who wait for a job, at once."""
    import threading

    id = app.enqueue("tasks.add", [1, 2]).id
    answers: list[tuple[int, Any]] = []
    with running("serve", "tasks:app", "--port", "0", "--json") as server:
        url = json.loads(server.says('"url"'))["url"]
        request = urllib.request.Request(f"{url}/api/v1/jobs/{id}", headers={"Prefer": "wait=60"})

        def wait() -> None:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                answers.append((answer.status, json.loads(answer.read())))

        waiting = threading.Thread(target=wait)
        waiting.start()
        eventually(lambda: _connections(server.process.pid) > 0)
        time.sleep(0.2)  # from the connection to the wait
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5
        waiting.join()
    ((status, job),) = answers
    assert (status, job["state"]) == (200, "queued")


def _connections(pid: int) -> int:
    """Sockets of a process beyond the one that it listens on and its loop's own pair."""
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return sum(link.startswith("socket:") for link in links) - 3


def test_dev_runs_serves_and_reloads(app: Windlass, world: World) -> None:
    """One terminal: schema, worker, API, and both anew when a file is saved, also out of a syntax error."""
    with running("dev", "tasks.py", "--port", "0") as dev:
        url = dev.says("API on ").removeprefix("API on ").removesuffix("/api/v1/jobs")
        assert f"store {world.directory}/jobs.db\n" in dev.said
        assert "try: windlass enqueue tasks.add '[1, 1]' --app tasks.py --wait 10s" in dev.said
        status, job = ask(f"{url}/api/v1/jobs", {"task": "tasks.add", "args": [1, 2]})
        assert status == 202
        assert app.job(job["id"]).result(timeout=PATIENCE) == 3
        good = Path("tasks.py").read_text()
        Path("tasks.py").write_text(good + "oops(\n")
        dev.says("'(' was never closed")
        Path("tasks.py").write_text(good.replace("a + b", "a * b + 100"))
        eventually(lambda: app.enqueue("tasks.add", [2, 3]).result(timeout=PATIENCE) == 106)
        assert eventually(lambda: ask(f"{url}/healthz")) == (200, {"status": "ok"})
        assert dev.stop() == 0
    assert dev.said.count("API on ") == 1


def test_dev_goes_on_until_the_file_is_right(world: World) -> None:
    """It says once what is wrong, ends quietly at a Ctrl-C, and says where it serves once there is something to."""
    Path("half.py").write_text("x = 1\n")
    with running("dev", "half.py", "--port", "0") as dev:
        dev.says("waiting for a source file to change")
        os.killpg(dev.process.pid, signal.SIGINT)  # as a terminal does it: to all of them
        assert dev.process.wait(PATIENCE) == 0
        assert dev.said.count("it has no `app = Windlass()`") == 1
        assert "interrupted" not in dev.said
    for wrong in ("app = Windlass()\n@app.task(priority=200)\ndef t() -> None: ...\n", "import sys\nsys.exit(3)\n"):
        Path("half.py").write_text(f"from windlass import Windlass\n{wrong}")
        _dev_recovers(world)


def _dev_recovers(world: World) -> None:
    with running("dev", "half.py", "--port", "0", "--json") as dev:
        dev.says("waiting for a source file to change")
        Path("half.py").write_text("from windlass import Windlass\napp = Windlass()\n")
        dev.says('"url"')
        assert dev.stop() == 0
    documents = [json.loads(line) for line in dev.said.splitlines()]
    (where,) = [each for each in documents if "url" in each]
    assert where["store"] == f"{world.directory}/jobs.db"
    assert where["try"] is None


def test_init_writes_what_runs(world: World) -> None:
    assert world.run("init", "shop").out.endswith("next: cd shop && windlass dev tasks.py\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "shop", "shop"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
    Path("shop/tasks.py").write_text("mine\n")
    ran = world.run("init", "shop")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "windlass: shop/tasks.py is there already; nothing was written\n"
    assert Path("shop/tasks.py").read_text() == "mine\n"
    assert world.run("init", "/proc/nowhere").code == 1


def test_demo_ends_by_itself_and_adds_up(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "windlass", "demo", "--json"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {"enqueued": 24, "states": {"completed": 23, "dead": 1}, "ok": True}
    assert os.listdir() == []


def test_bench_measures(world: World) -> None:
    ran = world.run("bench", "--jobs", "200", "--processes", "1", "--json")
    assert ran.code == 0
    assert ran.json["jobs_per_second"] > 0
    assert 0 < ran.json["enqueue_ms"] <= ran.json["enqueue_p99_ms"]
    assert ran.json["durability"] == "full"
    assert os.listdir() == []

"""A user's own mistake is one line that says what would be right, and an exit code; never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import World

ID = "019d8e3c-1111-7000-8000-000000000001"

MISTAKES = [
    # what was typed, the exit code, what the line says
    (["stats", "--url", "jobs.db"], 2, 'write for instance "sqlite:///jobs.db" or "memory://" (from --url)'),
    (["stats", "--url", "mysql://x"], 2, "url: no store is called 'mysql'; there are memory://, postgresql://, redis://, sqlite://, sqlite+stdlib://"),
    (["stats", "--url", "sqlite:////no/such/dir/jobs.db"], 2, "url: the directory /no/such/dir does not exist"),
    (["stats", "--url", "sqlite:///other.db"], 4, "there is no store at"),
    (["stats", "--url", "sqlite:///a.db", "--app", "tasks.py"], 2, "--url and --app both name a store"),
    (["jobs", "list", "--app", "nowhere:app"], 2, "app: there is no module 'nowhere' in"),
    (["jobs", "list", "--app", "tasks:nothing"], 2, "app: tasks:nothing: 'nothing' is not there"),
    (["jobs", "list", "--app", "nofile.py"], 2, "app: there is no file 'nofile.py'"),
    (["jobs", "list", "--app", "broken.py"], 2, "cannot be imported: NameError: name 'nope' is not defined ("),
    (["jobs", "list", "--app", "syntax.py"], 2, "cannot be imported: SyntaxError: "),
    (["jobs", "list", "--state", "happy"], 2, "must be of scheduled, queued, blocked, running, "),
    (["jobs", "list", "--since", "yesterday"], 2, "--since: 'yesterday' is no time; write \"2h\" (ago) or 2026-"),
    (["jobs", "list", "--limit", "0"], 2, "Invalid value for '--limit'"),
    (["jobs", "show", ID], 3, f"job {ID} is not in the store"),
    (["jobs", "logs", ID], 3, f"job {ID} is not in the store"),
    (["jobs", "retry"], 2, "name what to retry: by ids, or else by a filter (or --all)"),
    (["jobs", "cancel", ID, "--all"], 2, "name what to cancel: by ids, or else by a filter (or --all)"),
    (["jobs", "delete", ID], 2, "delete cannot be undone; say --yes"),
    (["dead", "purge", "--all"], 2, "purge cannot be undone; say --yes"),
    (["dead", "edit", ID], 3, f"job {ID} is not in the store"),
    (["enqueue", "tasks.add", "[1, 2"], 2, "ARGS: '[1, 2' is not JSON (Input data was truncated); write a list"),
    (["enqueue", "tasks.add", '["\\ud800"]'], 2, "ARGS: '[\"\\\\ud800\"]' holds a lone surrogate, half of a character"),
    (["enqueue", "tasks.add", "7"], 2, "ARGS: '7' is a number; write a list of arguments"),
    (["enqueue", "tasks.add", "[NaN]"], 2, "ARGS: '[NaN]' is not JSON"),
    (["enqueue", "tasks.add", '[{"a": 1, "a": 2}]'], 2, "ARGS[0].a: is given twice"),
    (["enqueue", "tasks.add", '{"a": 1, "a": 2}'], 2, "ARGS.a: is given twice"),
    (["schedules", "add", "s", "tasks.add", '{"b": [{"a": 1, "a": 2}]}', "--every", "1h"], 2, "ARGS.b[0].a: is given twice"),
    (["enqueue", "", "[]"], 2, "task: "),
    (["enqueue", "tasks.add", "--delay", "soon"], 2, "delay: 'soon' is no duration"),
    (["enqueue", "tasks.add", "--at", "noon"], 2, "at: 'noon' is no instant; write 2026-11-22T10:00:00Z"),
    (["enqueue", "tasks.add", "--at", "2026-11-22"], 2, "has no time zone; write 2026-11-22T00:00:00Z, or an offset"),
    (["enqueue", "tasks.add", "--wait", "soon"], 2, "--wait: 'soon' is no duration"),
    (["enqueue", "tasks.add", "--wait", "-1"], 2, "--wait: '-1' must be between 0 and"),
    (["enqueue", "tasks.add", "--wait", ""], 2, "--wait: '' is no duration"),
    (["enqueue", "tasks.add", "--priority", "101"], 2, "priority: 101 must be a whole number, 0..100"),
    (["enqueue", "tasks.add", "--header", "x"], 2, "headers: 'x' must be NAME=VALUE"),
    (["enqueue", "tasks.none", "--app", "tasks.py"], 3, "tasks.py has no task 'tasks.none'; it has tasks.add, tasks.send."),
    (["enqueue", "tasks.ad", "--app", "tasks.py"], 3, "it has tasks.add, tasks.send. Did you mean 'tasks.add'?"),
    (["enqueue", "tasks.add", '["one", 2]', "--app", "tasks.py"], 2, "a: expected int, got str"),
    (["enqueue", "tasks.add", "[1]", "--app", "tasks.py"], 2, "b: is missing; the task takes a, b"),
    (["store", "prune", "--dead", "later"], 2, "--dead: 'later' is no duration"),
    (["worker", "nowhere:app"], 2, "app: there is no module 'nowhere' in"),
    (["worker", "no/such.py"], 2, "app: there is no file 'no/such.py'"),
    (["worker", "tasks.py", "--processes", "300"], 2, "--processes: 300 must be within 0..256"),
    (["worker", "tasks.py", "--processes", "-1"], 2, "--processes: -1 must be within 0..256"),
    (["worker", "tasks.py", "--queues", ""], 2, "--queues: '' names no queue; write \"a,b:3\""),
    (["worker", "tasks.py", "--queues", "mail:2.5"], 2, "--queues: 'mail:2.5': a weight must be a whole number, 1..1000"),
    (["worker", "tasks.py", "--processes", "0", "--concurrency", "0"], 2, "concurrency: 0 must be a whole number, 1..10000"),
    (["worker", "tasks.py", "--queues", "a, b\tc"], 2, "--queues: 'b\\tc' must be printable"),
    (["worker", "tasks.py:app"], 2, "'tasks.py:app' is neither a file nor a module; write tasks:app, or tasks.py"),
    (["jobs", "list", "--app", "tasks.py:app"], 2, "neither a file nor a module; write tasks:app, or tasks.py"),
    (["jobs", "list", "--app", "exits.py"], 2, "app: exits.py cannot be imported: it calls sys.exit(3) ("),
    (["serve", "exits.py", "--port", "0"], 2, "app: exits.py cannot be imported: it calls sys.exit(3) ("),
    (["worker", "broken.py", "--processes", "0"], 2, "cannot be imported: NameError: name 'nope' is not defined ("),
    (["stats", "--url", ""], 2, "url: '' is no store URL; write for instance"),
    (["stats", "--url", "sqlit:///jobs.db"], 2, "Did you mean 'sqlite'? (from --url)"),
    (["serve", "nodir.py", "--port", "0"], 2, "url: the directory /no/such/dir does not exist"),
    (["worker", "tasks.py", "--stop-timeout", "x"], 2, "--stop-timeout: 'x' is no duration"),
    (["serve", "nowhere:app"], 2, "app: there is no module 'nowhere' in"),
    (["serve", "tasks.py", "--host", "0.0.0.0"], 2, "--host: '0.0.0.0' can be reached from other machines"),
    (["serve", "tasks.py", "--host", "example.org"], 2, "--host: 'example.org' can be reached from other machines"),
    (["serve", "kept.py", "--port", "0"], 2, "durable: memory:// lives in one process, and no other sees its jobs"),
    (["enqueue", "t", "--url", "memory://"], 2, "durable: memory:// lives in one process, and no other sees its jobs"),
    (["stats", "--url", "memory://"], 2, "durable: memory:// lives in one process, and no other sees its jobs"),
    (["dev", "nofile.py"], 2, "app: there is no file 'nofile.py'"),
    (["job", "list"], 2, "No such command 'job'. Did you mean 'jobs'?"),
    (["wroker"], 2, "No such command 'wroker'. Did you mean 'worker'?"),
    (["nothing"], 2, "No such command 'nothing'. (see `windlass --help`)"),
    (["jobs", "whi", ID], 2, "No such command 'whi'"),
    (["--json"], 2, """{"error":"No such option '--json'.","kind":"UsageError","exit_code":2}"""),
    (["serve", "--foo", "tasks.py"], 2, "No such option '--foo'. (see `windlass serve --help`)"),
    (["serve", "--prot", "1", "tasks.py"], 2, "No such option '--prot'. Did you mean '--port'?"),
]


@pytest.mark.parametrize(("typed", "code", "said"), MISTAKES, ids=[" ".join(typed) for typed, _, _ in MISTAKES])
def test_a_mistake_is_one_clear_line(world: World, tasks: str, typed: list[str], code: int, said: str) -> None:
    (world.directory / "broken.py").write_text("x = nope\n")
    (world.directory / "syntax.py").write_text("x = (\n")
    (world.directory / "kept.py").write_text("from windlass import Windlass\napp = Windlass('memory://')\n")
    (world.directory / "exits.py").write_text("import sys\nsys.exit(3)\n")
    nodir = "from windlass import Windlass\napp = Windlass('sqlite:////no/such/dir/jobs.db')\n"
    (world.directory / "nodir.py").write_text(nodir)
    world.enqueue()
    ran = world.run(*typed)
    assert (ran.code, ran.out) == (code, ""), ran
    assert said in ran.err
    if said:
        assert len(ran.err.splitlines()) == 1
    assert "Traceback" not in ran.err
    assert len(world.app.client.search().jobs) == 1  # nothing was enqueued on the way


WITHOUT_DRIVER = """
import sys
sys.modules["psycopg"] = None  # as where it is not installed
from windlass import ConfigError
from windlass.stores import open
try:
    open("postgresql://h/d")
except ConfigError:
    from windlass.cli import main
    main()
"""


def test_a_store_whose_driver_is_not_installed(tmp_path: Path) -> None:
    """Both from Python and at the command line, it names what to install."""
    typed = [sys.executable, "-c", WITHOUT_DRIVER, "stats", "--url", "postgresql://h/d"]
    ran = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("windlass: url: postgresql:// needs a driver: pip install 'windlass[postgres]' (")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("typed", [[], ["jobs"], ["dead"], ["queues"], ["store"]], ids=lambda typed: "_".join(typed))
def test_a_word_alone_is_answered_with_its_help(world: World, typed: list[str]) -> None:
    ran, asked = world.run(*typed), world.run(*typed, "--help")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == asked.out
    assert len(ran.err.splitlines()) > 5


def test_help_says_how_long_running_jobs_get(world: World) -> None:
    from windlass.config import Settings
    from windlass.runtime.reload import DEADLINE

    assert f"{Settings().stop_timeout:.0f}s unless configured" in world.run("worker", "--help").out
    assert f"gives running jobs {DEADLINE:.0f} seconds, and so does Ctrl-C" in " ".join(world.run("dev", "--help").out.split())


def test_debug_shows_where_it_came_from(world: World, tasks: str) -> None:
    ran = world.run("enqueue", "tasks.none", "--app", "tasks.py", "--debug")
    assert ran.code == 3
    assert "Traceback" in ran.err
    assert "tasks.py has no task" in ran.err


def test_with_json_an_error_is_an_object_too(world: World) -> None:
    world.enqueue()
    ran = world.run("jobs", "show", ID, "--json")
    assert (ran.code, ran.out) == (3, "")
    assert json.loads(ran.err) == {
        "error": f"job {ID} is not in the store", "kind": "JobNotFound", "exit_code": 3,
    }  # fmt: skip


def test_looking_makes_no_store_and_changes_no_database(world: World) -> None:
    """A typing error in a path must neither answer "no jobs" nor leave a file behind."""
    import sqlite3

    ran = world.run("jobs", "list", "--url", "sqlite:///typo.db")
    assert ran.code == 4
    assert "there is no store at " in ran.err
    assert not (world.directory / "typo.db").exists()
    with sqlite3.connect("shop.db") as other:
        other.execute("CREATE TABLE orders (id)")
    other.close()
    ran = world.run("jobs", "list", "--url", "sqlite+stdlib:///shop.db")
    assert ran.code == 4
    assert "is no Windlass store" in ran.err
    other = sqlite3.connect("shop.db")
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]
    other.close()


def test_a_file_that_is_no_database(world: World) -> None:
    Path("letter.db").write_text("Dear reader, this is no database.\n" * 100)
    ran = world.run("stats", "--url", "sqlite:///letter.db")
    assert ran.code == 4
    assert "the file is damaged or is no database" in ran.err


def test_a_newer_schema_is_refused(world: World) -> None:
    """I25."""
    world.enqueue()
    session = world.app.opened.shell.session()
    session.connection.execute("INSERT INTO windlass_schema_version (version, applied) VALUES (999, 0)")
    session.commit()
    ran = world.run("stats")
    assert ran.code == 4
    assert "upgrade Windlass" in ran.err


def test_a_reader_that_has_seen_enough_is_no_error(world: World) -> None:
    for _ in range(50):
        world.enqueue()
    command = f"{{ {sys.executable} -m windlass jobs list; echo $? >code; }} | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert (world.directory / "code").read_text() == "141\n"


def test_what_is_no_text_is_no_id(world: World) -> None:
    world.enqueue()
    done = shell("windlass jobs show \"$(printf 'a\\377')\"")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "windlass: 'a\\udcff' is no text\n"


def shell(command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    text = f'windlass() {{ {sys.executable} -m windlass "$@"; }}; {command}'
    return subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False, env={**os.environ, **environ})


@pytest.mark.parametrize("command", ["jobs list", "jobs list --json", "--help", "stats"])
def test_an_answer_that_cannot_be_written_is_one_line(world: World, command: str) -> None:
    world.enqueue()
    done = shell(f"windlass {command} >/dev/full")
    assert done.returncode == 1
    said = "standard output cannot be written: No space left on device"
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = shell(f"windlass {command} >&-")
    assert done.returncode == 1
    assert "standard output is closed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_standard_error_leaves_the_answer_alone(world: World) -> None:
    world.enqueue()
    done = shell(f"windlass jobs show {ID} 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


@pytest.mark.parametrize(
    "environ",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}],
    ids=["locale", "encoding"],
)
def test_a_terminal_without_a_letter_gets_its_escape(world: World, environ: dict[str, str]) -> None:
    id = world.enqueue("tasks.prüfe")
    done = shell("windlass jobs list", **environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"tasks.pr\xfcfe" in done.stdout
    assert id in done.stdout


@pytest.mark.parametrize("command", ["jobs list", "worker tasks.py", "serve tasks.py", "stats --app tasks:app", "bench"])
def test_a_directory_that_is_gone_is_one_line(world: World, command: str) -> None:
    done = shell(f'mkdir gone && cd gone && rmdir "$PWD" && windlass {command}')
    assert done.returncode == 2
    assert "windlass: the current directory does not exist any more; change to one that does" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["jobs list", "jobs delete --dry-run", "dead list"])
@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("when", ["0001-01-01", "9999-12-31T23:59:59", "0001-01-01T00:00+14:00"])
def test_the_ends_of_time_are_times(world: World, command: str, option: str, when: str) -> None:
    world.enqueue()
    ran = world.run(*command.split(), option, when)
    assert (ran.code, ran.err) == (0, ""), ran


def test_help_lists_every_command_and_imports_none() -> None:
    program = (
        "import sys; from windlass.cli import run; code = run(['--help']); "
        "print(code, sorted(n for n in sys.modules if n.startswith('windlass.cli.')), 'apsw' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *words, last = done.stdout.splitlines()
    assert last == "0 ['windlass.cli.exits'] False"
    from windlass.cli import COMMANDS

    for name in COMMANDS:
        assert any(line.strip().startswith(f"{name} ") for line in words)
    assert "Exit codes: 0 done" in done.stdout


def test_every_command_has_help_and_json() -> None:
    import click

    from windlass.cli import COMMANDS, windlass

    def leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            return [(path, command)]
        context = click.Context(command)
        found = []
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            found += leaves(child, f"{path} {name}")
        return found

    commands = leaves(windlass, "windlass")
    assert len(commands) >= 27
    for path, command in commands:
        assert command.help or command.callback.__doc__, path
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--debug"} <= options, path
    assert set(COMMANDS) == set(windlass.list_commands(click.Context(windlass)))

"""`windlass jobs` and `windlass dead`: what is shown, what is done, and what is said about it."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest

from tests.cli.conftest import World
from windlass import Unique
from windlass.core.job import ErrorInfo, Failed, LogLine, NewJob, Progress, Succeeded
from windlass.ports.store import PruneRules

CHILD, GRANDCHILD = "019d8e3c-1111-7000-8000-000000000002", "019d8e3c-1111-7000-8000-000000000003"
MISSING = "019d8e3c-1111-7000-8000-000000000001"
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnp.exe \r\nforged line"


def lose(world: World, arguments: object = None, **options: object) -> str:
    """Enqueue a job that ends among the dead letters."""
    id = world.enqueue(arguments=arguments, **options)
    world.end(Failed(ErrorInfo("ValueError", "no", "Traceback (most recent call last):\n  at home\n"), permanent=True))
    return id


# --- looking ------------------------------------------------------------------------------------------------------


def test_list(world: World) -> None:
    first = world.enqueue(arguments=[1, 2], tags=["red"])
    second = world.enqueue("tasks.send", {"to": "a"}, queue="mail", delay="1h")
    found = world.json("jobs", "list")
    assert [each["id"] for each in found["jobs"]] == [second, first]
    assert found["next"] is None
    assert set(found["jobs"][0]) == {
        "id", "task", "queue", "state", "reason", "cancelling", "priority", "attempt", "created_at", "due_at",
        "started_at", "finished_at", "progress", "error",
    }  # fmt: skip
    lines = world.run("jobs", "list").out.splitlines()
    assert lines[0].split() == ["ID", "TASK", "QUEUE", "STATE", "ATTEMPT", "AGE", "NOTE"]
    assert lines[1].split()[:4] == [second, "tasks.send", "mail", "scheduled"]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (["--state", "queued"], {"red", "blue"}),
        (["--state", "scheduled,dead"], {"mail"}),
        (["--state", "dead", "--state", "queued", "--task", "tasks.add"], {"red", "blue"}),
        (["--queue", "mail"], {"mail"}),
        (["--tag", "blue"], {"blue"}),
        (["--since", "1h"], {"red", "blue", "mail"}),
        (["--until", "1h"], set()),
        (["--since", "2020-01-01", "--until", "2021-01-01T00:00:00Z"], set()),
        (["--reason", "no"], set()),
    ],
)
def test_filters(world: World, chosen: list[str], found: set[str]) -> None:
    ids = {
        world.enqueue(tags=["red"]): "red",
        world.enqueue(tags=["blue"]): "blue",
        world.enqueue("tasks.send", queue="mail", delay="1h"): "mail",
    }
    assert {ids[each["id"]] for each in world.json("jobs", "list", *chosen)["jobs"]} == found


def test_pages(world: World) -> None:
    ids = [world.enqueue() for _ in range(5)]
    seen, after = [], []
    while True:
        page = world.json("jobs", "list", "--limit", "2", *after)
        seen += [each["id"] for each in page["jobs"]]
        if page["next"] is None:
            break
        after = ["--after", page["next"]]
    assert seen == ids[::-1]
    assert f"there are more: --after {ids[3]}" in world.run("jobs", "list", "--limit", "2").out


def test_pages_begin_after_a_job(world: World) -> None:
    world.enqueue()
    ran = world.run("jobs", "list", "--after", "nope")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "windlass: --after: 'nope' is no job's id; give the `next` of the page before\n"
    assert world.run("jobs", "list", "--after", MISSING).code == 0


def test_jobs_of_a_schedule(world: World) -> None:
    """Those of its backfills too, whose ids are of the past: no page leaves them out."""
    world.enqueue()
    world.app.client.schedules.create("nightly", "tasks.add", [1, 2], every="1h")
    run = world.json("schedules", "run", "nightly")["id"]
    world.run("schedules", "backfill", "nightly", "--from", "2025-01-01T00:00Z", "--to", "2025-01-01T03:00Z")
    world.enqueue()
    seen, after = [], []
    while True:
        page = world.json("jobs", "list", "--limit", "1", *after)
        seen += [each["id"] for each in page["jobs"]]
        if page["next"] is None:
            break
        after = ["--after", page["next"]]
    assert len(seen) == len(set(seen)) == 6
    found = [each["id"] for each in world.json("jobs", "list", "--schedule", "nightly")["jobs"]]
    assert (len(found), found[-1], set(found) < set(seen)) == (4, run, True)
    assert world.run("jobs", "cancel", "--schedule", "nope").out == "0 jobs cancelled\n"
    assert world.run("jobs", "cancel", "--schedule", "nightly").out == "4 jobs cancelled\n"
    assert world.app.client.stats().states["queued"] == 2


def test_what_a_job_is_limited_by_is_shown(world: World) -> None:
    id = world.enqueue(arguments={"user": "ada"}, limit=1, limit_key="user", unique=Unique("user"))
    lines = world.run("jobs", "show", id).out.splitlines()
    assert ["limits", "1", "at", "once", "of", "tasks.add", "for", "'ada'"] in [line.split() for line in lines]
    assert any(line.startswith("unique") for line in lines)


def test_show_has_every_attempt(world: World) -> None:
    id = world.enqueue(arguments=[1, 2], max_attempts=2, tags=["red"], headers={"traceparent": "00-1"})
    held = world.claim()
    world.do(world.store.report([(held.token, Progress(1, 2, "half"))], []))
    world.settle(held, Failed(ErrorInfo("OSError", "away", "Traceback:\n  one\n")))
    world.app.client.revive(id)
    world.end(Failed(ErrorInfo("ValueError", "no", "Traceback:\n  two\n")))
    found = world.json("jobs", "show", id)
    assert found["payload"] == [[1, 2], {}]
    assert (found["state"], found["reason"], found["attempt"], found["max_attempts"]) == ("dead", "attempts_exhausted", 2, 2)
    assert found["headers"] == {"traceparent": "00-1"}
    assert found["progress"]["note"] == "half"
    told = [(each["number"], each["worker"], each["outcome"], each["error"]["kind"]) for each in found["attempts"]]
    assert told == [(1, "w1", "failed", "OSError"), (2, "w1", "failed", "ValueError")]
    assert all(each["started_at"] and each["ended_at"] and each["error"]["trace"] for each in found["attempts"])
    text = world.run("jobs", "show", id).out
    for words in ("dead (attempts_exhausted)", "2 of 2", "traceparent=00-1", "OSError: away", "  two", "1 of 2 half"):
        assert words in text


def test_a_result_of_any_json_is_shown(world: World) -> None:
    """I24: what JSON can say is shown as it is, also a number that a script's language must read exactly."""
    id = world.enqueue()
    world.end(Succeeded('{"big": 123456789012345678901234567890, "text": "\\u0000ü🎉", "neg": -0.0}'))
    ran = world.run("jobs", "show", id, "--json")
    assert ran.json["result"] == {"big": 123456789012345678901234567890, "text": "\0ü🎉", "neg": -0.0}
    assert ran.out.isascii()


def test_a_row_that_cannot_be_read_hides_no_other(world: World) -> None:
    """I23."""
    bad, good = world.enqueue(), world.enqueue()
    session = world.app.opened.shell.session()
    session.connection.execute("UPDATE windlass_jobs SET meta = '[]', error = '{{', payload = 'x' WHERE id = ?", (bad,))
    session.commit()
    assert {each["id"] for each in world.json("jobs", "list")["jobs"]} == {bad, good}
    assert world.json("jobs", "show", bad)["payload"] == "x"
    assert world.run("jobs", "show", bad).code == 0
    assert world.run("jobs", "why", bad).code == 0


def test_what_comes_from_jobs_cannot_drive_the_terminal(world: World) -> None:
    """Whoever can enqueue can write an error, a payload or a log line; operators read them on a terminal."""
    id = world.enqueue(arguments=[HOSTILE], headers={"x": HOSTILE})
    held = world.claim()
    world.do(world.store.report([(held.token, Progress(1, None, HOSTILE))], [(held.token, LogLine(1, "info", HOSTILE))]))
    world.settle(held, Failed(ErrorInfo(HOSTILE, HOSTILE, HOSTILE), permanent=True))
    for command in (["jobs", "list"], ["jobs", "show", id], ["jobs", "why", id], ["jobs", "logs", id], ["dead", "list"]):
        for ran in (world.run(*command), world.run(*command, "--json")):
            assert ran.code == 0
            assert not set(ran.out) & set("\x1b\x07\x9b\r\u202e"), (command, ran.out)
        assert not [line for line in world.run(*command).out.splitlines() if line.startswith("forged")]


def test_logs(world: World) -> None:
    id = world.enqueue()
    assert world.run("jobs", "logs", id).out == "nothing was logged\n"
    held = world.claim()
    world.do(world.store.report([], [(held.token, LogLine(n * 1_000_000, "warning", f"line {n}")) for n in range(3)]))
    lines = world.run("jobs", "logs", id).out.splitlines()
    assert lines[1] == "1970-01-01T00:00:01.000Z warning line 1"
    documents = [json.loads(line) for line in world.run("jobs", "logs", id, "--json").out.splitlines()]
    assert documents[2] == {"at": "1970-01-01T00:00:02.000Z", "level": "warning", "message": "line 2"}
    world.settle(held, Succeeded())
    assert world.run("jobs", "logs", id, "--follow").out.splitlines() == lines  # it has ended, so this does too


def test_waiting_for_a_job_that_does_not_end_says_why(world: World) -> None:
    world.run("store", "migrate")
    ran = world.run("enqueue", "tasks.add", "[1, 2]", "--wait", "10ms")
    (job,) = world.app.client.search().jobs
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"windlass: {job.id} has not ended within 10ms: no worker is alive")
    ran = world.run("enqueue", "tasks.add", "[1, 2]", "--wait", "0", "--json")
    assert (ran.code, ran.json["state"], ran.json["result"]) == (1, "queued", None)
    assert ran.json["why"].startswith("no worker is alive")
    assert json.loads(ran.err)["kind"] == "ResultTimeout"


def test_waiting_for_a_job_that_dies_says_of_what(world: World) -> None:
    """What is printed is the result or nothing, so that a script may use it; the error goes where errors go."""
    id = world.enqueue("tasks.add", [1, 2], idempotency_key="one")
    world.end(Failed(ErrorInfo("ValueError", "no"), permanent=True))
    asked = ["enqueue", "tasks.add", "[1, 2]", "--key", "one", "--wait", "1s"]
    ran = world.run(*asked)
    assert (ran.code, ran.out, ran.err) == (1, "", f"windlass: job {id} is dead (failed): ValueError: no\n")
    ran = world.run(*asked, "--json")
    assert ran.code == 1
    document = ran.json
    error = document.pop("error")
    assert (error["kind"], error["message"]) == ("ValueError", "no")
    assert document == {"id": id, "created": False, "state": "dead", "reason": "failed", "result": None, "why": None}
    assert json.loads(ran.err) == {"error": f"job {id} is dead (failed): ValueError: no", "kind": "JobFailed", "exit_code": 1}


def test_a_trace_is_shown_once(world: World) -> None:
    id = world.enqueue()
    world.end(Failed(ErrorInfo("ValueError", "no", "Traceback (most recent call last):\n  at home\n"), permanent=True))
    for command in (["jobs", "show", id], ["dead", "show", id]):
        said = world.run(*command).out
        assert said.count("at home") == 1, said
        assert "error     ValueError: no\n" in said


# --- acting -------------------------------------------------------------------------------------------------------


def test_cancel_accounts_for_every_id(world: World) -> None:
    """Every id that was named is in exactly one list, and the exit code says if any was not as asked."""
    ended = world.enqueue()
    world.end(Succeeded())
    running = world.enqueue()
    world.claim()
    waiting = world.enqueue()
    ran = world.run("jobs", "cancel", waiting, running, ended, MISSING, "--json")
    assert ran.code == 3
    assert ran.json == {
        "changed": [waiting], "asked": [running], "untouched": [ended], "missing": [MISSING], "dry_run": False,
    }  # fmt: skip
    ran = world.run("jobs", "cancel", ended)
    assert (ran.code, ran.out) == (1, "0 jobs cancelled\n")
    assert "has ended; left as it was" in ran.err


def test_a_running_job_is_not_said_to_be_no_job(world: World) -> None:
    id = world.enqueue()
    world.claim()
    assert world.run("jobs", "cancel", id).out == "1 running job asked to stop\n"


def test_cancel_with_children(world: World) -> None:
    """The family of one that has ended, also: whoever asks for it does not mean him."""
    root = world.enqueue()
    world.claim()
    young = [NewJob(id=id, task="tasks.add", payload="[[1,2],{}]", meta=f'{{"parent_id":"{parent}"}}')
             for id, parent in ((CHILD, root), (GRANDCHILD, CHILD))]  # fmt: skip
    world.do(world.store.enqueue(young))
    other = world.enqueue()
    assert world.run("jobs", "cancel", root, "--dry-run").out == "1 running job would be asked to stop\n"
    ran = world.run("jobs", "cancel", root, "--children", "--dry-run")
    assert ran.out == "2 jobs would be cancelled\n1 running job would be asked to stop\n"
    assert world.json("jobs", "cancel", root, "--children") == {
        "changed": [CHILD, GRANDCHILD], "asked": [root], "untouched": [], "missing": [], "dry_run": False,
    }  # fmt: skip
    late = msgspec.structs.replace(young[0], id=MISSING)
    world.do(world.store.enqueue([late]))
    why = world.json("jobs", "why", MISSING)
    assert (why["cause"], why["facts"]["parent"]) == ("parent_cancelled", root)
    assert f"its parent {root} was being cancelled with its children" in why["sentence"]
    assert world.app.client.fetch(other).state == "queued"


def test_the_children_of_an_ended_job(world: World) -> None:
    root = world.enqueue()
    world.end(Succeeded())
    meta = f'{{"parent_id":"{root}"}}'
    world.do(world.store.enqueue([NewJob(id=CHILD, task="tasks.add", payload="[[1,2],{}]", meta=meta)]))
    ran = world.run("jobs", "cancel", root, "--children")
    assert (ran.code, ran.out, ran.err) == (0, "1 job cancelled\n", "")
    ran = world.run("jobs", "cancel", root, "--children")
    assert (ran.code, ran.out) == (1, "0 jobs cancelled\n")
    assert "has ended; left as it was" in ran.err
    assert world.run("jobs", "cancel", "--queue", "default", "--children").code == 0


@pytest.mark.parametrize("typed", [["jobs", "cancel"], ["dead", "redrive"], ["jobs", "retry"]], ids=" ".join)
def test_what_was_not_done_is_one_object_for_scripts(world: World, typed: list[str]) -> None:
    ended = world.enqueue()
    world.end(Succeeded())
    missing = world.run(*typed, "nosuch", MISSING, "--json")
    assert missing.code == 3
    assert json.loads(missing.err) == {
        "error": f"no job 'nosuch'; no job '{MISSING}'", "kind": "JobNotFound", "exit_code": 3,
    }  # fmt: skip
    left = world.run(*typed, ended, "--json")
    if typed[1] == "retry":  # it may be run again
        assert (left.code, left.err) == (0, "")
    else:
        assert left.code == 1
        assert json.loads(left.err)["kind"] == "Refused"
        assert "left as it was" in json.loads(left.err)["error"]


def test_dry_run_changes_nothing(world: World) -> None:
    ids = {world.enqueue() for _ in range(3)}
    for verb in ("cancel", "delete"):
        found = world.json("jobs", verb, "--queue", "default", "--dry-run")
        assert set(found["changed"]) == ids
        assert found["dry_run"]
    assert "3 jobs would be cancelled" in world.run("jobs", "cancel", "--all", "--dry-run").out
    assert world.app.client.stats().states["queued"] == 3


def test_a_filter_gets_through_all_of_them(world: World) -> None:
    """However many there are: the action is repeated in batches."""
    task = world.app.named("tasks.add")
    task.enqueue_many([(1, 2)] * 2_500)
    other = world.enqueue("tasks.send", queue="mail")
    assert world.run("jobs", "cancel", "--queue", "default").out == "2,500 jobs cancelled\n"
    assert world.app.client.fetch(other).state == "queued"
    assert world.run("jobs", "delete", "--state", "cancelled", "--yes").out == "2,500 jobs deleted\n"
    assert world.app.client.stats(exact=True).states["cancelled"] == 0


def test_retry(world: World) -> None:
    id, waits = lose(world), world.enqueue(delay="1h")
    assert world.run("jobs", "retry", id, waits).out == "2 jobs queued again\n"
    assert world.app.client.stats().states["queued"] == 2
    assert world.run("jobs", "retry", id).code == 1


def test_retry_says_that_another_has_its_key(world: World) -> None:
    old = lose(world, idempotency_key="k")
    world.app.opened.shell.run(world.store.prune(PruneRules(keys=0), 100))
    world.enqueue(idempotency_key="k")
    for command in (["jobs", "retry"], ["dead", "redrive"]):
        ran = world.run(*command, old)
        assert ran.code == 1
        assert "or another job has its key; left as it was" in ran.err


def test_delete_leaves_running_jobs(world: World) -> None:
    id = world.enqueue()
    world.claim()
    ran = world.run("jobs", "delete", id, "--yes")
    assert ran.code == 1
    assert "is running; left as it was" in ran.err


# --- dead letters -------------------------------------------------------------------------------------------------


def test_dead_list_and_show(world: World) -> None:
    id, alive = lose(world, [1, 2]), world.enqueue()
    assert [each["id"] for each in world.json("dead", "list")["jobs"]] == [id]
    assert world.json("dead", "show", id)["attempts"][0]["error"]["trace"].startswith("Traceback")
    assert "failed: ValueError: no" in world.run("dead", "list").out
    ran = world.run("dead", "show", alive)
    assert (ran.code, ran.err) == (
        1, f"windlass: job {alive} is no dead letter, it is queued; see `windlass jobs show {alive}`\n",
    )  # fmt: skip


def test_redrive(world: World) -> None:
    """By id or filter, tried first; the history stays, and what is no dead letter is left alone."""
    one, two, done = lose(world), lose(world, tags=["late"]), world.enqueue()
    world.end(Succeeded())
    assert set(world.json("dead", "redrive", "--all", "--dry-run")["changed"]) == {one, two}
    assert world.app.client.stats().states["dead"] == 2
    assert world.json("dead", "redrive", "--tag", "late")["changed"] == [two]
    ran = world.run("dead", "redrive", one, done, MISSING, "--json")
    assert ran.code == 3
    assert (ran.json["changed"], ran.json["untouched"], ran.json["missing"]) == ([one], [done], [MISSING])
    assert world.app.client.fetch(done).state == "completed"
    assert world.app.client.fetch(one).attempt == 0
    assert len(world.json("jobs", "show", one)["attempts"]) == 1


def test_purge(world: World) -> None:
    one, two, alive = lose(world), lose(world), world.enqueue()
    assert world.run("dead", "purge", one, "--yes").out == "1 job deleted\n"
    assert world.run("dead", "purge", "--all", "--yes").out == "1 job deleted\n"
    assert world.run("jobs", "show", two).code == 3
    ran = world.run("dead", "purge", alive, "--yes")
    assert ran.code == 1
    assert world.app.client.fetch(alive).state == "queued"


def test_edit(world: World) -> None:
    id = lose(world, ["one", 2])
    assert world.json("dead", "edit", id, "--payload", "[1, 2]") == {"id": id, "edited": True, "redriven": False}
    assert world.json("dead", "show", id)["payload"] == [[1, 2], {}]
    assert world.run("dead", "edit", id, "--payload", '{"a": 1, "b": 3}', "--redrive").code == 0
    assert world.json("jobs", "show", id)["payload"] == [[], {"a": 1, "b": 3}]
    assert world.app.client.fetch(id).state == "queued"


def test_edit_takes_what_show_prints(world: World) -> None:
    id = lose(world, [1, 2])
    payload = json.dumps(world.json("dead", "show", id)["payload"]).replace("2", "5")
    assert world.run("dead", "edit", id, "--payload", payload).code == 0
    assert world.json("dead", "show", id)["payload"] == [[1, 5], {}]


def test_edit_reads_standard_input(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    id = lose(world, [1, 2])
    monkeypatch.setattr(sys, "stdin", io.StringIO("[3, 4]\n"))
    assert world.run("dead", "edit", id, "--payload", "-").code == 0
    assert world.json("dead", "show", id)["payload"] == [[3, 4], {}]


@pytest.mark.parametrize("payload", ["[1", "3", "nonsense", "[NaN, 1]", "[" * 300 + "]" * 300])
def test_edit_refuses_what_no_task_could_read(world: World, payload: str) -> None:
    id = lose(world, [1, 2])
    ran = world.run("dead", "edit", id, "--payload", payload)
    assert (ran.code, ran.out) == (2, "")
    assert world.json("dead", "show", id)["payload"] == [[1, 2], {}]


def test_what_was_written_in_an_editor_is_not_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    id = lose(world, [1, 2])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.edit", lambda text, extension: "[[3, 4], {}")
    monkeypatch.setenv("TMPDIR", str(world.directory))
    monkeypatch.setattr("tempfile.tempdir", None)
    ran = world.run("dead", "edit", id)
    assert ran.code == 2
    [kept] = world.directory.glob(f"windlass-{id}-*.json")
    assert kept.read_text() == "[[3, 4], {}"
    assert ran.err.endswith(f"; what you wrote is kept in {kept}\n")


def test_edit_checks_the_types_of_the_task(world: World, tasks: str) -> None:
    id, unknown = lose(world, [1, 2]), lose(world, task="tasks.gone")
    ran = world.run("dead", "edit", id, "--payload", '["one", 2]', "--app", tasks)
    assert (ran.code, ran.err) == (2, "windlass: a: expected int, got str\n")
    assert world.run("dead", "edit", id, "--payload", "[7, 8]", "--app", tasks).code == 0
    assert world.json("dead", "show", id)["payload"] == [[7, 8], {}]
    ran = world.run("dead", "edit", unknown, "--payload", "[]", "--app", tasks)
    assert ran.code == 2
    assert "has no task 'tasks.gone', so its types cannot be checked" in ran.err

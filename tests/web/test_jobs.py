"""`/api/v1/jobs`: what is accepted, what is refused and how, and what is shown."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.web.conftest import Site
from windlass import Windlass
from windlass.core.errors import OutcomeUnknown, StoreCorrupt, StoreFull, StoreTimeout
from windlass.core.job import Discarded, ErrorInfo, Failed, Progress, Succeeded
from windlass.web import body

MISSING = "019d8e3c-1111-7000-8000-000000000001"
JOBS = "/api/v1/jobs"


# --- enqueue ------------------------------------------------------------------------------------------------------


def test_enqueue_is_accepted_with_an_address(site: Site) -> None:
    """I1: what was answered with 202 is in the store."""

    async def story(site: Site) -> None:
        answer = await site.http.ask("POST", JOBS, {"task": "add", "args": [1], "kwargs": {"b": 2}})
        assert answer.status == 202
        assert answer.json["state"] == "queued"
        assert answer.headers["location"] == f"{JOBS}/{answer.json['id']}"
        assert answer.headers["retry-after"] == "1"
        job = await site.app.aclient.fetch(answer.json["id"])
        assert (job.task, job.payload) == ("add", '[[1],{"b":2}]')

    site.play(story)


def test_options(site: Site) -> None:
    async def story(site: Site) -> None:
        later = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
        options = {
            "queue": "mail", "priority": 80, "delay": "10m", "expires_at": later, "timeout": 3, "max_attempts": 2,
            "tags": ["a"], "headers": {"traceparent": "00"}, "result_ttl": "1d", "partition_key": "p",
        }  # fmt: skip
        answer = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2], **options})
        assert answer.json["state"] == "scheduled"
        job = await site.app.aclient.fetch(answer.json["id"])
        assert (job.queue, job.priority, job.state) == ("mail", 80, "scheduled")
        meta = json.loads(job.meta)
        assert meta["tags"] == ["a"]
        assert meta["policy"] == {"max_attempts": 2, "timeout": 3.0, "result_ttl": 86400.0}
        answer = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2], "at": later})
        assert answer.json["state"] == "scheduled"
        answer = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2], "at": "2020-01-01T00:00:00Z"})
        assert answer.json["state"] == "queued"

    site.play(story)


INVALID: list[tuple[Any, str, str]] = [
    # body, field, what is said
    (b"", "body", "is not JSON that can be read"),
    (b"{", "body", "is not JSON that can be read"),
    (b"\xff\xfe", "body", "is not JSON that can be read"),
    (b'{"task": "add", "args": [NaN]}', "body", "is not JSON that can be read"),
    (b'{"task": "add", "args": ["\\ud800", 1]}', "body", "is not JSON that can be read"),
    (b'{"task": "add", "args": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body", "is not JSON that can be read"),
    (b"[]", "body", "Expected object, got array"),
    ({}, "body", "missing required field task"),
    ({"task": 7}, "task", "Expected str, got int"),
    ({"task": "add", "argz": []}, "body", "contains unknown field argz"),
    ({"task": "add", "args": {"a": 1}}, "args", "Expected array, got object"),
    ({"task": "add", "args": ["one", 2]}, "a", "expected int, got str"),
    ({"task": "add", "args": [1]}, "b", "is missing; the task takes a, b"),
    ({"task": "add", "args": [1, 2, 3]}, "args[2]", "is one too many"),
    ({"task": "add", "kwargs": {"a": 1, "b": 2, "self": 3}}, "self", "is no argument of this task"),
    ({"task": "add", "args": [1, 2], "priority": 101}, "priority", "must be a whole number, 0..100"),
    ({"task": "add", "args": [1, 2], "priority": "high"}, "priority", "Expected int, got str"),
    ({"task": "add", "args": [1, 2], "delay": "soon"}, "delay", "is no duration"),
    ({"task": "add", "args": [1, 2], "delay": -1}, "delay", "must be between 0"),
    ({"task": "add", "args": [1, 2], "at": "noon"}, "at", "Invalid RFC3339 encoded datetime"),
    ({"task": "add", "args": [1, 2], "at": "2026-11-22T10:00:00"}, "at", "has no time zone"),
    ({"task": "add", "args": [1, 2], "at": "2026-11-22T10:00:00Z", "delay": 1}, "at", "together with delay"),
    ({"task": "add", "args": [1, 2], "expires": 1, "expires_at": "2026-11-22T10:00:00Z"}, "expires_at", "together"),
    ({"task": "add", "args": [1, 2], "queue": ""}, "queue", "must be text of 1 to"),
    ({"task": "add", "args": [1, 2], "tags": ["a"] * 30}, "tags", "30 tags are too many"),
    ({"task": "add", "args": [1, 2], "headers": {"a": 1}}, "headers[...]", "Expected str, got int"),
    ({"task": "add", "args": [1, 2], "idempotency_key": ""}, "idempotency_key", "must be printable text"),
    ({"task": "add", "args": [1, 2], "max_attempts": 0}, "max_attempts", "must be a whole number"),
    ({"task": "add", "args": [1, 2], "version": 7}, "version", "7 is not that of task 'add' here, which is 1"),
    ({"task": "add", "args": [1, 2], "version": 0}, "version", "must be a whole number, 1..2147483647"),
    ({"task": "add", "args": [1, 2], "version": -1}, "version", "must be a whole number, 1..2147483647"),
    (b'{"task": "add", "args": [1, 2], "version": 99999999999999999999999}', "version", "must be a whole number"),
    (b'{"task": "add", "args": [1, 2], "version": true}', "version", "Expected int, got bool"),
    (b'{"task": "add", "args": [1, {"a": [{"b": 1, "\\u0062": 2}]}]}', "args[1].a[0].b", "is given twice"),
    (b'{"task": "add", "kwargs": {"a": 1, "b": 2, "a": 1}}', "kwargs.a", "is given twice"),
    (b'{"task": "nope", "args": [1, 2], "task": "add"}', "task", "is given twice"),
    (b'{"task": "add", "args": [' + b"[" * 900 + b"]" * 900 + b", 2]}", "payload", "is nested more than 64 deep"),
]


@pytest.mark.parametrize(("content", "field", "said"), INVALID, ids=[str(n) for n in range(len(INVALID))])
def test_what_is_wrong_is_named(site: Site, content: Any, field: str, said: str) -> None:
    """400 names the field and what would be right; nothing is stored."""

    async def story(site: Site) -> None:
        answer = await site.http.ask("POST", JOBS, content)
        assert (answer.status, answer.json["field"]) == (400, field), answer
        assert said in answer.json["detail"]
        assert (await site.app.aclient.stats()).states["queued"] == 0

    site.play(story)


def test_unknown_tasks(site: Site) -> None:
    """404 where the application knows its tasks; where it knows none, their code is elsewhere."""

    async def story(site: Site) -> None:
        answer = await site.http.ask("POST", JOBS, {"task": "nope"})
        assert (answer.status, answer.json["code"]) == (404, "unknown_task")
        site.app.tasks.clear()
        assert (await site.http.ask("POST", JOBS, {"task": "nope"})).status == 202
        assert (await site.http.ask("POST", JOBS, {"task": "a,b"})).json["field"] == "task"

    site.play(story)


def test_idempotency_keys(site: Site) -> None:
    """I10b: one job for every concurrent and later caller; another payload is refused."""

    async def story(site: Site) -> None:
        asked = {"task": "add", "args": [1, 2], "idempotency_key": "k"}
        answers = await asyncio.gather(*(site.http.ask("POST", JOBS, asked) for _ in range(20)))
        assert {answer.status for answer in answers} == {202}
        assert len({answer.body for answer in answers}) == 1
        header = [("Idempotency-Key", '"k"')]
        again = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2]}, header)
        assert again.body == answers[0].body
        refused = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 3]}, header)
        assert (refused.status, refused.json["code"]) == (422, "idempotency_conflict")
        assert refused.json["job"] == again.json["id"]
        differs = await site.http.ask("POST", JOBS, {**asked, "idempotency_key": "x"}, header)
        assert (differs.status, differs.json["field"]) == (400, "idempotency_key")
        await site.end(Succeeded("3"))
        ended = await site.http.ask("POST", JOBS, asked)
        assert (ended.status, ended.json) == (202, {"id": again.json["id"], "state": "completed"})

    site.play(story)


def test_what_is_not_taken_says_why(site: Site) -> None:
    """A unique key, and a full queue: when to come back, and what became of what was shed."""

    async def story(site: Site) -> None:
        asked = {"task": "once", "args": [1]}
        first = await site.http.ask("POST", JOBS, asked)
        again = await site.http.ask("POST", JOBS, asked)
        assert (first.status, again.status, again.json["code"]) == (202, 409, "duplicate_job")
        assert again.json["job"] == first.json["id"]
        await site.app.aclient.bound("default", depth=1)
        full = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2]})
        assert (full.status, full.json["code"], full.json["queue"]) == (429, "queue_full", "default")
        assert full.headers["retry-after"] == "1"
        await site.app.aclient.bound("default", depth=1, when_full="shed")
        shed = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2]})
        assert (shed.status, shed.json["state"]) == (202, "cancelled")

    site.play(story)


def test_a_thousand_at_once_are_all_acknowledged(site: Site) -> None:
    """I1."""

    async def story(site: Site) -> None:
        asked = [site.http.ask("POST", JOBS, {"task": "add", "args": [n, 0]}) for n in range(1_000)]
        answers = await asyncio.gather(*asked)
        ids = {answer.json["id"] for answer in answers}
        assert {answer.status for answer in answers} == {202}
        assert len(ids) == (await site.app.aclient.stats(exact=True)).states["queued"] == 1_000

    site.play(story)


# --- bodies -------------------------------------------------------------------------------------------------------


async def _endless(read: list[int], size: int = 65_536) -> Any:
    while True:
        read.append(size)
        yield b" " * size


def test_a_body_that_says_that_it_is_too_large_is_not_read(site: Site) -> None:
    async def story(site: Site) -> None:
        read: list[int] = []
        header = [("Content-Length", str(body.BYTES_MOST + 1))]
        answer = await site.http.ask("POST", JOBS, headers=header, chunks=_endless(read))
        assert (answer.status, answer.json["code"]) == (413, "body_too_large")
        assert answer.headers["connection"] == "close"
        assert read == []

    site.play(story)


@pytest.mark.parametrize("headers", [[], [("Content-Length", "10")], [("Content-Length", "many")]])
def test_a_body_that_turns_out_too_large_is_read_no_further(site: Site, headers: list[tuple[str, str]]) -> None:
    async def story(site: Site) -> None:
        read: list[int] = []
        answer = await site.http.ask("POST", JOBS, headers=headers, chunks=_endless(read))
        assert answer.status == 413
        assert sum(read) <= body.BYTES_MOST + 2 * 65_536

    site.play(story)


def test_a_payload_over_its_limit(site: Site) -> None:
    async def story(site: Site) -> None:
        answer = await site.http.ask("POST", JOBS, {"task": "send", "args": ["x" * 300_000]})
        assert (answer.status, answer.json["code"], answer.json["field"]) == (413, "payload_too_large", "payload")

    site.play(story)


def test_a_body_that_does_not_come(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "SECONDS_MOST", 0.05)

    async def never() -> Any:
        yield b"{"
        await asyncio.sleep(60)

    async def story(site: Site) -> None:
        answer = await site.http.ask("POST", JOBS, chunks=never())
        assert (answer.status, answer.json["code"]) == (408, "body_slow")

    site.play(story)


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        (None, []),
        ("text/plain", []),
        ("application/x-www-form-urlencoded", []),
        ("application/jsonp", []),
        ("application/json; charset=latin-1", []),
        ("application/json", [("Content-Encoding", "gzip")]),
    ],
)
def test_a_body_of_another_kind(site: Site, kind: str | None, headers: list[tuple[str, str]]) -> None:
    async def story(site: Site) -> None:
        answer = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2]}, headers, kind=kind)
        assert answer.status == 415

    site.play(story)


def test_json_by_its_other_spellings(site: Site) -> None:
    async def story(site: Site) -> None:
        for kind in ("APPLICATION/JSON", 'application/json; charset="UTF-8"', "application/json;charset=utf-8"):
            answer = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2]}, kind=kind)
            assert answer.status == 202, answer

    site.play(story)


# --- the store ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreFull("the disk is full"), 503, "store_full"),
        (StoreTimeout("locked"), 503, "store_unavailable"),
        (OutcomeUnknown("lost"), 503, "store_unavailable"),
        (StoreCorrupt("/secret/path is damaged"), 500, "internal_error"),
        (RuntimeError("/secret/path"), 500, "internal_error"),
    ],
)
def test_a_store_in_trouble(site: Site, error: Exception, status: int, code: str) -> None:
    """503 and Retry-After where trying again helps; nothing of our insides where it does not."""

    async def story(site: Site) -> None:
        await site.app.engine.aopened()

        async def fail(plan: Any, timeout: float | None = None) -> Any:
            raise error

        site.app.opened.async_shell().run = fail  # type: ignore[method-assign]
        engine = site.app.engine
        engine.settings = msgspec.structs.replace(engine.settings, enqueue_timeout=0.1)
        for request in (("POST", JOBS, {"task": "add", "args": [1, 2]}), ("GET", f"{JOBS}/{MISSING}"), ("GET", JOBS)):
            answer = await site.http.ask(*request)
            assert (answer.status, answer.json["code"]) == (status, code)
            assert ("retry-after" in answer.headers) == (status == 503)
            assert "secret" not in answer.body.decode()

    site.play(story)


def test_a_locked_store_is_answered_within_the_deadline(tmp_path: Any) -> None:
    """I1b."""
    import time

    from windlass import Windlass

    with Windlass(f"sqlite:///{tmp_path}/jobs.db", enqueue_timeout="200ms") as app:
        session = app.opened.shell.session()

        async def story(site: Site) -> None:
            began = time.monotonic()
            answer = await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2]})
            assert (answer.status, answer.json["code"]) == (503, "store_unavailable")
            assert answer.headers["retry-after"] == "1"
            assert time.monotonic() - began < 2
            session.rollback()
            assert (await site.http.ask("POST", JOBS, {"task": "add", "args": [1, 2]})).status == 202

        Site(app).play(story)


# --- looking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [MISSING, "nope", MISSING.upper(), "%00", "1" * 500, "..%2f.."])
def test_no_such_job(site: Site, id: str) -> None:
    async def story(site: Site) -> None:
        for answer in (
            await site.http.ask("GET", f"{JOBS}/{id}"),
            await site.http.ask("GET", f"{JOBS}/{id}", headers=[("Prefer", "wait=5")]),
            await site.http.ask("POST", f"{JOBS}/{id}/cancel"),
        ):
            assert answer.status == 404

    site.play(story)


def test_a_job_in_its_life(site: Site) -> None:
    async def story(site: Site) -> None:
        id = await site.enqueue()
        shown = await site.http.ask("GET", f"{JOBS}/{id}")
        assert shown.status == 200
        assert (shown.json["state"], shown.json["attempt"], shown.json["result"]) == ("queued", 0, None)
        assert shown.headers["retry-after"] == "1"
        held = await site.claim()
        await site.do(site.app.opened.store.report([(held.token, Progress(1, 3, "one"))], []))
        shown = await site.http.ask("GET", f"{JOBS}/{id}")
        assert (shown.json["state"], shown.json["attempt"]) == ("running", 1)
        assert (shown.json["progress"]["done"], shown.json["progress"]["total"]) == (1, 3)
        await site.settle(held, Succeeded('{"sum": 3}'))
        shown = await site.http.ask("GET", f"{JOBS}/{id}")
        assert (shown.json["state"], shown.json["result"]) == ("completed", {"sum": 3})
        assert "retry-after" not in shown.headers
        assert "payload" not in shown.json

    site.play(story)


def test_a_dead_job_shows_its_error_without_its_trace(site: Site) -> None:
    async def story(site: Site) -> None:
        id = await site.enqueue()
        await site.end(Failed(ErrorInfo("ValueError", "no", "Traceback: /home/secret"), permanent=True))
        shown = await site.http.ask("GET", f"{JOBS}/{id}")
        assert shown.status == 200
        assert (shown.json["state"], shown.json["error"]) == ("dead", {"kind": "ValueError", "message": "no"})
        assert b"secret" not in shown.body

    site.play(story)


def test_a_result_that_was_kept_long_enough_is_gone(site: Site) -> None:
    """I15: 410, never pending and never 404, while the job is there."""

    async def story(site: Site) -> None:
        id = await site.enqueue(result_ttl=0)
        await site.end(Succeeded("3"))
        await site.app.aclient.prune()
        for headers in ([], [("Prefer", "wait=1")]):
            answer = await site.http.ask("GET", f"{JOBS}/{id}", headers=headers)
            assert (answer.status, answer.json["code"], answer.json["state"]) == (410, "result_expired", "completed")

    site.play(story)


def test_list(site: Site) -> None:
    async def story(site: Site) -> None:
        ids = [await site.enqueue() for _ in range(3)]
        mail = await site.enqueue("a@b", task="send", tags=["x"])
        ask = lambda query: site.http.ask("GET", f"{JOBS}?{query}")
        assert [each["id"] for each in (await ask("")).json["jobs"]] == [mail, *ids[::-1]]
        assert [each["id"] for each in (await ask("queue=mail")).json["jobs"]] == [mail]
        assert [each["id"] for each in (await ask("tag=x&task=send")).json["jobs"]] == [mail]
        assert (await ask("state=dead&state=running")).json == {"jobs": [], "next": None}
        first = (await ask("queue=default&limit=2")).json
        second = (await ask(f"queue=default&limit=2&after={first['next']}")).json
        assert [each["id"] for each in first["jobs"] + second["jobs"]] == ids[::-1]
        for query, field in (("state=happy", "state"), ("limit=0", "limit"), ("limit=x", "limit"), ("limit=0000019999999", "limit"), (f"limit={'1' * 5_000}", "limit"), ("sort=up", "sort")):
            answer = await ask(query)
            assert (answer.status, answer.json["field"]) == (400, field)

    site.play(story)


# --- cancel -------------------------------------------------------------------------------------------------------


def test_cancel(site: Site) -> None:
    async def story(site: Site) -> None:
        waiting = await site.enqueue()
        answer = await site.http.ask("POST", f"{JOBS}/{waiting}/cancel", kind=None)
        assert (answer.status, answer.json["state"]) == (200, "cancelled")
        again = await site.http.ask("POST", f"{JOBS}/{waiting}/cancel", kind=None)
        assert (again.status, again.json["code"], again.json["state"]) == (409, "ended", "cancelled")
        running = await site.enqueue()
        held = await site.claim()
        answer = await site.http.ask("POST", f"{JOBS}/{running}/cancel", kind=None)
        assert (answer.status, answer.json["cancelling"]) == (202, True)
        assert (await site.http.ask("GET", f"{JOBS}/{running}")).json["cancelling"] is True
        await site.settle(held, Discarded())
        assert (await site.http.ask("GET", f"{JOBS}/{running}")).json["state"] == "cancelled"

    site.play(story)


# --- everything else ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/api/v1", 404), ("POST", "/healthz", 405), ("DELETE", JOBS, 405),
        ("PUT", f"{JOBS}/{MISSING}", 405), ("GET", f"{JOBS}/{MISSING}/cancel", 405), ("GET", f"{JOBS}/a/b/c", 404),
    ],
)  # fmt: skip
def test_what_is_not_there(site: Site, method: str, path: str, status: int) -> None:
    async def story(site: Site) -> None:
        answer = await site.http.ask(method, path)
        assert answer.status == status
        assert status != 405 or answer.headers["allow"]

    site.play(story)


def test_health(site: Site) -> None:
    async def story(site: Site) -> None:
        assert (await site.http.ask("GET", "/healthz")).json == {"status": "ok"}

        async def fail(*_: Any) -> Any:
            raise StoreFull("the disk is full")

        site.app.opened.async_shell().run = fail  # type: ignore[method-assign]
        answer = await site.http.ask("GET", "/healthz")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")

    site.play(story)


def test_health_of_a_store_that_cannot_be(tmp_path: Path) -> None:
    """A missing directory is no defect of the server; whoever watches it must not take it for one."""

    async def story(site: Site) -> None:
        answer = await site.http.ask("GET", "/healthz")
        assert (answer.status, answer.json["code"]) == (503, "store_unavailable")
        assert f"{tmp_path}/none does not exist" in answer.json["detail"]

    Site(Windlass(f"sqlite:///{tmp_path}/none/jobs.db")).play(story)

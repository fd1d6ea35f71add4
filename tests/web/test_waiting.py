"""`Prefer: wait=N`: an answer as soon as the job has ended, for any number of requests, at the store's ease."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.web.conftest import Site
from windlass.core.errors import StoreTimeout
from windlass.core.job import Succeeded
from windlass.web import prefer

JOBS = "/api/v1/jobs"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None), (["wait=10"], 10), (["respond-async, wait=10"], 10), (["respond-async", "wait=10"], 10),
        (['WAIT = "7"'], 7), (["wait=10;foo=bar"], 10), (["wait=0"], 0), (["wait=60"], 60), (["wait=61"], 60),
        (["wait=99999999999999999999"], 60), (["wait=-1"], None), (["wait=1.5"], None), (["wait"], None), (["wait="], None),
        (["wait=ten"], None), (["waiting=10"], None), (["wait=5, wait=9"], 5), (["wait=\u0661"], None), (["; = ,,"], None),
    ],
)  # fmt: skip
def test_the_preference(headers: list[str], seconds: int | None) -> None:
    """RFC 7240: what cannot be understood is ignored, and the first of two counts."""
    assert prefer.wait(headers) == seconds


def waiting(site: Site, id: str, seconds: int = 30, **more: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(site.http.ask("GET", f"{JOBS}/{id}", headers=[("Prefer", f"wait={seconds}")], **more))


async def until_waited_for(site: Site, number: int) -> None:
    waiter = site.web.state.waiter
    while sum(map(len, waiter._waiting.values())) < number:
        await asyncio.sleep(0.002)


def test_the_end_is_answered_when_it_comes(site: Site) -> None:
    async def story(site: Site) -> None:
        id = await site.enqueue()
        asked = waiting(site, id)
        await until_waited_for(site, 1)
        held = await site.claim()
        await asyncio.sleep(0.1)
        assert not asked.done()
        ended = time.monotonic()
        await site.settle(held, Succeeded("3"))
        answer = await asked
        assert time.monotonic() - ended < 1
        assert (answer.status, answer.json["state"], answer.json["result"]) == (200, "completed", 3)
        assert answer.headers["preference-applied"] == "wait=30"
        assert "retry-after" not in answer.headers

    site.play(story)


def test_what_has_ended_is_not_waited_for(site: Site) -> None:
    async def story(site: Site) -> None:
        id = await site.enqueue()
        await site.end(Succeeded("3"))
        answer = await asyncio.wait_for(waiting(site, id), 1)
        assert answer.json["state"] == "completed"
        assert answer.headers["preference-applied"] == "wait=30"

    site.play(story)


def test_patience_ends(site: Site) -> None:
    async def story(site: Site) -> None:
        id = await site.enqueue()
        began = time.monotonic()
        answer = await waiting(site, id, 1)
        assert 1 <= time.monotonic() - began < 3
        assert (answer.status, answer.json["state"], answer.headers["retry-after"]) == (200, "queued", "1")
        assert answer.headers["preference-applied"] == "wait=1"
        answer = await waiting(site, id, 0)
        assert answer.headers["preference-applied"] == "wait=0"

    site.play(story)


def test_a_thousand_waiting_requests_are_one_reader(site: Site) -> None:
    """One loop reads all jobs that are waited for, and only when something was committed."""

    async def story(site: Site) -> None:
        task = site.app.named("add")
        jobs = await task.aenqueue_many([(1, 2)] * 200)
        asked = [waiting(site, each.id) for each in jobs for _ in range(5)]
        await until_waited_for(site, 1_000)
        await asyncio.sleep(0.3)
        reads = _counted(site)
        await asyncio.sleep(1.0)
        assert reads.count("fetch") <= 3  # nothing changed: one look a second, against changes that went unnoticed
        reads.clear()
        began = time.monotonic()
        for _ in range(20):
            await site.end(Succeeded("3"))
            await asyncio.sleep(0.01)
        while sum(each.done() for each in asked) < 100:
            await asyncio.sleep(0.01)
        took = time.monotonic() - began
        assert reads.count("fetch") <= 5 + took / 0.002
        site.web.state.waiter.stop()
        answers = await asyncio.gather(*asked)
        assert sum(answer.json["state"] == "completed" for answer in answers) == 100

    site.play(story)


def _counted(site: Site) -> list[str]:
    shell = site.app.opened.async_shell()
    run, plans = shell.run, []

    async def count(plan: Any, timeout: float | None = None) -> Any:
        plans.append(plan.name)
        return await run(plan, timeout)

    shell.run = count  # type: ignore[method-assign]
    return plans


def test_who_leaves_is_not_waited_with(site: Site) -> None:
    async def story(site: Site) -> None:
        id, gone = await site.enqueue(), asyncio.Event()
        asked = waiting(site, id, gone=gone)
        await until_waited_for(site, 1)
        gone.set()
        await asyncio.wait_for(asked, 2)
        assert site.web.state.waiter._waiting == {}
        task = site.web.state.waiter._task
        await asyncio.wait_for(task, 2)  # nobody waits, so nobody looks

    site.play(story)


def test_a_job_that_is_deleted_meanwhile_is_gone(site: Site) -> None:
    async def story(site: Site) -> None:
        id = await site.enqueue()
        asked = waiting(site, id)
        await until_waited_for(site, 1)
        await site.app.aclient.delete(id)
        answer = await asyncio.wait_for(asked, 5)
        assert answer.status == 404

    site.play(story)


def test_a_store_that_is_away_for_a_while_is_waited_for(site: Site) -> None:
    async def story(site: Site) -> None:
        id = await site.enqueue()
        asked = waiting(site, id)
        await until_waited_for(site, 1)
        shell = site.app.opened.async_shell()
        run, failures = shell.run, []

        async def fail(plan: Any, timeout: float | None = None) -> Any:
            failures.append(plan.name)
            raise StoreTimeout("locked")

        held = await site.claim()
        shell.run = fail  # type: ignore[method-assign]
        while not failures:
            await asyncio.sleep(0.01)
        shell.run = run  # type: ignore[method-assign]
        await site.settle(held, Succeeded("3"))
        assert (await asyncio.wait_for(asked, 5)).json["state"] == "completed"

    site.play(story)


def test_a_stop_answers_everybody(site: Site) -> None:
    async def story(site: Site) -> None:
        id = await site.enqueue()
        asked = [waiting(site, id) for _ in range(3)]
        await until_waited_for(site, 3)
        site.web.state.waiter.stop()
        answers = await asyncio.wait_for(asyncio.gather(*asked), 2)
        assert {answer.json["state"] for answer in answers} == {"queued"}
        assert (await asyncio.wait_for(waiting(site, id), 2)).status == 200

    site.play(story)

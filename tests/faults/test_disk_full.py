"""I31: on a full disk every caller is told, nothing acknowledged is lost, and all goes on when there is room again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import KINDS, FalseAcks, Ledger, broken, count, migrated, new_job, open_store, typed, url_of
from tests.faults.small_disk import SmallDisk, small_disk
from tests.worker.harness import FakeLink, World, task
from windlass import Windlass
from windlass.core.errors import StoreFull, StoreUnavailable

PAYLOAD = f'[["{"x" * 2_000}"],{{}}]'
REFUSED = 12
"""How many enqueues in a row must be refused before the disk counts as full to the last page."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 6) as disk:
        yield disk


def enqueue_until_full(ledger: Ledger, opened: Any) -> int:
    """One by one, until a dozen in a row were refused; answers how many were refused in all."""
    refused = row = 0
    while row < REFUSED:
        try:
            ledger.enqueue(opened, new_job(payload=PAYLOAD))
            row = 0
        except StoreUnavailable as error:
            typed(error, StoreFull)
            refused += 1
            row += 1
    return refused


@pytest.mark.parametrize("leave", [0, 30_000, 150_000, 600_000])
@pytest.mark.parametrize("kind", KINDS)
def test_enqueue_on_a_full_disk(kind: str, leave: int, disk: SmallDisk, record_property: Any) -> None:
    """I1, I31: a job is acknowledged and there, or refused as StoreFull and not there; the same shell then goes on."""
    path = disk.path / "jobs.db"
    ledger = Ledger()
    with migrated(kind, path) as opened:
        ledger.enqueue(opened, new_job(payload=PAYLOAD))
        disk.fill(leave)
        refused = enqueue_until_full(ledger, opened)
        assert set(ledger.tried) - set(ledger.acked)
        disk.free()
        for _ in range(20):
            ledger.enqueue(opened, new_job(payload=PAYLOAD))
        assert ledger.faults(opened) == []
        assert opened.shell.run(opened.store.fetch(sorted(set(ledger.tried) - set(ledger.acked)))) == [None] * refused
    assert broken(kind, path) == []
    count(record_property, acknowledged=len(ledger.acked), refused=refused)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_is_opened_on_a_full_disk(kind: str, disk: SmallDisk) -> None:
    """I31: a new file cannot be made, an old one not be written: both are said, and neither is left half done."""
    old, new = disk.path / "old.db", disk.path / "new.db"
    ledger = Ledger()
    with migrated(kind, old) as opened:
        ledger.enqueue(opened, new_job(), new_job())
    if kind == "stdlib-wal":
        open_store(kind, new).close()
    disk.fill()
    with_old, with_new = open_store("stdlib" if kind == "stdlib-wal" else kind, old), open_store(kind[:6], new)
    try:
        for opened in (with_old, with_new):
            for _ in range(3):
                with pytest.raises(StoreUnavailable) as caught:
                    opened.shell.run(opened.store.migrate())
                    enqueue_until_full(ledger, opened)
                    raise StoreFull("as it should")
                typed(caught.value, StoreFull)
        disk.free()
        for opened in (with_old, with_new):
            opened.shell.run(opened.store.migrate())
            opened.shell.run(opened.store.enqueue([new_job()]))
        assert with_new.shell.run(with_new.store.audit()) == []
        known = with_old.shell.run(with_old.store.fetch(ledger.acked))
        assert None not in known
        assert with_old.shell.run(with_old.store.audit()) == []
    finally:
        with_old.close()
        with_new.close()
    assert [broken(kind, old), broken(kind, new)] == [[], []]


@pytest.mark.parametrize("kind", KINDS)
def test_an_application_on_a_full_disk(kind: str, disk: SmallDisk) -> None:
    """I31: `enqueue` and `aenqueue` raise StoreFull at once, not after their deadline; then both work again."""
    path = disk.path / "jobs.db"
    open_store(kind, path).close()
    with Windlass(url_of(kind, path)) as app:
        acked = [app.enqueue("note", ["x" * 2_000]).id]
        disk.fill(100_000)

        async def asynchronously() -> None:
            acked.append((await app.aenqueue("note", ["x" * 2_000])).id)

        for one in (lambda: acked.append(app.enqueue("note", ["x" * 2_000]).id), lambda: asyncio.run(asynchronously())):
            refused = 0
            while refused < 3:
                try:
                    one()
                except StoreUnavailable as error:
                    typed(error, StoreFull)
                    refused += 1
        disk.free()
        acked.append(app.enqueue("note", ["x"]).id)
        asyncio.run(asynchronously())
        assert [app.job(id).state() for id in acked] == ["queued"] * len(acked)
        assert app.engine.run(app.opened.store.audit()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_on_a_full_disk(
    kind: str, disk: SmallDisk, caplog: pytest.LogCaptureFixture, record_property: Any
) -> None:
    """I2, I31: outcomes wait in the worker while the disk is full; then each is settled, once, and no job runs twice."""
    ran: list[int] = []
    result = "r" * 3_000

    async def work(n: int) -> str:
        ran.append(n)
        if n == 60:
            disk.fill(20_000)
        return result

    with World(disk.path, task("work", work), opened=open_store(kind, disk.path / "jobs.db")) as world:
        jobs = world.enqueue_many("work", [(n,) for n in range(400)])

        async def until_full_and_free(link: FakeLink) -> None:
            await world.until(lambda: "the store did not answer" in caplog.text)
            stuck = world.states()["completed"]
            for _ in range(5):  # tries that come to nothing
                await asyncio.sleep(0.05)
            assert world.states()["completed"] < 400
            disk.free()
            await world.until_done(link)
            count(record_property, settled_before=stuck, refused=len([r for r in caplog.records if "did not" in r.message]))

        world.work(until_full_and_free)
        assert world.states()["completed"] == 400
        assert sorted(ran) == list(range(400))
        assert {len(world.attempts(job)) for job in jobs} == {1}
        assert {world.job(job).result for job in jobs} == {f'"{result}"'}
        world.sound()
    assert broken(kind, disk.path / "jobs.db") == []


def test_a_false_acknowledgement_would_be_seen(tmp_path: Path) -> None:
    """The ledger against a shell that swallows every seventh enqueue."""
    ledger = Ledger()
    with migrated("apsw", tmp_path / "jobs.db") as opened:
        liar = FalseAcks(opened, 7)
        for _ in range(20):
            ledger.enqueue(liar, new_job())
        assert len([words for words in ledger.faults(opened) if "lost" in words]) == 2

"""Schema: made once, however many make it, and what is kept when the store is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from windlass.core.errors import SchemaError
from windlass.core.job import ErrorInfo as Error
from windlass.core.job import Failed, State, Succeeded
from windlass.ports.store import Opened, QueueChange
from windlass.testing.conformance.world import HOUR, Opener, World

AT_ONCE = 10


class Schema:
    """The chapter `schema`."""

    open: Opener
    make_newer: Callable[[Opened], None] | None = None

    def test_migrating_again_does_nothing(self, world: World) -> None:
        held = world.running()
        before = world.dump()
        version = world.run(world.store.version())
        assert version >= 1
        for _ in range(2):
            assert world.run(world.store.migrate()) == version
        assert world.run(world.store.version()) == version
        assert world.dump() == before
        assert world.fetch(held.id).state is State.RUNNING

    def test_ten_at_once_make_one_schema(self, world: World, tmp_path: Path) -> None:
        """Ten processes that are deployed together all start with a migration."""
        world.need("durable")
        place = tmp_path / "fresh"
        place.mkdir()
        gate = threading.Barrier(AT_ONCE)

        def start() -> int:
            opened = type(self).open(place, world.clock)
            try:
                gate.wait()
                opened.shell.run(opened.store.migrate(), 30.0)
                return opened.shell.run(opened.store.version())
            finally:
                opened.close()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            versions = {future.result() for future in [pool.submit(start) for _ in range(AT_ONCE)]}
        assert versions == {world.run(world.store.version())}

    def test_a_store_without_a_schema_says_so(self, world: World, tmp_path: Path) -> None:
        world.need("durable")
        place = tmp_path / "empty"
        place.mkdir()
        opened = type(self).open(place, world.clock)
        try:
            assert opened.shell.run(opened.store.version()) == 0
            with pytest.raises(SchemaError):
                opened.shell.run(opened.store.enqueue([world.job()]))
        finally:
            opened.close()

    def test_a_newer_schema_is_refused(self, world: World) -> None:
        """I25: loudly, and before anything is written: an old process must not touch what it would misread."""
        make_newer = type(self).make_newer
        if make_newer is None:
            pytest.skip("the author of the store does not say how its schema becomes newer: make_newer")
        version = world.run(world.store.version())
        world.running()
        before = world.dump()
        make_newer(world.opened)
        for opened in (world.opened, world.another()):
            with pytest.raises(SchemaError):
                world.run_on(opened, opened.store.migrate())
            assert world.run_on(opened, opened.store.version()) > version
        assert world.dump() == before

    def test_everything_is_kept(self, world: World) -> None:
        """I1: what was answered is there after the store was closed and opened again."""
        world.need("durable")
        world.running("w1")
        world.put(after=HOUR, idempotency_key="k")
        for outcome in (Succeeded('"r"'), Failed(Error("E"))):
            world.end(world.running(), outcome)
        world.run(world.store.queues([QueueChange("q", paused=True)]))
        before = world.dump()
        world.reopen()
        assert world.dump() == before
        assert not world.enqueue(world.job(idempotency_key="k"))[0].inserted
        world.healthy()

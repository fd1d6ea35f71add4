"""An application whose jobs write to its own table in `ctx.transaction()`, and how it is killed in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.faults.disk import Disk, faulty
from tests.faults.kit import open_store, raw, url_of
from tests.worker.harness import FakeLink, World
from windlass import Context, Windlass
from windlass.runtime.context import Transaction

MODES = ("thread", "loop")
"""Where the handler runs."""


class Counter:
    """An application with a table of its own: `pay` books two rows and enqueues two children, one by each way there is.
    Whoever makes one says how its database is asked."""

    TABLE = "CREATE TABLE booked (n INTEGER NOT NULL, part INTEGER NOT NULL, UNIQUE (n, part))"
    BOOK = "INSERT INTO booked VALUES (?, ?)"
    BOOKED = "SELECT count(*) FROM booked WHERE n = ?"
    CHILDREN = "SELECT count(*) FROM windlass_jobs WHERE meta ->> '$.parent_id' = ?"

    def __init__(self, url: str, **settings: Any) -> None:
        self.app = Windlass(url, **settings)
        self.began: Callable[[], object] = lambda: None
        self.opened: Callable[[], object] = lambda: None
        self.between: Callable[[Transaction, int], object] = lambda transaction, n: None
        self.result: Callable[[int], Any] = lambda n: n
        self._declare()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.app.close()

    def _declare(self) -> None:
        app = self.app

        @app.task(name="note", queue="notes")
        async def note(n: int) -> None: ...

        @app.task(name="thread")
        def in_thread(ctx: Context, n: int) -> Any:
            self.began()
            with ctx.transaction() as transaction:
                self.opened()
                transaction.execute(self.BOOK, (n, 1))
                self.between(transaction, n)
                ctx.enqueue(note, n)
                note.enqueue(n)
                transaction.executemany(self.BOOK, [(n, 2)])
            return self.result(n)

        @app.task(name="loop")
        async def in_loop(ctx: Context, n: int) -> Any:
            self.began()
            with await ctx.atransaction() as transaction:
                self.opened()
                transaction.execute(self.BOOK, (n, 1))
                await asyncio.sleep(0)
                self.between(transaction, n)
                ctx.enqueue(note, n)
                await note.aenqueue(n)
                transaction.executemany(self.BOOK, [(n, 2)])
            await asyncio.sleep(0)
            return self.result(n)

    def pay(self, mode: str, n: int, **options: Any) -> str:
        """Enqueue one; answers its id."""
        return str(self.app.enqueue(mode, [n], **options).id)

    def work(self, script: Callable[[World, FakeLink], Any] | None = None, *, worker: str, **settings: Any) -> World:
        """Run one worker until `script` returns, or until nothing is left to do."""
        world = World(None, opened=self.app.opened, **settings)
        world.registry = self.app.registry
        world.work(None if script is None else (lambda link: script(world, link)), worker=worker)
        return world

    def count(self, sql: str, *parameters: Any) -> int:
        """What the database answers, asked by nobody of Windlass's."""
        raise NotImplementedError

    def booked(self, n: int) -> int:
        """How many of its two rows are there."""
        return self.count(self.BOOKED, n)

    def children(self, job: str) -> int:
        return self.count(self.CHILDREN, job)

    def state(self, job: str) -> str:
        return str(self.app.job(job).state())

    def torn(self, job: str, n: int) -> list[str]:
        """I7: completion, both rows and both children, or none of the five."""
        done = self.state(job) == "completed"
        parts = {"rows": self.booked(n), "children": self.children(job)}
        return [f"job {n} is {self.state(job)}, with {parts}"] if any(v != 2 * done for v in parts.values()) else []


class Shop(Counter):
    """One on a file of SQLite's."""

    def __init__(self, kind: str, path: Path, **settings: Any) -> None:
        self.kind, self.path = kind, path
        if not path.exists():
            open_store(kind, path).close()
            with raw(kind, path) as connection:
                connection.execute(self.TABLE)
        super().__init__(url_of(kind, path), **settings)

    def count(self, sql: str, *parameters: Any) -> int:
        """See Counter."""
        with raw(self.kind, self.path) as connection:
            return int(connection.execute(sql, parameters).fetchone()[0])


class Points:
    """Failpoints between a handler's first line and the end of its transaction: each statement of its connection and
    each thing that is asked of the disk, before and after. Its lock keeps all others from the disk meanwhile."""

    def __init__(self, disk: Disk, at: int = 0) -> None:
        self.names: list[str] = []
        self._disk = disk
        self._at = at
        self._driver: object = None

    def arm(self) -> None:
        """The transaction is open: count from here on."""
        self._disk.watch = self.reach
        self._disk.arm("", 0)

    def reach(self, name: str) -> None:
        """Be here; die here, if this is the one."""
        self.names.append(name)
        if len(self.names) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "after COMMIT":
            self._disk.rest()

    def watch(self, cls: type, *methods: str) -> None:
        """Reach a point before and after each call of these methods, whose first argument is SQL."""
        for method in methods:
            setattr(cls, method, self._watched(getattr(cls, method)))

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(this: Any, sql: str, *rest: Any) -> Any:
            if sql.startswith("SAVEPOINT"):
                self._driver = this
            if this is not self._driver and not isinstance(this, Transaction):
                return real(this, sql, *rest)
            self.reach(f"before {sql[:30]}")
            answer = real(this, sql, *rest)
            self.reach(f"after {sql[:30]}")
            return answer

        return call


def work_and_die(kind: str, path: Path, worker: str, at: int, names: Any = None) -> None:
    """A process whose worker runs what there is and is killed at the `at`-th point; told `names`, says which there
    were instead."""
    from windlass.stores.sqlite.driver_apsw import ApswDriver
    from windlass.stores.sqlite.driver_stdlib import StdlibDriver

    with faulty(kind) as disk:
        points = Points(disk, at)
        points.watch(ApswDriver if kind == "apsw" else StdlibDriver, "execute", "many")
        points.watch(Transaction, "execute", "executemany")
        with Shop(kind, path) as shop:
            shop.began = lambda: points.reach("began")
            shop.opened = points.arm

            async def until_ended(world: World, _: FakeLink) -> None:
                await world.until(lambda: not world.states()["running"] and bool(points.names))

            shop.work(until_ended, worker=worker)
        if names is not None:
            names.put(points.names)

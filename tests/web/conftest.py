"""An application with a store in a file, its API, and a hand that does what workers do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.web.asgi import Requests
from windlass import Context, Unique, Windlass
from windlass.core.job import Held, Meta, Outcome
from windlass.core.machine import decide
from windlass.ports.store import ClaimRequest, Quota, WorkerReport
from windlass.web import create_asgi


class Site:
    """`play(story)` runs `story(site)` on an event loop; `http.ask` is a request."""

    def __init__(self, app: Windlass) -> None:
        self.app = app
        self.web = create_asgi(app)
        self.http = Requests(self.web)
        self._seq = 0

    def play(self, story: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with self.web.router.lifespan_context(self.web):
                await asyncio.wait_for(story(self), 60)

        asyncio.run(main())

    async def enqueue(self, *args: Any, task: str = "add", **options: Any) -> str:
        answer = await self.http.ask("POST", "/api/v1/jobs", {"task": task, "args": args or [1, 2], **options})
        assert answer.status == 202, answer
        return str(answer.json["id"])

    async def do(self, plan: Any) -> Any:
        return await self.app.engine.arun(plan)

    async def claim(self, queue: str = "default") -> Held:
        store = self.app.opened.store
        report = WorkerReport(id="w1", supervisor="s1", host="here", pid=1, hold=60_000_000, slots=1)
        await self.do(store.beat([report]))
        self._seq += 1
        claimed = await self.do(store.claim("w1", self._seq, ClaimRequest(1, (Quota(queue, 1),))))
        (held,) = claimed.jobs
        return held

    async def settle(self, held: Held, outcome: Outcome) -> None:
        policy = msgspec.json.decode(held.meta, type=Meta).policy
        (answer,) = await self.do(self.app.opened.store.settle("w1", [decide(held, policy, outcome, 0.5)]))
        assert answer == "applied"

    async def end(self, outcome: Outcome) -> None:
        await self.settle(await self.claim(), outcome)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in [name for name in os.environ if name.startswith("WINDLASS_") and name != "WINDLASS_TEST_WORLD"]:
        monkeypatch.delenv(name)
    app = Windlass(f"sqlite:///{tmp_path}/jobs.db")

    @app.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="send", queue="mail")
    def send(to: str, ctx: Context) -> None: ...

    @app.task(name="once", unique=Unique())
    def once(n: int) -> None: ...

    yield Site(app)
    app.close()

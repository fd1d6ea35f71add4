"""Supervisors that work for a producer on a PostgreSQL store in trouble, and how soon they work again after it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.reckoning import checked, keep, settle, write_down
from tests.acceptance.rig import PATIENCE, PROGRAM, REPOSITORY, Rig, eventually, rig, tree
from tests.acceptance.tail import Tail
from tests.web.asgi import Requests
from windlass import Windlass
from windlass.testing import ledger
from windlass.testing.conformance.sizes import size
from windlass.testing.ledger import Line
from windlass.web import create_asgi

RESUMED_MOST = 10.0
"""I27: seconds from the end of a fault of the store, or of the way to it, until claims resume."""
SUPERVISORS, PROCESSES = 2, size(1, 2, 3)
RATE = 60
"""Jobs enqueued a second: enough that each fault meets some of every kind."""


class Duty:
    """See above."""

    def __init__(self, r: Rig, seed: int) -> None:
        self.r = r
        self.app = Windlass(r.url)
        """A process that looks at the store and enqueues to it, as a web process does."""
        self._tail = Tail(r.ledger)
        self.lines: list[Line] = []
        """All that was written down so far."""
        self.slowest = 0.0
        """Seconds that it took until claims resumed, at the most."""
        r.sql("CREATE TABLE IF NOT EXISTS books (job TEXT, fence BIGINT)")
        options = ("--processes", str(PROCESSES), "--concurrency", "8")
        self.crew = [r.supervise(*options, target="tests.acceptance.load:app") for _ in range(SUPERVISORS)]
        said = {"CHAOS_SEED": str(seed), "CHAOS_RATE": str(RATE)}
        self._producer = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.producer"],
            cwd=REPOSITORY,
            env={**os.environ, **r.environment, **said},
        )
        self.runs(10)

    def runs(self, count: int = 40) -> None:
        """Wait until each supervisor's workers have begun so many jobs from now on."""
        self.look()
        since = len(self.lines)
        eventually(lambda: self._begun(self.look()[since:], count))

    def recovers(self, back: float) -> None:
        """Wait until claims have resumed everywhere, which were hindered until the instant `back`."""
        self.look()
        later = [line for line in self.lines if line.at > back]
        while not self._begun(later, 1):
            assert time.monotonic() - back < RESUMED_MOST, f"claims did not resume within {RESUMED_MOST} s"
            time.sleep(0.01)
            later = [line for line in self.look() if line.at > back]
        firsts = [min(line.at for line in later if self._by(line, each.pid)) for each in self.crew]
        self.slowest = max(self.slowest, max(firsts) - back)

    def look(self) -> list[Line]:
        """All that was written down until now."""
        self.lines += self._tail.lines()
        return self.lines

    def _begun(self, lines: list[Line], count: int) -> bool:
        return all(sum(self._by(line, each.pid) for line in lines) >= count for each in self.crew)

    def _by(self, line: Line, supervisor: int) -> bool:
        return line.what == "start" and line.parent == supervisor

    def pids(self) -> tuple[int, ...]:
        """Supervisors, workers and process slots."""
        return tuple(pid for each in self.crew for pid in tree(each.pid))

    @contextmanager
    def fault(self, name: str, kind: str = "store", pids: tuple[int, ...] = ()) -> Iterator[None]:
        """Write it down. A fault of the store is in nobody's process, so it is no reason to run anything again."""
        since = time.monotonic()
        yield
        ledger.write(str(self.r.ledger), "fault", note=name, kind=kind, since=since, pids=pids)

    def health(self) -> int:
        """What `/healthz` answers in this process."""
        web = create_asgi(self.app)

        async def ask() -> int:
            async with web.router.lifespan_context(web):
                return int((await Requests(web).ask("GET", "/healthz")).status)

        return asyncio.run(ask())

    def doctor(self) -> str:
        """What `windlass store doctor` complains of."""
        command = [sys.executable, "-c", PROGRAM, "store", "doctor", "--url", self.r.url]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Traceback" not in said.stderr
        return said.stdout + said.stderr if said.returncode else ""

    def complaints(self) -> set[str]:
        """The classes of the errors that the producer was answered with."""
        return {line.note.partition(":")[0] for line in self.look() if line.what == "unacknowledged"}

    def rest(self) -> None:
        """Nothing more is enqueued; everything ends, and the supervisors leave; the store agrees with itself (I3)."""
        self._producer.kill()
        self._producer.wait(PATIENCE)
        settle(self.r, PATIENCE)
        assert self.r.run(self.r.opened.store.audit()) == []
        write_down(self.r)

    def prove(self, record_property: Any, counts: dict[str, int]) -> None:
        """Show what this run went through."""
        record_property("proof", {**counts, "resumed within (ms)": round(self.slowest * 1_000)})

    def end(self) -> None:
        self._producer.kill()
        self._producer.wait(PATIENCE)
        self.app.close()


@contextmanager
def duty(url: str, seed: int, **environment: str) -> Iterator[Duty]:
    """A duty on the store that `url` names. After a failure its ledgers are kept."""
    place = Path(tempfile.mkdtemp(prefix="windlass-duty-"))
    print(f"WINDLASS_SEED={seed}, all that is left of a failure is in {place}", flush=True)
    with rig(place, url, WINDLASS_HOLD="3s", **environment) as r:
        made = Duty(r, seed)
        try:
            yield made
        finally:
            made.end()
    keep(place)


def proven(d: Duty, record_property: Any) -> Any:
    """Rest, and hold the ledgers against each other: nothing lost, stale, or run again for no reason."""
    d.rest()
    report = checked(d.r.ledger)
    d.prove(record_property, {**report["counts"], **report["faults"]})
    return report

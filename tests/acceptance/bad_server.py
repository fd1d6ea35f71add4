"""A PostgreSQL or Redis server in trouble, and bad routes to it, while everything else goes wrong too, and is written down."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import psycopg

from tests.acceptance.ground import Pids
from tests.acceptance.rig import Rig, Supervised, stop_tree
from tests.stores.postgres_server import Server
from tests.stores.proxy import WAYS, Proxy
from tests.stores.redis_server import Started
from windlass.testing import ledger

OURS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'windlass' AND pid <> pg_backend_pid()"
LASTS = {0.1: 10, 0.5: 9, 6.0: 1}
"""Seconds for which a route is bad, and how many of twenty are for so long: past every lease, or a moment."""
MOMENT = 2.0
"""Seconds that somebody is given to commit, whose commit is to go wrong."""


class Host(Protocol):
    """A server. What was written and not flushed survives the death of processes; only the machine's would show it. So
    these flush nothing, and are back within a moment, before anybody's lease has run out."""

    url: str

    def kill(self) -> None:
        """With -9."""
        ...

    def start(self) -> None:
        """Again."""
        ...

    def terminate(self, dice: random.Random) -> None:
        """A few of the connections to it."""
        ...

    def remove(self) -> None:
        """Leave nothing behind."""
        ...


class PostgresHost:
    """See Host."""

    def __init__(self) -> None:
        self._server = Server("fsync=off")
        self.url = f"{self._server.url}/postgres"
        self.kill, self.start, self.remove = self._server.kill, self._server.start, self._server.remove

    def terminate(self, dice: random.Random) -> None:
        """See Host."""
        with psycopg.connect(self.url, autocommit=True) as admin:
            pids = [row[0] for row in admin.execute(OURS).fetchall()]
            for pid in dice.sample(pids, min(len(pids), dice.randint(1, 5))):
                admin.execute("SELECT pg_terminate_backend(%s)", (pid,))


class RedisHost:
    """See Host. With `everysec` a write may be put off while the disk is busy, and an answer may come before it."""

    def __init__(self) -> None:
        self._server = Started("--appendonly", "yes", "--appendfsync", "no")
        self.url = self._server.url
        self.kill, self.start, self.remove = self._server.kill, self._server.begin, self._server.end

    def terminate(self, dice: random.Random) -> None:
        """See Host."""
        with self._server.client() as admin:
            ids = [each["id"] for each in admin.client_list() if each["name"] == "windlass"]
            for id in dice.sample(ids, min(len(ids), dice.randint(1, 5))):
                admin.client_kill_filter(_id=id)


class BadServer:
    """See ground.Ground: each supervisor, and the producer, has a route of its own to one server."""

    def __init__(self, host: Host, seed: int, hold: float, places: int) -> None:
        self._dice = random.Random(seed)
        self._hold = hold
        self._server = host
        self.url = host.url
        """By which the test itself asks: nothing is on the way."""
        self._routes = [Proxy(self.url) for _ in range(places)]
        self._acts: dict[str, Callable[[], None]] = {
            "SIGKILL server": self._kill,
            "terminated backends": self._terminate,
            **{f"route {name}": partial(self._spoil, f"route {name}") for name in WAYS},
            "route loses the answer to a commit": partial(self._spoil_commit, "lose"),
            "route loses a commit": partial(self._spoil_commit, "drop"),
        }
        self._delivered: Counter[str] = Counter()
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    @property
    def enough(self) -> bool:
        """See Ground."""
        return len(self._delivered) == len(self._acts) or bool(self._failed)

    def environment(self, place: int) -> dict[str, str]:
        """See Ground."""
        return {"WINDLASS_URL": self._routes[place].url}

    def stop(self, r: Rig, victim: Supervised) -> None:
        """See Ground. At any moment: who stands in the middle of a transaction loses it, and keeps nobody."""
        stop_tree(victim)

    def begin(self, directory: Path, pids: Pids) -> None:
        """See Ground. In a thread of its own."""
        self._directory, self._pids = str(directory), pids
        self._thread.start()

    def end(self) -> None:
        """See Ground."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failed:
            raise self._failed[0]

    def close(self) -> None:
        """See Ground."""
        for route in self._routes:
            route.close()
        self._server.remove()

    # --- faults ------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                for name in self._dice.sample(list(self._acts), len(self._acts)):
                    if self._over.wait(self._dice.uniform(0.1, 0.6)):
                        return
                    self._acts[name]()
                    self._delivered[name] += 1
        except BaseException as error:
            self._failed.append(error)

    def _kill(self) -> None:
        since, pids = time.monotonic(), self._everybody()
        self._server.kill()
        self._over.wait(self._dice.choice((0.0, 0.0, 0.3)))
        self._server.start()
        self._note("SIGKILL server", since, pids + self._everybody())

    def _terminate(self) -> None:
        since = time.monotonic()
        self._server.terminate(self._dice)
        self._note("terminated backends", since, [])

    def _spoil(self, name: str) -> None:
        place = self._dice.randrange(len(self._routes))
        route, since, pids = self._routes[place], time.monotonic(), self._pids(place)
        WAYS[name.removeprefix("route ")](route)
        self._over.wait(*self._dice.choices(list(LASTS), list(LASTS.values())))
        route.mode = "pass"
        self._note(name, since, pids + self._pids(place))

    def _spoil_commit(self, mode: str) -> None:
        place = self._dice.randrange(len(self._routes))
        route, since = self._routes[place], time.monotonic()
        route.mode = mode
        while route.mode == mode and time.monotonic() - since < MOMENT and not self._over.wait(0.005):
            pass
        route.mode = "pass"
        name = "the answer to a commit" if mode == "lose" else "a commit"
        self._note(f"route loses {name}", since, [])

    def _everybody(self) -> list[int]:
        return [pid for place in range(len(self._routes)) for pid in self._pids(place)]

    def _note(self, name: str, since: float, pids: list[int]) -> None:
        """Whoever could not beat for as long as that may have lost his lease, as if he had been stopped. Anything
        shorter is a fault in nobody's process, and no reason to run anything again."""
        past = time.monotonic() - since > self._hold / 2
        whom = tuple(sorted(set(pids))) if past else ()
        ledger.write(self._directory, "fault", note=name, kind="stop" if whom else "store", since=since, pids=whom)

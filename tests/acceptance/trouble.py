"""Trouble for real processes, by a seeded plan, each fault written down with whom it hit and from when until when."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.acceptance.ground import Ground
from tests.acceptance.rig import PATIENCE, REPOSITORY, Rig, Supervised, command, eventually, tree
from windlass.core.errors import StoreError
from windlass.core.job import Token
from windlass.testing import ledger

HOLD = 3.0
PROCESSES = (3, 3, 2)
"""Workers under each supervisor."""
KILLS = 5
"""Of workers and process slots, from one stop to the next."""
SLOTS = 0.2
"""How many of those are of slots."""


IDLE = 2.0
"""Seconds to wait for something that makes a fault worth while."""


class Trouble:
    """Three supervisors, a producer, and what becomes of them."""

    def __init__(self, r: Rig, ground: Ground, seed: int, rate: float) -> None:
        self._r = r
        self._ground = ground
        self._dice = random.Random(seed)
        self._rate = rate
        self._rounds = 0
        self.delivered: Counter[str] = Counter()
        self.producers: list[int] = []
        self._known: dict[int, str] = {}
        """Workers, by their processes."""
        self.crew = [self._supervise(place) for place in range(len(PROCESSES))]
        self.producer = self._produce()
        ground.begin(r.ledger, self._pids)

    def round(self) -> None:
        """Stop a whole tree past its lease while workers of the others are killed; then trouble of another kind."""
        self._rounds += 1
        place = self._dice.randrange(len(self.crew))
        self.stop_past_lease(place)
        for _ in range(KILLS - 1):
            self.kill_worker(self._dice.choice(self.crew))
            self._pause()
        other: list[Callable[[], None]] = [self.kill_supervisor, self.terminate, self.kill_producer]
        other[self._rounds % len(other)]()

    def __str__(self) -> str:
        """What was delivered so far; disks count for themselves."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.delivered.items()))

    def count(self, word: str) -> int:
        """Faults delivered whose names begin so."""
        return sum(count for name, count in self.delivered.items() if name.startswith(word))

    def end(self) -> None:
        """No more of it: the producer is ended, and the supervisors go on."""
        self._end_producer()
        self._ground.end()

    # --- faults ------------------------------------------------------------------------------------------------------

    def kill_worker(self, of: Supervised) -> None:
        """SIGKILL to a worker that is at work, or to a process slot, if there is one."""
        slots = [pid for pid in tree(of.pid) if b'"role":"slot"' in command(pid)]
        slot = bool(slots) and self._dice.random() < SLOTS
        pid = self._dice.choice(slots if slot else self._busy(of, 1))
        since = time.monotonic()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it had left by itself: not delivered
            return
        gone([pid])
        self._note("SIGKILL slot" if slot else "SIGKILL worker", "kill", since, [pid])

    def kill_supervisor(self) -> None:
        """SIGKILL: its workers die with it."""
        place = self._dice.randrange(len(self.crew))
        victim = self.crew[place]
        since, pids = time.monotonic(), tree(victim.pid)
        self._living(pids)
        victim.kill()
        gone(pids)
        self._note("SIGKILL supervisor", "kill", since, pids)
        self.crew[place] = self._supervise(place)

    def terminate(self) -> None:
        """SIGTERM: whatever runs may end; a deploy."""
        place = self._dice.randrange(len(self.crew))
        since, pids = time.monotonic(), tree(self.crew[place].pid)
        self._living(pids)
        assert self.crew[place].stop() == 0
        self._note("SIGTERM supervisor", "term", since, pids)
        self.crew[place] = self._supervise(place)

    def stop_past_lease(self, place: int) -> None:
        """SIGSTOP to a supervisor and all below it, until its workers have been taken over and one of their jobs runs
        elsewhere; then SIGCONT, so that the ghost of that job ends while another has it."""
        victim = self.crew[place]
        self._busy(victim, 5)
        since = time.monotonic()
        self._ground.stop(self._r, victim)
        pids = tree(victim.pid)
        jobs = [token.id for pid in self._living(pids) for token in self._held(pid)]
        others = [each for each in self.crew if each is not victim]
        self._pause()
        self.kill_worker(self._dice.choice(others))  # the reaper is a supervisor: it lives, and beats
        eventually(lambda: not self._living(pids))
        self._wait(lambda: any(job.state == "running" for job in self._ask(self._r.opened.store.fetch(jobs)) if job))
        victim.signal_tree(signal.SIGCONT)
        self._note("SIGSTOP tree", "stop", since, pids)

    def kill_producer(self) -> None:
        """SIGKILL, in the middle of whatever it enqueues."""
        since, pid = time.monotonic(), self.producer.pid
        self._end_producer()
        self._note("SIGKILL producer", "kill", since, [pid])
        self.producer = self._produce()

    # --- help --------------------------------------------------------------------------------------------------------

    def _busy(self, of: Supervised, jobs: int) -> list[int]:
        """Those workers that hold jobs, once they hold so many together; after a while, any that are at work."""
        living = eventually(lambda: self._living(tree(of.pid)))
        held: dict[int, int] = {}

        def enough() -> bool:
            held.update((pid, len(self._held(pid))) for pid in living)
            return sum(held.values()) >= jobs

        self._wait(enough)
        return [pid for pid, count in held.items() if count] or living

    def _held(self, pid: int) -> list[Token]:
        """What a worker holds, in the store's eyes."""
        return self._ask(self._r.opened.store.held(self._known[pid]))

    def _ask(self, plan: Any) -> Any:
        """The store, which may be away for a moment."""

        def answer() -> list[Any]:
            try:
                return [self._r.run(plan)]
            except StoreError:
                return []

        return eventually(answer)[0]

    def _wait(self, what: Callable[[], bool]) -> None:
        """For what would be good to have; not for long."""
        deadline = time.monotonic() + IDLE
        while not what() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _living(self, pids: list[int]) -> list[int]:
        """Those workers of a tree whose leases stand, as the store sees it."""
        found = [worker for worker in self._ask(self._r.opened.store.workers()) if not worker.taken]
        for worker in found:
            if self._known.get(worker.pid) != worker.id:  # the store forgets the dead, and what their slots ran for
                self._known[worker.pid] = worker.id
                ledger.write(str(self._r.ledger), "worker", worker=worker.id, pids=(worker.pid,))
        return [worker.pid for worker in found if worker.pid in pids]

    def _note(self, name: str, kind: str, since: float, pids: list[int]) -> None:
        self.delivered[name] += 1
        ledger.write(str(self._r.ledger), "fault", note=name, kind=kind, since=since, pids=tuple(pids))

    def _pause(self) -> None:
        time.sleep(self._dice.uniform(0.1, 0.4))

    def _supervise(self, place: int) -> Supervised:
        told = self._ground.environment(place)
        options = ("--processes", str(PROCESSES[place]), "--concurrency", "8")
        return self._r.supervise(*options, target="tests.acceptance.load:app", **told)

    def _pids(self, place: int) -> list[int]:
        return tree(self.crew[place].pid) if place < len(self.crew) else [self.producer.pid]

    def _end_producer(self) -> None:
        self.producer.kill()
        self.producer.wait(PATIENCE)

    def _produce(self) -> subprocess.Popen[bytes]:
        said = {"CHAOS_SEED": str(self._dice.randrange(2**32)), "CHAOS_RATE": str(self._rate)}
        environment = {**os.environ, **self._r.environment, **self._ground.environment(len(PROCESSES)), **said}
        command = [sys.executable, "-m", "tests.acceptance.producer"]
        producer = subprocess.Popen(command, cwd=REPOSITORY, env=environment)
        self.producers.append(producer.pid)
        return producer


def gone(pids: list[int]) -> None:
    """Wait for deaths: a zombie has no command line any more."""
    eventually(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")])

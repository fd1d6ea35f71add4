"""The supervisor's dealings with the store: what beats, what waits, what listens, each where it stops nobody else."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from windlass.core.errors import StoreReplaced
from windlass.ports.store import Death, Listener, Opened, Reaped
from windlass.runtime import lockfile
from windlass.runtime.beat import Beat, Round
from windlass.runtime.host import Host
from windlass.runtime.judge import Judge
from windlass.runtime.keeper import Keeper
from windlass.runtime.lockfile import WorkerLock
from windlass.runtime.logs import Log
from windlass.runtime.loop import Loop
from windlass.runtime.maintainer import Maintainer
from windlass.runtime.member import Identity, Member
from windlass.runtime.messages import Ready
from windlass.runtime.poller import Poller
from windlass.runtime.relay import Relay
from windlass.runtime.scheduler import Scheduler
from windlass.runtime.shared import must_be_shared, must_let_work

LAST_WORDS = 2.0
"""Seconds that a stopping supervisor gives the store to take its workers' jobs back, and then to finish what it is at.
What it does not take, the next supervisor gives it: the locks, or the leases, say that these workers are gone."""

log = Log("supervisor")


class Liaison:
    """Everything of the store that a supervisor uses; all methods belong to its loop.

    It opens the store once the first worker has said which, and from then on `known` is True.
    """

    def __init__(
        self,
        loop: Loop,
        host: Host,
        identity: Identity,
        open_store: Callable[..., Opened],
        *,
        beaten: Callable[[Round], None],
        hinted: Callable[[], None],
        suspected: Callable[[Sequence[str] | None], None],
        own: Callable[[], list[str]],
        replaced: Callable[[StoreReplaced], None],
    ) -> None:
        """`beaten` hears every beat, `hinted` that there may be jobs, `suspected` that there may be suspects (in which
        queues, if that is known); `own` answers the supervisor's workers, from any thread; `replaced` hears that the
        store must not be used any more."""
        self._loop = loop
        self._host = host
        self._identity = identity
        self._open_store = open_store
        self._beaten = beaten
        self._hinted = hinted
        self._suspected = suspected
        self._own = own
        self._replaced = replaced
        self._opened: Opened | None = None
        self._directory: str | None = None
        self._keeper: Keeper | None = None
        self._courier: Keeper | None = None
        """For the relay: an outbox that does not answer is to keep nobody waiting."""
        self._beat: Beat | None = None
        self._scheduler: Scheduler | None = None
        self._listener: Listener | None = None
        self._listening = False
        self._locks: dict[str, WorkerLock] = {}
        self.url = ""
        self.error: Exception | None = None
        """Why the last beat failed, if it did."""

    @property
    def known(self) -> bool:
        """Whether the store is open."""
        return self._opened is not None

    def open(self, ready: Ready, then: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Open the store that a worker named, with its schema; `failed` is told what no repetition can cure."""

        def work() -> Opened:
            opened = self._open_store(ready.url, **ready.options)
            try:
                must_be_shared(opened)
                opened.shell.run(opened.store.migrate())
                must_let_work(opened)
            except BaseException:
                opened.close()
                raise
            return opened

        self.url = ready.url
        self._keeper = Keeper(self._loop.post, ready.hold / 6, host=self._host)
        self._keeper.start()
        self._keeper.submit(work, lambda opened: self._have(opened, ready, then), failed)

    def _have(self, opened: Opened, ready: Ready, then: Callable[[], None]) -> None:
        assert self._keeper is not None
        self._opened = opened
        # WINDLASS_LIVENESS=lease: leases judge on one machine too, as they do between machines.
        by_lease = os.environ.get("WINDLASS_LIVENESS") == "lease"
        self._directory = None if by_lease else opened.run_directory()
        self._beat = Beat(opened, ready.hold, self._loop.post, self._heard, self._host)
        self._beat.start()
        self._keeper.add(Judge(opened, self._directory, ready.hold, self._own, self._post_suspected))
        self._keeper.add(Maintainer(opened, self._identity.supervisor, ready.rules, self._post_suspected))
        self._keeper.add(Poller(opened, lambda: self._loop.post(self._hinted), self._post_replaced))
        self._scheduler = Scheduler(opened, self._identity.supervisor, ready.schedules)
        self._keeper.add(self._scheduler)
        self._listener = opened.shell.listen()
        if (outbox := ready.outbox) is not None:
            self._courier = Keeper(self._loop.post, ready.hold / 6, host=self._host)
            self._courier.start()
            self._courier.add(Relay(opened, lambda: self._open_store(outbox), self._identity.supervisor))
        then()

    def _post_replaced(self, problem: StoreReplaced) -> None:
        self._loop.post(lambda: self._replaced(problem))

    def _post_suspected(self, queues: Sequence[str] | None = None) -> None:
        self._loop.post(lambda: self._suspected(queues))

    # --- workers -----------------------------------------------------------------------------------------------------

    def register(self, member: Member) -> None:
        """Make a ready worker known under a lock and a lease of its own; `beaten` hears when it is. Both are kept until
        `gone`: nobody else may conclude less from its silence than we know."""
        assert self._beat is not None
        if self._scheduler is not None and member.ready is not None:
            self._scheduler.define(member.ready.schedules)
        if self._directory is not None:
            member.lock = self._locks[member.id] = lockfile.create(self._directory, member.id)
        self._beat.add(member.id, lambda: member.report(self._identity))

    def tell(self) -> None:
        """Beat at once: a worker is in another state than the store was told."""
        if self._beat is not None:
            self._beat.now()

    def gone(self, member: Member) -> None:
        """Beat no more for it, and let go of its lock."""
        if self._beat is not None:
            self._beat.remove(member.id)
        lock = self._locks.pop(member.id, None)
        if lock is not None:
            lock.close()

    def bury(self, member: Member, death: Death, then: Callable[[Reaped], None]) -> None:
        """Hand a dead worker's jobs back, however long the store takes to hear of it."""
        opened, keeper = self._opened, self._keeper
        assert opened is not None
        assert keeper is not None

        def taken(answers: list[Reaped]) -> None:
            lock = self._locks.pop(member.id, None)
            if lock is not None:
                lock.remove()
            if answers[0].jobs:
                opened.shell.hint()
            then(answers[0])

        keeper.submit(lambda: opened.shell.run(opened.store.reap([death]), timeout=LAST_WORDS), taken)

    # --- hearing -----------------------------------------------------------------------------------------------------

    def _heard(self, beat: Round) -> None:
        if beat.error is not None and self.error is None:
            log.warning("the store does not answer; workers go on", problem=beat.error)
        elif beat.error is None and self.error is not None:
            log.info("the store answers again")
        self.error = beat.error
        self._beaten(beat)

    def listen(self, wanted: bool) -> None:
        """Listen while a hint would be passed on: a busy store hints thousands of times a second for nobody. What comes
        meanwhile stays in the socket, so none is missed."""
        if self._listener is None or wanted == self._listening:
            return
        if wanted:
            self._loop.watch(self._listener, self._hint)
        else:
            self._loop.forget(self._listener)
        self._listening = wanted

    def _hint(self) -> None:
        assert self._listener is not None
        self._listener.drain()
        self._hinted()

    def close(self) -> None:
        """Give everything back; waits for what is under way."""
        if self._beat is not None:
            self._beat.stop()
        for keeper in (self._courier, self._keeper):
            if keeper is not None:
                keeper.stop(LAST_WORDS)
        for lock in self._locks.values():
            lock.close()
        if self._listener is not None:
            self._listener.close()
        if self._opened is not None:
            self._opened.close()

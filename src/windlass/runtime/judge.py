"""The judge: finds workers of other supervisors that are dead, and takes their jobs over.

On one machine the kernel says so: whoever obtains a worker's lock knows that all its processes are gone. Where there
is no lock file to ask about, the lease does, and the store then insists that the one who judges has itself beaten for
a whole hold, so that nobody is reaped for an outage of the store.
"""

from __future__ import annotations

from collections.abc import Callable

from windlass.ports.store import Death, Opened
from windlass.runtime import lockfile
from windlass.runtime.logs import Log

log = Log("judge")


class Judge:
    """A Service, ticked every hold/3 by every supervisor: no leader is needed, for a takeover happens once."""

    name = "judge"

    def __init__(
        self,
        opened: Opened,
        directory: str | None,
        hold: float,
        own: Callable[[], list[str]],
        suspected: Callable[[], object],
    ) -> None:
        """`own` answers this supervisor's workers, the longest-serving first; `suspected` is told after a takeover
        that may have made suspects."""
        self._opened = opened
        self._directory = directory
        self._hold = hold
        self._own = own
        self._suspected = suspected

    def start(self) -> None:
        """See Service."""

    def stop(self) -> None:
        """See Service."""

    def tick(self) -> float:
        """See Service."""
        if self._directory is not None:
            self._by_lock(self._directory)
        self._by_lease()
        return self._hold / 3

    def _by_lock(self, directory: str) -> None:
        own = set(self._own())
        known = [each.id for each in self._opened.shell.run(self._opened.store.workers()) if not each.taken]
        for worker in known:
            lock = lockfile.obtain(directory, worker) if worker not in own else None
            if lock is None:
                continue
            try:
                self._reap(Death(worker=worker, observed=True, detail="its supervisor is gone"))
            except BaseException:
                lock.close()
                raise
            lock.remove()
        lockfile.sweep(directory, set(known) | own)

    def _by_lease(self) -> None:
        own = self._own()
        if not own:
            return
        reaper = own[0]
        for worker in self._opened.shell.run(self._opened.store.lapsed(reaper)):
            if worker in own or (self._directory is not None and lockfile.exists(self._directory, worker)):
                continue  # the kernel says that it lives: it is slow, or stopped, and may go on
            self._reap(Death(worker=worker, observed=False, reaper=reaper, detail="its lease ran out"))

    def _reap(self, death: Death) -> None:
        [answer] = self._opened.shell.run(self._opened.store.reap([death]))
        if answer.taken:
            log.warning("took over a dead worker", worker=death.worker, jobs=answer.jobs, because=death.detail)
        if answer.jobs:
            self._suspected()
            self._opened.shell.hint()

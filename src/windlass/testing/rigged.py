"""A store that does what a test plants: the real one, with faults in between, and dead to a worker that was killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from windlass.core.errors import StoreError
from windlass.core.job import Held, Transition
from windlass.ports.plan import Plan, Steps
from windlass.ports.store import AsyncShell, Claimed, Opened, Shell, Store
from windlass.testing.faults import Faults, WorkerKilled

T = TypeVar("T")


class Rigged:
    """An Opened whose every plan passes by the faults; see ports.store.Opened."""

    def __init__(self, opened: Opened, faults: Faults) -> None:
        self.real = opened
        self.url = opened.url
        self.faults = faults
        self.store: Store = opened.store
        self.shell: Shell = cast(Shell, RiggedShell(opened.shell, self))
        self.dead = False
        """The worker that uses it was killed: nothing that its handlers still do as they unwind may reach the store."""

    def async_shell(self) -> AsyncShell:
        """See Opened."""
        return RiggedAsyncShell(self.real.async_shell(), self)

    def own(self, connection: Any) -> Shell:
        """See Opened."""
        return self.real.own(connection)

    def run_directory(self) -> str | None:
        """See Opened: leases judge, and a test moves the clock that they go by."""
        return None

    def close(self) -> None:
        """See Opened. The store belongs to the test, and lasts as long."""

    def check(self) -> None:
        """Raises StoreError for what a killed worker still sends."""
        if self.dead:
            raise StoreError("this worker was killed")

    def answered(self, answer: Any) -> None:
        """Look at what a plan answered; here for whoever is interested."""


class RiggedShell:
    """See ports.store.Shell; what is not named here is the real one's."""

    def __init__(self, shell: Shell, rig: Rigged) -> None:
        self._shell = shell
        self._rig = rig

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shell, name)

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See Shell.run."""
        self._rig.check()
        with self._rig.faults.around(plan.name):
            answer = self._shell.run(plan, timeout)
        self._rig.answered(answer)
        return answer


class RiggedAsyncShell:
    """See ports.store.AsyncShell."""

    def __init__(self, shell: AsyncShell, rig: Rigged) -> None:
        self._shell = shell
        self._rig = rig

    async def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See AsyncShell.run."""
        self._rig.check()
        with self._rig.faults.around(plan.name):
            answer = await self._shell.run(plan, timeout)
        self._rig.answered(answer)
        return answer

    async def close(self) -> None:
        """See AsyncShell. The store belongs to the test."""


class WorkersRig(Rigged):
    """The store as one worker sees it: what it claims is noted, and it dies where the test says."""

    def __init__(self, opened: Opened, faults: Faults, died: Callable[[], object]) -> None:
        """`died` is called, from any thread, where there is nobody to raise WorkerKilled to."""
        super().__init__(opened, faults)
        self.granted: dict[str, Held] = {}
        self.died = died
        self.store = cast(Store, _Settling(opened.store, self))
        self.shell = cast(Shell, _WorkersShell(opened.shell, self))

    def answered(self, answer: Any) -> None:
        """Note grants; die of one of them."""
        for part in answer if isinstance(answer, list) else (answer,):
            if isinstance(part, Claimed):
                self.granted.update({held.id: held for held in part.jobs})
                if any(self.faults.crashes(held.task, "before") for held in part.jobs):
                    raise WorkerKilled

    def settling(self, transitions: Sequence[Transition]) -> bool:
        """Whether the worker dies of settling this."""
        tasks = [self.granted[t.id].task for t in transitions if t.id in self.granted]
        return any(self.faults.crashes(task, "after") for task in tasks)


class _Settling:
    """A Store that its worker may not survive."""

    def __init__(self, store: Store, rig: WorkersRig) -> None:
        self._store = store
        self._rig = rig

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def settle(self, worker: str, transitions: Sequence[Transition]) -> Plan[Any]:
        """See Store.settle."""
        self._rig.check()
        if not self._rig.settling(transitions):
            return self._store.settle(worker, transitions)

        def steps() -> Steps[Any]:
            # Inside the plan, so that a transaction which it was to commit is rolled back on the way out.
            raise WorkerKilled
            yield

        return Plan(steps, "settle", write=True)


class _WorkersShell(RiggedShell):
    """A Shell whose sessions, if it has any, may be the death of their worker."""

    _rig: WorkersRig

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return (lambda *args, **kwargs: _Session(found(*args, **kwargs), self._rig)) if name == "session" else found


class _Session:
    """A handler's own transaction; see runtime.run.Session."""

    def __init__(self, session: Any, rig: WorkersRig) -> None:
        self._session = session
        self._rig = rig
        self.connection = session.connection

    def run(self, plan: Plan[T]) -> T:
        """See Session."""
        try:
            return cast(T, self._session.run(plan))
        except WorkerKilled:
            self._rig.died()
            raise StoreError("this worker was killed") from None

    def commit(self) -> None:
        """See Session."""
        self._session.commit()

    def rollback(self) -> None:
        """See Session."""
        self._session.rollback()

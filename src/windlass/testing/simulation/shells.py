"""The store as one simulated process has opened it: the shells that the product uses, and the tap that takes down what
is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from windlass.core.errors import StoreUnavailable
from windlass.ports.agenda import apart
from windlass.ports.plan import Plan
from windlass.ports.store import Tick
from windlass.testing.simulation.scheduler import Process
from windlass.testing.simulation.wire import Transaction, Wire

T = TypeVar("T")


class Listener:
    """Hints for one process."""

    def __init__(self, wire: Wire, process: Process) -> None:
        self.process = process
        self._wire = wire
        self._waits = False
        self._readable: Callable[[], object] | None = None
        wire.listeners.append(self)

    def on_readable(self, call: Callable[[], object]) -> None:
        """Call whenever there is something to read; at once if there is."""
        self._readable = call
        if self._waits:
            call()

    def wake(self) -> None:
        """A hint arrived."""
        self._waits = True
        if self._readable is not None:
            self._readable()

    def fileno(self) -> int:
        """See ports.store.Listener: nothing here has one."""
        raise NotImplementedError

    def drain(self) -> None:
        """See ports.store.Listener."""
        self._waits = False

    def close(self) -> None:
        """See ports.store.Listener."""
        if self in self._wire.listeners:
            self._wire.listeners.remove(self)


class BlockingShell:
    """See ports.store.Shell."""

    def __init__(self, wire: Wire, process: Process) -> None:
        self._wire = wire
        self._process = process

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See Shell."""
        return self._wire.run(self._process, plan, timeout)

    def changed(self) -> int:
        """See Shell."""
        if self._process.cut_off:
            raise StoreUnavailable("cut off")
        return self._wire.changes

    def hint(self) -> None:
        """See Shell."""
        self._wire.hint()

    def listen(self) -> Listener:
        """See Shell."""
        return Listener(self._wire, self._process)

    def close(self) -> None:
        """See Shell."""


class AwaitingShell:
    """See ports.store.AsyncShell."""

    def __init__(self, wire: Wire, process: Process) -> None:
        self._wire = wire
        self._process = process

    async def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See AsyncShell."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def tell(transaction: Transaction) -> None:
            if future.done():
                return
            if transaction.error is not None:
                future.set_exception(transaction.error)
            else:
                future.set_result(transaction.answer)

        self._wire.submit(self._process, plan, timeout, tell)
        return await future

    async def close(self) -> None:
        """See AsyncShell."""


class Opened:
    """See ports.store.Opened: the store as one process has opened it."""

    def __init__(self, wire: Wire, process: Process, directory: str | None) -> None:
        self.url = "simulated://"
        self.store: Any = Tapped(wire)
        self.shell = BlockingShell(wire, process)
        self._async = AwaitingShell(wire, process)
        self._directory = directory

    def async_shell(self) -> AwaitingShell:
        """See Opened."""
        return self._async

    def own(self, connection: Any) -> Any:
        """See Opened."""
        raise NotImplementedError

    def run_directory(self) -> str | None:
        """See Opened."""
        return self._directory

    def close(self) -> None:
        """See Opened."""


NOTED = (
    "enqueue", "claim", "recover", "settle", "report", "once", "beat", "reap", "cancel", "revive", "migrate",
    "change_schedules", "fire", "queues", "lead", "resign", "edit", "delete", "fan_out",
)  # fmt: skip
"""Operations whose answers go into the ledger; whoever adds one to the seam adds it here."""


class Tapped:
    """A store whose answers are noted as they are committed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @property
    def capabilities(self) -> frozenset[str]:
        """The store's own; simulated processes share even one in memory, which outlives each of them."""
        known: frozenset[str] = self._wire.database.store.capabilities
        return known | {"durable"}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wire.database.store, name)
        if name not in NOTED:
            return found

        def ask(*given: Any) -> Plan[Any]:
            if name == "fire" and self._wire.database.at_once:
                return self._one_by_one(found, *given)
            return self._tap(name, given, found(*given))

        setattr(self, name, ask)
        return ask

    def _one_by_one(self, fire: Callable[..., Plan[Any]], ticks: Sequence[Tick]) -> Plan[Any]:
        """Where each statement is a transaction: as many of them as one schedule ticks in it."""

        def steps() -> Any:
            answers = []
            for some in apart(ticks):
                answers += yield from self._tap("fire", (some,), fire(some))
            return answers

        return Plan(steps, "fire", write=True, hint=True)

    def _tap(self, name: str, given: Sequence[Any], plan: Plan[Any]) -> Plan[Any]:
        wire = self._wire

        def steps() -> Any:
            answer = yield from plan
            transaction = wire.running
            assert transaction is not None
            transaction.notes.append((transaction.at, transaction.read, name, tuple(given), answer))
            return answer

        return Plan(steps, plan.name, write=plan.write)

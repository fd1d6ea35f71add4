"""Between a process and the store: latency, the lock, loss.

A plan is driven one statement at a time by events of the process that asked, so that process may be stopped, or die, at
each of them. A writing transaction holds the store's lock from its begin to its end. What is answered is noted in the
ledger as it is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from windlass.core.errors import OutcomeUnknown, StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.plan import Plan
from windlass.testing.simulation.database import Connection, Database, PowerCut
from windlass.testing.simulation.ledger import Commit, Ledger
from windlass.testing.simulation.scheduler import Killed, Process, Scheduler

if TYPE_CHECKING:
    from windlass.testing.simulation.shells import Listener

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds that a plan may take unless told otherwise, as with the real shells."""
STEPWISE = 0.3
"""The share of transactions whose statements are events of their own; the others happen in one go."""


class Rates:
    """How likely each transaction is to meet a fault, and how slow the store is."""

    __slots__ = ("die_inside", "latency", "lose_answer", "lose_request", "run_late", "spread")

    def __init__(self) -> None:
        self.heal()

    def heal(self) -> None:
        """No faults."""
        self.lose_request = 0.0
        self.lose_answer = 0.0
        self.run_late = 0.0
        """Its caller gives up, and then it is done all the same."""
        self.die_inside = 0.0
        """A process is killed at one of the statements of its transaction, or between its commit and its answer."""
        self.latency = 0.0005
        self.spread = 0.002


class Transaction:
    """One plan on its way."""

    __slots__ = (
        "answer", "at", "connection", "deadline", "dies", "done", "error", "notes", "plan", "process", "read", "steps",
        "stepwise", "tell", "told",
    )  # fmt: skip

    def __init__(self, process: Process, plan: Plan[Any], deadline: float, tell: Callable[[Transaction], None]) -> None:
        self.process = process
        self.plan = plan
        self.deadline = deadline
        self.tell = tell
        self.told = False
        """Its caller has an answer, or has given up."""
        self.done = False
        self.answer: Any = None
        self.error: BaseException | None = None
        self.notes: list[tuple[int, float, str, tuple[Any, ...], Any]] = []
        self.at = 0
        """The store's clock when it was last read."""
        self.read = 0.0
        """When that was, in virtual seconds."""
        self.connection: Connection | None = None
        self.steps: Any = None
        self.stepwise = False
        self.dies = False


class Wire:
    """All transactions of one world."""

    def __init__(self, scheduler: Scheduler, ledger: Ledger, clock: Callable[[], int]) -> None:
        self._scheduler = scheduler
        self._dice = scheduler.dice
        self._ledger = ledger
        self._clock = clock
        self._holder: Transaction | None = None
        self._waiting: list[Transaction] = []
        self._open: dict[Process, list[Transaction]] = {}
        self._network = Process(scheduler, "network", -1)
        self.remote = True
        """The store is a server, which does not notice at once that a client has died."""
        self.database: Database
        self.rates = Rates()
        self.frozen_until = 0.0
        """The store answers nobody before."""
        self.running: Transaction | None = None
        self.commits = 0
        self.changes = 0
        """Commits that changed something, which is what a poller sees."""
        self.listeners: list[Listener] = []
        self.powered = True
        self.murder: Callable[[Process], object] = Process.kill
        """Ends a process."""
        self.cut_power: Callable[[], object] = lambda: None
        """Called when the power goes in the middle of a commit, of which nobody knows whether it will be there."""
        self.doubtful: Transaction | None = None

    @property
    def busy(self) -> bool:
        """Whether a transaction holds the lock."""
        return self._holder is not None

    # --- asking ------------------------------------------------------------------------------------------------------

    def submit(
        self, process: Process, plan: Plan[Any], timeout: float | None, tell: Callable[[Transaction], None]
    ) -> Transaction:
        """Send a plan; `tell` is called once, with the transaction, when the caller has its answer."""
        wait = TIMEOUT if timeout is None else timeout
        transaction = Transaction(process, plan, self._scheduler.now + wait, tell)
        if process not in self._open:
            self._open[process] = []
            process.on_death.append(lambda: self._died(process))
        if process.cut_off:
            self._ledger.delivered["calls of a process that was cut off"] += 1
            error = StoreTimeout if self._dice.random() < 0.5 else StoreUnavailable
            self._fail(transaction, error("cut off"), self._dice.random() * wait * self._dice.choice((0.01, 0.2, 1.0)))
            return transaction
        self._open[process].append(transaction)
        transaction.stepwise = self._dice.random() < STEPWISE
        transaction.dies = self._dice.random() < self.rates.die_inside
        delay = self.rates.latency + self._dice.random() * self.rates.spread
        chance = self._dice.random()
        rates = self.rates
        if chance < rates.lose_request:
            self._ledger.fault(self._scheduler.now, process.name, "request lost", plan.name)
            self._open[process].remove(transaction)
            self._fail(transaction, self._some_error(), self._dice.random() * wait)
        elif chance < rates.lose_request + rates.run_late:
            self._ledger.fault(self._scheduler.now, process.name, "answer late", plan.name)
            self._fail(transaction, self._vague_error(), self._dice.random() * wait)
            self._send_late(transaction, wait * self._dice.choice((0.2, 1.0, 2.5)) * self._dice.random())
        else:
            process.after(delay, self._arrive, transaction)
            self._scheduler.at(transaction.deadline, self._give_up, transaction, process=process)
        return transaction

    def _send_late(self, transaction: Transaction, delay: float) -> None:
        """Its caller gives up; it is done all the same, later. What is on its way to a server is done even after the
        death of who sent it, and may be a ghost's then."""
        process = transaction.process
        if self.remote and "settle" in transaction.plan.name and self._dice.random() < 0.4:
            process.after(self._dice.random(), self.murder, process)
        if self.remote:
            self._open[process].remove(transaction)
            process = self._network
            transaction = Transaction(process, transaction.plan, transaction.deadline, lambda _: None)
            transaction.told = True
        self._scheduler.at(self._scheduler.now + delay, self._arrive, transaction, process=process)

    def run(self, process: Process, plan: Plan[T], timeout: float | None) -> T:
        """Run a plan for a blocking caller. Raises Killed if the process is no more when it would return."""
        if self._plain(process) and self._dice.random() > STEPWISE:
            transaction = Transaction(process, plan, self._scheduler.now + TIMEOUT, lambda _: None)
            self._begin(transaction)
        else:
            transaction = self.submit(process, plan, timeout, lambda _: None)
            self._scheduler.wait(process, lambda: transaction.told)
        if transaction.error is not None:
            raise transaction.error
        return transaction.answer  # type: ignore[no-any-return]

    def _plain(self, process: Process) -> bool:
        """Whether nothing can happen to a transaction that happens in one go."""
        if self._holder is not None or process.cut_off or not self.powered:
            return False
        rates = self.rates
        return self.frozen_until <= self._scheduler.now and not (
            rates.lose_request or rates.lose_answer or rates.run_late or rates.die_inside or rates.spread > 0.01
        )

    # --- the way of a transaction ------------------------------------------------------------------------------------

    def _arrive(self, transaction: Transaction) -> None:
        now = self._scheduler.now
        if now < self.frozen_until:
            if self._dice.random() < 0.5 or self.frozen_until < transaction.deadline:
                delay = self.frozen_until - now + self._dice.random() * 0.01
                transaction.process.after(delay, self._arrive, transaction)
            return
        if transaction.told and transaction.process is not self._network and self._dice.random() < 0.3:
            self._forget(transaction)  # its caller had given up, and so had the library
            return
        if self._holder is not None and (transaction.plan.write or self.database.readers_wait):
            self._waiting.append(transaction)
            return
        self._begin(transaction)

    def _begin(self, transaction: Transaction) -> None:
        plan = transaction.plan
        if plan.write or self.database.readers_wait:
            self._holder = transaction
        transaction.connection = self.database.connect(transaction.process)
        try:
            transaction.connection.begin(write=plan.write)
        except BaseException as error:
            self._end(transaction, error)
            return
        transaction.steps = iter(plan)
        transaction.at, transaction.read = self._clock(), self._scheduler.now
        self._advance(transaction, None)

    def _advance(self, transaction: Transaction, rows: Any) -> None:
        """Feed rows until the plan returns, or for one statement only."""
        before, self.running = self.running, transaction
        try:
            connection = transaction.connection
            assert connection is not None
            while True:
                wanted = transaction.steps.send(rows)
                if transaction.dies and self._dice.random() < 0.3:
                    self._scheduler.at(self._scheduler.now, self.murder, transaction.process)
                    return
                if transaction.stepwise:
                    delay = self.rates.latency * self._dice.random() + self._dice.random() * self.rates.spread
                    transaction.process.after(delay, self._statement, transaction, wanted)
                    return
                rows = self._execute(transaction, connection, wanted)
        except StopIteration as end:
            transaction.answer = end.value
        except Killed:
            raise
        except BaseException as error:
            self._end(transaction, error)
            return
        finally:
            self.running = before
        self._commit(transaction)

    def _execute(self, transaction: Transaction, connection: Connection, statement: Any) -> Any:
        rows = connection.execute(statement)
        if statement.name == "now":
            transaction.at, transaction.read = rows[0][0], self._scheduler.now
        return rows

    def _statement(self, transaction: Transaction, wanted: Any) -> None:
        if transaction.done:
            return
        assert transaction.connection is not None
        try:
            rows = self._execute(transaction, transaction.connection, wanted)
        except BaseException as error:
            self._end(transaction, error)
            return
        self._advance(transaction, rows)

    def _commit(self, transaction: Transaction) -> None:
        assert transaction.connection is not None
        try:
            self.changes += transaction.connection.commit()
        except PowerCut:
            self.doubtful = transaction
            self.cut_power()
            return
        except BaseException as error:
            self._end(transaction, error)
            return
        self.committed(transaction)
        self._end(transaction, None)

    def committed(self, transaction: Transaction) -> None:
        """Note what it did."""
        self.commits += transaction.plan.write
        for at, read, operation, given, answer in transaction.notes:
            name = transaction.process.name
            self._ledger.commit(Commit(at, read, self._scheduler.now, name, operation, given, answer))

    def _end(self, transaction: Transaction, error: BaseException | None) -> None:
        transaction.done = True
        if transaction.dies and error is None:
            self._ledger.delivered["death between commit and answer"] += 1
            self._scheduler.at(self._scheduler.now, self.murder, transaction.process)
        if error is not None and transaction.connection is not None:
            transaction.connection.rollback()
        if transaction.steps is not None:
            transaction.steps.close()
        self._forget(transaction)
        if transaction.told:
            return
        if error is None and self._dice.random() < self.rates.lose_answer:
            self._ledger.fault(self._scheduler.now, transaction.process.name, "answer lost", transaction.plan.name)
            error = self._vague_error()
        transaction.error = error
        self._tell(transaction)

    def _forget(self, transaction: Transaction) -> None:
        """It is out of the way."""
        if transaction in self._open.get(transaction.process, ()):
            self._open[transaction.process].remove(transaction)
        if transaction in self._waiting:
            self._waiting.remove(transaction)
        if self._holder is transaction:
            self._holder = None
            self._pass_on()

    def _follow(self, transaction: Transaction) -> None:
        if self._holder is not transaction:
            return  # it died meanwhile
        self._holder = None
        if transaction.process.paused:
            transaction.process.after(0.0, self._arrive, transaction)
            self._pass_on()
        else:
            self._begin(transaction)

    def _pass_on(self) -> None:
        if self._waiting and self._holder is None:
            # SQLite's lock is not fair, and no more is this one; nobody may come in between.
            following = self._waiting.pop(self._dice.randrange(len(self._waiting)))
            self._holder = following
            self._scheduler.at(self._scheduler.now, self._follow, following)

    # --- answers -----------------------------------------------------------------------------------------------------

    def _tell(self, transaction: Transaction) -> None:
        if not transaction.told:
            transaction.told = True
            transaction.tell(transaction)

    def _fail(self, transaction: Transaction, error: StoreError, delay: float) -> None:
        def fail() -> None:
            if not transaction.told:
                transaction.error = error
                self._tell(transaction)

        transaction.process.after(delay, fail)

    def _give_up(self, transaction: Transaction) -> None:
        """The deadline. What the store has begun it finishes; what has not begun may or may not be done later."""
        if transaction.told or (self._holder is transaction and transaction.steps is not None):
            return
        if transaction in self._waiting:
            self._forget(transaction)
        transaction.error = StoreTimeout("the deadline passed")
        self._tell(transaction)

    def _some_error(self) -> StoreError:
        return self._dice.choice((StoreTimeout, StoreUnavailable, OutcomeUnknown))("the request was lost")

    def _vague_error(self) -> StoreError:
        """An error after which the operation may have been done."""
        return self._dice.choice((StoreTimeout, OutcomeUnknown))("the answer was lost")

    # --- ends --------------------------------------------------------------------------------------------------------

    def _died(self, process: Process) -> None:
        """What a dead process had begun is rolled back."""
        for transaction in self._open.pop(process, []):
            if transaction.steps is not None and not transaction.done:
                self._ledger.delivered["death inside a transaction"] += 1
            transaction.done = transaction.told = True
            if transaction.connection is not None and transaction.steps is not None:
                transaction.connection.rollback()
                transaction.steps.close()
            self._forget(transaction)

    def power_off(self) -> None:
        """Every transaction is gone, and every process is about to be."""
        self.powered = False
        for transactions in self._open.values():
            for transaction in transactions:
                transaction.done = transaction.told = True
            transactions.clear()
        self._waiting.clear()
        self._holder = None

    def power_on(self, database: Database) -> None:
        """The machine is up again, with what was left."""
        self.database = database
        self.powered = True
        self.frozen_until = 0.0
        self.rates.heal()

    # --- hints -------------------------------------------------------------------------------------------------------

    def hint(self) -> None:
        """Tell every listener, most of the time."""
        for listener in self.listeners:
            if self._dice.random() < 0.8:
                listener.process.after(self._dice.random() * 0.005, listener.wake)

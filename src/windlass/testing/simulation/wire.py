"""Between a process and the store: latency, the lock, loss.

A plan is driven one statement at a time by events of the process that asked, so that process may be stopped, or die, at
each of them. A writing transaction holds the store's lock from its begin to its end; where the store is a server that
has none, transactions stand still where they meet. What is answered is noted in the ledger as it is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from windlass.core.errors import OutcomeUnknown, StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.plan import Plan
from windlass.stores.postgres.errors import Again
from windlass.testing.simulation.database import Connection, Database, NoServer, PowerCut, Waits
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
        "answer", "at", "connection", "deadline", "dies", "done", "error", "lost", "moved", "notes", "plan", "process",
        "read", "stands", "steps", "stepwise", "tell", "told",
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
        self.stands: tuple[Callable[..., None], tuple[Any, ...]] | None = None
        """What it will do when it has what another transaction has locked."""
        self.lost = False
        """The server has ended its connection once before."""
        self.moved = 0.0
        """When anything happened in it."""


class Wire:
    """All transactions of one world."""

    def __init__(self, scheduler: Scheduler, ledger: Ledger, clock: Callable[[], int]) -> None:
        self._scheduler = scheduler
        self._dice = scheduler.dice
        self._ledger = ledger
        self._clock = clock
        self._holder: Transaction | None = None
        self._waiting: list[Transaction] = []
        self._inside: list[Transaction] = []
        """Where writers do not wait for writers: those that have begun."""
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
        """Whether a transaction holds the lock, or locks."""
        return self._holder is not None or bool(self._inside)

    def is_inside(self, process: Process) -> bool:
        """Whether a process is in the middle of a transaction, where several can be."""
        return any(transaction.process is process for transaction in self._inside)

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
            assert transaction.told or not self.powered
        else:
            transaction = self.submit(process, plan, timeout, lambda _: None)
            self._scheduler.wait(process, lambda: transaction.told)
        if transaction.error is not None:
            raise transaction.error
        return transaction.answer  # type: ignore[no-any-return]

    def _plain(self, process: Process) -> bool:
        """Whether nothing can happen to a transaction that happens in one go."""
        if self.busy or process.cut_off or not self.powered:
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
        if self.database.at_once and transaction.plan.write and now > transaction.deadline:
            self._forget(transaction)  # scripts are told when it is too late to begin
            return
        if transaction.told and transaction.process is not self._network and self._dice.random() < 0.3:
            self._forget(transaction)  # its caller had given up, and so had the library
            return
        if self._holder is not None and self._alone(transaction.plan):
            self._waiting.append(transaction)
            return
        self._begin(transaction)

    def _alone(self, plan: Plan[Any]) -> bool:
        """Whether a transaction has the store to itself."""
        return self.database.readers_wait or (plan.write and self.database.writers_wait)

    def _begin(self, transaction: Transaction) -> None:
        plan = transaction.plan
        if self._alone(plan):
            self._holder = transaction
        elif not self.database.writers_wait:
            self._inside.append(transaction)
        transaction.connection = self.database.connect(transaction.process)
        try:
            transaction.connection.begin(write=plan.write)
        except BaseException as error:
            self._end(transaction, error)
            return
        transaction.steps = iter(plan)
        transaction.at, transaction.read = self._clock(), self._scheduler.now
        transaction.moved = self._scheduler.now
        self._advance(transaction, None)
        if transaction.steps is not None and not transaction.done and self.database.idle_most:
            self._look_at(transaction, transaction.steps)

    def _advance(self, transaction: Transaction, rows: Any) -> None:
        """Feed rows until the plan returns, or for one statement only."""
        before, self.running = self.running, transaction
        try:
            while True:
                wanted = transaction.steps.send(rows)
                if self.database.at_once:
                    self._commit_so_far(transaction)
                if transaction.dies and self._dice.random() < 0.3:
                    self._scheduler.at(self._scheduler.now, self.murder, transaction.process)
                    return
                if transaction.stepwise:
                    delay = self.rates.latency * self._dice.random() + self._dice.random() * self.rates.spread
                    steps = transaction.steps
                    transaction.process.after(delay, self._go_on, transaction, steps, self._statement, wanted)
                    return
                try:
                    rows = self._execute(transaction, wanted)
                except Waits:
                    self._stand(transaction, self._statement, wanted)
                    return
        except StopIteration as end:
            transaction.answer = end.value
        except (Killed, NoServer):
            raise
        except BaseException as error:
            self._fall(transaction, error)
            return
        finally:
            self.running = before
        self._commit(transaction)

    def _execute(self, transaction: Transaction, statement: Any) -> Any:
        assert transaction.connection is not None
        transaction.moved = self._scheduler.now
        rows = transaction.connection.execute(statement)
        if self.database.at_once and statement.name != "cas_put":  # which writes what was decided at an earlier time
            transaction.at, transaction.read = self._clock(), self._scheduler.now
        elif statement.name == "now":
            transaction.at, transaction.read = rows[0][0], self._scheduler.now
        return rows

    def _commit_so_far(self, transaction: Transaction) -> None:
        """What the last statement did is done, whatever becomes of the rest."""
        assert transaction.connection is not None
        self.changes += transaction.connection.commit()
        self.committed(transaction)
        transaction.notes.clear()

    def _go_on(self, transaction: Transaction, steps: Any, call: Callable[..., None], *arguments: Any) -> None:
        """Do what was to come next, unless it has ended meanwhile, or begun again."""
        if transaction.steps is steps and not transaction.done:
            call(transaction, *arguments)

    def _statement(self, transaction: Transaction, wanted: Any) -> None:
        try:
            rows = self._execute(transaction, wanted)
        except NoServer:
            raise
        except Waits:
            self._stand(transaction, self._statement, wanted)
        except BaseException as error:
            self._fall(transaction, error)
        else:
            if transaction.process.paused and not self.database.at_once:
                # It had waited for a lock: now it has it, and hears of it later.
                transaction.process.after(0.0, self._go_on, transaction, transaction.steps, self._advance, rows)
            else:
                self._advance(transaction, rows)

    def _commit(self, transaction: Transaction) -> None:
        assert transaction.connection is not None
        try:
            self.changes += transaction.connection.commit()
        except PowerCut:
            self.doubtful = transaction
            self.cut_power()
            return
        except NoServer:
            raise
        except Waits:
            self._stand(transaction, self._commit)
            return
        except BaseException as error:
            self._fall(transaction, error)
            return
        self.committed(transaction)
        self._end(transaction, None)

    def committed(self, transaction: Transaction) -> None:
        """Note what it did."""
        self.commits += transaction.plan.write
        shown = 0 if self.database.writers_wait else self._clock()
        for at, read, operation, given, answer in transaction.notes:
            name = transaction.process.name
            self._ledger.commit(Commit(at, read, self._scheduler.now, name, operation, given, answer, shown))

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

    # --- where transactions meet -------------------------------------------------------------------------------------

    def _stand(self, transaction: Transaction, call: Callable[..., None], *arguments: Any) -> None:
        """Until others have ended; or the server gives up waiting, shortly before its client does."""
        transaction.stands = (call, arguments)
        left = max(transaction.deadline - self._scheduler.now, 0.0)
        self._scheduler.at(self._scheduler.now + left, self._stand_no_longer, transaction, transaction.stands)

    def _stand_no_longer(self, transaction: Transaction, what: object) -> None:
        if transaction.stands is what and not transaction.done:
            transaction.stands = None
            self._end(transaction, StoreTimeout("others kept what it needs locked until the deadline"))

    def _move_on(self) -> None:
        """A transaction has ended: whoever stands still looks whether it was that one's end that he waited for."""
        for transaction in [each for each in self._inside if each.stands is not None]:
            assert transaction.stands is not None
            (call, arguments), transaction.stands = transaction.stands, None
            soon = self._scheduler.now + self._dice.random() * 1e-4
            self._scheduler.at(soon, self._go_on, transaction, transaction.steps, call, *arguments)

    def _fall(self, transaction: Transaction, error: BaseException) -> None:
        """What a shell does about an error: others were in the way, so begin again; or tell whoever asked."""
        if isinstance(error, Again):
            self._again(transaction, max(0.001, error.wait) * (0.5 + self._dice.random() / 2))
        else:
            self._end(transaction, error)

    def _again(self, transaction: Transaction, wait: float) -> None:
        """Nothing was applied, so the plan begins again, unless its time is up."""
        if self._scheduler.now + wait > transaction.deadline:
            self._end(transaction, StoreTimeout("others were in the way until the deadline"))
            return
        self._undo(transaction)
        transaction.notes.clear()
        transaction.process.after(wait, self._arrive, transaction)

    def _undo(self, transaction: Transaction) -> None:
        assert transaction.connection is not None
        transaction.connection.rollback()
        transaction.steps.close()
        transaction.connection = transaction.steps = transaction.stands = None
        self._inside.remove(transaction)
        self._move_on()

    def _look_at(self, transaction: Transaction, steps: Any) -> None:
        """End it where nothing has happened in it for too long: its process was stopped, and others wait."""
        if transaction.steps is not steps or transaction.done:
            return
        since = self._scheduler.now if transaction.stands is not None else transaction.moved
        if self._scheduler.now >= since + self.database.idle_most:
            self._ledger.fault(self._scheduler.now, transaction.process.name, "idle transaction ended")
            self._lose(transaction)
        else:
            self._scheduler.at(since + self.database.idle_most, self._look_at, transaction, steps)

    def lose_connections(self) -> None:
        """Of all that are inside a transaction: the server was killed, or somebody has terminated what served them."""
        for transaction in list(self._inside):
            if not transaction.done:
                self._lose(transaction)

    def _lose(self, transaction: Transaction) -> None:
        """A shell begins again if it was in no commit, once."""
        if self.database.at_once:
            self._end(transaction, OutcomeUnknown("the connection was lost"))
        elif transaction.lost:
            self._end(transaction, StoreUnavailable("the connection was lost"))
        else:
            transaction.lost = True
            self._again(transaction, 0.0)

    def _forget(self, transaction: Transaction) -> None:
        """It is out of the way."""
        if transaction in self._inside:
            self._inside.remove(transaction)
            self._move_on()
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
        if transaction in self._inside:  # its connection is closed, and so it is undone
            self._end(transaction, StoreTimeout("the server did not answer before the deadline"))
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
        self._inside.clear()
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

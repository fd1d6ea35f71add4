"""Plans inside a transaction of the caller's own."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from windlass.core.errors import StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.plan import Plan, drive
from windlass.stores.sqlite.driver import Busy, CallerDriver, Stale
from windlass.stores.sqlite.hints import HintListener
from windlass.stores.sqlite.shell import Shell
from windlass.stores.sqlite.transaction import MARK, commit, rollback

T = TypeVar("T")


class CallerShell:
    """A narrower shell on the caller's own connection: no begin it did not imply, no commit, no restart."""

    def __init__(self, shell: Shell, driver: CallerDriver) -> None:
        self._shell = shell
        self._driver = driver

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """Run `plan` under a savepoint of the caller's transaction; the caller commits.

        On a connection that commits by itself (`isolation_level=None`, `autocommit=True`) and has no transaction open,
        the savepoint is the transaction, and is committed here.
        """
        self._shell.check()
        try:
            with self._driver.as_ours(self._shell.timeout if timeout is None else timeout):
                return self._under_savepoint(plan)
        except Stale as error:
            raise StoreUnavailable(
                f"{plan.name}: the open transaction has read what another connection changed since, so it cannot write "
                "any more: roll it back, and begin the next one with BEGIN IMMEDIATE"
            ) from error
        except Busy as error:
            raise StoreTimeout(f"{plan.name}: the database is locked by another connection") from error

    def _under_savepoint(self, plan: Plan[T]) -> T:
        driver = self._driver
        opened = driver.in_transaction()
        if not opened:
            # What sqlite3 does before a caller's INSERT, and with the lock that we would need a moment later.
            driver.execute("BEGIN IMMEDIATE")
        try:
            driver.execute(f"SAVEPOINT {MARK}")
            answer = drive(iter(plan), lambda s: self._shell.execute(driver, s))
            driver.execute(f"RELEASE {MARK}")
            if not opened and driver.commits_itself():
                commit(driver)
        except BaseException:
            with suppress(StoreError, Busy):  # a full disk has ended the transaction already
                if opened:
                    driver.execute(f"ROLLBACK TO {MARK}")
                    driver.execute(f"RELEASE {MARK}")
                else:
                    rollback(driver)
            raise
        return answer

    def changed(self) -> int:
        """As the store's own shell."""
        return self._shell.changed()

    def hint(self) -> None:
        """As the store's own shell; worth sending only after the caller's commit."""
        self._shell.hint()

    def listen(self) -> HintListener:
        """As the store's own shell."""
        return self._shell.listen()

    def close(self) -> None:
        """Nothing to do: the connection is the caller's."""

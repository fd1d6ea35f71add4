"""How a transaction on one connection waits, ends, and is given up."""

from __future__ import annotations

import random
import time
from contextlib import suppress

from windlass.core.errors import OutcomeUnknown, StoreError, StoreFull, StoreTimeout, StoreUnavailable
from windlass.stores.sqlite.driver import Busy, Driver, IndexFull

MARK = "windlass_job"
"""Our savepoint."""
ENDED = "the transaction that Windlass opened was ended by somebody else; its end belongs to whoever settles the job"

RETRY_FIRST = 0.0002
RETRY_GROWTH = 1.2
RETRY_MOST = 0.001
"""SQLite's lock is not fair: whoever asks most often gets it. 0.2 to 1 ms lets a web process in between two workers
that commit back to back; SQLite's own busy handler sleeps up to 100 ms and starves it. A flush
takes 0.3 to 2 ms: growing faster, by half, an idle worker that met one slept 1 ms past its end."""


def commit(driver: Driver) -> None:
    """Commit. Where there was no room to write, nothing has happened. After any other failure the pages may be in the
    file, and a crash before they are overwritten would bring them to life."""
    try:
        driver.execute("COMMIT")
    except StoreUnavailable as error:
        if isinstance(error, StoreFull) and not isinstance(error, IndexFull):
            raise
        raise OutcomeUnknown(f"the answer to a commit was lost: {error}") from error


def rollback(driver: Driver) -> None:
    """Roll back, unless a failed statement has ended the transaction already (a full disk does)."""
    if driver.in_transaction():
        driver.execute("ROLLBACK")


def discard(driver: Driver) -> None:
    """Close it, whatever became of it."""
    with suppress(StoreError, Busy):
        driver.close()


def pause(name: str, deadline: float, wait: float) -> None:
    if time.monotonic() + wait > deadline:
        raise StoreTimeout(f"{name}: another process kept the store locked until the deadline; nothing was applied")
    time.sleep(wait * (0.5 + random.random() / 2))

"""What a test plants: fakes instead of handlers, workers that die, stores that fail. Each is used up as it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from windlass.core.errors import OutcomeUnknown, StoreError

At = Literal["before", "during", "after"]
"""When a worker is killed: its claim answered and the handler not begun; the handler under way; the handler returned
and nothing of it settled."""


class WorkerKilled(BaseException):
    """The worker that runs this handler was killed, as by SIGKILL. Raised by `Jobs.kill`; no `except Exception` of a
    handler catches it."""


class Fake:
    """What stands in for a handler: something that it returns, raises, or a function that is called."""

    def __init__(self, *, returns: Any, raises: BaseException | None, calls: Callable[..., Any] | None) -> None:
        self._returns = returns
        self._raises = raises
        self._calls = calls

    def __call__(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What the handler would have returned; of an async function, its coroutine."""
        if self._raises is not None:
            raise self._raises
        return self._returns if self._calls is None else self._calls(*args, **kwargs)


class StoreFault:
    """The next plan with this operation in it fails."""

    def __init__(self, operation: str, error: StoreError, *, applied: bool) -> None:
        self.operation = operation
        self.error = error
        self.applied = applied
        """The answer is lost, not the work."""


class Faults:
    """All that is planted and not used up yet. Read from the worker's loop and from its threads."""

    def __init__(self) -> None:
        self._fakes: dict[str, list[list[Any]]] = {}
        """Task -> [fake, times left or None] in the order planted."""
        self._crashes: list[tuple[str, At, bool]] = []
        self._store: list[StoreFault] = []
        self.seen = True
        """Whether somebody sees the worker die that dies next."""

    # --- fakes -------------------------------------------------------------------------------------------------------

    def fake(self, task: str, fake: Fake, times: int | None) -> list[Any]:
        """Plant a fake for the next `times` runs of a task; None is for good. Answers what `unfake` takes away."""
        entry = [fake, times]
        self._fakes.setdefault(task, []).append(entry)
        return entry

    def unfake(self, task: str, entry: list[Any]) -> None:
        """Take away what `fake` planted, if it is not used up."""
        self._fakes[task] = [each for each in self._fakes.get(task, []) if each is not entry]

    def next_fake(self, task: str) -> Fake | None:
        """What stands in for the run of a task that begins now."""
        for entry in self._fakes.get(task, ()):
            if entry[1] is None or entry[1] > 0:
                if entry[1] is not None:
                    entry[1] -= 1
                found: Fake = entry[0]
                return found
        return None

    # --- crashes -----------------------------------------------------------------------------------------------------

    def crash(self, task: str, at: At, times: int, *, seen: bool) -> None:
        """Plant the deaths of the next `times` workers that come to this point with a job of the task."""
        self._crashes += [(task, at, seen)] * times

    def crashes(self, task: str, at: At) -> bool:
        """Whether the worker dies at this point, with a job of this task; used up by asking."""
        for each in self._crashes:
            if each[:2] == (task, at):
                self._crashes.remove(each)
                self.seen = each[2]
                return True
        return False

    # --- the store ---------------------------------------------------------------------------------------------------

    def fail_store(self, fault: StoreFault, times: int) -> None:
        """Plant the failure of the next `times` plans with this operation."""
        self._store += [fault] * times

    @contextmanager
    def around(self, plan_name: str) -> Iterator[None]:
        """Run a plan inside this: raises what was planted for it, before it or after it."""
        operations = plan_name.split("+")
        fault = next((each for each in self._store if each.operation in operations), None)
        if fault is not None:
            self._store.remove(fault)
            if not fault.applied:
                raise fault.error
        yield
        if fault is not None:
            raise fault.error


def lost_answer(operation: str) -> OutcomeUnknown:
    """The error of a store whose answer to a commit was lost."""
    return OutcomeUnknown(f"{operation}: the answer to a commit was lost (planted by the test)")

"""The ledger: what the actors saw and what was answered to them, in order, never read from the store.

Two kinds of lines. *Deeds* are written by whoever did or saw something: a client that got an answer, a handler that
began, a machine that lost its power. *Commits* are what a store answered, in the order in which it committed, with its
own clock at that moment; they are taken from the answers on their way back, whether or not these arrive.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, NamedTuple

from windlass.core.job import NewJob


class Commit(NamedTuple):
    """One operation of a transaction that was committed."""

    at: int
    """The store's clock, in microseconds, when the operation read it."""
    read: float
    """When that was, in virtual seconds."""
    when: float
    """When it was committed, in virtual seconds."""
    who: str
    """The process that asked."""
    operation: str
    given: tuple[Any, ...]
    answer: Any
    shown: int = 0
    """The store's clock when it was committed, where others may have read it, and committed, after this one had read
    it: what they made due, this one may have been granted."""


class Deed(NamedTuple):
    """What an actor did or saw."""

    when: float
    who: str
    what: str
    facts: tuple[Any, ...]


class Ledger:
    """Append-only. Its hash is that of everything in it, so two lives with one hash were the same life."""

    def __init__(self, *, keep_text: bool = False) -> None:
        """With `keep_text`, every line is kept as text as well, for the trace of a failing seed."""
        self.lines: list[Commit | Deed] = []
        self.sent: dict[str, NewJob] = {}
        """Every job that anybody tried to enqueue."""
        self.acked: dict[str, float] = {}
        """Ids that stand for a job in an answer that reached its client, with the virtual time of it."""
        self.runs: Counter[str] = Counter()
        """How often a handler began, by job."""
        self.delivered: Counter[str] = Counter()
        """Faults that really happened."""
        self.answered: Counter[str] = Counter()
        """How often each operation was."""
        self.text: list[str] | None = [] if keep_text else None
        self._hash = hashlib.blake2b(digest_size=8)

    @property
    def hash(self) -> str:
        """Of all lines so far."""
        return self._hash.hexdigest()

    def commit(self, line: Commit) -> None:
        """The store has committed."""
        self.lines.append(line)
        self.answered[line.operation] += 1
        said = f"{line.operation} {_short(line.given)} -> {_short(line.answer)}"
        self._note(f"{line.when:10.4f} {line.who:<14} store: {said}")

    def did(self, when: float, who: str, what: str, *facts: Any) -> None:
        """Somebody did or saw something."""
        self.lines.append(Deed(when, who, what, facts))
        self._note(f"{when:10.4f} {who:<14} {what} {_short(facts)}")

    def fault(self, when: float, who: str, what: str, *facts: Any) -> None:
        """A fault was delivered."""
        self.delivered[what] += 1
        self.did(when, who, f"FAULT {what}", *facts)

    def say(self, when: float, who: str, text: str) -> None:
        """For a reader of the trace only: a line of a log."""
        if self.text is not None:
            self.text.append(f"{when:10.4f} {who:<14} log: {text}")

    def _note(self, line: str) -> None:
        self._hash.update(line.encode())
        if self.text is not None:
            self.text.append(line)


def _short(value: Any) -> str:
    """A value as one line, the same in every process."""
    text = repr(value)
    return text if len(text) <= 400 else text[:200] + "..." + hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

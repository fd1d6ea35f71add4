"""Unique jobs on the caller's own sqlite3 connection: what a policy does is committed with the caller's rows, and a
rollback leaves nothing of it, least of all a key that nobody has."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import dump, open_store, raw, url_of
from tests.public.by_hand import Hand
from windlass import DuplicateJob, Unique, Windlass

POLICIES = {
    "reject": Unique("n"),
    "return-existing": Unique("n", policy="return-existing"),
    "replace": Unique("n", policy="replace"),
    "keep-last": Unique("n", policy="keep-last"),
    "debounce": Unique("n", policy="debounce", wait="1s"),
    "throttle": Unique("n", policy="throttle", window="1h"),
}
OLD, NEW = "old", "new"
BESIDE: dict[tuple[str, bool], tuple[str, ...]] = {
    # (policy, does the owner run) -> what becomes of the new one; and of the owner, if that is not what it was
    ("reject", False): ("refused",),
    ("reject", True): ("refused",),
    ("return-existing", False): ("existing",),
    ("return-existing", True): ("existing",),
    ("throttle", False): ("existing",),
    ("throttle", True): ("existing",),
    ("replace", False): ("existing", NEW),
    ("replace", True): ("blocked", "cancelling"),
    ("keep-last", False): ("existing", NEW),
    ("keep-last", True): ("blocked",),
    ("debounce", False): ("existing", NEW),
    ("debounce", True): ("blocked",),
}

each_policy = pytest.mark.parametrize("policy", POLICIES)
each_owner = pytest.mark.parametrize("runs", [False, True], ids=["waits", "runs"])


class Desk:
    """An application beside the caller's own table, on one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        open_store("stdlib-wal", path).close()
        with raw("stdlib", path) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        self.app = Windlass(url_of("stdlib-wal", path))
        self.app.client.stats()

    def ask(self, policy: str, text: str, n: int = 1) -> Any:
        return self.app.enqueue("work", {"n": n, "text": text}, unique=POLICIES[policy])

    def owner(self, policy: str, *, runs: bool) -> Any:
        """The one that has the key."""
        job = self.ask(policy, OLD)
        if runs:
            self.app.client.revive(job.id)  # a debounce is due later
            held = Hand(self.app).claim()
            assert held is not None and held.id == job.id
        return job

    def sound(self) -> None:
        assert self.app.engine.run(self.app.opened.store.audit()) == []


@pytest.fixture
def desk(place: Path) -> Iterator[Desk]:
    found = Desk(place / "app.db")
    yield found
    found.sound()
    found.app.close()


@pytest.fixture
def connection(desk: Desk) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(desk.path)) as connection:
        yield connection


def text_of(job: Any) -> str:
    return OLD if f'"{OLD}"' in job.refresh().payload else NEW


@each_policy
def test_a_key_that_is_free(desk: Desk, connection: sqlite3.Connection, policy: str) -> None:
    """It is taken with the commit; until then nobody else sees it taken, nor gets in between."""
    before = dump("stdlib", desk.path)
    with desk.app.transaction(connection):
        connection.execute("INSERT INTO orders VALUES (1)")
        job = desk.ask(policy, NEW)
        assert job.created
        assert dump("stdlib", desk.path) == before
    connection.commit()
    assert job.state() == ("scheduled" if policy == "debounce" else "queued")
    if policy == "reject":
        with pytest.raises(DuplicateJob, match=job.id):
            desk.ask(policy, OLD)
    else:
        assert not desk.ask(policy, OLD).created


@each_policy
def test_a_rollback_leaves_the_key_free(desk: Desk, connection: sqlite3.Connection, policy: str) -> None:
    """I10: not for a moment is it anybody's who is not there."""
    before = dump("stdlib", desk.path)
    for n in range(2):
        with desk.app.transaction(connection):
            connection.execute("INSERT INTO orders VALUES (1)")
            gone = desk.ask(policy, f"{n}")
            assert gone.created
        connection.rollback()
        assert dump("stdlib", desk.path) == before
    job = desk.ask(policy, NEW)
    assert job.created and job.id != gone.id
    assert text_of(job) == NEW


@each_policy
@each_owner
def test_a_key_that_is_taken(desk: Desk, connection: sqlite3.Connection, policy: str, runs: bool) -> None:
    """The same becomes of it as elsewhere, with the commit."""
    owner = desk.owner(policy, runs=runs)
    fate, *of_owner = BESIDE[policy, runs]
    with desk.app.transaction(connection):
        connection.execute("INSERT INTO orders VALUES (1)")
        if fate == "refused":
            with pytest.raises(DuplicateJob, match=owner.id):
                desk.ask(policy, NEW)
            job = owner
        else:
            job = desk.ask(policy, NEW)
    connection.commit()
    assert (job.id == owner.id) == (fate != "blocked")
    assert job.state() == {"blocked": "blocked"}.get(fate, owner.state())
    assert owner.refresh().cancelling == ("cancelling" in of_owner)
    assert text_of(owner) == (NEW if NEW in of_owner else OLD)
    assert connection.execute("SELECT id FROM orders").fetchall() == [(1,)], "a refusal undoes nothing of the caller's"


@each_policy
@each_owner
def test_a_rollback_leaves_the_owner_as_it_was(
    desk: Desk, connection: sqlite3.Connection, policy: str, runs: bool
) -> None:
    """I10: not replaced, not followed, and not asked to stop for one that never came."""
    owner = desk.owner(policy, runs=runs)
    before = dump("stdlib", desk.path)
    with desk.app.transaction(connection):
        try:
            desk.ask(policy, NEW)
        except DuplicateJob:
            assert policy == "reject"
        connection.execute("INSERT INTO orders VALUES (1)")
    connection.rollback()
    assert dump("stdlib", desk.path) == before
    desk.app.client.delete(owner.id)
    if not runs:
        assert desk.ask(policy, NEW).created, "its key went with it"


@each_policy
def test_two_in_one_transaction(desk: Desk, connection: sqlite3.Connection, policy: str) -> None:
    """The second meets the first, which nobody else can see."""
    with desk.app.transaction(connection):
        first, other = desk.ask(policy, OLD), desk.ask(policy, OLD, n=2)
        if policy == "reject":
            with pytest.raises(DuplicateJob, match=first.id):
                desk.ask(policy, NEW)
        else:
            second = desk.ask(policy, NEW)
            assert (second.id, second.created) == (first.id, False)
        connection.execute("INSERT INTO orders VALUES (1)")
    connection.commit()
    replaces = NEW in BESIDE[policy, False]
    assert (text_of(first), text_of(other)) == (NEW if replaces else OLD, OLD)
    assert sum(desk.app.client.stats().states.values()) == 2


@each_policy
def test_a_savepoint_of_the_callers_that_is_rolled_back(
    desk: Desk, connection: sqlite3.Connection, policy: str
) -> None:
    """Only what came after it is undone, and the key is free within the same transaction."""
    connection.execute("INSERT INTO orders VALUES (1)")
    connection.execute("SAVEPOINT mine")
    with desk.app.transaction(connection):
        gone = desk.ask(policy, OLD)
        connection.execute("ROLLBACK TO mine")
        job = desk.ask(policy, NEW)
        assert job.created and job.id != gone.id
    connection.commit()
    assert text_of(job) == NEW
    assert connection.execute("SELECT id FROM orders").fetchall() == [(1,)]

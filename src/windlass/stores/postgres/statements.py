"""The statements of queries.sql as they are sent: cut up, in the store's schema, with the parameters each takes."""

from __future__ import annotations

import re
from typing import NamedTuple

from windlass.stores.named_sql import load_migrations, load_queries, split

PACKAGE = "windlass.stores.postgres"
QUIET = frozenset({"worker_beat", "workers_set_back", "lead_put", "held_insert", "ready_take", "held_flow"})
"""What these write, nobody waits for: a lease, or a job that now runs."""
DEFERRED = frozenset(
    {
        *("moves_share", "moves_alone", "schedules_alone", "endings_alone", "copies_alone", "keys_lock", "unique_lock"),
        *("owners_hold", "revival"),
        *("touch", "wait_at_most", "be_quick", "take_your_time"),
    }
)
"""Selects whose answer nobody reads."""

_PARAMETER = re.compile(r"\$(\d+)")
_WRITES = re.compile(r"\b(INSERT INTO|DELETE FROM|UPDATE \S+ (?:\w+ )?SET)\b")
_GIVEN = re.compile(r"\(\$1::jsonb\) given\b")
_BUILDS = re.compile(r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY (\w+) ON\b")
_INNER = re.compile(r"\([^()]*\)")
_VERB = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE)\b")


class Part(NamedTuple):
    """One statement as the server is sent it."""

    name: bytes
    """Under which it is prepared; empty: it is sent this once."""
    sql: bytes
    uses: tuple[int, ...]
    """Which parameters of the named statement it takes, in its order: the server refuses what it has no use for."""


class Script(NamedTuple):
    """All of a named statement, to be sent together."""

    parts: tuple[Part, ...]
    answers: bool
    """Whether somebody reads what the last one says. If not, it can wait for one that somebody does."""
    writes: bool
    """Whether it changes something that somebody may wait for."""
    gathers: bool
    """Whether it takes the rows of a batch all at once."""


def quoted(name: str) -> str:
    """A name as SQL spells it."""
    return '"' + name.replace('"', '""') + '"'


def in_schema(sql: str, schema: str) -> str:
    """`sql`, written for the schema `windlass`, in another."""
    return sql.replace("windlass.", f"{quoted(schema)}.").replace("SCHEMA windlass", f"SCHEMA {quoted(schema)}")


def load_scripts(schema: str) -> dict[str, Script]:
    """Every statement by name."""
    queries = load_queries(PACKAGE)
    found = {name: _script(name, split(in_schema(text, schema))) for name, text in queries.items()}
    found["has_namespace"] = _script("has_namespace", ["SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)"])
    return found


def migrations_of(schema: str) -> list[list[str]]:
    """The statements of every migration, in order.

    One that builds an index while everybody works (CREATE INDEX CONCURRENTLY, which can be part of no transaction) does
    nothing else: so the version alone says what is done, and what came before it is committed by then.
    """
    found = [split(in_schema(script, schema)) for script in load_migrations(PACKAGE)]
    for number, script in enumerate(found, 1):
        if len({built_by(text, schema) is None for text in script}) > 1:
            raise ValueError(f"migration {number:03d} builds an index concurrently, so it may do nothing else")
    return found


class Built(NamedTuple):
    """An index that a migration builds outside of any transaction."""

    name: str
    """As SQL spells it."""
    sql: str


def built_by(text: str, schema: str) -> Built | None:
    """What this statement of a migration builds while everybody works; None for one that belongs in a transaction."""
    found = _BUILDS.match(text)
    return None if found is None else Built(f"{quoted(schema)}.{found[1]}", text)


def valid_index(name: str) -> str:
    """SQL that says whether an index is complete; no row where there is none."""
    literal = name.replace("'", "''")
    return f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{literal}')"  # noqa: S608


def _script(name: str, texts: list[str]) -> Script:
    parts = tuple(_part(f"{name}_{n}", text) for n, text in enumerate(texts))
    answers = name not in DEFERRED and _answers(texts[-1])
    writes = name not in QUIET and any(_WRITES.search(text) for text in texts)
    return Script(parts, answers, writes, any(_GIVEN.search(text) for text in texts))


def _answers(text: str) -> bool:
    """Whether a statement has rows to tell: by what stands outside of all parentheses, as the INSERT of a WITH does."""
    while (outer := _INNER.sub("", text)) != text:
        text = outer
    verb = _VERB.search(text)
    return verb is not None and (verb[0] == "SELECT" or "RETURNING" in text)


def _part(name: str, text: str) -> Part:
    uses = sorted({int(number) for number in _PARAMETER.findall(text)})
    places = {number: place for place, number in enumerate(uses, 1)}
    sql = _PARAMETER.sub(lambda found: f"${places[int(found[1])]}", text)
    return Part(name.encode(), sql.encode(), tuple(number - 1 for number in uses))


BEGIN = Part(b"begin", b"BEGIN ISOLATION LEVEL READ COMMITTED", ())
BEGIN_READING = Part(b"begin_reading", b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())
COMMIT = Part(b"commit", b"COMMIT", ())
ROLLBACK = Part(b"rollback", b"ROLLBACK", ())
UNFLUSHED = Part(b"unflushed", b"SET LOCAL synchronous_commit = off", ())
IDLE = Part(b"idle", b"SET LOCAL idle_in_transaction_session_timeout = 0", ())
NOTIFY = Part(b"notify", b"SELECT pg_notify($1, '')", (0,))
SAVEPOINT = Part(b"savepoint", b"SAVEPOINT windlass_job", ())
RELEASE = Part(b"release", b"RELEASE SAVEPOINT windlass_job", ())
BACK = Part(b"back", b"ROLLBACK TO SAVEPOINT windlass_job", ())

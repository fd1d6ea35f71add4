"""What a server says, as the few errors that the rest knows."""

from __future__ import annotations

from windlass.core import errors


class Again(Exception):
    """Another transaction was in the way; nothing was applied, and the plan can start again, after `wait` seconds at
    the least."""

    wait = 0.0


class Anew(Again):
    """The same, but the connection remembers what is no longer so, and would be told the same each time."""


class Behind(Again):
    """Others hold a lock that must not be queued for, as everybody else would queue behind."""

    wait = 0.1


class Kept(Again):
    """Alone with all moves it came upon what a transaction of an application's keeps: who works comes first."""

    wait = 0.4


_AGAIN = {"40001", "40P01", "23505"}
"""The last: somebody wrote the same row at the same time, as when a job is sent again whose first sending, of which
nobody heard any more, is just being committed."""
_ANEW = {"0A000", "26000"}
"""A prepared statement whose tables were changed, or that a pooler has forgotten."""
_AWAY = {"25006", "53300", "53400", "55000", "57014", "57P01", "57P02", "57P03", "57P05", "25P03"}
_SCHEMA = {"42P01", "42703", "42883", "3F000"}


def translate(state: str, message: str) -> Exception:
    """The error for an SQLSTATE; the text is the server's own and names no parameter."""
    if state in _AGAIN:
        return Again(message)
    if state in _ANEW:
        return Anew(message)
    if state == "55P03":
        return errors.StoreTimeout(f"others kept what it needs locked until the deadline: {message}")
    if state == "53100":
        return errors.StoreFull(f"the server's disk is full: {message}")
    if state == "25006":
        return errors.StoreUnavailable(f"the server only reads, as a standby does: {message}")
    if state in _AWAY or state[:2] in {"08", "53", "58"}:
        return errors.StoreUnavailable(f"the server cannot be used: {message}")
    if state in _SCHEMA:
        return errors.SchemaError(
            "the store has no schema yet (`windlass store migrate` makes it), or one that is not what this Windlass "
            f"makes (`windlass store doctor` says so): {message}"
        )
    if state == "42501":
        return errors.StoreError(f"{message} ({state}): the login lacks a right, see `windlass store roles`")
    if state[:2] == "XX":
        return errors.StoreCorrupt(f"the server reports damage: {message}")
    return errors.StoreError(f"{message} ({state})")

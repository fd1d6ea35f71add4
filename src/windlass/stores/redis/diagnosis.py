"""What can be read off a Redis store: the server, its memory, its settings, and what "enqueued" survives there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import redis

from windlass.core.errors import StoreError
from windlass.core.health import Reading
from windlass.stores.pool import Late, Lost
from windlass.stores.redis.connection import Durability, problem_of, server_facts, setting
from windlass.stores.redis.store import SCHEMA

if TYPE_CHECKING:
    from windlass.stores.redis import OpenedRedis

FULL, NEARLY = 0.95, 0.8
"""Shares of maxmemory from which on enqueues are about to be refused, and somebody should think about it."""
CLOCK_FAR = 2_000_000
"""Microseconds between the server's clock and ours."""
ASKED = ("appendfsync", "save")


def diagnose(opened: OpenedRedis) -> Iterator[Reading]:
    """Read everything that needs no knowledge of jobs."""
    deadline = time.monotonic() + opened.shell.timeout
    try:
        with opened.shell.pool.borrowed(deadline) as wire:
            facts = server_facts(wire, deadline)
            settings = {name: value for name in ASKED if (value := setting(wire, name, deadline)) is not None}
            ahead = wire.ahead - round((time.time() - time.monotonic()) * 1e6)
        version = opened.shell.run(opened.store.version())
    except (StoreError, Late, Lost, redis.exceptions.ResponseError) as error:
        yield Reading("server", False, "bad", str(error) or "it did not answer in time")
        return
    name = "Valkey" if facts.get("server_name") == "valkey" else "Redis"
    shown = facts.get("valkey_version") or facts.get("redis_version", "unknown")
    yield Reading("server", f"{name} {shown}", "bad" if (problem := problem_of(facts)) else "ok", problem)
    yield from _memory(facts)
    yield _durability(opened.shell.durability, facts, settings)
    yield _replicas(facts)
    if abs(ahead) > CLOCK_FAR:
        yield Reading("clock", ahead / 1e6, "warning", "seconds that the server's clock is ahead of this machine's")
    if version == 0:
        yield Reading("schema", 0, "bad", "there is no store here yet; `windlass store migrate` makes it")
    elif version > SCHEMA:
        yield Reading("schema", version, "bad", "is newer than this version of Windlass knows")
    else:
        yield Reading("schema", version)


def _memory(facts: dict[str, str]) -> Iterator[Reading]:
    used, most = int(facts.get("used_memory", "0")), int(facts.get("maxmemory", "0"))
    if not most:
        yield Reading("memory", used, "warning", "bytes, and no maxmemory: a backlog may take all that the machine has")
        return
    share = used / most
    verdict = "bad" if share > FULL else "warning" if share > NEARLY else "ok"
    note = f"of {most} bytes; when it is full, enqueues are refused, and what is there is worked off"
    yield Reading("memory", used, verdict, note)  # type: ignore[arg-type]


def _durability(durability: Durability, facts: dict[str, str], settings: dict[str, str]) -> Reading:
    """What an acknowledged enqueue survives."""
    logged = facts.get("aof_enabled") == "1"
    if durability is Durability.DISK:
        if logged:
            return Reading("durability", durability.value, "ok", "survives a crash of the server and of its machine")
        return Reading("durability", durability.value, "bad", "needs appendonly yes, which is off")
    if durability is Durability.REPLICA:
        return Reading("durability", durability.value, "ok", "survives the loss of the server, if a replica becomes it")
    if not logged:
        saved = settings.get("save", "unknown")
        lost = "everything" if saved == "" else "everything since its last snapshot"
        note = f"a crash of the server loses {lost}: appendonly is off; set it to yes"
        return Reading("durability", durability.value, "warning", note)
    sync = settings.get("appendfsync", "unknown")
    survives = {
        "always": "survives a crash of the server and of its machine",
        "everysec": "a crash may take the last second or two: a write waits for a busy disk, its answer does not",
        "no": "survives a crash of the server's process; one of its machine may take half a minute",
    }
    return Reading("durability", f"{durability}, appendfsync {sync}", "ok", survives.get(sync, "as the server says"))


def _replicas(facts: dict[str, str]) -> Reading:
    role, count = facts.get("role", "unknown"), int(facts.get("connected_slaves", "0"))
    if role not in ("master", "unknown"):
        return Reading("role", role, "bad", "a replica takes no jobs: name the primary, or its sentinels")
    return Reading("replicas", count, "ok", "" if count else "a failover would have nowhere to go")

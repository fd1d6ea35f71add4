"""How a server is reached: at its address, through a socket, by its sentinels, or as the right node of a cluster."""

from __future__ import annotations

import time
from contextlib import suppress
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import redis
from redis.connection import parse_url

from windlass.core.errors import ConfigError, StoreError, StoreUnavailable
from windlass.stores.pool import Late, Lost
from windlass.stores.redis.wire import Wire, packed


class Durability(StrEnum):
    """What an acknowledged write survives."""

    SERVER = "server"
    """What its own settings say: with `appendfsync everysec`, all but the last second or two before a crash."""
    DISK = "disk"
    """A crash of the server: it is in the append-only file, on disk."""
    REPLICA = "replica"
    """The loss of the server: at least one replica has it."""


OURS = ("prefix", "pool", "tags", "durability")
WAITAOF = (7, 2)
"""The first Redis that says when something is on disk."""
OLDEST = 7
"""The first Redis whose scripts say what they may do when memory is full, and that publishes where a key lies."""


class Connector:
    """Makes connections to wherever the store's keys are now."""

    def __init__(self, url: str, durability: Durability) -> None:
        """Raises ConfigError for a URL that says nothing of the kind."""
        self._options = _options(url)
        self._durability = durability

    def connect(self, deadline: float) -> Wire:
        """A new connection. Raises StoreUnavailable, Late, and StoreError for a server on which jobs would be lost."""
        return self._greet(self._connect(self._options, deadline), deadline)

    def _connect(self, options: dict[str, Any], deadline: float) -> Wire:
        left = max(0.001, deadline - time.monotonic())
        made = dict(options)
        kind = made.pop("connection_class")
        connection = kind(**made, socket_timeout=max(left, 1.0), socket_connect_timeout=left, retry=None)
        try:
            connection.connect()
        except redis.exceptions.TimeoutError:
            raise Late from None
        except redis.exceptions.AuthenticationError as error:
            raise StoreUnavailable(f"the server does not let us in: {error}") from None
        except redis.exceptions.ResponseError as error:
            raise StoreUnavailable(f"the server refuses the connection: {error}") from None
        except (redis.exceptions.ConnectionError, OSError) as error:
            raise StoreUnavailable(f"the server cannot be reached: {error}") from None
        return Wire(connection)

    def _greet(self, wire: Wire, deadline: float) -> Wire:
        """Whoever is to keep jobs is asked for its clock, and whether it can."""
        try:
            wire.set_clock(deadline)
            facts = server_facts(wire, deadline)
        except redis.exceptions.ResponseError as error:
            wire.close()
            raise StoreUnavailable(f"the server cannot be used: {error}") from None
        except Lost as error:
            raise StoreUnavailable(f"the server cannot be used: {error}") from None
        if problem := problem_of(facts) or self._problem_of_disk(wire, facts, deadline):
            wire.close()
            raise StoreError(problem)
        return wire


    def _problem_of_disk(self, wire: Wire, facts: dict[str, str], deadline: float) -> str:
        """Why nobody can be told there that something is on disk."""
        if self._durability is not Durability.DISK or not facts:
            return ""
        if facts.get("aof_enabled") != "1":
            return "url: durability=disk: the server keeps no file of its writes (appendonly no)"
        major, minor = (int(each) for each in facts["redis_version"].split(".")[:2])
        if (major, minor) >= WAITAOF:
            return ""
        # It answers after it has written, and written through.
        wire.confirmed = setting(wire, "appendfsync", deadline) == "always"
        if wire.confirmed:
            return ""
        return "url: durability=disk: before Redis 7.2 that takes appendfsync always"


class SentinelConnector(Connector):
    """By the name under which sentinels know the primary: whoever is it now."""

    def __init__(self, url: str, durability: Durability) -> None:
        scheme, _, rest = url.partition("://")
        authority, _, path = rest.partition("?")[0].partition("/")
        credentials, at, hosts = authority.rpartition("@")
        self._service, _, database = path.partition("/")
        if not self._service:
            raise ConfigError("url: redis+sentinel://host1:26379,host2:26379/NAME must name the primary: /NAME")
        query = url.partition("?")[2]
        self._sentinels = [_host(each, 26379) for each in hosts.split(",") if each]
        if not self._sentinels:
            raise ConfigError("url: redis+sentinel:// must name at least one sentinel: host:26379")
        plain = "rediss" if scheme.startswith("rediss") else "redis"
        super().__init__(f"{plain}://{credentials}{at}localhost/{database}{query and '?' + query}", durability)
        self._asked = {
            name: value for name, value in self._options.items() if name.startswith("ssl") or name == "connection_class"
        }

    def connect(self, deadline: float) -> Wire:
        """See Connector."""
        problems = []
        for host, port in self._sentinels:
            try:
                found = self._ask(host, port, deadline)
            except (StoreUnavailable, Lost, Late) as error:
                problems.append(f"{host}:{port}: {str(error) or 'no answer'}")
                continue
            if found is None:
                problems.append(f"{host}:{port} knows no primary called {self._service!r}")
                continue
            # Whoever answers first is asked first the next time.
            self._sentinels.sort(key=lambda each: each != (host, port))
            at = {"host": found[0], "port": found[1]}
            return self._greet(self._connect(self._options | at, deadline), deadline)
        raise StoreUnavailable(f"no sentinel names the primary: {'; '.join(problems)}")

    def _ask(self, host: str, port: int, deadline: float) -> tuple[str, int] | None:
        soon = min(deadline, time.monotonic() + 1.0)
        wire = self._connect(self._asked | {"host": host, "port": port, "protocol": 2}, soon)
        try:
            answer = wire.ask(packed("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service), soon)
        finally:
            wire.close()
        return None if answer is None else (answer[0].decode(), int(answer[1]))


class ClusterConnector(Connector):
    """As the node that has the store's slot. All keys of a tag lie in one."""

    def __init__(self, url: str, durability: Durability, key: bytes) -> None:
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        credentials, at, hosts = authority.rpartition("@")
        self._nodes = [_host(each, 6379) for each in hosts.partition("?")[0].split(",") if each]
        if not self._nodes:
            raise ConfigError("url: redis+cluster:// must name at least one node: host:6379")
        self._key = key
        plain = "rediss" if scheme.startswith("rediss") else "redis"
        super().__init__(f"{plain}://{credentials}{at}localhost{slash}{path}", durability)

    def connect(self, deadline: float) -> Wire:
        """See Connector."""
        problems = []
        for host, port in list(self._nodes):
            try:
                return self._at(host, port, deadline)
            except (StoreUnavailable, Late) as error:
                problems.append(f"{host}:{port}: {str(error) or 'no answer'}")
        raise StoreUnavailable(f"no node of the cluster can be used: {'; '.join(problems)}")

    def _at(self, host: str, port: int, deadline: float) -> Wire:
        """Go where one is sent, a few times."""
        for _ in range(4):
            wire = self._connect(self._options | {"host": host, "port": port}, deadline)
            try:
                wire.ask(packed("HEXISTS", self._key, "schema"), deadline)
            except redis.exceptions.ResponseError as error:
                wire.close()
                if not isinstance(error, redis.exceptions.AskError):  # which a MovedError is, too
                    raise StoreUnavailable(f"the node cannot be used: {error}") from None
                host, port = error.host or host, error.port  # a node may not know its own name
            except Lost as error:
                raise StoreUnavailable(str(error)) from None
            else:
                if (host, port) not in self._nodes:
                    self._nodes.append((host, port))
                self._nodes.sort(key=lambda each: each != (host, port))
                return self._greet(wire, deadline)
        raise StoreUnavailable("the nodes of the cluster send us from one to the other")


def server_facts(wire: Wire, deadline: float) -> dict[str, str]:
    """What the server says of itself. Managed servers, which refuse CONFIG, say that much; nothing where even this is
    refused."""
    try:
        said = wire.ask(packed("INFO", "server", "memory", "persistence", "replication"), deadline)
    except redis.exceptions.NoPermissionError:
        return {}
    return dict(line.split(":", 1) for line in said.decode().splitlines() if ":" in line)


def setting(wire: Wire, name: str, deadline: float) -> str | None:
    """Of the server; None where it, as managed ones do, keeps its settings to itself."""
    try:
        answer = wire.ask(packed("CONFIG", "GET", name), deadline)
    except redis.exceptions.ResponseError:
        return None
    return answer[1].decode() if answer else None


def problem_of(facts: dict[str, str]) -> str:
    """Why jobs cannot be kept there; empty if they can."""
    version = facts.get("redis_version", "7.0")
    if int(version.partition(".")[0]) < OLDEST:
        return f"the server is Redis {version}; it must be Redis 7.0 or Valkey 8, or later"
    if (policy := facts.get("maxmemory_policy", "noeviction")).startswith("allkeys-"):
        return (
            f"the server evicts what it likes when its memory is full (maxmemory-policy {policy}), jobs among it: set "
            "maxmemory-policy to noeviction, or use another server for jobs"
        )
    return ""


def _host(text: str, port: int) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if not colon:
        return text, port
    return host.strip("[]"), int(number) if number.isdecimal() else port


def _options(url: str) -> dict[str, Any]:
    """As redis-py wants them, without those that are ours."""
    base, _, query = url.partition("?")
    rest = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name not in OURS]
    with suppress(ValueError):
        text = base + (f"?{urlencode(rest)}" if rest else "")
        options: dict[str, Any] = parse_url(text)  # type: ignore[no-untyped-call]
        known: dict[str, Any] = {"connection_class": redis.Connection, "host": "localhost"}
        known |= {"protocol": 2, "client_name": "windlass"}
        if options.get("connection_class") is redis.UnixDomainSocketConnection:
            known.pop("host")
            options["path"] = unquote(options["path"])
        return known | options
    raise ConfigError("url: it cannot be read as redis://user:password@host:6379/0, with what is special in it encoded")

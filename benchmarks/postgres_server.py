"""A PostgreSQL of the benchmarks' own, with stock settings: everything is flushed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers import run as peers

PORT = os.environ.get("PEERS_PG_PORT", "5440")


def url_of(database: str) -> str:
    """Of a database of that server."""
    return f"postgresql://bench@127.0.0.1:{PORT}/{database}"


@contextmanager
def postgres_server() -> Iterator[None]:
    """Started by peers/servers.sh, which needs the system's PostgreSQL and root, and ended after the block."""
    os.chmod(peers.HOME, 0o755)
    script = os.path.join(peers.HERE, "servers.sh")
    subprocess.run([script, "start", "postgres"], check=True, stdout=sys.stderr)
    try:
        yield
    finally:
        subprocess.run([script, "stop", "postgres"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def within(database: str) -> Iterator[None]:
    """What is called or started in this block works in that database, which is made if it is not there."""
    import psycopg

    with psycopg.connect(url_of("postgres"), autocommit=True) as admin:
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
            admin.execute(f'CREATE DATABASE "{database}"')
    before = os.environ.get("PEERS_PG_DB")
    os.environ["PEERS_PG_DB"] = database
    try:
        yield
    finally:
        if before is None:
            del os.environ["PEERS_PG_DB"]
        else:
            os.environ["PEERS_PG_DB"] = before

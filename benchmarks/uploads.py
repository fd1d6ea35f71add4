"""1,000 requests that each enqueue a job, sent to `windlass serve` within one second: is every one acknowledged?"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import report, stores
from benchmarks.peers import run as peers
from benchmarks.report import Figure

REQUESTS = 1_000
CONNECTIONS = 50
BODY = json.dumps({"task": "noop"}).encode()


def measure(rounds: int, quick: bool) -> list[Figure]:
    """Two workers run the jobs meanwhile. Acknowledged is a 202 whose job is in the store afterwards."""
    peers.call("windlass", "sqlite", "reset")
    lost: list[float] = []
    last: list[float] = []
    waits: list[list[float]] = []
    worker = peers.Worker("windlass", "sqlite")
    try:
        with server() as (host, port):
            time.sleep(2)
            for number in range(rounds):
                answers = asyncio.run(send(host, port))
                stored = _stored()
                lost.append(REQUESTS - sum(job in stored for job, _, _ in answers))
                last.append(max(answered for _, _, answered in answers))
                waits.append([(answered - sent) * 1e3 for _, sent, answered in answers])
                report.say(f"round {number + 1}: {lost[-1]:.0f} lost, the last answer after {last[-1]:.2f} s")
                time.sleep(0.5)
    finally:
        worker.stop()
    return [
        Figure("1,000 uploads in a second: not acknowledged", lost, "", 0, digits=0),
        Figure("1,000 uploads in a second: last acknowledged after", last, "s"),
        Figure("1,000 uploads in a second: p99 of an answer", [peers.pct(each, 0.99) for each in waits], "ms", digits=1),
    ]


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """`windlass serve` on a free port of the loopback interface."""
    argv = [peers.py("windlass"), "-m", "windlass", "serve", "p_windlass:app", "--port", "0", "--json"]
    process = subprocess.Popen(
        argv, env=peers.env("sqlite"), cwd=peers.HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"//([\d.]+):(\d+)", process.stdout.readline())
        if found is None:
            raise SystemExit("windlass serve did not say where it listens")
        yield found[1], int(found[2])
    finally:
        process.terminate()
        process.communicate()


async def send(host: str, port: int) -> list[tuple[str, float, float]]:
    """(job id or "", when sent, when answered) per request: one every millisecond, over kept connections."""
    began = time.perf_counter()
    answers: list[tuple[str, float, float]] = []

    async def one(first: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for number in range(first, REQUESTS, CONNECTIONS):
            await asyncio.sleep(max(0.0, number / REQUESTS - (time.perf_counter() - began)))
            # from when it should have been sent: a slow answer must not excuse the next request of its connection
            due = number / REQUESTS
            writer.write(
                b"POST /api/v1/jobs HTTP/1.1\r\nhost: %b:%d\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (host.encode(), port, len(BODY), BODY)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            accepted = head.startswith(b"HTTP/1.1 202")
            answers.append((json.loads(body)["id"] if accepted else "", due, time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(one(first) for first in range(CONNECTIONS)))
    return answers


def _stored() -> set[str]:
    connection = sqlite3.connect(stores.STORE)
    found = {row[0] for row in connection.execute("SELECT id FROM windlass_jobs")}
    connection.close()
    return found


if __name__ == "__main__":
    report.main(measure, __doc__)

"""Who begins a request and does not finish it is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from windlass.web import connection

ANSWER = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]},
    {"type": "http.response.body", "body": b"ok"},
]


class Slow:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.set()
        await self.go.wait()
        for part in ANSWER:
            await send(part)


Story = Callable[[Slow, asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def play(story: Story) -> None:
    async def main() -> None:
        slow = Slow()
        kind: Any = connection.protocol()
        config = uvicorn.Config(slow, log_config=None, lifespan="off", http=kind)
        config.load()
        make = lambda: kind(config=config, server_state=ServerState(), app_state={})
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            async with asyncio.timeout(30):
                await story(slow, reader, writer)
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_half_a_request_is_waited_for_so_long_only(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(connection, "SECONDS_MOST", 0.05)

    async def story(slow: Slow, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        assert await reader.read() == b""
        assert not slow.reached.is_set()

    play(story)


def test_half_a_second_request_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SECONDS_MOST", 0.2)

    async def story(slow: Slow, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        slow.go.set()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET / HT")
        assert await reader.read() == b""

    play(story)


def test_an_answer_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bounded is how long the headers take, not how long a job is waited for."""
    monkeypatch.setattr(connection, "SECONDS_MOST", 0.05)

    async def story(slow: Slow, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await slow.reached.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading := asyncio.ensure_future(reader.readuntil(b"ok"))), 0.3)
        slow.go.set()
        assert (await reading).startswith(b"HTTP/1.1 200")

    play(story)

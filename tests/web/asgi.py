"""An HTTP client without a network: requests go straight into an ASGI application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Requests:
    """Every error that is answered must be a problem document (RFC 9457), so that is checked here, for all tests."""

    def __init__(self, web: Any) -> None:
        self._web = web

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Iterable[tuple[str, str]] = (),
        *,
        host: str | None = "localhost",
        kind: str | None = "application/json",
        chunks: AsyncIterator[bytes] | None = None,
        gone: asyncio.Event | None = None,
    ) -> Answer:
        """`body` is bytes, or a value to send as JSON; `gone` closes the connection when it is set."""
        sent = [("host", host)] if host is not None else []
        if method == "POST" and kind is not None:
            sent.append(("content-type", kind))
        path, _, query = path.partition("?")
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": query.encode(), "root_path": "", "scheme": "http", "server": ("localhost", 80),
            "client": ("127.0.0.1", 1), "asgi": {"version": "3.0"},
            "headers": [(name.lower().encode(), value.encode()) for name, value in [*sent, *headers]],
        }  # fmt: skip
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        answers: list[dict[str, Any]] = []
        body_ended = False

        async def receive() -> Any:
            nonlocal body_ended
            if chunks is not None and (chunk := await anext(chunks, None)) is not None:
                return {"type": "http.request", "body": chunk, "more_body": True}
            if not body_ended:
                body_ended = True
                return {"type": "http.request", "body": content, "more_body": False}
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            answers.append(message)

        try:
            await self._web(scope, receive, send)
        except Exception:
            if not answers:  # Starlette answers a defect, and then raises it for its server to log
                raise
        return _checked(answers)


def _checked(answers: list[dict[str, Any]]) -> Answer:
    start, *parts = answers
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    answer = Answer(start["status"], headers, b"".join(part.get("body", b"") for part in parts))
    if answer.status >= 400:
        assert headers["content-type"] == "application/problem+json", answer
        assert answer.json["status"] == answer.status
        assert answer.json["title"]
        assert answer.json["code"].replace("_", "").isalnum()
        assert answer.json["detail"]
    return answer

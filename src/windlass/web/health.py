"""Whether this process can do what it is there for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from windlass.core.errors import ConfigError, StoreError
from windlass.web.problem import RETRY_AFTER, Problem

if TYPE_CHECKING:
    from windlass import Windlass

SECONDS_MOST = 2.0


class Health:
    """`GET /healthz`."""

    def __init__(self, app: Windlass) -> None:
        self._app = app

    async def answer(self, _: Request) -> Response:
        """200 if the store answers within 2 s, else 503; also where its URL names what cannot be used."""
        try:
            async with asyncio.timeout(SECONDS_MOST):
                await self._app.aclient.queues()
        except (StoreError, ConfigError, TimeoutError) as error:
            detail = str(error) or f"the store did not answer within {SECONDS_MOST:g} s"
            raise Problem(503, "store_unavailable", detail, {"Retry-After": RETRY_AFTER}) from None
        return Response(msgspec.json.encode({"status": "ok"}), media_type="application/json")

"""A connection whose client must come to the point: what uvicorn itself would wait for without end is the rest of a
request line or of headers, and every such wait holds a descriptor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

SECONDS_MOST = 30.0
"""From the first byte of a request, or the beginning of the connection, to the end of its headers."""

if TYPE_CHECKING:
    _Protocol = asyncio.Protocol
else:
    _Protocol = object


class _Impatient(_Protocol):
    """Laid over uvicorn's protocol, of h11 or of httptools; both keep the request under way in `cycle`."""

    cycle: Any = None
    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first request is awaited from here on."""
        super().connection_made(transport)
        self._wait(transport)

    def data_received(self, data: bytes) -> None:
        """A request may be complete now, but for its body; or one may have begun behind the last."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait(cast("Any", self).transport)
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self, transport: asyncio.BaseTransport) -> None:
        if self._limit is None and not transport.is_closing():  # a byte now and then does not begin it anew
            self._limit = asyncio.get_running_loop().call_later(SECONDS_MOST, transport.close)

    def _stop_waiting(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


def protocol() -> type[asyncio.Protocol]:
    """The class of a connection, over the parser that uvicorn finds."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    return type("Connection", (_Impatient, AutoHTTPProtocol), {})

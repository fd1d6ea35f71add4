"""Who may ask while there is no authentication: programs on this machine, and pages that came from it.

A server on a loopback address is still reached by any page that the user's browser shows: by a name that its owner
points to 127.0.0.1 (DNS rebinding), or by a request across origins, which a browser sends even where it hides the
answer. The Host header betrays the first, the Origin header the second.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from windlass.web.problem import Problem, answer


class LoopbackOnly:
    """ASGI middleware: 421 for a Host that is not this machine's, 403 for an Origin that is not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        refusal = _refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await answer(refusal)(scope, receive, send)


def _refusal(scope: Scope) -> Problem | None:
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1 or not is_loopback(f"//{hosts[0]}"):
        said = ascii(hosts[0]) if hosts else "none"
        return Problem(
            421,
            "host_refused",
            f"the Host header is {said}; without authentication only loopback names are answered, for instance "
            "localhost or 127.0.0.1",
        )
    for name, value in scope["headers"]:
        if name == b"origin" and not is_loopback(value.decode("latin-1")):
            return Problem(403, "origin_refused", "without authentication pages of other origins may ask for nothing")
    return None


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine by its own name: localhost, 127.0.0.0/8 or [::1]."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

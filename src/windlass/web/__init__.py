"""The HTTP API of an application, as an ASGI application: enqueue, watch and cancel jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from windlass.web.guard import LoopbackOnly
from windlass.web.health import Health
from windlass.web.jobs import Jobs
from windlass.web.problem import HANDLERS
from windlass.web.waiter import Waiter

if TYPE_CHECKING:
    from windlass import Windlass

__all__ = ["create_asgi"]


def create_asgi(app: Windlass) -> Starlette:
    """Return an ASGI application that serves `app`'s jobs under /api/v1, and /healthz.

    There is no authentication, so it answers only requests that name a loopback host; see `web.guard`. Its
    `state.waiter` ends all waiting requests when it is stopped, which a server should do before it waits for them.
    """
    waiter = Waiter(app)
    jobs, health = Jobs(app, waiter), Health(app)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        waiter.stop()
        app.close()

    web = Starlette(
        routes=[
            Route("/api/v1/jobs", jobs.enqueue, methods=["POST"]),
            Route("/api/v1/jobs", jobs.search, methods=["GET"]),
            Route("/api/v1/jobs/{id}", jobs.show, methods=["GET"]),
            Route("/api/v1/jobs/{id}/cancel", jobs.cancel, methods=["POST"]),
            Route("/healthz", health.answer, methods=["GET"]),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    web.add_middleware(LoopbackOnly)
    web.state.waiter = waiter
    return web

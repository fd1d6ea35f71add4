"""`/api/v1/jobs`: enqueue, look, wait, cancel."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from windlass.core import document
from windlass.core.errors import InvalidJob, JobNotFound, UnknownTask
from windlass.core.job import Job, State
from windlass.core.placement import is_job_id
from windlass.ports.store import Filter
from windlass.web import body, prefer
from windlass.web.problem import Problem

if TYPE_CHECKING:
    from windlass import Windlass
    from windlass.web.waiter import Waiter

LOOK_AGAIN = "1"
"""Seconds after which a job that has not ended is worth another look."""


class JobRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /api/v1/jobs`. Durations are seconds or "30s", instants are RFC 3339 with an offset."""

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    version: int = 1
    queue: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    delay: float | str | UnsetType = UNSET
    at: datetime | UnsetType = UNSET
    expires: float | str | UnsetType = UNSET
    expires_at: datetime | UnsetType = UNSET
    timeout: float | str | UnsetType | None = UNSET
    max_attempts: int | UnsetType = UNSET
    idempotency_key: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET
    result_ttl: float | str | UnsetType = UNSET
    partition_key: str | UnsetType = UNSET

    def options(self) -> dict[str, Any]:
        """What was given of JobOptions."""
        given = {name: getattr(self, name) for name in self.__struct_fields__[4:]}
        given = {name: value for name, value in given.items() if value is not UNSET}
        if "expires_at" in given:
            if "expires" in given:
                raise InvalidJob("expires_at", "cannot be given together with expires")
            given["expires"] = given.pop("expires_at")
        return given


_request = msgspec.json.Decoder(JobRequest)


class Jobs:
    """The endpoints, over one application."""

    def __init__(self, app: Windlass, waiter: Waiter) -> None:
        self._app = app
        self._waiter = waiter

    async def enqueue(self, request: Request) -> Response:
        """POST: 202 once the job is committed, with its address. The same idempotency key answers the same job."""
        asked = await body.read(request, _request)
        options = asked.options()
        _take_key(request, options)
        if self._app.tasks and asked.task not in self._app.tasks:
            raise UnknownTask(f"there is no task {asked.task!r} in this application")
        task = self._app.asked(asked.task, asked.version, options)
        new = task.new_job(tuple(asked.args), asked.kwargs, None)
        (job,) = await self._app.engine.asubmit((new,))
        if job.full is not None:
            state = State.CANCELLED  # its queue sheds
        elif job.inserted:
            later = new.after > 0 or (new.at or 0) > time.time_ns() // 1_000
            state = State.SCHEDULED if later else State.QUEUED
        else:
            state = (await self._app.aclient.fetch(job.id)).state
        address = f"{request.scope.get('root_path', '')}/api/v1/jobs/{job.id}"
        return _json({"id": job.id, "state": state}, 202, Location=address, **{"Retry-After": LOOK_AGAIN})

    async def show(self, request: Request) -> Response:
        """GET one: its state, progress, result or error; with `Prefer: wait=N` once it has ended, or after N s."""
        job = await self._job(request)
        patience = prefer.wait(request.headers.getlist("prefer"))
        if patience and not job.state.terminal:
            job = await self._wait(request, job, patience)
        applied = {} if patience is None else {"Preference-Applied": f"wait={patience}"}
        if job.result_expired:
            gone = "the job completed; its result was kept for its time to live only"
            raise Problem(410, "result_expired", gone, applied, id=job.id, state=job.state.value)
        if not job.state.terminal:
            applied["Retry-After"] = LOOK_AGAIN
        return _json(_shown(job), 200, **applied)

    async def search(self, request: Request) -> Response:
        """GET the list, newest first: ?state=dead&queue=mail&task=...&tag=...&limit=50&after=..."""
        query = request.query_params
        unknown = set(query) - {"state", "queue", "task", "tag", "limit", "after"}
        if unknown:
            raise Problem(400, "invalid", f"{min(unknown)}: is no parameter of this list", field=min(unknown))
        try:
            states = tuple(State(word) for word in query.getlist("state"))
        except ValueError:
            raise Problem(400, "invalid", f"state: must be one of {', '.join(State)}", field="state") from None
        limit = query.get("limit", "50")
        if not (limit.isascii() and limit.isdecimal() and len(limit) <= 4 and 1 <= int(limit) <= 1_000):
            raise Problem(400, "invalid", "limit: must be a whole number, 1..1000", field="limit")
        wanted = Filter(states=states, queue=query.get("queue"), task=query.get("task"), tag=query.get("tag"))
        page = await self._app.aclient.search(wanted, limit=int(limit), after=query.get("after"))
        return _json({"jobs": [document.summary(job) for job in page.jobs], "next": page.next}, 200)

    async def cancel(self, request: Request) -> Response:
        """POST: 200 if the job is cancelled, 202 if it runs and was told, 409 if it had ended."""
        job = await self._job(request)
        found = await self._app.aclient.cancel(job.id)
        if found.missing:
            raise JobNotFound(job.id, f"job {job.id} is not in the store")
        if found.untouched:
            ended = (await self._app.aclient.fetch(job.id)).state
            raise Problem(409, "ended", f"job {job.id} is {ended}", id=job.id, state=ended.value)
        if found.asked:
            return _json({"id": job.id, "state": State.RUNNING, "cancelling": True}, 202)
        return _json({"id": job.id, "state": State.CANCELLED, "cancelling": False}, 200)

    async def _job(self, request: Request) -> Job:
        id = request.path_params["id"]
        if not is_job_id(id):  # an id is looked up in one spelling only
            raise JobNotFound(id, f"{id!a} is no job id")
        return await self._app.aclient.fetch(id)

    async def _wait(self, request: Request, job: Job, patience: int) -> Job:
        """Wait for the end of `job`, and no longer than whoever asked."""
        waiting = asyncio.ensure_future(self._waiter.ended(job.id, patience))
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            ended = waiting.result() if waiting.done() else None
        finally:
            waiting.cancel()
            leaving.cancel()
        return ended or await self._app.aclient.fetch(job.id)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _take_key(request: Request, options: dict[str, Any]) -> None:
    """The Idempotency-Key header says the same as the field; both may be given if they agree."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return
    key = key.removeprefix('"').removesuffix('"')  # a structured field is quoted, most clients are not
    if options.setdefault("idempotency_key", key) != key:
        raise InvalidJob("idempotency_key", "differs from the Idempotency-Key header")


def _shown(job: Job) -> dict[str, Any]:
    """What anybody who has the address may see: not the payload, not the trace."""
    return {**document.summary(job), "result": document.raw(job.result)}


def _json(content: Any, status: int, **headers: str) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")

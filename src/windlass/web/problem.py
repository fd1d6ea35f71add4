"""Errors as documents (RFC 9457): what was wrong, where, and whether asking again helps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from windlass.core import errors
from windlass.runtime.logs import Log

RETRY_AFTER = "1"
"""Seconds after which a store that was busy is worth asking again."""

log = Log("web")


class Problem(Exception):
    """An answer that is an error. `code` is a word that clients can rely on."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members


def answer(problem: Problem) -> Response:
    """The response that tells a problem."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        **problem.members,
    }
    return Response(
        msgspec.json.encode(document), problem.status, problem.headers, media_type="application/problem+json"
    )


def translate(error: errors.WindlassError) -> Problem:
    """What a WindlassError is in HTTP."""
    again = {"Retry-After": RETRY_AFTER}
    match error:
        case errors.PayloadTooLarge():
            return Problem(413, "payload_too_large", str(error), field=error.field)
        case errors.InvalidValue():
            return Problem(400, "invalid", str(error), field=error.field)
        case errors.UnknownTask():
            return Problem(404, "unknown_task", str(error))
        case errors.JobNotFound():
            return Problem(404, "job_not_found", str(error))
        case errors.IdempotencyConflict():
            return Problem(422, "idempotency_conflict", str(error), job=error.job_id)
        case errors.DuplicateJob():
            return Problem(409, "duplicate_job", str(error), job=error.job_id)
        case errors.QueueFull():
            wait = {"Retry-After": str(math.ceil(error.retry_after))}
            return Problem(429, "queue_full", str(error), wait, queue=error.queue)
        case errors.StoreUnavailable() | errors.OutcomeUnknown():
            log.warning("the store does not answer", problem=error)
            code = "store_full" if isinstance(error, errors.StoreFull) else "store_unavailable"
            return Problem(503, code, str(error), again)
        case _:
            # What is wrong with the store's files is for its operators, not for whoever may ask.
            log.error("a request failed", problem=error)
            return Problem(500, "internal_error", "the store cannot be used; its log says why")


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return answer(error)


async def _windlass(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.WindlassError)
    return answer(translate(error))


async def _http(_: Request, error: Exception) -> Response:
    """What Starlette itself refuses: a path that is not there, a method that is not allowed."""
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return answer(Problem(error.status_code, code, error.detail, error.headers))


async def _defect(_: Request, error: Exception) -> Response:
    log.error("a request failed", problem=repr(error))
    return answer(Problem(500, "internal_error", "this is a defect of the server; its log says more"))


HANDLERS: Mapping[Any, Any] = {
    Problem: _problem,
    errors.WindlassError: _windlass,
    HTTPException: _http,
    Exception: _defect,
}

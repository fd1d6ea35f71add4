"""Request bodies: read with a bound on size and time, decoded into types."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from windlass.core.duplicates import refuse_duplicates
from windlass.web.problem import Problem

T = TypeVar("T")

BYTES_MOST = 1024 * 1024
SECONDS_MOST = 30.0


async def read(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The request's JSON body, decoded; raises Problem 400, 408, 413 or 415."""
    _check_type(request)
    try:
        async with asyncio.timeout(SECONDS_MOST):
            content = await _content(request)
    except TimeoutError:
        raise Problem(408, "body_slow", f"the body did not arrive within {SECONDS_MOST:g} s") from None
    except ClientDisconnect:
        raise Problem(400, "body_incomplete", "the connection closed before the body was complete") from None
    try:
        asked = decoder.decode(content)
        refuse_duplicates(content)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `")
        field = path.rstrip("`").removeprefix("$").removeprefix(".") or "body"
        raise Problem(400, "invalid", f"{field}: {problem.replace('`', '')}", field=field) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Problem(400, "not_json", f"the body is not JSON that can be read: {error}", field="body") from None
    return asked


def _check_type(request: Request) -> None:
    # Insisting on JSON also keeps out what a page of another origin can send without being asked first: forms.
    kind, _, rest = request.headers.get("content-type", "").lower().partition(";")
    if kind.strip() != "application/json":
        said = ascii(kind.strip()) if kind else "missing"
        raise Problem(415, "not_json", f"the Content-Type is {said}; it must be application/json")
    charset = rest.partition("charset=")[2].strip(' "')
    if charset not in ("", "utf-8", "utf8"):
        raise Problem(415, "charset", f"the charset is {charset!a}; JSON travels as utf-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "encoded", "the body must not be compressed")


async def _content(request: Request) -> bytes:
    """The body; what is too large is refused as soon as that is known, without reading it to its end."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > BYTES_MOST:
        raise _too_large()
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > BYTES_MOST:
            raise _too_large()
    return bytes(content)


def _too_large() -> Problem:
    # The rest of the body is not read, so the connection cannot be used again.
    close = {"Connection": "close"}
    return Problem(413, "body_too_large", f"the body is over the limit of {BYTES_MOST} bytes", close)

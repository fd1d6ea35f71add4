"""A web application that takes photographs and answers at once; what takes time is a job. Run it with

    uvicorn examples.photo_app.app:web

    curl --data-binary @cat.jpg 'http://127.0.0.1:8000/photos?name=cat.jpg'     202, and the job's address
    curl http://127.0.0.1:8000/jobs/019...                                      its state and progress
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from examples.photo_app import album
from examples.photo_app.tasks import app, fetch, thumbnails
from windlass import IdempotencyConflict, JobNotFound

UPLOAD_BYTES_MAX = 20 * 2**20


def word(request: Request, name: str, default: str) -> str:
    try:
        return album.checked(request.query_params.get(name, default))
    except ValueError as error:
        raise HTTPException(422, f"{name}: {error}") from None


async def body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > UPLOAD_BYTES_MAX:
            raise HTTPException(413, f"a photo may have at most {UPLOAD_BYTES_MAX} bytes")
    return bytes(content)


async def page(request: Request) -> Response:
    return FileResponse(Path(__file__).with_name("page.html"))


async def upload(request: Request) -> Response:
    """POST /photos?name=cat.jpg, the photo as the body; or ?url=http://... `batch` and `of` group several.

    The key makes a repeated upload, after an answer that was lost on the way, the same job.
    """
    url = request.query_params.get("url", "")
    name = word(request, "name", Path(urlsplit(url).path).name or "photo")
    batch = word(request, "batch", uuid.uuid4().hex)
    try:
        of = int(request.query_params.get("of", 1))
    except ValueError:
        raise HTTPException(422, "of: must be the number of photos in the batch") from None
    if url:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise HTTPException(422, "url: must begin with http:// or https://")
        fetching = fetch.using(idempotency_key=f"fetch-{batch}-{name}")
        job_id = (await fetching.aenqueue(url, batch, name, of)).id
    else:
        content = await body(request)
        await run_in_threadpool(album.write, album.original(batch, name), content)
        shrinking = thumbnails.using(idempotency_key=f"photo-{batch}-{name}")
        job_id = (await shrinking.aenqueue(batch, name, of)).id
    return JSONResponse({"job": job_id, "batch": batch}, 202, headers={"Location": f"/jobs/{job_id}"})


async def status(request: Request) -> Response:
    """GET /jobs/{id}: where the job is, how far, and what came of it."""
    job = await app.aclient.fetch(request.path_params["id"])
    said: dict[str, Any] = {"id": job.id, "task": job.task, "state": job.state, "attempt": job.attempt}
    for name in ("progress", "result", "error"):
        text = getattr(job, name)
        said[name] = json.loads(text) if text else None
    if said["error"]:
        del said["error"]["trace"]  # for those who run the application, not for those who use it
    return JSONResponse(said)


def batches() -> list[dict[str, object]]:
    found = sorted(album.PICTURES.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [
        {
            "batch": path.name,
            "thumbnails": [album.address(picture) for picture in album.files(path / "small")],
            "sheet": album.address(album.sheet(path.name)) if album.sheet(path.name).exists() else None,
        }
        for path in found
    ]


async def gallery(request: Request) -> Response:
    """GET /gallery: the batches, the one that changed last first."""
    return JSONResponse(await run_in_threadpool(batches))


async def refused(request: Request, error: Exception) -> Response:
    """What Windlass raises on purpose has a meaning for whoever asked."""
    codes = {JobNotFound: 404, IdempotencyConflict: 409}
    status = error.status_code if isinstance(error, HTTPException) else codes[type(error)]  # type: ignore[index]
    return JSONResponse({"error": getattr(error, "detail", str(error))}, status)


@contextlib.asynccontextmanager
async def lifespan(web: Starlette) -> AsyncIterator[None]:
    yield
    app.close()


album.PICTURES.mkdir(parents=True, exist_ok=True)
web = Starlette(
    routes=[
        Route("/", page),
        Route("/photos", upload, methods=["POST"]),
        Route("/jobs/{id}", status),
        Route("/gallery", gallery),
        Mount("/pictures", StaticFiles(directory=album.PICTURES)),
    ],
    exception_handlers={HTTPException: refused, JobNotFound: refused, IdempotencyConflict: refused},
    lifespan=lifespan,
)

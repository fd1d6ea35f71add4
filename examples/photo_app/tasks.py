"""The work that an upload asks for, done outside the request. Run it with

    windlass worker examples.photo_app.tasks:app --processes 2

A job may run twice (its worker may be killed just before it says "done"), so every task here can: files are
written whole, what exists is not made again, and a job that must exist once has an idempotency key.
"""

from __future__ import annotations

import os
import urllib.request

from PIL import UnidentifiedImageError

from examples.photo_app import album
from windlass import Backoff, Context, Windlass

app = Windlass()  # WINDLASS_URL, else sqlite:///windlass.db

ORIGINALS_KEPT = os.environ.get("PHOTO_APP_ORIGINALS_KEPT", "10m")
FETCH_BYTES_MAX = 20 * 2**20


@app.task(queue="photos", timeout="60s", permanent=(UnidentifiedImageError,))
def thumbnails(ctx: Context, batch: str, photo: str, of: int) -> list[str]:
    """Three sizes of one photo of a batch `of` so many. A file that is no image is a permanent failure."""
    try:
        for done, (size, longest) in enumerate(album.SIZES.items(), 1):
            if not album.thumbnail(batch, size, photo).exists():
                album.shrink(album.original(batch, photo), album.thumbnail(batch, size, photo), longest)
            ctx.progress(done, len(album.SIZES), size)
    except UnidentifiedImageError:
        finish(batch, photo, of)  # the others' contact sheet does not wait for a photo that will never be
        raise
    finish(batch, photo, of)
    return [album.address(album.thumbnail(batch, size, photo)) for size in album.SIZES]


def finish(batch: str, photo: str, of: int) -> None:
    """The last photo of a batch to finish asks for its contact sheet.

    Nobody can miss being last: each first leaves its mark and then counts. Two may both believe it, or one
    may run twice; the idempotency key makes all of them one job.
    """
    if album.finish(batch, photo) >= of:
        contact_sheet.using(idempotency_key=f"sheet-{batch}").enqueue(batch)


@app.task(queue="photos")
def contact_sheet(batch: str) -> dict[str, str | int]:
    """All thumbnails of a batch on one picture; the originals are forgotten some time later."""
    pictures = album.draw_sheet(batch)
    forgetting = forget_originals.using(delay=ORIGINALS_KEPT, idempotency_key=f"forget-{batch}")
    later = forgetting.enqueue(batch)
    return {"sheet": album.address(album.sheet(batch)), "pictures": pictures, "forget": later.id}


@app.task(queue="photos")
def forget_originals(batch: str) -> int:
    """Delete what was uploaded; the thumbnails stay. Answers how many files there were."""
    return album.forget(batch)


@app.task(queue="fetches", timeout="60s", backoff=Backoff(base="500ms", factor=2, max="1m"))
def fetch(url: str, batch: str, photo: str, of: int) -> str:
    """Get a photo from elsewhere and hand it on. A source that answers 503 is asked again, ever later."""
    request = urllib.request.Request(url, headers={"User-Agent": "photo-app"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: bytes = answer.read(FETCH_BYTES_MAX + 1)
    if len(content) > FETCH_BYTES_MAX:
        raise ValueError(f"{url} is larger than {FETCH_BYTES_MAX} bytes")
    album.write(album.original(batch, photo), content)
    return thumbnails.using(idempotency_key=f"photo-{batch}-{photo}").enqueue(batch, photo, of).id

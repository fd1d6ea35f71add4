"""Where pictures live on disk, and what is done to them. Knows nothing of jobs.

    <data>/originals/<batch>/<photo>             as uploaded or fetched
    <data>/pictures/<batch>/<size>/<photo>.jpg   the thumbnails
    <data>/pictures/<batch>/sheet.jpg            the contact sheet
    <data>/finished/<batch>/<photo>              an empty file for each photo that needs no more work

Every file appears complete or not at all, so whoever sees its name can use it, also after a crash.
"""

from __future__ import annotations

import io
import math
import os
import re
import uuid
from pathlib import Path

from PIL import Image, ImageOps

DATA = Path(os.environ.get("PHOTO_APP_DATA", "photo-app-data")).absolute()
PICTURES = DATA / "pictures"
SIZES = {"small": 96, "medium": 192, "large": 384}  # pixels on the longer side
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def checked(word: str) -> str:
    """A name that came from outside, if it can name nothing but a file of ours; else ValueError."""
    if not NAME.fullmatch(word):
        raise ValueError(f"{word!r} must be 1 to 100 letters, digits, dots, dashes and underscores")
    return word


def write(path: Path, content: bytes) -> None:
    """All of it or nothing, whoever is killed when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    part.write_bytes(content)
    part.replace(path)


def files(directory: Path) -> list[Path]:
    """What is complete in a directory, sorted by name."""
    return sorted(path for path in directory.glob("[!.]*") if path.is_file())


def original(batch: str, photo: str) -> Path:
    return DATA / "originals" / batch / photo


def thumbnail(batch: str, size: str, photo: str) -> Path:
    return PICTURES / batch / size / f"{photo}.jpg"


def sheet(batch: str) -> Path:
    return PICTURES / batch / "sheet.jpg"


def address(path: Path) -> str:
    """As the web application names it below /pictures."""
    return path.relative_to(PICTURES).as_posix()


def shrink(source: Path, target: Path, longest: int) -> None:
    """Write a JPEG of at most `longest` pixels a side, upright; no image raises UnidentifiedImageError."""
    with Image.open(source) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    upright.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    write(target, jpeg(upright))


def finish(batch: str, photo: str) -> int:
    """Note that a photo needs no more work; how many of its batch do not, this one included."""
    write(DATA / "finished" / batch / photo, b"")
    return len(files(DATA / "finished" / batch))


def forget(batch: str) -> int:
    """Delete the originals of a batch; how many there were."""
    originals = files(DATA / "originals" / batch)
    for path in originals:
        path.unlink(missing_ok=True)
    return len(originals)


def draw_sheet(batch: str, size: str = "medium") -> int:
    """One picture with all thumbnails of a batch; how many are on it."""
    cell, gap = SIZES[size], 8
    found = files(PICTURES / batch / size)
    columns = max(1, math.ceil(math.sqrt(len(found))))
    rows = max(1, math.ceil(len(found) / columns))
    canvas = Image.new("RGB", (columns * (cell + gap) + gap, rows * (cell + gap) + gap), "white")
    for place, path in enumerate(found):
        with Image.open(path) as picture:
            x = gap + place % columns * (cell + gap) + (cell - picture.width) // 2
            y = gap + place // columns * (cell + gap) + (cell - picture.height) // 2
            canvas.paste(picture, (x, y))
    write(sheet(batch), jpeg(canvas))
    return len(found)


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()

"""The demonstration (`make demo`): the photo application, two workers, real photographs, and some trouble.

Everything is checked as it happens, and once more against the store at the end. It exits with 1 if anything
was not as it should be, and ends whatever it started.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import signal
import socket
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageOps, ImageStat, UnidentifiedImageError

from examples.photo_app.source import Source
from examples.photo_app.stage import PATIENCE, REPOSITORY, Stage, Trouble
from windlass import Filter, Windlass

BIN = Path(sys.executable).parent
TASKS = "examples.photo_app.tasks"
DELAY = 3.0  # seconds until the delayed job may run
SIZES = {"small": 96, "medium": 192, "large": 384}
ENDED = ("completed", "dead", "cancelled", "expired")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp"}
ORIENTATION = 0x0112  # the EXIF tag


class Demo:
    """The story. `jobs` maps what was asked for to the job id that came with the 202."""

    def __init__(self, stage: Stage, source: Source, photos: dict[str, Path], url: str) -> None:
        self.stage = stage
        self.source = source
        self.photos = photos
        self.store = Windlass(url).client  # to look at, as `windlass jobs show` would
        self.album = stage.output / "photos" / "pictures" / "album"
        self.jobs: dict[str, str] = {}
        self.took: list[float] = []
        self.killed = 0

    def tell(self) -> None:
        self.open()
        self.ask_slow_source()
        self.upload_and_kill()
        self.watch()
        self.look_at_pictures()
        self.look_at_trouble()
        self.look_at_delay()
        self.add_up()

    # --- what it is told with ---------------------------------------------------------------------------

    def ask(self, what: str, content: bytes = b"", **query: str | int) -> None:
        """One upload: it must be answered with 202 and the address of a job."""
        began = time.monotonic()
        answer = self.stage.request("/photos", content, **query)
        self.took.append(time.monotonic() - began)
        if answer.status != 202 or answer.headers["Location"] != f"/jobs/{answer.json['job']}":
            raise Trouble(f"{what}: expected 202 and the address of a job, got {answer}")
        self.jobs[what] = answer.json["job"]

    def ended(self, what: str) -> dict[str, Any]:
        """Poll a job over HTTP until it has ended."""

        def look() -> dict[str, Any] | None:
            job = self.stage.request(f"/jobs/{self.jobs[what]}").json
            return job if job["state"] in ENDED else None

        return self.stage.until(f"{what} to end", look)

    def workers(self) -> dict[str, int]:
        """Process ids of the workers, by worker id; not of one that runs the jobs of a dead one in quarantine."""
        return {each.id: each.pid for each in self.store.workers() if each.state == "running" and not each.taken}

    def two_workers(self) -> list[int] | None:
        pids = sorted(self.workers().values())
        return pids if len(pids) == 2 and self.killed not in pids else None

    # --- the story --------------------------------------------------------------------------------------

    def open(self) -> None:
        """The web application, on a port that is certainly free as it inherits the socket, and the workers."""
        stage = self.stage
        with socket.create_server(("127.0.0.1", 0)) as listener:
            fd = listener.fileno()
            stage.start("web", BIN / "uvicorn", "examples.photo_app.app:web", "--fd", str(fd), fds=(fd,))
            stage.web = f"http://127.0.0.1:{listener.getsockname()[1]}"
        stage.request("/gallery")
        supervisor = stage.start("worker", BIN / "windlass", "worker", f"{TASKS}:app", "--processes", "2")
        one, two = stage.until("two workers", self.two_workers)
        stage.say(f"web application on {stage.web}; supervisor {supervisor.pid} with workers {one} and {two}")

    def ask_slow_source(self) -> None:
        """For one photo, and make its worker wait."""
        first = next(iter(self.photos))
        self.ask("the slow source", url=f"{self.source.url}/slow/{first}", batch="slow", name=first)
        if not self.source.slow_asked.wait(PATIENCE):
            raise Trouble("no worker asked the slow source")
        self.stage.say("a worker waits for a photograph from a slow source")

    def upload_and_kill(self) -> None:
        """All photographs and a file that is none, as one batch; after the first, a worker is killed."""
        of, last = len(self.photos) + 1, next(reversed(self.photos))
        for number, (name, path) in enumerate(self.photos.items()):
            self.ask(name, path.read_bytes(), batch="album", name=name, of=of)
            if number == 0:
                self.kill()
        self.ask("notes.txt", b"This is no photograph.\n" * 20, batch="album", name="notes.txt", of=of)
        self.ask("the busy source", url=f"{self.source.url}/busy/{last}", batch="busy", name=last)
        typical, most = statistics.median(self.took) * 1e3, max(self.took) * 1e3
        self.stage.say(f"{of} files and 2 addresses sent, each answered with 202 and a job id")
        self.stage.say(f"       after {typical:.0f} ms (median), {most:.0f} ms at most")

    def kill(self) -> None:
        """With -9, the worker that waits for the slow source, in the middle of its job."""
        worker = self.store.fetch(self.jobs["the slow source"]).worker
        self.killed = self.workers()[worker or ""]
        os.kill(self.killed, signal.SIGKILL)
        self.stage.say(f"kill -9 {self.killed}, the worker that waits")

    def watch(self) -> None:
        """Wait for all that was asked for."""
        unreadable = {name for name, path in self.photos.items() if not readable(path)} | {"notes.txt"}
        self.source.slow_may_answer.set()
        states = {what: self.ended(what)["state"] for what in self.jobs}
        expected = {what: "dead" if what in unreadable else "completed" for what in self.jobs}
        counts = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items())
        self.stage.check(states == expected, f"these {len(states)} jobs ended as they should: {counts}")

    def look_at_pictures(self) -> None:
        """Three sizes of each photograph, compared with the original held upright; then the contact sheet."""
        stage, good = self.stage, {name: path for name, path in self.photos.items() if readable(path)}
        made = {(size, name): self.album / size / f"{name}.jpg" for name in good for size in SIZES}
        unlike = [path for (size, name), path in made.items() if not alike(good[name], SIZES[size], path)]
        stage.check(not unlike, f"{len(made)} thumbnails, three sizes of {len(good)} photographs")
        for path in unlike:
            stage.say(f"       not like its original: {path}")
        for name, path in good.items():
            stored, shown = Image.open(path), Image.open(made["large", name])
            if stored.getexif().get(ORIENTATION, 1) != 1:
                stage.say(f"       {name} is stored on its side, {size_of(stored)}; shown upright, {size_of(shown)}")
        sheet = self.album / "sheet.jpg"
        stage.until("the contact sheet", lambda: sheet.exists() or None)
        sheets = self.store.search(Filter(task=f"{TASKS}.contact_sheet")).jobs
        once = sum('"album"' in job.payload for job in sheets) == 1
        stage.check(once, f"one contact sheet, {size_of(Image.open(sheet))}, asked for by the last to finish")

    def look_at_trouble(self) -> None:
        """What the sources saw, and what became of the file that is no image."""
        first, *_, last = self.photos
        asked = self.source.asked[f"/busy/{last}"]
        waits = [after - before for (before, _), (after, _) in itertools.pairwise(asked)]
        answers = ", ".join(str(status) for _, status in asked)
        waited = " and ".join(f"{wait:.1f} s" for wait in waits)
        right = answers == "503, 503, 200" and waits[0] >= 0.5 and waits[1] >= 1.0
        self.stage.check(right, f"the busy source answered {answers}, and was left in peace for {waited}")

        dead = self.ended("notes.txt")
        right = dead["attempt"] == 1 and dead["error"]["kind"].endswith("UnidentifiedImageError")
        self.stage.check(right, "notes.txt is no image: straight to the dead letters, after one attempt")

        times = len(self.source.asked[f"/slow/{first}"])
        self.stage.check(times == 2, f"the killed worker's job was run again: its source was asked {times} times")
        one, two = self.stage.until("a new worker", self.two_workers)
        self.stage.say(f"       and the supervisor has two workers again, {one} and {two}")

    def look_at_delay(self) -> None:
        """Each contact sheet asked for a job that may run `DELAY` seconds later."""

        def look() -> list[float] | None:
            jobs = self.store.search(Filter(task=f"{TASKS}.forget_originals")).jobs
            if len(jobs) < 3 or any(job.state not in ENDED for job in jobs):
                return None
            return [((job.started_at or 0) - job.created_at) / 1e6 for job in jobs]

        waited = self.stage.until("the delayed jobs", look)
        late = (max(waited) - DELAY) * 1e3
        text = f"{len(waited)} jobs delayed by {DELAY:.0f} s: none ran early, {late:.0f} ms late at most"
        self.stage.check(min(waited) >= DELAY, text)

    def add_up(self) -> None:
        """What was asked for, counted here, against what the store holds."""
        followed = 2 + 3 + 3  # thumbnails of the two fetched photos; a sheet and a forgetting of three batches
        enqueued = len(self.jobs) + followed
        states = self.store.stats(exact=True).states
        ended = {state: states.get(state, 0) for state in ENDED}
        waiting = sum(states.values()) - sum(ended.values())
        total = " + ".join(f"{count} {state}" for state, count in {**ended, "waiting": waiting}.items())
        right = enqueued == sum(states.values()) and waiting == 0
        self.stage.check(right, f"{enqueued} enqueued = {total}")


def readable(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError):
        return False
    return True


def alike(original: Path, longest: int, thumbnail: Path) -> bool:
    """Whether a thumbnail shows its original upright, in the right size.

    JPEG costs up to 4 of 256 shades of grey on average; a turned or mirrored picture is at least 13 away.
    """
    with Image.open(original) as picture, Image.open(thumbnail) as made:
        expected = ImageOps.exif_transpose(picture).convert("L")
        expected.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        if made.size != expected.size:
            return False
        (apart,) = ImageStat.Stat(ImageChops.difference(expected, made.convert("L"))).mean
        return apart < 8


def size_of(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height}"


def choose(directory: Path) -> dict[str, Path]:
    """The photographs to upload, each by a name that no other has and that is fit for a file."""
    chosen: dict[str, Path] = {}
    try:
        files = sorted(directory.iterdir())
    except OSError as error:
        raise SystemExit(f"{directory}: {error.strerror}; name a directory with photographs") from None
    for path in files:
        if path.suffix.lower() in SUFFIXES and path.is_file():
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.name)[-90:].lstrip(".-")
            chosen[f"{len(chosen)}-{name}" if name in chosen else name] = path
    if len(chosen) < 2:
        raise SystemExit(f"{directory} should hold two photographs or more ({', '.join(sorted(SUFFIXES))})")
    return chosen


def clear(output: Path) -> None:
    """Begin anew, but never on top of somebody's files."""
    mark = output / ".windlass-demo"
    if output.exists() and any(output.iterdir()) and not mark.exists():
        raise SystemExit(f"{output} holds other files; name another directory with --output")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    mark.touch()


def run(photos: dict[str, Path], output: Path, *, keep: bool) -> int:
    """Tell the story; 0 if all of it was right."""
    url = f"sqlite:///{output / 'windlass.db'}"
    places = {"WINDLASS_URL": url, "PHOTO_APP_DATA": str(output / "photos")}
    stage = Stage(output, {**places, "PHOTO_APP_ORIGINALS_KEPT": f"{DELAY}s"})
    try:
        with Source(photos) as source:
            Demo(stage, source, photos, url).tell()
        if keep and not stage.wrong:
            print(f"\nOpen {stage.web} in a browser. Ctrl-C ends everything.", flush=True)
            stage.until("Ctrl-C", lambda: None, patience=float("inf"))
    except Trouble as trouble:
        stage.check(right=False, text=str(trouble))
    except KeyboardInterrupt:
        stage.say("interrupted")
    finally:
        stage.stop()
    where_next(output, kept=keep)
    for wrong in stage.wrong:
        print(f"WRONG: {wrong}", file=sys.stderr)
    return 1 if stage.wrong else 0


def where_next(output: Path, *, kept: bool) -> None:
    """Paths as they are typed from here, if they lie below. Nothing of the demonstration runs any more, and the uploads
    are forgotten: a dead letter is to be looked at, not to be sent again."""
    here = Path.cwd()
    place = output.relative_to(here) if output.is_relative_to(here) else output
    command = BIN.relative_to(here) / "windlass" if BIN.is_relative_to(here) else "windlass"
    print(f"""
Where to look next
  {place}/photos/pictures/album: the thumbnails, and sheet.jpg
  {place}/worker.log: what the supervisor and its workers said
  export WINDLASS_URL=sqlite:///{place}/windlass.db PHOTO_APP_DATA={place}/photos
  {command} jobs list: every job; `jobs show ID` has its attempts
  {command} dead list: the file that is no image; `dead show ID` has its trace
  {command} worker {TASKS}:app: those above have ended; `jobs retry ID` needs one
  examples/photo_app/tasks.py: the work; app.py: the web application""")
    if not kept:
        print("  make demo KEEP=1: the same again, to be used in a browser")


def main() -> None:
    parser = argparse.ArgumentParser(description="The photo application, two workers, and some trouble.")
    parser.add_argument("--photos", type=Path, default=REPOSITORY / "examples/photos", help="a directory")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "demo-output", help="made anew")
    parser.add_argument("--keep", action="store_true", help="leave it running for a browser, until Ctrl-C")
    options = parser.parse_args()
    photos, output = choose(options.photos), options.output.absolute()
    clear(output)
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that everything is ended on this way out too
        signal.signal(number, lambda which, _: sys.exit(128 + which))
    sys.exit(run(photos, output, keep=options.keep))


if __name__ == "__main__":
    main()

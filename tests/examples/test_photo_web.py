"""The web application without workers: what it answers, and what it refuses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.photo_app.demo import BIN
from examples.photo_app.stage import Stage


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    path = tmp_path_factory.mktemp("photo-web")
    stage = Stage(path, {"WINDLASS_URL": f"sqlite:///{path}/windlass.db", "PHOTO_APP_DATA": str(path / "photos")})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        stage.start("web", BIN / "python", "-m", "uvicorn", "examples.photo_app.app:web", "--fd", str(fd), fds=(fd,))
        stage.web = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield stage
    finally:
        stage.stop()


def test_an_upload_is_answered_with_a_job(stage: Stage) -> None:
    answer = stage.request("/photos", b"picture", name="cat.jpg", batch="one")
    assert answer.status == 202
    assert answer.headers["Location"] == f"/jobs/{answer.json['job']}"
    job = stage.request(answer.headers["Location"])
    assert (job.status, job.json["state"], job.json["attempt"]) == (200, "queued", 0)
    originals = Path(stage.environment["PHOTO_APP_DATA"]) / "originals"
    assert (originals / "one" / "cat.jpg").read_bytes() == b"picture"


def test_an_upload_sent_again_is_the_same_job(stage: Stage) -> None:
    first, again = (stage.request("/photos", b"picture", name="dog.jpg", batch="two") for _ in range(2))
    assert first.json == again.json


def test_the_same_upload_with_another_batch_size_is_a_conflict(stage: Stage) -> None:
    assert stage.request("/photos", b"picture", name="cow.jpg", batch="three", of=1).status == 202
    assert stage.request("/photos", b"picture", name="cow.jpg", batch="three", of=2).status == 409


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"name": "../../etc/passwd"}, "name"),
        ({"name": "a.jpg", "batch": ".."}, "batch"),
        ({"name": "a.jpg", "of": "many"}, "of"),
        ({"url": "file:///etc/passwd"}, "url"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(stage: Stage, query: dict[str, str], named: str) -> None:
    answer = stage.request("/photos", b"", **query)
    assert answer.status == 422
    assert answer.json["error"].startswith(f'{{"error":"{named}: ')


def test_a_job_that_is_not_there_is_not_found(stage: Stage) -> None:
    assert stage.request("/jobs/019a0000-0000-7000-8000-000000000000").status == 404


def test_a_photo_that_is_too_large_is_refused(stage: Stage) -> None:
    assert stage.request("/photos", bytes(20 * 2**20 + 1), name="huge.jpg").status == 413

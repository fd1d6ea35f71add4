"""`make demo`, as it stands: every claim of the demonstration is a check of its own, and its exit status says all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.photo_app import demo
from examples.photo_app.stage import Stage, Trouble
from tests.tidy.source import REPOSITORY
from windlass import Windlass


def start(output: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.photo_app.demo", "--output", str(output), *options]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.timeout(150)
def test_the_demonstration_from_end_to_end(tmp_path: Path) -> None:
    """I1, I2, I8, I12, I14: nothing lost with a worker killed, retries and delayed jobs never early, all adds up."""
    process = start(tmp_path / "demo")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "WRONG" not in said
    assert said.count("  ok  ") == 8, said
    summary = re.search(r"(\d+) enqueued = (\d+) completed \+ (\d+) dead \+ (\d+) cancelled \+ (\d+) expired", said)
    assert summary is not None, said
    enqueued, *ended = map(int, summary.groups())
    assert enqueued == sum(ended)
    pictures = tmp_path / "demo" / "photos" / "pictures" / "album"
    assert sorted(path.name for path in pictures.iterdir()) == ["large", "medium", "sheet.jpg", "small"]


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_kept_running_it_ends_everything_when_told(number: signal.Signals, status: int, tmp_path: Path) -> None:
    """The empty world of tests/conftest.py is what is proven here: nothing that it started is left."""
    process = start(tmp_path / "demo", "--keep")
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Open http://127.0.0.1:"):
            break
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == status, said + rest


@pytest.mark.parametrize("problem", ["a check", "trouble"])
def test_what_is_wrong_is_in_the_exit_status(
    problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tell(told: demo.Demo) -> None:
        if problem == "trouble":
            raise Trouble("planted")
        told.stage.check(right=False, text="planted")

    monkeypatch.setattr(demo.Demo, "tell", tell)
    assert demo.run(demo.choose(REPOSITORY / "examples/photos"), tmp_path, keep=False) == 1
    assert "WRONG  planted" in capsys.readouterr().out


def test_a_process_that_ends_on_its_own_is_trouble_with_its_last_words(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {})
    stage.start("broken", sys.executable, "-c", "raise SystemExit('out of film')")
    with pytest.raises(Trouble, match="broken ended with 1:\n  out of film"):
        stage.until("never", lambda: None, patience=20)
    stage.stop()


@pytest.mark.parametrize("name", ["nosuch", "a-file.jpg"])
def test_photographs_that_are_not_there_are_a_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "a-file.jpg").touch()
    process = start(tmp_path / "demo", "--photos", str(tmp_path / name))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith(f"{tmp_path / name}: No") and said.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_the_commands_shown_at_the_end_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker that is named runs jobs of the store, and on the data, that are named."""
    (tmp_path / "photos/originals/none").mkdir(parents=True)
    (tmp_path / "photos/originals/none/a.jpg").touch()
    monkeypatch.chdir(REPOSITORY)
    demo.where_next(tmp_path, kept=False)
    shown = capsys.readouterr().out
    assert "make demo KEEP=1" in shown
    demo.where_next(tmp_path, kept=True)
    assert "make demo KEEP=1" not in capsys.readouterr().out
    settings = dict(re.findall(r"(\w+)=(\S+)", next(line for line in shown.splitlines() if "export" in line)))
    assert settings == {"WINDLASS_URL": f"sqlite:///{tmp_path}/windlass.db", "PHOTO_APP_DATA": f"{tmp_path}/photos"}
    (command,) = re.findall(r"windlass (worker \S+): ", shown)
    with Windlass(settings["WINDLASS_URL"]) as app:
        job = app.enqueue(f"{demo.TASKS}.forget_originals", ["none"])
        log = (tmp_path / "log").open("wb")
        worker = subprocess.Popen(
            [sys.executable, "-m", "windlass", *command.split(), "--processes", "1"],
            env={**os.environ, **settings}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            assert job.result(timeout="30s") == 1
        finally:
            worker.terminate()
            assert worker.wait(30) == 0
            log.close()


def test_somebody_elses_files_are_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="holds other files"):
        demo.clear(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_photographs_get_names_of_their_own(tmp_path: Path) -> None:
    for name in ("a b.jpg", "a_b.jpg", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).touch()
    chosen = {name: path.name for name, path in demo.choose(tmp_path).items()}
    assert chosen == {"hidden.jpg": ".hidden.jpg", "a_b.jpg": "a b.jpg", "2-a_b.jpg": "a_b.jpg"}

"""`windlass ledger check`: exit codes, words and JSON; the rules themselves are in tests/testing/test_ledger.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import World
from windlass.testing import ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ledgers"
    path.mkdir()
    ledger.write(str(path), "acked", "j")
    ledger.write(str(path), "start", "j", 7, limits={"k": 1})
    ledger.write(str(path), "end", "j", 7, note="returned")
    ledger.write(str(path), "fault", note="SIGKILL worker", kind="kill", pids=(1,))
    return path


def test_a_clean_ledger(world: World, folder: Path) -> None:
    ran = world.run("ledger", "check", str(folder))
    assert (ran.code, ran.err) == (0, "")
    assert "faults: SIGKILL worker 1" in ran.out
    assert ran.out.endswith("every rule holds\n")
    said = world.json("ledger", "check", str(folder))
    assert (said["ok"], said["problems"]) == (True, [])
    assert said["counts"]["acknowledged"] == 1
    assert (said["faults"], said["crowds"]) == ({"SIGKILL worker": 1}, {"k": 1})


def test_a_violation(world: World, folder: Path) -> None:
    for n in range(25):
        ledger.write(str(folder), "acked", f"lost-{n}")
    ran = world.run("ledger", "check", str(folder))
    assert ran.code == 1
    assert "lost: job lost-0 was acknowledged, and never ended" in ran.out
    assert ran.out.endswith("and 5 more (--json lists all)\n25 problems\n")
    ran = world.run("ledger", "check", str(folder), "--json")
    assert (ran.code, ran.json["ok"], len(ran.json["problems"])) == (1, False, 25)
    assert ran.json["problems"][0] == {
        "rule": "lost", "job": "lost-0", "text": "job lost-0 was acknowledged, and never ended",
    }  # fmt: skip


def test_no_ledgers(world: World, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = world.run("ledger", "check", str(empty))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"windlass: {empty} has no ledgers: no file in it ends in .jsonl\n"
    ran = world.run("ledger", "check", "nowhere")
    assert (ran.code, ran.err) == (2, "windlass: nowhere is no folder\n")


def test_a_damaged_line(world: World, folder: Path) -> None:
    (folder / "9.jsonl").write_text('{"at":1.0,"actor":9,"what":"start"}\n{"at":1.0,"act\n')
    ran = world.run("ledger", "check", str(folder))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"windlass: {folder}/9.jsonl:2: ")
    assert ran.err.count("\n") == 1


def test_a_file_that_cannot_be_read(world: World, folder: Path) -> None:
    (folder / "9.jsonl").mkdir()
    ran = world.run("ledger", "check", str(folder))
    assert (ran.code, ran.err) == (2, f"windlass: {folder}/9.jsonl cannot be read: Is a directory\n")

"""`enqueue` takes what the function takes, as a type checker sees it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.tidy.source import REPOSITORY

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, set[str]]]:
    """file -> line -> error codes, from one run over both files."""
    api = pytest.importorskip("mypy.api")
    cache = tmp_path_factory.mktemp("mypy")
    options = ["--config-file", str(REPOSITORY / "pyproject.toml"), "--cache-dir", str(cache), "--no-pretty"]
    python = ["--python-executable", sys.executable, "--show-error-codes", "--no-error-summary", "--hide-error-context"]
    before = os.getcwd()
    os.chdir(REPOSITORY)  # mypy_path in the configuration is relative
    try:
        out, err, status = api.run([*options, *python, *(str(HERE / name) for name in ("good_calls.py", "bad_calls.py"))])
    finally:
        os.chdir(before)
    assert not err and status in (0, 1), err or out
    found: dict[str, dict[int, set[str]]] = {"good_calls.py": {}, "bad_calls.py": {}}
    for line in out.splitlines():
        if match := re.match(r"(.*?):(\d+): error: .*\[([\w-]+)\]$", line):
            name = Path(match[1]).name
            assert name in found, line
            found[name].setdefault(int(match[2]), set()).add(match[3])
    return found


def expected(name: str) -> dict[int, set[str]]:
    lines = (HERE / name).read_text().splitlines()
    marks = {number: re.search(r"# E: ([\w, -]+)$", line) for number, line in enumerate(lines, 1)}
    return {number: set(mark[1].split(", ")) for number, mark in marks.items() if mark}


def test_good_calls_are_accepted(said: dict[str, dict[int, set[str]]]) -> None:
    assert said["good_calls.py"] == {}


def test_bad_calls_are_rejected_and_only_they(said: dict[str, dict[int, set[str]]]) -> None:
    wanted = expected("bad_calls.py")
    assert len(wanted) >= 25  # the marks are read: an empty expectation would pass whatever mypy says
    assert said["bad_calls.py"] == wanted

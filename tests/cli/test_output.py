"""On a terminal: as wide as it is, and nothing that a job wrote gets through to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from windlass.cli.output import Output

HOSTILE = "\x1b[31m\x9b\x07\u202e\r\n"


@pytest.fixture
def twenty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Output, "__init__", on_a_terminal(Output.__init__))
    monkeypatch.setenv("COLUMNS", "20")


def on_a_terminal(init: Any) -> Any:
    def make(out: Output, **how: bool) -> None:
        init(out, **how)
        out.terminal = True

    return make


def test_columns_line_up_whatever_is_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=False)
    out.table(("name", "n"), [("a", 1), ("日本", 12_345), ("e\u0301", None), (HOSTILE, 2)], "none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("NAME ")
    start = lines[0].index("N", 2)
    assert lines[1][start:] == "1"
    assert lines[2][start - 2 :] == "12,345"  # two characters of two columns each
    assert lines[3][start + 1 :] == "-"  # a combining mark takes none
    assert lines[4].startswith("\\x1b[31m\\x9b\\x07\\u202e\\x0d\\x0a")
    assert len(lines) == 5


def test_a_table_is_cut_to_the_terminal(twenty_columns: None, capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).table(("name",), [("x" * 50,), ("日" * 50,), ("short",)], "none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "x" * 19 + "…"
    assert lines[2] == "日" * 9 + "…"
    assert lines[3] == "short"


def test_without_a_terminal_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).table(("name",), [("x" * 500,)], "none")
    assert "x" * 500 in capsys.readouterr().out


def test_json_is_ascii_on_a_terminal_and_off_it(twenty_columns: None, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": HOSTILE + "ü🎉\x7f", "\u202e": [1.5, None]}
    Output(as_json=True).document(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert printed.isascii()
    assert not set(printed) & set("\x1b\x7f\r")
    assert printed.startswith("{\n  ")  # for people; scripts get one line


def test_one_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=False)
    out.say(f"a{HOSTILE}b")
    out.facts([("first", "one\ntwo\n"), ("none", None), ("second", 2)])
    assert capsys.readouterr().out.splitlines() == [
        "a\\x1b[31m\\x9b\\x07\\u202e\\x0d\\x0ab",
        "first   one",
        "    two",
        "second  2",
    ]


def test_words_are_for_people_and_documents_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=True)
    out.say("words")
    out.table(("a",), [("b",)], "none")
    out.facts([("a", "b")])
    out.block("c")
    assert capsys.readouterr().out == ""

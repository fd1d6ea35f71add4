"""A URL whose password was not encoded is an error that shows none of it, wherever it is said."""

from __future__ import annotations

import pytest

from windlass import Windlass, stores
from windlass.cli import run
from windlass.core.errors import ConfigError
from windlass.core.words import redacted

SECRET = "s3cr3tPw"
BAD = [
    f"postgresql://postgres:{SECRET}%@127.0.0.1:1/x",
    f"postgresql://postgres:{SECRET}%zz@127.0.0.1:1/x",
    f"postgresql://postgres:a?{SECRET}@127.0.0.1:1/x",
    f"postgresql://postgres:a#{SECRET}@127.0.0.1:1/x",
    f"postgresql://postgres:a {SECRET}@127.0.0.1:1/x",
    f"postgresql://postgres:a\n{SECRET}@127.0.0.1:1/x",
    f"postgresql://postgres:a@{SECRET}@127.0.0.1:1/x",
    f"postgresql://postgres:a/{SECRET}@127.0.0.1:1/x",
    f"postgresql://postgres:{SECRET}",
    f"postgresql://postgres:{SECRET}@[::1/x",
    f"postgresql://postgres:{SECRET}\ud800@127.0.0.1:1/x",
    f"postgresql://u:p@127.0.0.1:1/x?listen=bogus://u:{SECRET}@h/x",
    f"postgresql://u:p@127.0.0.1:1/x?listen=postgresql://u:a@{SECRET}@h/x",
]
GOOD = [
    "postgresql://u:p@h:5432,h2:5433/x?schema=a",
    "postgresql:///x",
    "postgresql://h/x",
    "postgresql://u@/x?host=/tmp",
    "postgresql://u:p%40@[::1]:5432/x?options=-c%20a%3Db",
    "postgresql://u:p@h/x?listen=postgresql://u:p@h/x&pooler=transaction",
]


@pytest.mark.parametrize("url", BAD)
def test_what_cannot_be_read_is_not_shown(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="url") as caught:
        stores.open(url)
    assert SECRET not in str(caught.value)
    assert SECRET not in redacted(url)
    assert SECRET not in repr(Windlass(url))
    for command in (["stats"], ["store", "doctor"], ["jobs", "list"], ["store", "migrate"]):
        assert run([*command, "--url", url]) != 0
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err


@pytest.mark.parametrize("text", [f"host=h password={SECRET}", f"postgresql:/postgres:{SECRET}@h/x"])
def test_what_is_no_url_at_all_is_not_shown_either(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "--url", text]) != 0
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert "is no store URL" in said.err


@pytest.mark.parametrize("url", GOOD)
def test_what_libpq_reads_is_read(url: str) -> None:
    stores.open(url).close()
    assert ":p" not in redacted(url)


@pytest.mark.parametrize("schema", ["%241", "a%0Ab", "$$", "a'b", "a%25b", ""])
def test_names_that_would_not_stay_names_are_refused(schema: str) -> None:
    with pytest.raises(ConfigError, match="schema"):
        stores.open(f"postgresql://h/x?schema={schema}")

"""pyproject.toml < environment < arguments; an error names the setting and where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from windlass import ConfigError, Windlass
from windlass.config import Settings, SettingsArguments, load, located
from windlass.core.duration import YEAR
from windlass.core.words import redacted
from windlass.ports.store import PruneRules


def project(directory: Path, table: str) -> None:
    (directory / "pyproject.toml").write_text(f"[project]\nname = 'windlass-user'\n[tool.windlass]\n{table}\n")


def settings(tmp_path: Path, environ: dict[str, str] | None = None, **arguments: Any) -> Settings:
    return load(arguments, environ=environ or {}, directory=str(tmp_path))


def test_every_setting_has_a_default_a_reader_and_an_argument(tmp_path: Path) -> None:
    from windlass import config

    assert settings(tmp_path) == Settings()
    assert set(config._READERS) == set(Settings.__struct_fields__)
    assert set(SettingsArguments.__annotations__) == set(Settings.__struct_fields__) - {"url"}
    for name, value in msgspec.structs.asdict(Settings()).items():  # each default is one that could be given
        assert getattr(settings(tmp_path, **{name: value}), name) == value


def test_later_sources_overrule_earlier_ones(tmp_path: Path) -> None:
    project(tmp_path, "hold = '20s'\nconcurrency = 5\nqueues = ['a', 'b:3']\nkeep_dead = '1d'")
    given = settings(tmp_path, {"WINDLASS_CONCURRENCY": "7", "WINDLASS_HOLD": "", "WINDLASS_OTHER": "x"}, max_depth=9)
    assert (given.hold, given.concurrency, given.queues, given.max_depth) == (20.0, 7, ("a", "b:3"), 9)
    assert settings(tmp_path, {"WINDLASS_CONCURRENCY": "7"}, concurrency=8).concurrency == 8
    assert given.prune_rules() == PruneRules(dead=86_400_000_000)


def test_the_environment_speaks_text(tmp_path: Path) -> None:
    given = settings(
        tmp_path,
        {
            "WINDLASS_URL": " memory:// ", "WINDLASS_HOLD": "1m", "WINDLASS_PROCESSES": "none", "WINDLASS_QUEUES": "a, b:3,",
            "WINDLASS_DURABILITY": "Normal", "WINDLASS_STALL_TIMEOUT": "90", "WINDLASS_KEEP_COMPLETED": "None",
        },
        processes=4,
    )  # fmt: skip
    assert (given.url, given.hold, given.processes, given.queues) == ("memory://", 60.0, 4, ("a", "b:3"))
    assert (given.durability, given.stall_timeout, given.keep_completed) == ("normal", 90.0, None)
    assert given.prune_rules().completed is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("url", "jobs.db", "url: 'jobs.db' is no store URL; write for instance"),
        ("url", 7, "url: 7 is no store URL"),
        ("url", "sqlit:///jobs.db", "url: no store is called 'sqlit'; there are memory://, postgresql://, redis://, sqlite://, sqlite+stdlib://. Did you mean 'sqlite'?"),
        ("url", "kafka://x", "url: no store is called 'kafka'; there are memory://, postgresql://, redis://, sqlite://, sqlite+stdlib:// (from"),
        ("hold", "soon", "hold: 'soon' is no duration"),
        ("hold", 0, "hold: 0 must be between 0.1 and 3600 seconds"),
        ("hold", True, "hold: True is no duration"),
        ("concurrency", 0, "concurrency: 0 must be a whole number, 1..10000"),
        ("concurrency", "many", "concurrency: 'many' must be a whole number"),
        ("concurrency", 1.5, "concurrency: 1.5 must be a whole number"),
        ("max_depth", 501, "max_depth: 501 must be a whole number, 1..500"),
        ("processes", -1, "processes: -1 must be a whole number, 0..256"),
        ("processes", 257, "processes: 257 must be a whole number, 0..256"),
        ("queues", "a,a:3", "queues: 'a' is named twice"),
        ("queues", "a:2.5", "queues: 'a:2.5': a weight must be a whole number, 1..1000"),
        ("durability", "off", "durability: 'off' must be one of full, normal"),
        ("log_format", 1, "log_format: 1 must be one of auto, text, json"),
        ("queues", 7, "queues: 7 must be a list of names"),
        ("queues", [1], "queues: [1] must be a list of names"),
        ("queues", "a,b:x", "queues: 'b:x': a weight must be a whole number, 1..1000"),
        ("queues", "a:0", "queues: 'a:0': a weight must be"),
        ("queues", ":3", "queues: '' must be text of 1 to 200 characters"),
        ("keep_dead", f"{YEAR * 2}s", "keep_dead: "),
    ],
)
def test_what_is_wrong_is_named_with_its_origin(tmp_path: Path, name: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(tmp_path, **{name: value})
    assert str(refused.value).startswith(said)
    assert str(refused.value).endswith("(from the arguments of Windlass())")
    if isinstance(value, str):
        with pytest.raises(ConfigError, match=f"WINDLASS_{name.upper()}"):
            settings(tmp_path, {f"WINDLASS_{name.upper()}": value})
        project(tmp_path, f"{name} = '{value}'")
        with pytest.raises(ConfigError, match=r"\[tool.windlass\] of .*pyproject.toml"):
            settings(tmp_path)


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^concurency \(from the arguments of Windlass\(\)\) is no setting; there are: concurrency"):
        settings(tmp_path, concurency=3)
    project(tmp_path, "workers = 3")
    with pytest.raises(ConfigError, match=r"^workers \(from \[tool.windlass\] of .*pyproject.toml\) is no setting"):
        settings(tmp_path)


def test_the_nearest_project_with_our_table_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner.parent / "pyproject.toml").write_text("[project]\nname = 'no-table-of-windlass'\n")
    project(tmp_path, "concurrency = 3\nurl = 'sqlite:///var/jobs.db'")
    given = settings(inner)
    assert given.concurrency == 3
    # Wherever in the project a command is started, it is the same file.
    assert given.url == f"sqlite:///{tmp_path}/var/jobs.db"
    project(tmp_path, "url = 'sqlite:////srv/jobs.db'")
    assert settings(inner).url == "sqlite:////srv/jobs.db"


def test_a_relative_file_in_the_environment_is_the_callers_own(tmp_path: Path) -> None:
    assert settings(tmp_path, {"WINDLASS_URL": "sqlite:///jobs.db"}).url == "sqlite:///jobs.db"


@pytest.mark.parametrize("content", [b"[tool.windlass\n", b"\xff windlass", b"[tool]\nwindlass = 3\n", b"tool = 'windlass'\n"])
def test_a_broken_project_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pyproject.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="pyproject.toml"):
        settings(tmp_path)


def test_windlass_reads_all_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, "url = 'memory://'\nhold = 30")
    monkeypatch.setenv("WINDLASS_CONCURRENCY", "3")
    app = Windlass(max_payload=1_000)
    assert (app.settings.url, app.settings.hold, app.settings.concurrency, app.settings.max_payload) == ("memory://", 30.0, 3, 1_000)
    assert Windlass("sqlite:///x.db").settings.url == "sqlite:///x.db"
    with pytest.raises(ConfigError, match=r"^colour \(from"):
        Windlass(colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///jobs.db", "sqlite:///jobs.db"), ("memory://", "memory://"),
        ("postgres://user:p@ss:word@host:5432/db", "postgres://user:***@host:5432/db"),
        ("postgresql://h/d?password=p&schema=s&listen=postgresql://u:p@h", "postgresql://h/d?password=***&schema=s&listen=***"),
        ("redis://:secret@host", "redis://:***@host"), ("redis://user@host/0", "redis://user@host/0"),
        ("sqlite:////a@b:c/d", "sqlite:////a@b:c/d"),
    ],
)  # fmt: skip
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_where_a_store_lies_is_shown_in_full_and_without_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert located("sqlite:///jobs.db") == located("sqlite+stdlib:///x/../jobs.db") == f"{tmp_path}/jobs.db"
    assert located("sqlite:////srv/jobs.db") == "/srv/jobs.db"
    assert located("memory://") == "memory://"
    assert located("postgres://ada:secret@db/jobs") == "postgres://ada:***@db/jobs"

"""The application that a command names; a user's mistake is told without a traceback of ours."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass import ConfigError
from windlass.loading import load_app, load_app_file


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    before, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("loaded_"):
            del sys.modules[name]
    sys.path[:] = path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("from windlass import Windlass\n" + textwrap.dedent(text))
    return path


def test_a_module_is_found_in_the_current_directory(tmp_path: Path) -> None:
    write(tmp_path / "loaded_a.py", "app = Windlass('memory://')\nother = Windlass('memory://')\n@app.task\ndef t(): ...")
    assert list(load_app("loaded_a:app").tasks) == list(load_app("loaded_a").tasks) == ["loaded_a.t"]
    assert load_app("loaded_a:other") is not load_app("loaded_a:app") is load_app("loaded_a")


def test_the_only_application_needs_no_name(tmp_path: Path) -> None:
    write(tmp_path / "loaded_b.py", "jobs = Windlass('memory://')\nalias = jobs")
    assert load_app("loaded_b") is load_app("loaded_b:jobs")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("", "app: '' must be \"module:attribute\""),
        (":app", "app: ':app' must be"),
        ("a b:app", "app: 'a b:app' must be"),
        ("../x:app", "app: '../x:app' must be"),
        ("loaded_nowhere:app", "app: there is no module 'loaded_nowhere' in "),
        ("loaded_nowhere.deep:app", "app: there is no module 'loaded_nowhere.deep' in "),
        ("loaded_c.deep:app", "app: there is no module 'loaded_c.deep' in "),
        ("loaded_c:nothing", "app: loaded_c:nothing: 'nothing' is not there"),
        ("loaded_c:number", "app: loaded_c:number: 'number' is of type int, no Windlass"),
        ("loaded_c", "app: loaded_c: it has several: say which, as module:attribute"),
        ("loaded_d", "app: loaded_d: it has no `app = Windlass()`"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, target: str, said: str) -> None:
    write(tmp_path / "loaded_c.py", "one, two = Windlass('memory://'), Windlass('memory://')\nnumber = 3")
    write(tmp_path / "loaded_d.py", "app = 7")
    with pytest.raises(ConfigError) as refused:
        load_app(target)
    assert str(refused.value).startswith(said)


def test_what_the_module_itself_raises_goes_through(tmp_path: Path) -> None:
    write(tmp_path / "loaded_e.py", "import loaded_nothing_of_that_name")
    with pytest.raises(ModuleNotFoundError, match="loaded_nothing_of_that_name"):
        load_app("loaded_e:app")
    file = write(tmp_path / "loaded_f.py", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_app_file(str(file))
    assert "loaded_f" not in sys.modules


def test_a_file_is_a_module_named_by_its_stem(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "loaded_part.py", "x = 1")
    file = write(
        tmp_path / "sub" / "loaded_g.py",
        """
        import sys
        import loaded_part
        app = Windlass("memory://")
        assert sys.modules[__name__].app is app
        @app.task
        def t(): ...
        """,
    )
    app = load_app_file(str(file))
    assert list(app.tasks) == ["loaded_g.t"] and sys.modules["loaded_g"].app is app
    assert load_app_file(str(file)) is app is load_app("loaded_g:app")


@pytest.mark.parametrize(
    ("name", "said"),
    [("loaded_nowhere.py", "app: there is no file"), ("my-app.py", "a module cannot be named 'my-app'"), ("json.py", "there is a module 'json' already")],
)
def test_files_that_cannot_be_modules_are_refused(tmp_path: Path, name: str, said: str) -> None:
    import json

    assert json
    if name != "loaded_nowhere.py":
        write(tmp_path / name, "app = Windlass('memory://')")
    with pytest.raises(ConfigError) as refused:
        load_app_file(str(tmp_path / name))
    assert said in str(refused.value)

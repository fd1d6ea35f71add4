"""`import windlass` is paid by every process of every application, at every start, so it loads almost nothing.

Asked of a new interpreter, by what is in `sys.modules` afterwards and was not there before.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.tidy.source import module_name, trees

HEAVY = {
    "apsw", "asyncio", "click", "concurrent.futures", "dataclasses", "importlib.metadata", "inspect", "logging",
    "multiprocessing", "sqlite3", "ssl", "starlette", "uvicorn",
}  # fmt: skip
PROGRAM = """
import json, sys
import {baseline}
before = set(sys.modules)
{statement}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by(statement: str, baseline: str = "sys") -> set[str]:
    program = PROGRAM.format(statement=statement, baseline=baseline)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """What a module imports when it is imported itself: not inside a function, nor for type checkers only."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_import_windlass_loads_nothing_heavy() -> None:
    """msgspec loads `inspect` where `typing_extensions` is installed, so what it loads anyway is left out here."""
    loaded = loaded_by("import windlass", baseline="msgspec")
    assert "windlass" in loaded
    assert not loaded & HEAVY, f"import windlass loads {sorted(loaded & HEAVY)}"


def test_what_is_imported_asks_for_nothing_heavy_itself() -> None:
    """So that what msgspec may load does not hide that we load it too."""
    loaded = loaded_by("import windlass")
    guilty = [
        f"{module_name(path)} imports {name}"
        for path, tree in trees().items()
        if module_name(path) in loaded
        for name in imported_at_once(tree)
        if name in HEAVY
    ]
    assert not guilty, guilty


@pytest.mark.parametrize("name", ["asyncio", "sqlite3", "inspect"])
def test_a_heavy_import_would_be_seen(name: str) -> None:
    assert name in loaded_by(f"import {name}")


def test_declaring_a_task_loads_no_driver_and_no_server() -> None:
    """A web application declares its tasks while it starts; it opens the store when it first enqueues."""
    loaded = loaded_by(
        "import windlass\napp = windlass.Windlass('memory://')\n@app.task\ndef add(a: int, b: int) -> int: return a + b"
    )
    heavy = {"apsw", "click", "psycopg", "sqlite3", "starlette", "uvicorn"}
    assert not loaded & heavy, f"declaring a task loads {sorted(loaded & heavy)}"

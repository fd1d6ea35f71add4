"""`import windlass` is paid by every process of every application, at every start, so it loads almost nothing.

Asked of a new interpreter, by what is in `sys.modules` afterwards and was not there before.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "apsw", "asyncio", "click", "concurrent.futures", "dataclasses", "importlib.metadata", "inspect", "logging",
    "multiprocessing", "sqlite3", "ssl", "starlette", "uvicorn",
}  # fmt: skip
# msgspec decides some of these itself when it is imported; what it costs, we cannot avoid.
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


def test_import_windlass_loads_nothing_heavy() -> None:
    loaded = loaded_by("import windlass")
    assert "windlass" in loaded
    assert not loaded & HEAVY, f"import windlass loads {sorted(loaded & HEAVY)}"


@pytest.mark.parametrize("name", ["asyncio", "sqlite3", "inspect"])
def test_a_heavy_import_would_be_seen(name: str) -> None:
    assert name in loaded_by(f"import {name}")


def test_declaring_a_task_loads_no_driver_and_no_server() -> None:
    """A web application declares its tasks while it starts; it opens the store when it first enqueues."""
    loaded = loaded_by(
        "import windlass\napp = windlass.Windlass('memory://')\n@app.task\ndef add(a: int, b: int) -> int: return a + b"
    )
    heavy = {"apsw", "click", "sqlite3", "starlette", "uvicorn"}
    assert not loaded & heavy, f"declaring a task loads {sorted(loaded & heavy)}"

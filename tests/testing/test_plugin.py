"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import windlass
from windlass.testing.pytest_plugin import harmless

TASKS = """
from windlass import Windlass

app = Windlass("sqlite:////nowhere/else/shop.db")

@app.task
async def double(n: int) -> int:
    return 2 * n
"""


def run(folder: Path, tests: str, settings: str = 'windlass_app = "tasks:app"') -> subprocess.CompletedProcess[str]:
    (folder / "tasks.py").write_text(TASKS)
    (folder / "test_it.py").write_text(tests)
    (folder / "pyproject.toml").write_text(f"[tool.pytest.ini_options]\n{settings}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "windlass.testing.pytest_plugin", "-p", "no:cacheprovider"]
    # Installed, it is there by its entry point; here it must not be loaded twice.
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environ["PYTHONPATH"] = str(Path(windlass.__file__).parent.parent)
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_the_fixture(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "import asyncio\n"
        "from tasks import double\n"
        "def test_blocking(windlass_jobs):\n"
        "    job = double.enqueue(4)\n"
        "    windlass_jobs.drain().assert_completed()\n"
        "    assert job.result(timeout=0) == 8\n"
        "def test_each_has_a_store_of_its_own(windlass_jobs):\n"
        "    assert windlass_jobs.all() == []\n"
        "def test_on_a_loop(windlass_jobs):\n"
        "    async def main():\n"
        "        await double.aenqueue(4)\n"
        "        assert (await windlass_jobs.adrain()).completed == 1\n"
        "    asyncio.run(main())\n",
    )
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout


def test_under_an_async_plugin(tmp_path: Path) -> None:
    """The fixture is a plain one; the loop is whoever's runs the test."""
    tests = (
        "import pytest\nfrom tasks import double\n"
        "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
        "@pytest.mark.anyio\nasync def test_it(windlass_jobs):\n"
        "    job = await double.aenqueue(4)\n"
        "    (await windlass_jobs.adrain()).assert_completed()\n"
        "    assert await job.aresult(timeout=0) == 8\n"
    )
    done = run(tmp_path, tests, 'windlass_app = "tasks:app"\naddopts = "-p anyio.pytest_plugin"')
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_who_forgets_it_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, "from tasks import double\ndef test_it():\n    double.enqueue(4)\n")
    assert done.returncode == 1
    assert "a test opened the store sqlite:////nowhere/else/shop.db" in done.stdout
    assert "Use the fixture windlass_jobs, or mark the test with @pytest.mark.windlass_store" in done.stdout


def test_who_means_it_may(tmp_path: Path) -> None:
    tests = (
        "import pytest\nfrom tasks import double\n@pytest.mark.windlass_store\ndef test_it():\n    double.enqueue(4)\n"
    )
    done = run(tmp_path, tests)
    assert "the directory /nowhere/else does not exist" in done.stdout, done.stdout
    done = run(tmp_path, tests.replace("@pytest.mark.windlass_store\n", ""), "windlass_guard = false")
    assert "the directory /nowhere/else does not exist" in done.stdout, done.stdout


def test_which_application(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_it(windlass_jobs): pass\n", "")
    assert "which application? Set windlass_app" in done.stdout
    own = (
        "import pytest\nfrom windlass import Windlass\n"
        "@pytest.fixture\ndef windlass_app():\n    return Windlass()\n"
        "def test_it(windlass_jobs, windlass_app):\n    assert windlass_jobs.app is windlass_app\n"
    )
    assert run(tmp_path, own, "").returncode == 0
    assert not list(tmp_path.glob("*.db"))


def test_the_plugin_alone_loads_little() -> None:
    """Every pytest of the environment loads it, also those that have nothing to do with jobs."""
    program = "import sys, pytest, windlass.testing.pytest_plugin as p; print('windlass.testing.jobs' in sys.modules)"
    # The package's own __init__ is what makes the difference.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("memory://", True),
        ("sqlite:///windlass.db", False),
        ("sqlite:////var/lib/app/jobs.db", False),
        ("sqlite:////{tmp}/../../jobs.db", False),
        ("sqlite:////{tmp}/jobs.db", True),
        ("sqlite+stdlib:////{tmp}/jobs.db", True),
        ("postgres://db/app", False),
    ],
)
def test_what_is_harmless(url: str, may: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir("/")
    assert harmless(url.replace("{tmp}", str(tmp_path / "temporary")[1:])) is may


def test_a_projects_own_files_are_not_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the whole project lies where temporary files do, as a checkout on a build machine may."""
    monkeypatch.setattr("tempfile.tempdir", "/t")
    assert not harmless("sqlite:////t/shop/jobs.db", "/t/shop")
    assert harmless("sqlite:////t/shop/.tmp/jobs.db", "/t/shop", "/t/shop/.tmp")
    assert harmless("sqlite:////t/pytest-1/jobs.db", "/t/shop")
    assert harmless("sqlite:////t/shopping/jobs.db", "/t/shop")
    for whole in ("/t", "/"):  # what pytest takes for the project where there is no configuration
        assert harmless("sqlite:////t/pytest-1/jobs.db", whole)


def test_the_guard_knows_the_project(tmp_path: Path) -> None:
    tests = "from windlass import Windlass\ndef test_it():\n    Windlass('sqlite:///jobs.db').enqueue('t')\n"
    done = run(tmp_path, tests)
    assert "which is not in a temporary directory, or is among the project's own files" in done.stdout, done.stdout
    assert not (tmp_path / "jobs.db").exists()

"""The Makefile's stamps say what is installed; they must not say so when it is something else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.tidy.source import REPOSITORY


@pytest.mark.parametrize("verb", ["demo", "test"])
def test_a_copy_of_the_package_is_linked_again(verb: str, tmp_path: Path) -> None:
    """README says `pip install .`: after it, `make` would test and show what was there then."""
    venv = tmp_path / "venv"
    package = venv / "lib" / "python3.11" / "site-packages" / "windlass" / "__init__.py"
    (venv / "bin").mkdir(parents=True)
    for name in ("bin/python", ".demo", ".dev"):
        (venv / name).touch()

    def steps() -> str:
        command = ["make", "-n", verb, f"VENV={venv}", "PYTHON=python3"]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout

    assert "pip" not in steps()
    package.parent.mkdir(parents=True)
    package.touch()
    assert "-m pip" in steps()
    assert "install -e" in steps()

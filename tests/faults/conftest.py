"""A place for files whose flushes need not be real."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """In memory where possible: what fails here fails by our own hand, and thousands of real flushes take minutes."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    folder = memory / f"windlass-{tmp_path.name}-{id(tmp_path):x}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)

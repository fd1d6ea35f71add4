"""Tests with several processes each: one at a time, beside whatever else runs, since some of them measure time."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
BRIEF = {"test_kills.py", "test_process_slots.py", "test_stderr.py", "test_stops.py"}
"""What runs on every Python: workers that are killed and stopped."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("acceptance"))
            if item.path.name not in BRIEF:
                item.add_marker(pytest.mark.once)

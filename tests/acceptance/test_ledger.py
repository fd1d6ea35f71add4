"""The checker is seen to fail, once for each thing it looks for, before it is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.acceptance import ledger
from tests.acceptance.ledger import Line
from windlass.core.job import Job, State

JOB = Job(
    "j", "t", 1, "", "default", State.COMPLETED, None, 50, 0, 0, None, "[]", "{}", 1, 0, 0, False,
    7, "w", 0, 1, False, "null", False, None, None,
)  # fmt: skip
GOOD = [Line(1.0, 10, "start", "j", 7), Line(2.0, 10, "end", "j", 7)]


def check(lines: list[Line], *jobs: Job, **how: Any) -> list[str]:
    return ledger.violations(lines, jobs, ["j"], **how)


def test_what_is_well_is_not_accused() -> None:
    assert check(GOOD, JOB, exactly_once=True, starts_most=1) == []


@pytest.mark.parametrize(
    ("lines", "jobs", "how", "said"),
    [
        (GOOD, [], {}, "I1"),
        (GOOD, [msgspec.structs.replace(JOB, state=State.RUNNING)], {}, "I2"),
        (GOOD[:1], [JOB], {}, "I2"),
        ([*GOOD, Line(3.0, 11, "start", "j", 6)], [JOB], {}, "I4"),
        ([*GOOD, Line(3.0, 11, "start", "j", 7)], [JOB], {}, "I4"),
        ([*GOOD, Line(3.0, 11, "start", "j", 8)], [JOB], {"starts_most": 1}, "I6"),
        ([*GOOD, Line(3.0, 11, "end", "j", 7)], [JOB], {"exactly_once": True}, "I26"),
    ],
)
def test_a_planted_violation_is_found(lines: list[Line], jobs: list[Job], how: dict[str, Any], said: str) -> None:
    found = check(lines, *jobs, **how)
    assert [each.split(":")[0] for each in found] == [said], found


def test_lines_of_several_actors_come_by_time(tmp_path: Path) -> None:
    ledger.write(str(tmp_path), "start", "a", 1)
    (tmp_path / "2.jsonl").write_bytes(msgspec.json.encode(Line(0.5, 2, "start", "b")) + b"\n")
    assert [line.job for line in ledger.read(tmp_path)] == ["b", "a"]


def test_a_crowd_is_noticed() -> None:
    """Of three runs under a limit of two; and neither a death nor an end is taken for one."""
    limits = {job: {"k": 2} for job in "abc"}
    lines = [
        ledger.Line(1.0, 1, "start", "a", 1),
        ledger.Line(2.0, 2, "start", "b", 1),
        ledger.Line(3.0, 1, "end", "a", 1),
        ledger.Line(4.0, 3, "start", "c", 1),
        ledger.Line(5.0, 1, "start", "a", 2),
    ]
    found, most = ledger.crowds(lines, limits, {2: 4.5})
    assert (found, most) == ([], {"k": 2})
    found, most = ledger.crowds(lines, limits, {})
    assert (len(found), most) == (1, {"k": 3})
    assert "3 of 2 ran under 'k'" in found[0]

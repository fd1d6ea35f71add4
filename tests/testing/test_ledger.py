"""The checker of ledgers is seen to fail, for each thing that it looks for, before it is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from windlass import Context, Limit, Unique, Windlass
from windlass.testing import engine, ledger
from windlass.testing.ledger import DamagedLedger, History, Line, check
from windlass.testing.ledger.rules import RULES

SECOND = 1_000_000


def acked(job: str = "j", **more: Any) -> Line:
    return Line(0.5, 1, "acked", job, **more)


def start(at: float, fence: int = 7, job: str = "j", actor: int = 10, **more: Any) -> Line:
    return Line(at, actor, "start", job, fence, **more)


def end(at: float, fence: int = 7, job: str = "j", actor: int = 10, how: str = "returned") -> Line:
    return Line(at, actor, "end", job, fence, note=how)


def stored(fence: int = 7, job: str = "j", state: str = "completed", **more: Any) -> Line:
    return Line(99.0, 1, "job", job, fence, state=state, **more)


def fault(kind: str, since: float, until: float, *pids: int) -> Line:
    return Line(until, 1, "fault", since=since, kind=kind, note=f"SIG{kind.upper()}", pids=pids)


def attempt(fence: int, outcome: str, worker: str = "") -> Line:
    return Line(99.0, 1, "attempt", "j", fence, state=outcome, worker=worker)


def worker(name: str, pid: int) -> Line:
    return Line(99.0, 1, "worker", worker=name, pids=(pid,))


def effect(fence: int, since: float, at: float) -> Line:
    return Line(at, 10, "effect", "j", fence, since=since, note="mail")


def written(fence: int) -> Line:
    return Line(99.0, 1, "written", "j", fence, note="booked")


def schedule(first: int, last: int) -> Line:
    return Line(99.0, 1, "schedule", schedule="s", created=first * SECOND, ended=last * SECOND, step=SECOND)


def tick(second: int, job: str) -> Line:
    return stored(job=job, state="cancelled", schedule="s", tick=second * SECOND)


def limited(job: str, begun: float, ended: float, actor: int = 10) -> list[Line]:
    return [start(begun, 1, job, actor, limits={"k": 2}), end(ended, 1, job, actor)]


def keyed(job: str, begun: float, ended: float, task: str = "t") -> list[Line]:
    return [start(begun, 1, job, task=task, unique="u"), end(ended, 1, job)]


def lived(job: str, created: int, ended: int, *, alone: bool = True) -> Line:
    return stored(job=job, state="cancelled", unique="u", alone=alone, created=created, ended=ended)


def queued_up(acknowledged: float | None) -> list[Line]:
    """Two of one key, of which the second read the store's clock before the first had ended."""
    kept = {"task": "t", "unique": "u", "alone": True, "fence": 1}
    first = [*keyed("a", 1, 2), stored(job="a", created=1, ended=5, **kept)]
    second = [*keyed("b", 3, 4), stored(job="b", created=4, ended=7, **kept)]
    return [*([] if acknowledged is None else [Line(acknowledged, 1, "acked", "b")]), *first, *second]


def found(*lines: Line | Sequence[Line]) -> list[str]:
    """The rules that are broken, by name."""
    flat = [each for part in lines for each in ([part] if isinstance(part, Line) else part)]
    return [problem.rule for problem in check(History(flat)).problems]


ONCE = [acked(), start(1.0), end(2.0)]
TWICE = [acked(), start(1.0), start(5.0, 8, actor=11), end(6.0, 8, actor=11), stored(8)]
GHOST = [start(5.0, 8, actor=11), end(6.0, 8, actor=11), start(9.5), end(9.7), stored(8)]

LATE = [start(1.0), end(2.0), start(31.0, 8), end(32.0, 8), stored(8)]

WELL = {
    "stored when the other of its key had ended": queued_up(acknowledged=2.5),
    "the same, and its answer was lost": queued_up(acknowledged=None),
    "once": [*ONCE, stored()],
    "nobody asked the store": ONCE,
    "not acknowledged": [start(1.0)],
    "retried": [*TWICE, end(2.0, how="raised")],
    "snoozed": [*TWICE, end(2.0, how="snoozed")],
    "a failure that its handler could not write down": [*TWICE, attempt(7, "failed")],
    "killed": [*TWICE, fault("kill", 3.0, 3.1, 10)],
    "killed before its end was kept": [*TWICE, end(2.0), fault("kill", 3.0, 3.1, 10)],
    "killed while the store, which had been away, did not have its end": [
        *LATE, fault("store", 3.0, 14.0), fault("kill", 20.0, 20.1, 10),
    ],
    "its supervisor was killed": [*TWICE[2:], start(1.0, 6, parent=9), fault("kill", 3.0, 3.1, 9)],
    "the worker was killed whose slot it was": [
        *TWICE, end(2.0), fault("kill", 3.0, 3.1, 12), attempt(7, "released", "w"), worker("w", 12),
    ],
    "stopped": [*TWICE, fault("stop", 0.5, 9.0, 10), end(9.1)],
    "stopped between its claim and its start": [*GHOST, fault("stop", 0.5, 9.0, 10)],
    "handed back": [*TWICE, end(2.0, how="cancelled"), fault("term", 1.5, 2.5, 10)],
    "an effect before the takeover": [*TWICE, fault("stop", 1.3, 9.0, 10), effect(7, 1.1, 9.1), end(9.2)],
    "an effect after it, in the new run": [*TWICE, fault("stop", 1.3, 9.0, 10), effect(8, 5.1, 5.2), end(9.2)],
    "written with the completion": [*ONCE, stored(), written(7)],
    "its own result": [*ONCE, stored(result=7)],
    "each tick once": [tick(1, "a"), tick(2, "b"), schedule(1, 2)],
    "two at once of two": [*limited("a", 1, 3), *limited("b", 2, 4)],
    "the third after one was killed": [
        *limited("a", 1, 3), start(2, 1, "b", 11, limits={"k": 2}), fault("kill", 2.5, 2.6, 11), *limited("c", 2.7, 4),
    ],
    "the third while a ghost ran on": [
        *limited("a", 1, 9), *limited("b", 2, 9.1, 11), fault("stop", 2.5, 8, 11), *limited("c", 7, 9),
    ],
    "one after the other": [*keyed("a", 1, 2), *keyed("b", 2, 3), lived("a", 1, 5), lived("b", 5, 7)],
    "one key, two tasks": [*keyed("a", 1, 3), *keyed("b", 2, 4, "other")],
    "a successor": [lived("a", 1, 5, alone=False), lived("b", 3, 7, alone=False)],
}  # fmt: skip

PLANTED = {
    "an acknowledged job is not in the store": ([*ONCE, stored(job="other", state="dead")], "lost"),
    "the store is empty": ([*ONCE, Line(99.0, 1, "exported")], "lost"),
    "an acknowledged job never ended": ([acked(), start(1.0)], "lost"),
    "its last run asked for another": ([acked(), start(1.0), end(2.0, how="raised")], "lost"),
    "it still waits": ([*ONCE, stored(state="retrying")], "unended"),
    "completed without a run": ([acked(), stored()], "unended"),
    "completed in a run that has no end": ([acked(), start(1.0), stored()], "unended"),
    "one fence, two starts": ([*ONCE, start(3.0, actor=11), stored()], "fence"),
    "a smaller fence later": ([*GHOST, attempt(7, "failed")], "fence"),
    "it ran again for nothing": ([*TWICE, end(2.0)], "unexplained"),
    "it was cut off by nothing": (TWICE, "unexplained"),
    "another worker was killed": (
        [*TWICE, end(2.0), fault("kill", 3.0, 3.1, 12), attempt(7, "released", "w"), worker("w", 13)], "unexplained",
    ),
    "another was killed": ([*TWICE, fault("kill", 3.0, 3.1, 12)], "unexplained"),
    "killed before it began": ([*TWICE, fault("kill", 0.1, 0.2, 10)], "unexplained"),
    "killed after it ran again": ([*TWICE, fault("kill", 5.5, 5.6, 10)], "unexplained"),
    "killed long after its end": ([*LATE, fault("kill", 20.0, 20.1, 10)], "unexplained"),
    "killed long after the store was back": (
        [*LATE, fault("store", 3.0, 9.0), fault("kill", 20.0, 20.1, 10)], "unexplained",
    ),
    "the store says it was lost, and nobody says why": ([*TWICE, attempt(7, "lost")], "unexplained"),
    "a ghost's effect": ([*TWICE, fault("stop", 1.5, 9.0, 10), effect(7, 9.1, 9.2), end(9.3)], "stale"),
    "a ghost's completion": ([*TWICE[:-1], fault("stop", 1.5, 9.0, 10), end(9.1), stored(7)], "stale"),
    "a ghost's result": ([*ONCE, stored(result=6)], "stale"),
    "written twice": ([*ONCE, stored(), written(7), written(7)], "stale"),
    "written by a run that failed": ([*TWICE, end(2.0, how="raised"), written(7)], "stale"),
    "written by a job that is dead": ([*ONCE, stored(state="dead"), written(7)], "stale"),
    "two jobs for a tick": ([tick(1, "a"), tick(1, "b"), schedule(1, 1)], "tick"),
    "a tick without a job": ([tick(1, "a"), tick(3, "b"), schedule(1, 3)], "tick"),
    "three at once of two": ([*limited("a", 1, 3), *limited("b", 1, 3), *limited("c", 2, 4)], "limit"),
    "three, one of them killed too late": (
        [*limited("a", 1, 3), start(1, 1, "b", 11, limits={"k": 2}), fault("kill", 2.5, 2.6, 11), *limited("c", 2, 4)],
        "limit",
    ),
    "two of one key ran at once": ([*keyed("a", 1, 3), *keyed("b", 2, 4)], "unique"),
    "one was acknowledged while the other of its key ran": (queued_up(acknowledged=1.5), "unique"),
    "two of one key lived at once": ([lived("a", 1, 5), lived("b", 4, 7)], "unique"),
    "one of the key never ended": ([lived("a", 1, 0), lived("b", 4, 7)], "unique"),
}  # fmt: skip


@pytest.mark.parametrize("name", WELL)
def test_what_is_well_is_not_accused(name: str) -> None:
    assert found(WELL[name]) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(name: str) -> None:
    lines, rule = PLANTED[name]
    assert found(lines) == [rule]


def test_something_is_planted_for_every_rule() -> None:
    assert {rule for _, rule in PLANTED.values()} == set(RULES)


def test_a_report_counts_what_was_delivered() -> None:
    lines = [*TWICE, fault("kill", 3.0, 3.1, 10), fault("stop", 3.5, 9.0, 12), *limited("a", 1, 3), *limited("b", 2, 3)]
    report = check(History(lines))
    assert report.faults == {"SIGKILL": 1, "SIGSTOP": 1}
    assert report.explained == {"SIGKILL": 1}
    assert report.crowds == {"k": 2}
    assert (report.counts["acknowledged"], report.counts["starts"], report.counts["ran again"]) == (1, 4, 1)
    assert report.ok


def test_lines_of_several_actors_come_by_time(tmp_path: Path) -> None:
    ledger.write(str(tmp_path), "start", "a", 1)
    ledger.line.append(str(tmp_path / "2.jsonl"), [Line(0.5, 2, "start", "b")])
    assert [line.job for line in ledger.read(tmp_path)] == ["b", "a"]


HOSTILE = (
    b"{",
    b'{"at":1}\n',
    b'{"at":1,"actor":1,"what":"end"}',
    b"\xff\n",
    b"\n",
    b"[1]\n",
    b'{"at":1,"actor":1,"what":"worker","worker":"w"}\n',
    b'{"at":1,"actor":1,"what":"end","more":' + b"[" * 200_000 + b"]" * 200_000 + b"}\n",
    b'{"at":1,"actor":1,"what":"schedule","schedule":"s","created":0,"ended":4611686018427387904,"step":1}\n',
    b'{"at":1,"actor":1,"what":"schedule","schedule":"s","created":0,"ended":0,"step":-1}\n',
    b'{"at":1,"actor":1,"what":"end","note":"' + b"x" * (1 << 20) + b'"}\n',
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_damaged_line_is_named(tmp_path: Path, text: bytes) -> None:
    ledger.write(str(tmp_path), "start", "a", 1)
    path = next(tmp_path.glob("*.jsonl"))
    path.write_bytes(path.read_bytes() + text)
    with pytest.raises(DamagedLedger, match=f"{path}:2: "):
        History.of(tmp_path)


def test_an_export_is_what_the_rules_ask_for(tmp_path: Path) -> None:
    app = Windlass("memory://")

    @app.task(max_attempts=2, limit=Limit(3, name="both"), unique=Unique())
    def fail() -> None:
        raise RuntimeError

    @app.task
    def name(ctx: Context) -> dict[str, int]:
        return {"fence": ctx.token.fence}

    with engine(app) as jobs:
        fail.enqueue()
        name.enqueue()
        jobs.drain(with_scheduled=True)
        assert ledger.export(app.opened, tmp_path) == 2
    lines = ledger.read(tmp_path)
    [named] = [line for line in lines if line.what == "job" and line.state == "completed"]
    assert named.result == named.fence
    [job] = [line for line in lines if line.what == "job" and line is not named]
    assert (job.state, job.attempt, job.limits, job.alone) == ("dead", 2, {"both": 3}, True)
    assert job.unique and job.created and job.ended >= job.created
    assert [line.state for line in lines if line.what == "attempt"] == ["failed", "failed"]
    assert check(History(lines)).ok

"""I25: two versions of the code side by side on one store. Jobs of either run where they can, wait where nobody can, and
are never dropped, burnt or run twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from tests.acceptance.rig import HERE, PROGRAM, REPOSITORY, Rig, eventually, rig
from windlass.core.job import NewJob
from windlass.core.placement import job_id

OLD, NEW = str(HERE / "release_old.py"), str(HERE / "release_new.py")
EACH = {"closing": 5_000, "soak": 12_500}.get(os.environ.get("WINDLASS_PROOF", ""), 500)
"""Jobs of each of the four kinds; 50,000 in all are the full figure."""


def put(r: Rig, task: str, arguments: list[Any], version: int = 1, count: int = EACH) -> list[str]:
    payload = msgspec.json.encode([arguments, {}]).decode()
    ids = [job_id(time.time_ns() // 1_000_000, os.urandom(10)) for _ in range(count)]
    jobs = [NewJob(id=id, task=f"shop.{task}", payload=payload, version=version) for id in ids]
    r.run(r.opened.store.enqueue(jobs))
    r.opened.shell.hint()
    r.acked += ids
    return ids


def ended(r: Rig, ids: list[str]) -> bool:
    return all(job is not None and job.state.terminal for job in r.run(r.opened.store.fetch(ids)))


def who(r: Rig, ids: list[str]) -> Counter[str]:
    wanted = set(ids)
    return Counter(line.note for line in r.lines(what="end") if line.job in wanted)


def deploy_check(r: Rig, target: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "deploy-check", target, "--json"],
        cwd=REPOSITORY, env={**os.environ, **r.environment}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, msgspec.json.decode(done.stdout)


def test_two_versions_side_by_side(tmp_path: Path, record_property: Any) -> None:
    """I25, I22."""
    with rig(tmp_path) as r:
        old = r.supervise("--processes", "1", "--concurrency", "20", target=OLD)
        new = r.supervise("--processes", "1", "--concurrency", "20", target=NEW)
        eventually(lambda: len(r.workers()) == 2)
        kinds = {
            "from before": put(r, "greet", ["Ada Lovelace"]),
            "from after": put(r, "greet", ["Ada", "Lovelace"], version=2),
            "as ever": put(r, "same", [7]),
            "new": put(r, "added", []),
        }
        for ids in kinds.values():
            eventually(lambda ids=ids: ended(r, ids), 120.0)
        assert set(who(r, kinds["from after"])) == {"new greet"}
        assert set(who(r, kinds["new"])) == {"new added"}
        assert set(who(r, kinds["from before"])) <= {"old greet", "new greet"}
        assert old.stop() == new.stop() == 0
        assert {(job.state, job.attempt) for job in r.jobs()} == {("completed", 1)}
        assert r.violations(exactly_once=True) == []
        both = Counter(line.note.split()[0] for line in r.lines(what="end"))
        assert both["old"] and both["new"], "one of the two did nothing, so nothing was proven"
        record_property("proof", {"jobs": len(r.acked), "by the old code": both["old"], "by the new": both["new"]})


def test_what_nobody_knows_waits(tmp_path: Path) -> None:
    """I22, I25: with the old code alone, jobs of the new one wait, uncharged; a rollback loses nothing."""
    with rig(tmp_path) as r:
        old = r.supervise("--processes", "1", target=OLD)
        ahead = [*put(r, "greet", ["Ada", "Lovelace"], version=2, count=50), *put(r, "added", [], count=50)]
        known = put(r, "same", [7], count=50)
        eventually(lambda: ended(r, known))
        # Some were claimed once and handed back; from then on the old worker leaves them to others.
        eventually(lambda: {job.reason for job in r.run(r.opened.store.fetch(ahead))} == {None})
        assert {(job.state, job.attempt) for job in r.run(r.opened.store.fetch(ahead))} == {("queued", 0)}
        handed_back = {past.outcome for job in ahead for past in r.run(r.opened.store.attempts(job))}
        assert handed_back == {"released"}
        new = r.supervise("--processes", "1", target=NEW)
        eventually(lambda: ended(r, ahead))
        assert {(job.state, job.attempt) for job in r.run(r.opened.store.fetch(ahead))} == {("completed", 1)}
        assert old.stop() == new.stop() == 0


def test_a_check_before_the_release_foretells_it(tmp_path: Path) -> None:
    """What deploy-check calls a misfit is what the new workers then leave, and nothing else."""
    with rig(tmp_path) as r:
        fine = put(r, "greet", ["Ada Lovelace"], count=20)
        gone = put(r, "removed", [], count=3)
        broken = put(r, "same", ["seven"], count=2)
        ahead = put(r, "greet", ["Ada", "of", "Lovelace"], version=3, count=4)
        assert deploy_check(r, OLD)[0] == 1
        code, found = deploy_check(r, NEW)
        assert (code, found["looked_at"], found["misfits"], found["complete"]) == (1, 29, 9, True)
        assert {each["sentence"]: set(each["ids"]) for each in found["problems"]} == {
            "4 `shop.greet` jobs have version 3, newer than the 2 of this code: they would wait": set(ahead[:3]),
            "3 `shop.removed` jobs: task `shop.removed` no longer exists": set(gone),
            "2 `shop.same` jobs cannot be bound: number: expected int, got str": set(broken),
        }
        new = r.supervise("--processes", "1", target=NEW)
        eventually(lambda: ended(r, [*fine, *broken]))
        states = {name: {job.state for job in r.run(r.opened.store.fetch(ids))} for name, ids in
                  {"fine": fine, "broken": broken}.items()}  # fmt: skip
        assert states == {"fine": {"completed"}, "broken": {"dead"}}
        assert not any(job.state.terminal for job in r.run(r.opened.store.fetch([*gone, *ahead])))
        assert new.stop() == 0

"""The checker: goes through a ledger from its beginning, and through what the store holds in the end, and says which
invariant was broken where. It shares no code with what it checks: what a death, a failure or a cancellation does to a
job is written here a second time, as the promises say it.

Whoever adds an operation to the seam adds `_on_<operation>` here or to one of the judges below, each of which knows one
subject, and its name to `shells.NOTED`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from windlass.core.job import Held, NewJob, Policy, State, Token, Transition
from windlass.ports.store import BeatAnswer, Claimed, Death, Enqueued, Filter, Reaped, Selected, Selection, WorkerReport
from windlass.testing.simulation.judge import Judge
from windlass.testing.simulation.known import Known, Lease
from windlass.testing.simulation.leads import Leads
from windlass.testing.simulation.ledger import Commit, Deed, Ledger
from windlass.testing.simulation.permits import Permits
from windlass.testing.simulation.ticks import Ticks
from windlass.testing.simulation.uniques import Uniques
from windlass.testing.simulation.world import Dump

ENOUGH = 20
"""Violations after which a life is not looked into further."""


JUDGES: tuple[type[Judge], ...] = (Ticks, Permits, Uniques, Leads)


class Checker:
    """Goes through one life."""

    def __init__(self, ledger: Ledger, dump: Dump, judges: Sequence[type[Judge]] = JUDGES) -> None:
        self._ledger = ledger
        self._dump = dump
        self.judges = [judge(self) for judge in judges]
        self.violations: list[str] = []
        self.jobs: dict[str, Known] = {}
        """What is known of each job so far, and below of each worker."""
        self.keys: dict[tuple[str, str], str] = {}
        self.leases: dict[str, Lease] = {}
        self.taken: set[str] = set()
        self.dead: set[str] = set()
        self.granted: dict[tuple[str, int], str] = {}
        self.deleted: set[str] = set()
        self._started: set[tuple[str, int]] = set()
        self._running: dict[str, set[tuple[str, int]]] = {}
        """Worker -> what its handlers say that they are at."""
        self.begun: set[str] = set()
        self._peaks: list[tuple[float, int]] = []
        """What the store's clock showed before it was set back: what was due by it then is due."""

    def check(self) -> list[str]:
        """Every violation found, in the order of the ledger; empty is health."""
        for line in self._ledger.lines:
            if isinstance(line, Commit):
                self.judge(line)
            else:
                self._deed(line)
            if len(self.violations) >= ENOUGH:
                return self.violations
        self._final()
        return self.violations

    def judge(self, line: Commit) -> None:
        """Judge one answer of the store by all that went before."""
        for each in (self, *self.judges):
            handle = getattr(each, f"_on_{line.operation}", None)
            if handle is not None:
                handle(line, *line.given, line.answer)

    def copy(self) -> Checker:
        """One that knows the same of jobs and workers, and can go on from here by itself."""
        made = Checker.__new__(Checker)
        made.__dict__.update(self.__dict__)
        made.violations = []
        made.jobs = {id: job.copy() for id, job in self.jobs.items()}
        made.leases = {id: lease.copy() for id, lease in self.leases.items()}
        made.taken, made.dead, made.begun = set(self.taken), set(self.dead), set(self.begun)
        made.granted, made.deleted, made.keys = dict(self.granted), set(self.deleted), dict(self.keys)
        made.judges = [judge.copy(made) for judge in self.judges]
        return made

    def broken(self, invariant: str, where: Commit | Deed | None, text: str) -> None:
        """Note that an invariant does not hold."""
        at = "" if where is None else f" at {where.when:.4f} ({where.who})"
        self.violations.append(f"{invariant}{at}: {text}")

    # --- deeds -------------------------------------------------------------------------------------------------------

    def _deed(self, deed: Deed) -> None:
        for judge in self.judges:
            judge.deed(deed)
        match deed.what:
            case "worker begins":
                self.begun.add(deed.facts[0])
            case "worker process ended":
                self.dead.add(deed.facts[0])
            case "FAULT clock stepped":
                self._peaks.append((deed.when, deed.facts[1]))
            case "commits lost":
                self.broken("I1", deed, f"{deed.facts[0]} acknowledged commits were lost with the power")
            case "handler begins":
                job, fence = deed.facts[:2]
                worker = deed.facts[2]
                if self.granted.get((job, fence)) != worker:
                    self.broken("I5", deed, f"{job} runs under fence {fence}, which {worker} was never given")
                if (job, fence) in self._started:
                    self.broken("I6", deed, f"{job} is run twice under fence {fence}")
                self._started.add((job, fence))
                self._running.setdefault(worker, set()).add((job, fence))
            case "handler returned" | "handler raised":
                self._running.get(deed.facts[2], set()).discard(deed.facts[:2])
            case "client cancelled a family":
                self._family_over(deed, deed.facts[0])
            case "handler runs without end":
                self.broken("I6", deed, f"{deed.facts[0]} runs again and again: {deed.facts[1]} times")

    def _family_over(self, deed: Deed, eldest: str) -> None:
        """Nobody in it may go on, unless somebody revived him meanwhile."""
        family = {eldest}
        for job in self.jobs.values():  # parents were enqueued before their children
            if job.meta.parent_id in family:
                family.add(job.new.id)
                if job.ended is None and not (job.asked or job.revived or job.orphan):
                    self.broken("I13", deed, f"{job.new.id} lives, of the family of {eldest}")

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _on_enqueue(self, line: Commit, jobs: Sequence[NewJob], answers: Sequence[Enqueued]) -> None:
        for job, answer in zip(jobs, answers, strict=True):
            self._enqueued(line, job, answer)

    def _enqueued(self, line: Commit, job: NewJob, answer: Enqueued) -> None:
        key = _key(job)
        owner = self.keys.get(key) if key else None
        if job.id in self.jobs:
            if answer.id != job.id or not answer.inserted:
                self.broken("I1", line, f"{job.id} is sent again, and is answered {answer}")
        elif any(judge.knows(line, job, answer) for judge in self.judges):
            pass
        elif owner is not None:
            conflict = self.jobs[owner].new.digest != job.digest
            if answer.inserted or (answer.id, answer.conflict) != (owner, conflict):
                self.broken("I10b", line, f"{job.id} is answered {answer}, its key belongs to {owner}: {conflict=}")
        elif not any(judge.arrived(line, job, answer) for judge in self.judges):
            self._arrive(line, job, answer)
        if key and owner is None and job.id in self.jobs and self.jobs[job.id].ended is None:
            self.keys[key] = job.id

    def _arrive(self, line: Commit, job: NewJob, answer: Enqueued) -> None:
        """Nothing that was there before stands in its way, but perhaps how full its queue is."""
        for judge in self.judges:
            judge.arriving(line, job, answer)
        if answer.full is None and (answer.id != job.id or not answer.inserted):
            self.broken("I1", line, f"{job.id} is answered {answer}, and nothing was in its way")
        if answer.inserted:
            known = self.store(line, job)
            if answer.full is not None:
                self.end(line, known, State.CANCELLED)

    def store(self, line: Commit, new: NewJob, *, barren: bool = False) -> Known:
        """A job is there, unless it was before; at its end at once, if its parent was cancelled with its children."""
        if new.id not in self.jobs:
            job = self.jobs[new.id] = Known(new, line)
            self.deleted.discard(new.id)
            if barren or self.stopped(job, line.read):
                self.end(line, job, State.CANCELLED)
            else:
                job.perhaps = self.stopped(job)
                parent = self.jobs.get(job.meta.parent_id or "")
                job.orphan = parent is not None and parent.holder is None
        return self.jobs[new.id]

    def stopped(self, job: Known, before: float = math.inf) -> bool:
        """Whether its parent runs and was cancelled with its children before then, so that it is cancelled as it
        comes."""
        parent = self.jobs.get(job.meta.parent_id or "")
        return parent is not None and parent.barren and parent.holder is not None and parent.told <= before

    def _on_claim(self, line: Commit, worker: str, _seq: int, _request: Any, claimed: Claimed) -> None:
        if claimed.jobs and (worker in self.taken or worker not in self.leases):
            self.broken("I4", line, f"{worker} was taken over, or never beat, and was given jobs")
        for held in claimed.jobs:
            self._grant(line, worker, held)

    def _grant(self, line: Commit, worker: str, held: Held) -> None:
        job = self.jobs.get(held.id)
        if job is None:
            self.broken("I3", line, f"{held.id} was granted and never enqueued")
            return
        token = (held.id, held.fence)
        if job.holder is not None:
            self.broken("I5", line, f"{held.id} is granted to {worker} while {job.holder[0]} holds it")
        if held.fence <= job.fence or token in self.granted:
            self.broken("I5", line, f"{held.id}: fence {held.fence} after {job.fence}")
        if job.ended is not None:
            self.broken("I13" if job.ended is State.CANCELLED else "I2", line, f"{held.id} runs after {job.ended}")
        if job.asked:
            self.broken("I13", line, f"{held.id} was asked to cancel and runs again")
        job.perhaps = False
        if job.unsure:
            job.make_sure(held, line.at)
        shown = self.shown(line, job.since)
        if shown < job.not_before:
            early = job.not_before - shown
            self.broken("I12/I14", line, f"{held.id} starts {early} us before {job.why} is over")
        if job.expires_at is not None and line.at >= job.expires_at:
            self.broken("I14", line, f"{held.id} starts after its expiry")
        if held.attempt != job.failures + 1:
            self.broken("I6", line, f"{held.id} begins attempt {held.attempt} after {job.failures} charged failures")
        self.granted[token] = worker
        job.fence = max(job.fence, held.fence)
        job.settled = 0
        job.left = line.when
        job.holder = (worker, held.fence, held.attempt)
        if held.payload != job.payload:
            self.broken("I3", line, f"{held.id} runs with the payload {held.payload}, and has {job.payload}")
        for judge in self.judges:
            judge.granted(line, job)

    @property
    def stepped(self) -> bool:
        """Whether the store's clock has jumped."""
        return bool(self._peaks)

    def shown(self, line: Commit, since: float) -> int:
        """The latest that the store's clock has shown since then."""
        return max([line.at, line.shown, *(peak for when, peak in self._peaks if when >= since)])

    def lives(self, line: Commit, id: str) -> bool | None:
        """Whether a job has not ended; None where nobody can tell: it may have expired, of which
        nobody is told, or it ended when this was under way."""
        job = self.jobs.get(id)
        if job is None or job.ended is not None:
            return None if job is not None and job.left > line.read else False
        if job.perhaps:
            return None
        late = job.expires_at is not None and self.shown(line, 0.0) >= job.expires_at
        return None if late and job.holder is None else True

    def _on_recover(self, line: Commit, worker: str, _seq: int, granted: Sequence[Held]) -> None:
        for held in granted:
            if self.granted.get((held.id, held.fence)) != worker:
                self.broken("I5", line, f"{held.id} is said to have been granted to {worker}")

    # --- settles -----------------------------------------------------------------------------------------------------

    def _on_settle(self, line: Commit, _worker: str, transitions: Sequence[Transition], answers: Sequence[str]) -> None:
        for transition, answer in zip(transitions, answers, strict=True):
            self._settled(line, transition, answer)

    def _settled(self, line: Commit, t: Transition, answer: str) -> None:
        job = self.jobs.get(t.id)
        if job is None:
            if answer != "gone":
                self.broken("I3", line, f"settle of {t.id}, which was never enqueued, is {answer}")
            return
        current = job.holder is not None and job.holder[1] == t.fence
        match answer:
            case "applied" if not current:
                self.broken("I4", line, f"{t.id}: fence {t.fence} was applied, the holder is {job.holder}")
            case "already" if t.fence not in job.applied:
                self.broken("I4", line, f"{t.id}: fence {t.fence} was never settled, and the answer is `already`")
            case "stale" if t.fence in job.applied:
                self.broken("I4", line, f"{t.id}: fence {t.fence} was settled, and sent again it is `stale`")
            case "stale" | "gone" if current:
                self.broken("I2", line, f"{t.id}: the holder's own outcome is {answer}")
        if answer == "applied":
            self._apply(line, job, t)

    def _apply(self, line: Commit, job: Known, t: Transition) -> None:
        if t.fence in job.applied:
            self.broken("I2", line, f"{t.id}: fence {t.fence} was settled twice")
        attempt = job.holder[2] if job.holder else 0
        if job.asked and job.holder:
            job.gave_up = (job.holder[0], line.when)
        job.applied[t.fence] = t
        job.settled = t.fence
        job.holder = None
        job.suspect = job.suspect if t.suspect is None else t.suspect
        if t.outcome in {"failed", "discarded"}:
            job.failures += 1
        state = State.CANCELLED if job.asked and t.cancel_wins else t.state
        if state.terminal:
            self.end(line, job, state)
            job.result = t.result if state is State.COMPLETED else None
            for child in t.children if state is State.COMPLETED else ():
                self.store(line, child, barren=job.barren)
        elif state is State.RETRYING:
            least = _curve(job.policy, attempt) if "Retry" not in (t.error or "") else t.after
            job.wait(line, least, "its backoff")
            if attempt >= job.policy.max_attempts:
                self.broken("I6", line, f"{t.id} tries again after attempt {attempt} of {job.policy.max_attempts}")
        elif state is State.SCHEDULED:
            job.wait(line, t.after, "its snooze")

    def end(self, line: Commit, job: Known, state: State) -> None:
        """A job has ended."""
        if job.ended is not None:
            self.broken("I2", line, f"{job.new.id} ends as {state} and had ended as {job.ended}")
        job.ended = state
        job.perhaps = False
        job.left = line.when
        job.asked = False
        for judge in self.judges:
            judge.ended(job)

    def _on_report(self, line: Commit, progress: Any, logs: Any, dead: Sequence[Token]) -> None:
        for token in dict.fromkeys(token for token, _ in (*progress, *logs)):
            job = self.jobs.get(token.id)
            if job is None or job.settled != token.fence:
                self._wrote(line, token, accepted=token not in dead)
            elif token in dead:
                self.broken("I4", line, f"the last words of {token} were refused")

    def _on_once(self, line: Commit, token: Token, name: str, value: str | None, kept: str | None) -> None:
        self._wrote(line, token, accepted=True)
        job = self.jobs.get(token.id)
        first = None if job is None else job.kept.get(name, value)
        if job is None or first is None:
            return
        job.kept[name] = first
        if kept != first:
            self.broken("I7", line, f"{name} of {token.id} is {kept}, and was first {first}")

    def _on_fan_out(
        self, line: Commit, token: Token, name: str, after: int, jobs: Sequence[NewJob], answer: int
    ) -> None:
        self._wrote(line, token, accepted=True)
        job = self.jobs.get(token.id)
        if job is None:
            return
        count = int(job.kept.get(name, "0"))
        fresh = jobs if count == after else ()
        for child in fresh:
            self.store(line, child)
        job.kept[name] = str(count + len(fresh))
        if answer != count + len(fresh):
            self.broken("I7", line, f"{token.id} has {count} + {len(fresh)} children, and is told {answer}")

    def _wrote(self, line: Commit, token: Token, *, accepted: bool) -> None:
        job = self.jobs.get(token.id)
        current = job is not None and job.holder is not None and job.holder[1] == token.fence
        if accepted != current:
            word = "accepted" if accepted else "refused"
            self.broken("I4", line, f"a report under {token} was {word}, the holder is {job and job.holder}")

    # --- workers -----------------------------------------------------------------------------------------------------

    def _on_beat(self, line: Commit, reports: Sequence[WorkerReport], answers: Sequence[BeatAnswer]) -> None:
        for lease in self.leases.values():  # none is longer than its hold, also once the clock was set back
            lease.until = min(lease.until, line.at + lease.hold)
        for report, answer in zip(reports, answers, strict=True):
            if answer.taken != (report.id in self.taken):
                self.broken("I4", line, f"{report.id} beats and is told taken={answer.taken}")
            if answer.taken:
                continue
            known = self.leases.get(report.id)
            if known is None or not known.since <= line.at <= known.until:
                self.leases[report.id] = Lease(line.at, report.hold)
            else:
                known.until = line.at + report.hold
            theirs = [job for job in self.jobs.values() if job.asked and job.holder and job.holder[0] == report.id]
            # A beat that has read before a settle or a request beside it was committed tells of what was before.
            asked = {job.new.id for job in theirs}
            sure = {job.new.id for job in theirs if job.told <= line.read}
            over = {id for id, job in self.jobs.items() if job.gave_up[0] == report.id and job.gave_up[1] > line.read}
            if not sure <= set(answer.cancel) <= asked | over:
                self.broken("I13", line, f"{report.id} is told to cancel {answer.cancel}, asked are {sorted(asked)}")

    def _on_reap(self, line: Commit, deaths: Sequence[Death], answers: Sequence[Reaped]) -> None:
        for death, answer in zip(deaths, answers, strict=True):
            if not answer.taken or death.worker in self.taken:
                continue
            self._may_take(line, death)
            self.taken.add(death.worker)
            orphans = [job for job in self.jobs.values() if job.holder and job.holder[0] == death.worker]
            if len(orphans) != answer.jobs:
                self.broken("I3", line, f"{death.worker} held {len(orphans)} jobs, {answer.jobs} were taken over")
            for job in orphans:
                self._lost(line, job, death)

    def _may_take(self, line: Commit, death: Death) -> None:
        lease = self.leases.get(death.worker)
        if death.observed:
            if death.worker in self.begun - self.dead:
                self.broken("I8", line, f"{death.worker} lives and was taken over as dead: {death.detail}")
        elif lease is None or line.at <= lease.until:
            self.broken("I8", line, f"{death.worker} beats and was taken over for its lease")
        else:
            judge = self.leases.get(death.reaper)
            fit = judge is not None and judge.since + judge.hold <= line.at <= judge.until
            if not fit or death.reaper in self.taken:
                self.broken("I8", line, f"{death.reaper} took {death.worker} over and had not beaten for a hold")

    def _lost(self, line: Commit, job: Known, death: Death) -> None:
        """What must become of a job whose worker is gone."""
        assert job.holder is not None
        worker, fence, attempt = job.holder
        job.holder = None
        id = job.new.id
        began = death.executing is None or id in death.executing
        if not began and (id, fence) in self._running.get(worker, ()):
            self.broken("I6", line, f"{id} had begun when {worker} died, and is said not to have")
        ends: State | None = None
        if id in dict(death.guilty):
            job.failures += 1
            job.suspect = False
            job.wait(line, _curve(job.policy, attempt), "its backoff")
            ends = State.DEAD if attempt >= job.policy.max_attempts else None
        elif began and not death.stopped:
            guilty = not death.explained and (job.suspect or (death.alone and death.executing is not None))
            job.losses += 1
            job.crashes += guilty
            job.suspect = job.suspect or not death.explained
            if (guilty and job.crashes >= job.policy.crash_budget) or job.losses >= job.policy.loss_budget:
                ends = State.DEAD
        if job.asked:
            ends = State.CANCELLED if ends is None else ends
        if ends is not None:
            # A cancellation that was asked for wins over every end that is not the job's own completion.
            self.end(line, job, State.CANCELLED if job.asked else ends)

    # --- operators ---------------------------------------------------------------------------------------------------

    def _on_cancel(self, line: Commit, selection: Selection, answer: Selected) -> None:
        for id in answer.untouched:
            if self.lives(line, id):
                self.broken("I13", line, f"{id} lives, and a cancellation leaves it untouched")
        if _all(selection, answer):
            left = [id for id, job in self.jobs.items() if self.lives(line, id) and _matches(job, selection.filter)]
            there = {id for id in left if self.jobs[id].stored <= line.read}  # others came when it was under way
            missed = {id for id in there if not self.jobs[id].asked} - {*answer.changed, *answer.asked}
            if missed:
                self.broken("I13", line, f"all of {selection.filter} were to be cancelled, and {missed} are not")
        for id in answer.changed:
            job = self.jobs[id]
            if job.holder is not None:
                self.broken("I13", line, f"{id} is said to be cancelled while {job.holder[0]} runs it")
            self.end(line, job, State.CANCELLED)
        for id in answer.asked:
            job = self.jobs[id]
            if job.holder is None:
                self.broken("I13", line, f"{id} is said to be asked and does not run")
            job.ask(line)
            job.barren = job.barren or selection.children

    def _on_revive(self, line: Commit, selection: Selection, answer: Selected) -> None:
        for place, id in enumerate(answer.changed):
            job = self.jobs[id]
            if job.holder is not None:
                self.broken("I2", line, f"{id} is revived while {job.holder[0]} runs it")
            if not _matches(job, selection.filter):
                self.broken("I2", line, f"{id} is revived, and does not match {selection.filter}")
            if not self.lives(line, id):  # or nobody can tell
                for judge in self.judges:
                    judge.revived(line, job)
                self._retake(line, job)
                job.revived = True
                if job.ended is None:
                    job.unsure = True
                else:
                    job.begin_again()
            job.wait(line, selection.delay + place * selection.every, "its place in line")
        if _all(selection, answer):  # of two with one unique key the first
            left = {id for id, job in self.jobs.items() if _matches(job, selection.filter) and self._may_live(job)}
            if left:
                self.broken("I2", line, f"all of {selection.filter} were to be revived, and {left} are not")

    def _retake(self, line: Commit, job: Known) -> None:
        """It has its idempotency key again, or for the first time, where it was cancelled as it came."""
        key = _key(job.new)
        if key is None:
            return
        owner = self.keys.setdefault(key, job.new.id)
        if owner != job.new.id:
            self.broken("I10b", line, f"{job.new.id} is revived, and its key belongs to {owner}")

    def _may_live(self, job: Known) -> bool:
        key = _key(job.new)
        free = key is None or self.keys.get(key) in (None, job.new.id)
        return free and all(judge.may_live(job) for judge in self.judges)

    def _on_edit(self, line: Commit, id: str, payload: str, answer: Selected) -> None:
        job = self.jobs.get(id)
        wanted = "missing" if job is None else "changed" if job.holder is None else "untouched"
        if getattr(answer, wanted) != (id,):
            self.broken("I3", line, f"{id} should be {wanted} by an edit, and the answer is {answer}")
        if job is not None and answer.changed:
            job.payload = payload

    def _on_delete(self, line: Commit, selection: Selection, answer: Selected) -> None:
        for id in answer.changed:
            if id not in self.jobs:
                self.broken("I1", line, f"{id} is deleted, and was never stored")
                continue
            job = self.jobs.pop(id)
            self.deleted.add(id)
            if job.holder is not None or not _matches(job, selection.filter):
                self.broken("I2", line, f"{id} is deleted: it has {job.ended} and {job.holder} runs it")
            for judge in self.judges:
                judge.ended(job)
                judge.deleted(job)
            for key in [key for key, owner in self.keys.items() if owner == id]:
                del self.keys[key]
        for id in answer.untouched:
            if self.jobs[id].holder is None:
                self.broken("I2", line, f"{id} does not run, and could not be deleted")

    # --- the end -----------------------------------------------------------------------------------------------------

    def _final(self) -> None:
        for problem in self._dump.audit:
            self.broken("I3", None, problem)
        for id in self._ledger.acked:
            if id not in self._dump.jobs and id not in self.deleted:
                self.broken("I1", None, f"{id} was acknowledged and is gone")
        for id, job in self.jobs.items():
            if id not in self._dump.jobs:
                self.broken("I1", None, f"{id} was committed and is gone")
            else:
                self._compare(job)
        for id in self._dump.jobs.keys() - self.jobs.keys():
            self.broken("I7", None, f"{id} is there, and nobody's completion brought it")
        for judge in self.judges:
            judge.final(self._dump)

    def _compare(self, job: Known) -> None:
        found, id = self._dump.jobs[job.new.id], job.new.id
        if not found.state.terminal:
            self.broken("I2", None, f"{id} never ended: {found.state} ({found.reason}), held by {found.worker}")
            return
        expired = found.state is State.EXPIRED and job.expires_at is not None and job.ended is None
        as_it_came = found.state is State.CANCELLED and job.perhaps and job.ended is None
        if found.state is not job.ended and not (expired or as_it_came):
            self.broken("I2", None, f"{id} is {found.state} in the store, the ledger says {job.ended}")
        if found.state is State.COMPLETED and found.result != job.result:
            self.broken("I2", None, f"{id} has the result {found.result}, its run returned {job.result}")
        policy = job.policy
        if found.attempt > policy.max_attempts or found.crashes > policy.crash_budget:
            self.broken("I6", None, f"{id}: {found.attempt} attempts, {found.crashes} crashes")
        afresh = job.unsure and found.crashes == found.losses == 0
        if (found.crashes, found.losses) != (job.crashes, job.losses) and not afresh:
            self.broken("I6", None, f"{id}: {found.crashes} crashes and {found.losses} losses, the ledger says "
                         f"{job.crashes} and {job.losses}")  # fmt: skip
        history = self._dump.attempts[id]
        fences = [attempt.fence for attempt in history]
        if fences != sorted(set(fences)):
            self.broken("I5", None, f"{id}: the fences of its history do not grow: {fences}")
        told = {attempt.fence: attempt.outcome for attempt in history}
        for fence, t in job.applied.items():
            if told.get(fence) != t.outcome:
                self.broken("I3", None, f"{id}: its history has {told.get(fence)} for fence {fence}, not {t.outcome}")


def _key(job: NewJob) -> tuple[str, str] | None:
    """Which idempotency key it asks for."""
    return None if job.idempotency_key is None else (job.task, job.idempotency_key)


def _all(selection: Selection, answer: Selected) -> bool:
    """Whether everything that matched was to be changed."""
    return selection.filter is not None and len(answer.changed) + len(answer.asked) < selection.limit


def _matches(job: Known, wanted: Filter | None) -> bool:
    """Of the filters that are simulated: one queue, or one state in which jobs have ended."""
    if wanted is None:
        return True
    states = not wanted.states or job.ended in wanted.states
    return states and wanted.queue in (None, job.new.queue)


def _curve(policy: Policy, attempt: int) -> int:
    """The least wait after a failed attempt, in microseconds, of the one curve that is simulated."""
    plain = float(policy.backoff.base) * float(policy.backoff.factor) ** (attempt - 1)
    return int(min(plain, float(policy.backoff.max)) * 1e6)

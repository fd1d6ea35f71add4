"""What the checker knows of a job, and of a worker: only what the ledger told it."""

from __future__ import annotations

import msgspec

from windlass.core.job import Held, Meta, NewJob, Policy, State, Transition
from windlass.testing.simulation.ledger import Commit


class Known:
    """A job as the ledger tells it."""

    def __init__(self, new: NewJob, line: Commit) -> None:
        self.new = new
        self.meta: Meta = msgspec.json.decode(new.meta, type=Meta)
        self.policy: Policy = self.meta.policy
        self.payload = new.payload
        self.not_before = line.at + new.after if new.at is None else new.at
        self.why = "its delay"
        self.since = line.read
        """Since when it waits, in virtual seconds."""
        self.stored = line.when
        """When it was committed, in virtual seconds; and below, when it was last granted, or ended."""
        self.left = 0.0
        self.expires_at = None if new.expires_after is None else line.at + new.expires_after
        self.holder: tuple[str, int, int] | None = None
        """Worker, fence and attempt of the run under way."""
        self.fence = 0
        self.settled = 0
        """The fence under which it was settled last, until somebody else is given it."""
        self.applied: dict[int, Transition] = {}
        self.asked = False
        self.told = 0.0
        """When that was committed last, in virtual seconds."""
        self.orphan = False
        """It was stored when its parent had no run any more: sent by one, and so long on its way."""
        self.perhaps = False
        """It was stored beside the cancellation of its family, and nobody can tell whether cancelled or not."""
        self.gave_up: tuple[str, float] = ("", 0.0)
        """Who last settled a run that was asked to cancel, and when that was committed, in virtual seconds."""
        self.barren = False
        """It was cancelled with its children while it ran, so that those of this run are cancelled as they come."""
        self.revived = False
        self.ended: State | None = None
        self.result: str | None = None
        self.failures = self.crashes = self.losses = 0
        self.suspect = False
        self.created_at = line.at
        self.touched = False
        """Somebody has moved it while it waited."""
        self.moved: tuple[Commit, str] | None = None
        """From which queue the last batch took it that another in its place came with."""
        self.kept: dict[str, str] = {}
        """First results, and how many children were fanned out, by name."""
        self.unsure = False
        """It was revived, and nobody can tell whether it had expired: then it begins anew."""

    def copy(self) -> Known:
        """One that can change by itself."""
        made = Known.__new__(Known)
        made.__dict__.update(self.__dict__)
        made.applied, made.kept = dict(self.applied), dict(self.kept)
        return made

    def ask(self, line: Commit) -> None:
        """Its run is to be cancelled."""
        self.asked, self.told = True, line.when

    def begin_again(self) -> None:
        """Revived after its end."""
        self.ended = None
        self.expires_at = None
        self.settled = 0
        self.failures = self.crashes = self.losses = 0
        self.suspect = self.asked = self.barren = False
        self.revived = True

    def make_sure(self, held: Held, at: int) -> None:
        """Its next run tells whether it had expired before it was revived."""
        self.unsure = False
        late = self.expires_at is not None and at >= self.expires_at
        counts = (held.attempt - 1, held.crashes, held.losses)
        if late or held.expires_at is None or counts != (self.failures, self.crashes, self.losses):
            self.begin_again()

    def wait(self, line: Commit, microseconds: int, why: str) -> None:
        """Must not start until the store's clock has once shown this much more."""
        self.not_before, self.why, self.since = line.at + microseconds, why, line.read
        self.touched = True

    def replace(self, new: NewJob, line: Commit, max_wait: int | None) -> None:
        """Another that was asked for takes its place, under its id."""
        old, kept = self.new, (self.created_at, self.fence, self.settled, self.applied)
        moved = self.moved if self.moved and self.moved[0] is line else (line, old.queue)
        self.__init__(new, line)  # type: ignore[misc]
        self.created_at, self.fence, self.settled, self.applied = kept
        self.moved = moved
        self.new = msgspec.structs.replace(new, id=old.id, idempotency_key=old.idempotency_key, digest=old.digest)
        self.touched = True
        if max_wait is not None:
            self.not_before = min(self.not_before, max(line.at, self.created_at + max_wait))


class Lease:
    """A worker as its beats tell it."""

    def __init__(self, at: int, hold: int) -> None:
        self.since = at
        self.until = at + hold
        self.hold = hold

    def copy(self) -> Lease:
        """One that can change by itself."""
        made = Lease.__new__(Lease)
        made.__dict__.update(self.__dict__)
        return made

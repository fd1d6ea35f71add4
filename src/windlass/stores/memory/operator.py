"""What operators do to jobs, and what time does to old ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, islice

from windlass.core.job import State
from windlass.ports.plan import NOW, Plan, Steps, plan
from windlass.ports.store import (
    DEPARTED_KEEP,
    KEY_KEEP,
    Pruned,
    PruneRules,
    QueueChange,
    QueueRules,
    Selected,
    Selection,
)
from windlass.stores.memory.reading import Reading, matches
from windlass.stores.memory.tables import Key, Row, replace
from windlass.stores.memory.unique import place_of

CHANGED, ASKED, UNTOUCHED = "changed", "asked", "untouched"
Verdict = Callable[[Row], str]


class Operator(Reading):
    """The operations by ids or by filter; each answers what it changed, and changes nothing on a dry run."""

    @plan
    def cancel(self, selection: Selection) -> Steps[Selected]:
        """See Store.cancel."""
        now = (yield NOW)[0][0]
        return self._cancel(selection, now)

    def _cancel(self, selection: Selection, now: int) -> Selected:
        def change(row: Row) -> None:
            if row.state is State.RUNNING:
                stops = row.stops_children or selection.children
                self.data.jobs[row.new.id] = replace(row, cancelling=True, stops_children=stops)
            else:
                self._end(row, State.CANCELLED, "cancelled", now)

        return self._act(selection, _cancellable, change)

    @plan
    def revive(self, selection: Selection) -> Steps[Selected]:
        """See Store.revive."""
        now = (yield NOW)[0][0]
        places = count()

        def change(row: Row) -> None:
            due = now + selection.delay + next(places) * selection.every
            state, reason = (State.SCHEDULED, "redriven") if due > now else (State.QUEUED, None)
            waiting = replace(row, state=state, reason=reason, due_at=due, rank=due - row.new.head_start)
            waiting = replace(waiting, parked_until=None)
            if row.state.terminal:
                self._take_key(row)
                self._take_idempotency_key(row)
                waiting = _afresh(waiting, self._fence(row, now))
            self.data.jobs[row.new.id] = waiting

        fits: Verdict = lambda row: self._revivable(row, now)
        taken: set[tuple[str, ...]] = set()

        def judge(row: Row) -> str:
            """Of two that would have one key, the first; also where nothing is changed in between."""
            keys = _keys_of(row) if row.state.terminal else set()
            if fits(row) == UNTOUCHED or keys & taken:
                return UNTOUCHED
            taken.update(keys)
            return CHANGED

        return self._act(selection, judge, change, fits)

    def _revivable(self, row: Row, now: int) -> str:
        early = row.state in {State.SCHEDULED, State.RETRYING}
        again = row.state.terminal and self._may_have_key(row) and self._may_have_idempotency_key(row, now)
        return CHANGED if early or again else UNTOUCHED

    def _may_have_idempotency_key(self, row: Row, now: int) -> bool:
        """Unless it is another's by now: two jobs that live must not answer for one key."""
        owned = None if row.new.idempotency_key is None else self.data.keys.get(_idempotency(row))
        return owned is None or owned.owner == row.new.id or not self._live(owned, now)

    def _take_idempotency_key(self, row: Row) -> None:
        if row.new.idempotency_key is not None:
            self.data.keys[_idempotency(row)] = Key(row.new.id, row.new.digest)

    @plan
    def edit(self, job: str, payload: str) -> Steps[Selected]:
        """See Store.edit."""
        yield NOW

        def change(row: Row) -> None:
            self.data.jobs[job] = replace(row, payload=payload)

        return self._act(Selection((job,)), _not_running, change)

    @plan
    def delete(self, selection: Selection) -> Steps[Selected]:
        """See Store.delete."""
        now = (yield NOW)[0][0]

        def change(row: Row) -> None:
            self._give_up([row], now)
            self._forget_key(row)
            place = _idempotency(row)
            owned = self.data.keys.get(place)
            if owned and owned.owner == row.new.id:
                del self.data.keys[place]
            self._remove(row)

        return self._act(selection, _not_running, change)

    def _act(
        self, selection: Selection, verdict: Verdict, change: Callable[[Row], None], fits: Verdict | None = None
    ) -> Selected:
        found: dict[str, list[str]] = {CHANGED: [], ASKED: [], UNTOUCHED: [], "missing": []}
        wanted, named = selection.filter, selection.ids
        ids = self._chosen(selection, fits or verdict)
        for id in ids:
            row = self.data.jobs.get(id)
            meant = row is not None and (wanted is None or matches(row, wanted))
            word = "missing" if row is None else verdict(row) if meant else UNTOUCHED
            found[word].append(id)
            if row and word in {CHANGED, ASKED} and not selection.dry_run:
                change(row)
        more = wanted is not None and not named and len(ids) == selection.limit
        lists = {word: tuple(ids) for word, ids in found.items()}
        return Selected(**lists, next=ids[-1] if more else None)

    def _chosen(self, selection: Selection, verdict: Verdict) -> list[str]:
        if selection.filter is None or selection.ids:
            return list(dict.fromkeys(selection.ids))
        # A running job that was asked already would be asked for ever by whoever repeats until done.
        fits: Verdict = lambda row: UNTOUCHED if row.cancelling else verdict(row)
        rows = self._matching(selection.filter, selection.after, lambda row: fits(row) != UNTOUCHED)
        return [row.new.id for row in islice(rows, selection.limit)]

    def _remove(self, row: Row) -> None:
        id = row.new.id
        del self.data.jobs[id]
        for merged in [merged for merged, into in self.data.merged.items() if into == id]:
            del self.data.merged[merged]
        for table in (self.data.attempts, self.data.logs, self.data.first_results):
            if id in table:
                del table[id]

    # --- time ----------------------------------------------------------------------------------------------

    def chores(self, rules: PruneRules) -> Sequence[Plan[bool]]:
        """See Store.chores."""
        return ()

    @plan
    def prune(self, rules: PruneRules, limit: int) -> Steps[Pruned]:
        """See Store.prune."""
        now = (yield NOW)[0][0]
        old = self._old(rules, limit, now)
        for row in old:
            self._outlive(row)
            self._remove(row)
        results = self.data.jobs.until("result", now, limit - len(old))
        for row in results:
            self.data.jobs[row.new.id] = replace(row, result=None, result_until=None, result_expired=True)
        keys = self._prune_keys(min(rules.keys, KEY_KEEP), now)
        for place in [p for p, each in self.data.owners.items() if not each.live and (each.until or 0) <= now]:
            del self.data.owners[place]
        workers = self._prune_workers(now - rules.workers, now)
        self._prune_leads(now - rules.workers)
        for id in [id for id, at in self.data.departed.items() if at < now - DEPARTED_KEEP]:
            del self.data.departed[id]
        return Pruned(len(old), len(results), keys, workers, done=len(results) + len(old) < limit)

    def _old(self, rules: PruneRules, limit: int, now: int) -> list[Row]:
        ages = {
            State.COMPLETED: rules.completed,
            State.CANCELLED: rules.cancelled,
            State.EXPIRED: rules.expired,
            State.DEAD: rules.dead,
        }
        found: list[Row] = []
        for state, age in ages.items():
            if age is not None:
                found += self.data.jobs.until("ended", now - age, limit - len(found), state)
        return found

    def _outlive(self, row: Row) -> None:
        """Leave the key of a pruned job behind, with the time at which its owner ended."""
        place = _idempotency(row)
        owned = self.data.keys.get(place)
        if owned and owned.owner == row.new.id:
            self.data.keys[place] = replace(owned, ended_at=row.finished_at)

    def _prune_keys(self, age: int, now: int) -> int:
        ends = [(place, self._ended_at(key)) for place, key in self.data.keys.items()]
        free = [place for place, ended in ends if ended is not None and ended + age <= now]
        for place in free:
            del self.data.keys[place]
        return len(free)

    def _prune_workers(self, before: int, now: int) -> int:
        forgotten = [
            id
            for id, worker in self.data.workers.items()
            if (worker.taken or now > worker.lease_until)
            and worker.beat_at < before
            and not self.data.jobs.line("held", id, 1)
        ]
        for id in forgotten:
            del self.data.workers[id]
        return len(forgotten)

    # --- queues --------------------------------------------------------------------------------------------

    @plan
    def queues(self, changes: Sequence[QueueChange] = ()) -> Steps[dict[str, QueueRules]]:
        """See Store.queues."""
        yield NOW
        for change in changes:
            said = {n: v for n in ("paused", "limit", "bounds") if (v := getattr(change, n)) is not None}
            if said.get("limit") == 0:
                said["limit"] = None
            self.data.rules[change.queue] = replace(self._rules(change.queue), **said)
        return dict(self.data.rules)


def _idempotency(row: Row) -> tuple[str, str, str]:
    return (row.new.tenant, row.new.task, row.new.idempotency_key or "")


def _keys_of(row: Row) -> set[tuple[str, ...]]:
    """The keys, of either kind, that this job has when it lives."""
    place = place_of(row)
    keys: set[tuple[str, ...]] = set() if place is None else {("unique", *place)}
    return keys if row.new.idempotency_key is None else {*keys, ("key", *_idempotency(row))}


def _cancellable(row: Row) -> str:
    if row.state is State.RUNNING:
        return ASKED
    return UNTOUCHED if row.state.terminal else CHANGED


def _not_running(row: Row) -> str:
    return UNTOUCHED if row.state is State.RUNNING else CHANGED


def _afresh(row: Row, fence: int) -> Row:
    return replace(
        row,
        attempt=0,
        crashes=0,
        losses=0,
        suspect=False,
        fence=fence,
        worker=None,
        started_at=None,
        finished_at=None,
        expires_at=None,
        result=None,
        result_until=None,
        result_expired=False,
        error=None,
    )

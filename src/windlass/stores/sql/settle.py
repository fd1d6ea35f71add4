"""Settle: what runs produced, applied under their fences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from windlass.core.errors import ChildConflict, LeaseLost
from windlass.core.job import LogLine, Progress, Settled, State, Token, Transition
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import LOG_LINES
from windlass.stores.sql.enqueue import WITH_CHILDREN, Enqueueing
from windlass.stores.sql.flow import Flow, Given
from windlass.stores.sql.text import as_json


class Grant(NamedTuple):
    """A row of `held`, as a settle needs it."""

    id: str
    seq: int
    worker: str
    fence: int
    attempt: int
    started: int
    cancelling: int


class Grants(NamedTuple):
    """Rows of `held`, by id."""

    rows: dict[str, Grant]
    given: dict[str, Given]
    """Of those that have limits or a unique key."""


_grants = msgspec.json.Decoder(list[Grant])
_given = msgspec.json.Decoder(dict[str, Given])


class Settling(Enqueueing, Flow):
    """The operations by which a worker writes about what it holds."""

    @plan
    def settle(self, worker: str, transitions: Sequence[Transition]) -> Steps[list[Settled]]:
        """See Store.settle."""
        now = (yield NOW)[0][0]
        return (yield from self._settle(transitions, now))

    def _settle(self, transitions: Sequence[Transition], now: int) -> Steps[list[Settled]]:
        grants, given = yield from self._hand_in(transitions)
        answers: list[Settled | None] = []
        moves: list[tuple[Grant, Transition]] = []
        for each in transitions:
            # Popped, so that a token that stands twice in one batch is applied once and then found in its receipt.
            grant = grants.pop(each.id, None) if _holds(grants.get(each.id), each) else None
            if grant is None:
                answers.append(None)
                continue
            moves.append((grant, under_fence(grant, each)))
            answers.append(Settled.APPLIED)
        if moves:
            yield from self._apply(moves, given, now)
        if None in answers:
            yield from self._receipts(transitions, answers)
        return [answer or Settled.STALE for answer in answers]

    def _grants(self, ids: Iterable[str]) -> Steps[Grants]:
        return grants_of((yield Statement("held_by_id", (as_json(list(ids)),)))[0])

    def _hand_in(self, transitions: Sequence[Transition]) -> Steps[Grants]:
        """What is held under these tokens, for good: it is ended, or goes back in line, before the plan is over."""
        return (yield from self._grants(t.id for t in transitions))

    def _apply(
        self, moves: Sequence[tuple[Grant, Transition]], given: dict[str, Given], now: int
    ) -> Steps[None]:
        ends = [(g, t) for g, t in moves if t.state.terminal]
        turns = [(g, t) for g, t in moves if not t.state.terminal]
        yield from self._end(ends, now)
        if turns:
            yield Statement("attempt_insert", many=[_attempt(g, t, now) for g, t in turns])
        # Counters live in `jobs` and are written only when they differ from what a plain success leaves behind.
        rare = [_turn(g, t, now) for g, t in moves if not t.state.terminal or t.crash or t.loss]
        if rare:
            yield Statement("job_turned", many=rare)
        yield from self._let_go(moves)
        yield from self._place(turns, now)
        if given:
            yield from self._free(given, [g.id for g, _ in moves])
            yield from self._give_up([g.seq for g, _ in ends if g.id in given and given[g.id].owns], now)
        children = [child for _, t in ends if t.state is State.COMPLETED for child in t.children]
        if children:
            stopped = {child.id for g, t in ends if g.cancelling == WITH_CHILDREN for child in t.children}
            answers = yield from self._insert(children, now, stopped=frozenset(stopped))
            for child, answer in zip(children, answers, strict=True):
                if answer.conflict:
                    raise ChildConflict(str(child.idempotency_key), answer.id)

    def _end(self, ends: Sequence[tuple[Grant, Transition]], now: int) -> Steps[None]:
        """Write what ended, in one statement for all that ended alike, as most do."""
        raise NotImplementedError
        yield

    def _let_go(self, moves: Sequence[tuple[Grant, Transition]]) -> Steps[None]:
        """What was handed in is not held any more."""
        raise NotImplementedError
        yield

    def _free(self, given: dict[str, Given], over: Sequence[str]) -> Steps[None]:
        """These runs are over: whose turn is it?"""
        permits = [(key, id) for id in over if id in given for key in given[id].keys]
        yield Statement("permit_delete", many=permits)
        yield from self._unblock(Counter(key for key, _ in permits))

    def _place(self, turns: Sequence[tuple[Grant, Transition]], now: int) -> Steps[None]:
        if not turns:
            return
        ready = [(g.seq,) for g, t in turns if t.state is State.QUEUED]
        waiting = [(g.seq, now + t.after, t.state.value, t.reason) for g, t in turns if t.state is not State.QUEUED]
        if ready:
            yield Statement("ready_insert", many=ready)
        if waiting:
            yield Statement("waiting_insert", many=waiting)
        yield Statement("expiring_insert", many=[(g.seq,) for g, _ in turns])

    def _receipts(self, transitions: Sequence[Transition], answers: list[Settled | None]) -> Steps[None]:
        """Tell a re-sent settle (its receipt is there) from a ghost's write."""
        asked = [(t.id, t.fence) for t, answer in zip(transitions, answers, strict=True) if answer is None]
        found = yield Statement("receipts", (as_json(asked),))
        told = iter(found)
        for n, answer in enumerate(answers):
            if answer is None:
                _, stored, settled = next(told)
                answers[n] = Settled.ALREADY if settled else Settled.STALE if stored else Settled.GONE

    @plan
    def report(
        self, progress: Sequence[tuple[Token, Progress]], logs: Sequence[tuple[Token, LogLine]]
    ) -> Steps[list[Token]]:
        """See Store.report."""
        tokens = [*dict.fromkeys([t for t, _ in progress] + [t for t, _ in logs])]
        grants, _ = yield from self._grants(t.id for t in tokens)
        live = {t: grants[t.id].seq for t in tokens if _holds(grants.get(t.id), t)}
        if len(live) < len(tokens):
            ended = [t for t in tokens if t.id not in grants]
            live |= {Token(*row[:2]): row[2] for row in (yield Statement("last_words", (as_json(ended),)))}
        bodies = {live[t]: as_json(p) for t, p in progress if t in live}
        if bodies:
            yield Statement("progress_put", many=list(bodies.items()))
        lines: dict[int, list[LogLine]] = {}
        for token, line in logs:
            if token in live:
                lines.setdefault(live[token], []).append(line)
        for seq, new in lines.items():
            count = (yield Statement("logs_count", (seq,)))[0][0]
            rows = [(seq, count + n, x.at, x.level, x.message) for n, x in enumerate(new[: max(0, LOG_LINES - count)])]
            if rows:
                yield Statement("log_insert", many=rows)
        return [t for t in tokens if t not in live]

    @plan
    def once(self, token: Token, name: str, value: str | None) -> Steps[str | None]:
        """See Store.once."""
        grants, _ = yield from self._grants([token.id])
        grant = grants.get(token.id)
        if grant is None or grant.fence != token.fence:
            raise LeaseLost(token.id, f"job {token.id} was taken over; once({name!r}) was not recorded")
        kept = yield Statement("once_get", (grant.seq, name))
        if kept:
            return str(kept[0][0])
        if value is not None:
            yield Statement("once_put", (grant.seq, name, value))
        return value


def grants_of(row: Sequence[Any]) -> Grants:
    """What a statement has found in `held`."""
    found, given = row
    return Grants({grant.id: grant for grant in _grants.decode(found)}, _given.decode(given))


def _holds(grant: Grant | None, token: Transition | Token) -> bool:
    return grant is not None and grant.fence == token.fence


def under_fence(grant: Grant, t: Transition) -> Transition:
    """The transition, or the cancellation that was requested meanwhile and that only the store can see."""
    if not (grant.cancelling and t.cancel_wins):
        return t
    return msgspec.structs.replace(t, state=State.CANCELLED, reason="cancelled", result=None, children=())


def end_of(t: Transition) -> tuple[Any, ...]:
    """What jobs that ended alike have in common."""
    ttl = t.result_ttl if t.result is not None else None
    return (t.state.value, t.reason, int(t.charged), t.outcome, ttl)


def last_words(t: Transition) -> str | None:
    """What a job leaves behind: its result, or its error."""
    return t.result if t.state is State.COMPLETED else t.error


def _attempt(g: Grant, t: Transition, now: int) -> tuple[Any, ...]:
    return (g.seq, g.fence, g.attempt, g.worker, g.started, now, t.outcome, t.reason, t.error)


def _turn(g: Grant, t: Transition, now: int) -> tuple[Any, ...]:
    count = g.attempt if t.charged else g.attempt - 1
    due = None if t.keep_rank or t.state.terminal else now + t.after
    lane = None if t.suspect is None else int(t.suspect)
    return (count, t.crash, t.loss, g.fence, lane, due, t.error, g.seq)

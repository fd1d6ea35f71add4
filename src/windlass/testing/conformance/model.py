"""The model check: random operations against the store and against the memory store, under one clock. Both must give
the same answers and hold the same state after every step. A failing sequence is cut down before it is shown."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from windlass.core.errors import WindlassError
from windlass.core.job import Held, NewJob, Token
from windlass.ports.plan import Plan
from windlass.ports.store import (
    BeatAnswer,
    Claimed,
    DeadGroup,
    Page,
    Pruned,
    PruneRules,
    Selected,
    Stats,
    Why,
    WorkerInfo,
)
from windlass.stores.memory import open_memory
from windlass.testing.clock import ManualClock
from windlass.testing.conformance.anomalies import Fault, failing
from windlass.testing.conformance.moves import Call, Moves
from windlass.testing.conformance.sizes import seeds, size
from windlass.testing.conformance.world import Opener, World, open_world, plain, readable

EVERYTHING = 100_000


class Difference(AssertionError):
    """The two stores disagree."""


class Pair:
    """The store under test and the model, side by side."""

    def __init__(self, tested: World, model: World, clock: ManualClock, faults: random.Random | None) -> None:
        self.tested = tested
        self.model = model
        self.clock = clock
        self.faults = faults

    def step(self, call: Call) -> Any:
        """Do one thing to both. Raises Difference if they do not answer, or look, the same afterwards."""
        if call.name == "advance":
            self.clock.set(self.clock() + call.args[0])
            return None
        for world in (self.tested, self.model):
            world.known |= dict.fromkeys(job.id for job in _sent(call))
        expected = _answer(self.model, call)
        given = self._given(call)
        if comparable(given) != comparable(expected):
            raise Difference(f"{call}\n  answered {given}\n  but must  {expected}")
        self._look(call)
        return expected

    def _given(self, call: Call) -> Any:
        """What the tested store answers; before that, now and then, the operation is cut off half-way, and must
        leave no trace."""
        if self.faults is not None and call.name != "prune":
            at = self.faults.randint(1, 8)
            try:
                return _answer(self.tested, call, lambda plan: failing(plan, at))
            except Fault:
                pass
        return _answer(self.tested, call)

    def _look(self, call: Call) -> None:
        # A store may leave what has expired until somebody meets it.
        for world in (self.tested, self.model):
            world.run(world.store.promote(EVERYTHING))
        given, expected = self.tested.dump(), self.model.dump()
        for part, right in expected.items():
            if given[part] != right:
                raise Difference(f"after {call}\n  {part} is   {given[part]}\n  but must be {right}")


class Model:
    """The chapter `model`."""

    open: Opener

    def test_the_same_as_the_model(self, world: World, tmp_path: Path) -> None:
        """Every operation, in any order, answers as the specification does."""
        self._compare(world, tmp_path, seeds(10, 60, 2_000))

    def _compare(self, world: World, tmp_path: Path, tried: list[int]) -> None:
        steps = size(80, 150, 400)
        counts: dict[str, int] = {}
        for seed in tried:
            dice = random.Random(seed)
            moves = Moves(dice)
            done: list[Call] = []
            with self._pair(tmp_path / f"seed-{seed}", world.kind, seed) as pair:
                for _ in range(steps):
                    call = moves.next(pair.clock())
                    done.append(call)
                    counts[call.name] = counts.get(call.name, 0) + 1
                    try:
                        moves.learn(call, pair.step(call))
                    except Difference as difference:
                        self._explain(tmp_path, world.kind, seed, done, difference)
        world.figures |= {"seeds": len(tried), "operations": sum(counts.values())}
        print(f"seeds from {tried[0]}: {counts}")  # noqa: T201 - shown when asked for, or when the test fails

    @contextmanager
    def _pair(self, place: Path, kind: str, seed: int) -> Iterator[Pair]:
        place.mkdir()
        clock = ManualClock()
        with (
            open_world(type(self).open, place, kind, clock) as tested,
            open_world(lambda _, clock: open_memory(clock=clock), place, "sync", clock) as model,
        ):
            whole = "atomic_plan" in tested.store.capabilities  # else whoever asks again is answered otherwise
            yield Pair(tested, model, clock, random.Random(seed) if seed % 2 and whole else None)

    def _explain(self, place: Path, kind: str, seed: int, done: list[Call], difference: Difference) -> None:
        """Leave out whatever the difference does not need, and raise what is left."""
        tries = iter(range(10_000))

        def still(calls: list[Call]) -> Difference | None:
            with self._pair(place / f"seed-{seed}-{next(tries)}", kind, seed) as pair:
                try:
                    for call in calls:
                        pair.step(call)
                except Difference as found:
                    return found
            return None

        calls, shown = _shrink(done, still, difference)
        told = "\n".join(f"  {call}" for call in calls)
        raise AssertionError(
            f"the store differs from the model; WINDLASS_SEED={seed} repeats it.\n"
            f"The shortest way there:\n{told}\n{shown}"
        )


def _shrink(
    calls: list[Call], still: Callable[[list[Call]], Difference | None], shown: Difference
) -> tuple[list[Call], Difference]:
    """Leave out runs of calls, long ones first, then items of batches, for as long as a difference remains."""
    length = max(1, len(calls) // 2)
    while length:
        place = 0
        while place < len(calls):
            fewer = calls[:place] + calls[place + length :]
            found = still(fewer)
            calls, shown, place = (fewer, found, place) if found else (calls, shown, place + length)
        length //= 2
    place = 0
    while place < len(calls):
        for smaller in _smaller(calls[place]):
            fewer = [*calls[:place], smaller, *calls[place + 1 :]]
            found = still(fewer)
            if found:
                calls, shown = fewer, found
                break
        else:
            place += 1
    return calls, shown


def _smaller(call: Call) -> Iterator[Call]:
    """The call with one item less in one of its batches."""
    for number, batch in enumerate(call.args):
        if isinstance(batch, list):
            for item in range(len(batch)):
                less = batch[:item] + batch[item + 1 :]
                yield Call(call.name, (*call.args[:number], less, *call.args[number + 1 :]))


def _sent(call: Call) -> list[NewJob]:
    """The jobs that a call brings along."""
    if call.name == "fire":
        return [tick.job for tick in call.args[0] if tick.job is not None]
    return list(call.args[{"enqueue": 0, "fan_out": 3}[call.name]]) if call.name in ("enqueue", "fan_out") else []


def _answer(world: World, call: Call, troubled: Callable[[Plan[Any]], Plan[Any]] = lambda plan: plan) -> Any:
    if call.name == "prune":
        return _prune(world, *call.args)
    try:
        return world.run(troubled(getattr(world.store, call.name)(*call.args)))
    except WindlassError as error:
        return type(error).__name__  # an error is an answer too: both must raise the same


def _prune(world: World, rules: PruneRules, limit: int) -> Pruned:
    jobs = results = keys = workers = 0
    for _ in range(10_000):
        part = world.run(world.store.prune(rules, limit))
        jobs, results = jobs + part.jobs, results + part.results
        keys, workers = keys + part.keys, workers + part.workers
        if part.done:
            break
    return Pruned(jobs, results, keys, workers)


def comparable(answer: Any) -> Any:
    """An answer without what a store is free to choose: the order of sets, and how much `more` there may be."""
    match answer:
        case Claimed():
            told = (answer.next_due, answer.limited, answer.alive, sorted(answer.suspects))
            return ([plain(held) for held in answer.jobs], told)
        case BeatAnswer():
            return msgspec.structs.replace(answer, cancel=tuple(sorted(answer.cancel)))
        case Selected():
            return ([sorted(part) for part in msgspec.structs.astuple(answer)[:4]], answer.next)
        case DeadGroup():
            return (readable(answer.latest), msgspec.structs.astuple(answer)[:4])
        case Page():
            return ([readable(job) for job in answer.jobs], answer.next is None)
        case Stats():
            queues = [
                (q.queue, q.paused, q.limit, q.queued, q.waiting, q.running, q.blocked, q.oldest_due)
                for q in answer.queues
            ]
            return ({s: n for s, n in answer.states.items() if n}, sorted(q for q in queues if any(q[1:])))
        case Why():
            line = None if answer.job.state.terminal else answer.ahead
            workers = sorted(answer.workers, key=_id)
            limits = (answer.limit, answer.running, answer.owner, answer.queue_limit, answer.queue_running)
            return (readable(answer.job), answer.now, answer.paused, line, workers, answer.attempts, limits)
        case [Held(), *_]:
            return sorted((plain(held) for held in answer), key=_id)
        case [Token() | WorkerInfo(), *_]:
            return sorted(answer, key=_id)
        case [str(), *_]:
            return sorted(answer)
        case list():
            return [comparable(each) for each in answer]
    return answer


def _id(record: Any) -> str:
    return str(record.id)

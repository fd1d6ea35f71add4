"""Races: many actors at one store. No token is given twice, no job is lost, every job ends once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from windlass.core.job import Held, Settled, State, Token
from windlass.core.machine import complete, release
from windlass.ports.plan import chain
from windlass.ports.store import Claimed, ClaimRequest, Death, Enqueued, Quota, Selection
from windlass.testing.conformance.sizes import seeds, size
from windlass.testing.conformance.world import DAY, Script, World, report

ACTORS = 8
PATIENCE = 3_000
"""Claims in vain, one after the other, before jobs count as lost."""
REQUEST = (Quota("default", 10),)


def all_ended(world: World, empty: int) -> Script:
    """Whether nothing waits or runs any more; `empty` counts the claims in vain since something was granted."""
    stats = yield world.store.stats(exact=True)
    left = sum(stats.states.get(state, 0) for state in ("running", "queued", "blocked"))
    assert empty < PATIENCE, f"{left} jobs have not ended, and nobody is granted any of them"
    return not left


class Ledger:
    """What the actors saw, kept apart from the store."""

    def __init__(self) -> None:
        self.tokens: list[tuple[str, int]] = []
        self.ended: Counter[str] = Counter()

    def granted(self, jobs: Sequence[Held]) -> None:
        """Write down a claim's answer."""
        self.tokens += [(held.id, held.fence) for held in jobs]

    def settled(self, ids: Sequence[str], answers: Sequence[Settled]) -> None:
        """Write down a settle's answer."""
        self.ended.update(id for id, answer in zip(ids, answers, strict=True) if answer is Settled.APPLIED)

    def check(self, world: World, jobs: Sequence[str], seed: int) -> None:
        """I2, I5: nothing twice, nothing lost; and the store agrees."""
        twice = [token for token, count in Counter(self.tokens).items() if count > 1]
        assert not twice, f"seed {seed}: tokens given twice: {twice[:5]}"
        ended = Counter(jobs)
        assert self.ended == ended, f"seed {seed}: ended not once: {[*(self.ended - ended), *(ended - self.ended)][:5]}"
        found = world.run(world.store.fetch(jobs))
        assert {job and job.state for job in found} == {State.COMPLETED}, f"seed {seed}"
        world.healthy()


class Races:
    """The chapter `race`."""

    def test_many_claimers(self, world: World) -> None:
        """I5: claims of any size at once, with some jobs handed back on the way."""
        count = size(200, 2_000, 20_000)
        tried = seeds(1, 5, 20)
        for seed in tried:
            ledger = Ledger()
            jobs = world.jobs(count, meta='{"tags":["race"]}')
            world.enqueue(*jobs)
            actors = [
                self._claimer(world, f"w{seed}-{n}", random.Random(seed * 100 + n), ledger) for n in range(ACTORS)
            ]
            world.together(*actors)
            ledger.check(world, [job.id for job in jobs], seed)
        world.figures |= {"seeds": len(tried), "jobs": len(tried) * count}

    def _claimer(self, world: World, name: str, dice: random.Random, ledger: Ledger) -> Script:
        store = world.store
        yield store.beat([report(name)])
        empty = 0
        for seq in range(1, 10**9):
            claimed: Claimed = yield store.claim(name, seq, ClaimRequest(dice.randint(1, 10), REQUEST))
            ledger.granted(claimed.jobs)
            if not claimed.jobs:
                # What another still holds may yet be handed back; nobody holds any longer once all have ended.
                if (yield from all_ended(world, empty)):
                    return
                empty += 1
                continue
            empty = 0
            done = [held for held in claimed.jobs if dice.random() < 0.9]
            back = [release(held.token, "race") for held in claimed.jobs if held not in done]
            answers, _ = yield chain(
                store.settle(name, [complete(held.token, "1", DAY) for held in done]), store.settle(name, back)
            )
            ledger.settled([held.id for held in done], answers)

    def test_claimers_are_taken_over_meanwhile(self, world: World) -> None:
        """I4: each may lose everything at any moment; what it still writes is refused, and every job ends once."""
        count = size(100, 1_000, 10_000)
        tried = seeds(2, 10, 40)
        for seed in tried:
            ledger = Ledger()
            jobs = world.jobs(count)
            world.enqueue(*jobs)
            names: list[str] = []
            actors = [
                self._survivor(world, f"s{seed}-{n}", random.Random(seed * 100 + n), ledger, names)
                for n in range(ACTORS - 2)
            ]
            reapers = [self._reaper(world, random.Random(seed * 100 + 50 + n), names) for n in range(2)]
            world.together(*actors, *reapers)
            ledger.check(world, [job.id for job in jobs], seed)
        world.figures |= {"seeds": len(tried), "jobs": len(tried) * count}

    def _survivor(self, world: World, name: str, dice: random.Random, ledger: Ledger, names: list[str]) -> Script:
        """A claimer that begins again under another name whenever it was taken over."""
        store = world.store
        empty = 0
        for life in range(10**9):
            worker = f"{name}-{life}"
            yield store.beat([report(worker)])
            names.append(worker)
            for seq in range(1, 10**9):
                claimed: Claimed = yield store.claim(worker, seq, ClaimRequest(dice.randint(1, 5), REQUEST))
                ledger.granted(claimed.jobs)
                if not claimed.alive:
                    break
                answers = yield store.settle(worker, [complete(held.token, "1", DAY) for held in claimed.jobs])
                ledger.settled([held.id for held in claimed.jobs], answers)
                if (yield from all_ended(world, empty)):
                    return
                empty = 0 if claimed.jobs else empty + 1

    def _reaper(self, world: World, dice: random.Random, names: list[str]) -> Script:
        """Takes over at random. Explained, so that no budget is used up: this is about fences."""
        for _ in range(30):
            if (yield from all_ended(world, 0)):
                return
            if names:
                yield world.store.reap([Death(worker=dice.choice(names), observed=True, explained=True)])

    def test_one_of_many_gets_the_key(self, world: World) -> None:
        """I10b: racers with one key all get the id of one job, and only that job is stored."""
        keys = size(5, 50, 500)

        def racer(key: str) -> Script:
            job = world.job(idempotency_key=key, digest="same")
            return (yield world.store.enqueue([job]))

        for n in range(keys):
            answers: list[Enqueued] = [a for [a] in world.together(*(racer(f"k{n}") for _ in range(ACTORS)))]
            assert len({answer.id for answer in answers}) == 1
            assert sum(answer.inserted for answer in answers) == 1
        assert world.run(world.store.stats(exact=True)).states["queued"] == keys
        world.figures |= {"keys": keys, "racers": keys * ACTORS}

    def test_cancel_races_claim(self, world: World) -> None:
        """I13: whichever commits first wins, and both sides see it."""
        jobs = [world.put() for _ in range(size(40, 400, 4_000))]
        world.beat("w1")

        def canceller() -> Script:
            changed, asked = [], []
            for id in jobs:
                answer = yield world.store.cancel(Selection((id,)))
                changed += answer.changed
                asked += answer.asked
            return changed, asked

        def claimer() -> Script:
            granted: list[Token] = []
            for seq in range(1, len(jobs) + 1):
                claimed = yield world.store.claim("w1", seq, ClaimRequest(1, REQUEST))
                granted += [held.token for held in claimed.jobs]
            return granted

        (changed, asked), granted = world.together(canceller(), claimer())
        assert sorted([*changed, *(token.id for token in granted)]) == sorted(jobs)
        assert set(asked) <= {token.id for token in granted}
        assert {world.fetch(id).state for id in changed} <= {State.CANCELLED}
        assert set(world.beat("w1").cancel) == set(asked)

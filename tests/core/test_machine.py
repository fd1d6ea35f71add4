"""The state machine: legal moves only, budgets that hold, and decisions that any process would take alike."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.core.sizes import examples
from windlass.core.backoff import Backoff
from windlass.core.job import (
    TERMINAL,
    Cancelled,
    Discarded,
    ErrorInfo,
    Expired,
    Failed,
    Held,
    Lost,
    NewJob,
    Outcome,
    Policy,
    Released,
    Snoozed,
    State,
    Succeeded,
    Transition,
)
from windlass.core.machine import MOVES, PARK_FIRST, PARK_MOST, decide, parked_for

errors = st.builds(ErrorInfo, kind=st.text(max_size=5), message=st.text(max_size=20), trace=st.text(max_size=20))
delays = st.floats(0, 86_400)
policies = st.builds(
    Policy,
    max_attempts=st.integers(1, 8),
    backoff=st.builds(Backoff, base=st.floats(0, 60), max=st.floats(0, 600), jitter=st.floats(0, 1)),
    crash_budget=st.integers(1, 4),
    loss_budget=st.integers(1, 12),
    result_ttl=st.floats(0, 10**8),
)
children = st.lists(st.builds(NewJob, id=st.text(), task=st.text(), payload=st.just("[[],{}]")), max_size=2).map(tuple)
losses = st.builds(
    Lost, started=st.booleans(), alone=st.booleans(), explained=st.booleans(), detail=st.text(max_size=9)
)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Succeeded, result=st.text(max_size=9), children=children),
    st.builds(
        Failed,
        error=errors,
        permanent=st.booleans(),
        retry_after=st.one_of(st.none(), delays),
        reason=st.text(min_size=1, max_size=9),
    ),
    st.builds(Snoozed, delay=delays, reason=st.text(max_size=9)),
    st.builds(Discarded, reason=st.text(max_size=9), error=st.one_of(st.none(), errors)),
    st.builds(Cancelled, reason=st.text(max_size=9)),
    st.builds(Released, reason=st.text(max_size=9), delay=st.one_of(st.just(0.0), delays)),
    st.just(Expired()),
    losses,
)
chances = st.floats(0, 1, exclude_max=True)


def held(attempt: int = 1, crashes: int = 0, lost: int = 0, suspect: bool = False, fence: int = 7) -> Held:
    return Held("id", fence, "t", 1, "q", "", "[[],{}]", "{}", attempt, crashes, lost, suspect, 50, 0, 0, 0)


helds = st.builds(held, st.integers(1, 8), st.integers(0, 3), st.integers(0, 11), st.booleans(), st.integers(1, 2**62))


# --- the table ---------------------------------------------------------------------------------------------------------


def test_every_state_is_entered_and_only_a_revive_leaves_an_end() -> None:
    """I2: the chart in the documentation is drawn from this table."""
    assert {to for _, to in MOVES.values()} == set(State)
    leaving = {name for name, (sources, _) in MOVES.items() if TERMINAL & set(sources)}
    assert leaving == {"revive", "redrive"}, "at once, or at a rate"
    assert set(MOVES["revive"][0]) == TERMINAL
    for state in set(State) - TERMINAL:
        assert any(state in sources for sources, _ in MOVES.values()), f"{state} is never left"


def test_every_state_is_reached_from_the_beginning() -> None:
    reached: set[State | None] = {None}
    for _ in MOVES:
        reached |= {to for sources, to in MOVES.values() if reached & set(sources)}
    assert reached == {None, *State}


# --- one decision -----------------------------------------------------------------------------------------------------


@examples
@given(helds, policies, outcomes, chances)
def test_every_decision_is_a_legal_move_of_its_own_token(
    run: Held, policy: Policy, outcome: Outcome, chance: float
) -> None:
    """I2, I4: from `running`, under the fence of the run; and nothing that a store would have to interpret."""
    t = decide(run, policy, outcome, chance)
    assert (t.id, t.fence) == (run.id, run.fence)
    assert any(State.RUNNING in sources and to is t.state for sources, to in MOVES.values())
    assert t.after >= 0
    assert t.after == 0 or not t.state.terminal
    assert t.outcome
    assert t.result_ttl == (round(policy.result_ttl * 1e6) if t.state.terminal else 0)
    assert t.error is None or isinstance(msgspec.json.decode(t.error, type=ErrorInfo), ErrorInfo)
    assert t.state is not State.DEAD or t.reason is not None
    assert msgspec.json.decode(msgspec.json.encode(t), type=Transition) == t


@examples
@given(helds, policies, outcomes, chances)
def test_only_success_completes(run: Held, policy: Policy, outcome: Outcome, chance: float) -> None:
    """I13: and only what was completed, or cancelled already, does not yield to a cancel."""
    t = decide(run, policy, outcome, chance)
    assert (t.state is State.COMPLETED) == isinstance(outcome, Succeeded)
    assert (t.result is not None) == isinstance(outcome, Succeeded)
    assert t.children == (outcome.children if isinstance(outcome, Succeeded) else ())
    assert t.cancel_wins == (t.state not in {State.COMPLETED, State.CANCELLED})


@examples
@given(helds, policies, outcomes, chances)
def test_who_is_charged(run: Held, policy: Policy, outcome: Outcome, chance: float) -> None:
    """I6, I22, I26: a handler's own doing costs an attempt; what was snoozed, handed back or lost costs none."""
    t = decide(run, policy, outcome, chance)
    if isinstance(outcome, Snoozed | Released | Expired):
        assert not t.charged
    if isinstance(outcome, Succeeded | Failed | Discarded | Cancelled):
        assert t.charged
        assert (t.crash, t.loss) == (0, 0)
    if isinstance(outcome, Lost) and not t.state.terminal:
        assert not t.charged
        assert t.keep_rank, "nobody waits longer for a neighbour's crash"


@examples
@given(helds, policies, errors, chances, st.one_of(st.none(), delays))
def test_a_retry_is_never_early(
    run: Held, policy: Policy, error: ErrorInfo, chance: float, retry_after: float | None
) -> None:
    """I12: not before the curve, nor before what the remote side asked for."""
    t = decide(run, policy, Failed(error, retry_after=retry_after), chance)
    assume(t.state is State.RETRYING)
    least = policy.backoff.wait(run.attempt, 0.0) if retry_after is None else retry_after
    assert t.after >= round(least * 1e6)
    assert t.after <= round(least * 2 * 1e6) + 1
    assert not t.keep_rank


@examples
@given(helds, policies, losses)
def test_who_is_guilty_of_a_death(run: Held, policy: Policy, lost: Lost) -> None:
    """I6: who had not begun, or whose worker was stopped on purpose, bears nothing of it."""
    t = decide(run, policy, lost, 0.0)
    if not lost.started or lost.explained:
        assert (t.state, t.loss, t.crash, t.suspect) == (State.QUEUED, 0, 0, None)
        return
    assert t.loss == 1
    assert t.crash == int(lost.alone or run.suspect)
    if t.state is State.QUEUED:
        assert t.suspect is True
    else:
        assert (t.state, t.reason) in {(State.DEAD, "crashed"), (State.DEAD, "lost_too_often")}


@examples
@given(helds, policies, outcomes, chances)
def test_a_run_that_ended_by_itself_is_no_suspect(run: Held, policy: Policy, outcome: Outcome, chance: float) -> None:
    t = decide(run, policy, outcome, chance)
    if not isinstance(outcome, Lost | Released):
        assert t.suspect is False


# --- a whole life ---------------------------------------------------------------------------------------------------


def live(policy: Policy, told: list[Outcome]) -> tuple[Transition | None, int, Held]:
    """Run a job through outcomes as a store would; answers its last transition, how often it started, and its counts."""
    attempt, crashes, lost, suspect = 0, 0, 0, False
    last, starts = None, 0
    run = held(attempt=1)
    for number, outcome in enumerate(told):
        starts += 1
        run = held(attempt + 1, crashes, lost, suspect, fence=number + 1)
        last = decide(run, policy, outcome, 0.5)
        attempt = run.attempt if last.charged else run.attempt - 1
        crashes, lost = crashes + last.crash, lost + last.loss
        suspect = suspect if last.suspect is None else last.suspect
        if last.state.terminal:
            break
    return last, starts, held(attempt, crashes, lost, suspect)


unlucky = st.one_of(st.builds(Failed, error=errors), st.builds(Lost, alone=st.booleans()))


@examples
@given(policies, st.lists(unlucky, min_size=30, max_size=30))
@example(Policy(), [Lost()] * 30)
@example(Policy(), [Lost(alone=True)] * 30)
@example(Policy(crash_budget=99), [Lost()] * 30)
def test_no_job_fails_or_dies_for_ever(policy: Policy, told: list[Outcome]) -> None:
    """I6: whatever goes wrong in whatever order, it starts a bounded number of times, and then a person is asked."""
    last, starts, counts = live(policy, told)
    assert last is not None
    assert last.state is State.DEAD
    assert starts <= policy.max_attempts + policy.loss_budget
    assert counts.attempt <= policy.max_attempts + 1
    assert counts.crashes <= policy.crash_budget
    assert counts.losses <= policy.loss_budget


def test_the_default_bounds() -> None:
    """I6: five attempts; three crashes that are certainly its own; ten losses, for any reason."""
    failed = live(Policy(), [Failed(ErrorInfo("E"))] * 30)
    assert (failed[1], failed[0] and failed[0].reason) == (5, "attempts_exhausted")
    alone = live(Policy(), [Lost(alone=True)] * 30)
    assert (alone[1], alone[0] and alone[0].reason) == (3, "crashed")
    # The first death makes it a suspect; it then runs alone, so that the next three are its own.
    among = live(Policy(), [Lost()] * 30)
    assert (among[1], among[0] and among[0].reason) == (4, "crashed")
    tough = live(Policy(crash_budget=99), [Lost()] * 30)
    assert (tough[1], tough[0] and tough[0].reason) == (10, "lost_too_often")


def test_success_clears_a_suspect() -> None:
    _, _, counts = live(Policy(), [Lost(), Failed(ErrorInfo("E"))])
    assert (counts.suspect, counts.crashes, counts.losses) == (False, 0, 1)


# --- parking --------------------------------------------------------------------------------------------------------


@examples
@given(st.integers(-(10**15), 10**15))
def test_a_parked_job_is_looked_at_again(age: int) -> None:
    assert PARK_FIRST <= parked_for(age) <= PARK_MOST


def test_parking_doubles_to_five_minutes() -> None:
    """I22: with no counter to keep; and nine looks in the first ten minutes, not six hundred."""
    age, waits = 0.0, []
    while age < 1_500:
        waits.append(parked_for(round(age * 1e6)))
        age += waits[-1]
    assert waits == pytest.approx([1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300][: len(waits)])

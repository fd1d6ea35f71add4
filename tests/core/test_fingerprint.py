"""The fingerprint of a death: what it depends on, and what it does not."""

from __future__ import annotations

import itertools

from windlass.core.fingerprint import LENGTH, is_beginning, kept, marked
from windlass.core.job import Discarded, ErrorInfo, Failed, Held, Lost, Policy, State
from windlass.core.machine import decide
from windlass.core.placement import job_id

HELD = Held("i", 1, "shop.pay", 1, "q", "", "[[],{}]", "{}", 5, 0, 0, False, 50, 0, 0, 0)
ERROR = ErrorInfo("builtins.ValueError", "card 4242", "line 7", "shop:pay")


def test_task_class_and_place_make_a_cause() -> None:
    errors = [ErrorInfo(kind, "m", "t", place) for kind, place in itertools.product(("E", "F"), ("a:b", "a:c"))]
    prints = {marked(task, error).fingerprint for task in ("t", "u") for error in errors}
    assert len(prints) == 8
    assert all(is_beginning(each) for each in prints)
    # Where one part ends and the next begins counts too.
    assert marked("t", ErrorInfo("ab", place="c")) != marked("t", ErrorInfo("a", place="bc"))


def test_message_and_line_do_not() -> None:
    other = ErrorInfo(ERROR.kind, "card 4000", "line 9", ERROR.place)
    assert marked("t", ERROR).fingerprint == marked("t", other).fingerprint
    assert marked("t", marked("t", ERROR)) == marked("t", ERROR)


def test_it_is_the_same_in_every_release() -> None:
    """It lies in stores, and in the notes of whoever was on call."""
    assert marked("shop.pay", ERROR).fingerprint == "b835213043b0"


def test_every_death_has_one_and_no_other_outcome() -> None:
    policy = Policy(max_attempts=5, crash_budget=1, loss_budget=1)
    deaths = [
        Failed(ERROR),
        Failed(ERROR, permanent=True),
        Discarded("r", ERROR),
        Lost(alone=True),
        Lost(),
    ]
    for outcome in deaths:
        transition = decide(HELD, policy, outcome, 0.0)
        assert transition.state is State.DEAD
        assert len(kept(transition.error)) == LENGTH, outcome
    retried = decide(HELD, Policy(max_attempts=6), Failed(ERROR), 0.0)
    assert (retried.state, kept(retried.error)) == (State.RETRYING, "")
    assert decide(HELD, policy, Discarded("r"), 0.0).error is None


def test_what_cannot_be_read_has_none() -> None:
    for text in (None, "", "{", "[]", '{"fingerprint":7}', "\ud800", '{"kind":"E"}'):
        assert kept(text) == "", text


def test_an_id_is_none() -> None:
    assert not is_beginning(job_id(1, bytes(10)))
    assert not is_beginning("F4EA07FF08C2")

"""assert_enqueued: what counts as the same job, and what is said where there is none."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from unittest.mock import ANY
from uuid import UUID

import pytest

from tests.testing.conftest import NOON, Shop
from windlass.core.errors import InvalidValue
from windlass.testing import Jobs


def test_arguments_by_name_and_by_place(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue("4242", 7)
    for args, kwargs in ((("4242", 7), {}), (("4242",), {"cents": 7}), ((), {"cents": 7}), ((), {}), ((ANY, 7), {})):
        assert jobs.assert_enqueued(shop.charge, *args, **kwargs).arguments == {"card": "4242", "cents": 7}
    jobs.assert_not_enqueued(shop.charge, "4000")
    jobs.assert_not_enqueued(shop.charge, cents=8)
    jobs.assert_not_enqueued(shop.mail)


def test_defaults_count(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue("4242")
    jobs.assert_enqueued(shop.charge, cents=100)
    jobs.assert_not_enqueued("charge", cents=99)


def test_the_context_and_resources_are_no_arguments(shop: Shop, jobs: Jobs) -> None:
    shop.mail.enqueue("ada")
    assert jobs.assert_enqueued(shop.mail, "ada", queue="mail").arguments == {"to": "ada"}
    with pytest.raises(TypeError, match="mail: .*; it takes to"):
        jobs.assert_enqueued(shop.mail, mailer=1)


def test_options(shop: Shop, jobs: Jobs) -> None:
    shop.charge.using(delay="10m", priority=80, tags=["a", "b"]).enqueue("4242")
    jobs.assert_enqueued(shop.charge, delay="10m", priority=80, tags=["b"], state="scheduled", queue="default", times=1)
    jobs.assert_not_enqueued(shop.charge, delay="9m")
    jobs.assert_not_enqueued(shop.charge, delay=0)
    jobs.assert_not_enqueued(shop.charge, tags=["c"])
    tomorrow = NOON + dt.timedelta(days=1)
    shop.charge.using(at=tomorrow).enqueue("4000")
    jobs.assert_enqueued(shop.charge, "4000", at=tomorrow)
    jobs.assert_not_enqueued(shop.charge, "4000", at=tomorrow + dt.timedelta(seconds=1))


def test_whatever_became_of_it(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue("4242")
    jobs.drain()
    assert jobs.assert_enqueued(shop.charge, "4242", state="completed").result == "4242:100"


def test_times(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue_many([("a",), ("a",), ("b",)])
    jobs.assert_enqueued(shop.charge, "a", times=2)
    jobs.assert_enqueued(shop.charge, times=3)
    with pytest.raises(AssertionError, match=r"expected 1 job charge\(card='a'\), found 2\."):
        jobs.assert_enqueued(shop.charge, "a", times=1)


def test_typed_arguments_are_compared_as_the_handler_gets_them(shop: Shop, jobs: Jobs) -> None:
    @shop.app.task(name="typed")
    def typed(day: dt.date, id: UUID, sums: tuple[Decimal, ...], **more: int) -> None: ...

    given = (dt.date(2026, 5, 1), UUID(int=7), (Decimal("1.10"),))
    typed.enqueue(*given, extra=1)
    seen = jobs.assert_enqueued(typed, *given, extra=1)
    assert seen.arguments["id"] == UUID(int=7)
    jobs.assert_not_enqueued(typed, extra=2)


def test_a_parameter_called_as_an_option(shop: Shop, jobs: Jobs) -> None:
    @shop.app.task(name="report")
    def report(queue: str, state: str = "new") -> None: ...

    report.enqueue("mine", state="old")
    jobs.assert_enqueued(report, report.call("mine", state="old"), queue="default")
    jobs.assert_not_enqueued(report, report.call("yours"))


def test_a_task_by_its_name(shop: Shop, jobs: Jobs) -> None:
    shop.app.enqueue("elsewhere", {"day": "2026-05-01"})
    shop.app.enqueue("elsewhere", [7])
    jobs.assert_enqueued("elsewhere", day="2026-05-01")
    jobs.assert_enqueued("elsewhere", 7)
    jobs.assert_not_enqueued("elsewhere", 8)


def test_a_misspelt_task_is_no_assertion(shop: Shop, jobs: Jobs) -> None:
    """That there is no job of it holds whatever happens."""
    shop.charge.enqueue("4242")
    for look in (jobs.assert_not_enqueued, jobs.all, jobs.only):
        with pytest.raises(InvalidValue, match="^task: neither the application nor any job has 'chage'. Did you mean"):
            look("chage")
        with pytest.raises(InvalidValue, match="^task: 5 must be a task or the name of one"):
            look(5)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=r"expected a job chage\(\), found 0"):
        jobs.assert_enqueued("chage")


@pytest.mark.parametrize("times", [0, -1, "x", True])
def test_no_times_is_another_assertion(shop: Shop, jobs: Jobs, times: Any) -> None:
    with pytest.raises(InvalidValue, match="^times: .* must be a whole number from 1; .* say assert_not_enqueued"):
        jobs.assert_enqueued(shop.charge, times=times)


def test_the_message_names_the_nearest(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue("4000", 7)
    shop.charge.using(delay="5m").enqueue("4242", 8)
    shop.mail.enqueue("ada")
    with pytest.raises(AssertionError) as failure:
        jobs.assert_enqueued(shop.charge, "4242", 7, delay="10m")
    assert str(failure.value) == (
        "expected a job charge(card='4242', cents=7) with delay=600.0, found 0.\n"
        "Nearest: charge(card='4000', cents=7) [queued, queue 'default']: card is '4000', not '4242'; "
        "delay is 0ms, not 10m.\n"
        "Enqueued (3 jobs):\n"
        "  charge(card='4000', cents=7) [queued, queue 'default']\n"
        "  charge(card='4242', cents=8) [scheduled, queue 'default', due in 5m]\n"
        "  mail(to='ada') [queued, queue 'mail']"
    )


def test_the_message_where_there_is_nothing(shop: Shop, jobs: Jobs) -> None:
    with pytest.raises(AssertionError, match=r"expected a job mail\(to='ada'\), found 0\.\nNo job was enqueued\."):
        jobs.assert_enqueued(shop.mail, "ada")
    shop.mail.enqueue("ada")
    with pytest.raises(AssertionError, match=r"expected no job mail\(to='ada'\), found 1\."):
        jobs.assert_not_enqueued(shop.mail, "ada")


def test_only_one(shop: Shop, jobs: Jobs) -> None:
    with pytest.raises(AssertionError, match="expected one job, found 0"):
        jobs.only()
    shop.mail.enqueue_many([("ada",), ("bob",)])
    with pytest.raises(AssertionError, match=r"expected one job, found 2\.\nEnqueued \(2 jobs\)"):
        jobs.only(shop.mail)
    with pytest.raises(ValueError, match="^state: 'gone' must be one of scheduled, queued"):
        jobs.all(state="gone")

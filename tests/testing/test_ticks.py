"""Schedules under a clock that is turned by hand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest

from tests.testing.conftest import NOON, URLS
from windlass import Context, Windlass
from windlass.core.errors import WindlassError
from windlass.ports.store import Filter
from windlass.testing import Jobs, bench, engine

HOUR = dt.timedelta(hours=1)


class Clockwork:
    """An application with a schedule, and the ticks that its handler saw."""

    def __init__(self) -> None:
        self.app = Windlass("sqlite:////nowhere/clockwork.db")
        self.ticks: list[dt.datetime | None] = []

        @self.app.task(name="report")
        def report(ctx: Context) -> None:
            self.ticks.append(ctx.tick)

        self.report = report
        self.app.schedule(report, cron="0 * * * *")


@pytest.fixture
def clockwork() -> Clockwork:
    return Clockwork()


@pytest.fixture(params=URLS)
def jobs(request: pytest.FixtureRequest, clockwork: Clockwork, tmp_path: Any) -> Iterator[Jobs]:
    with engine(clockwork.app, url=URLS[request.param].format(tmp_path), now=NOON) as jobs:
        yield jobs


def test_a_drain_goes_from_tick_to_tick(clockwork: Clockwork, jobs: Jobs) -> None:
    assert jobs.drain().ran == 0
    assert jobs.drain(until="3h").ran == 3
    assert clockwork.ticks == [NOON + n * HOUR for n in (1, 2, 3)]
    assert jobs.drain(until="59m").ran == 0


def test_an_advance_enqueues_and_runs_nothing(clockwork: Clockwork, jobs: Jobs) -> None:
    jobs.advance("90m")
    job = jobs.assert_enqueued(clockwork.report, times=1)
    assert job.state == "queued"
    jobs.advance("1h")  # the one before has not ended, so this tick is skipped
    jobs.assert_enqueued(clockwork.report, times=1)
    jobs.drain()
    assert clockwork.ticks == [NOON + HOUR]


def test_every_tick_on_the_way_is_fired(clockwork: Clockwork, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    clockwork.app.client.schedules.create("minutes", clockwork.report, every="1m", overlap="queue")
    jobs.advance("20h")
    assert len(clockwork.app.client.search(Filter(schedule="minutes"), limit=2_000).jobs) == 20 * 60
    monkeypatch.setattr(bench, "TICKS", 10)
    with pytest.raises(WindlassError, match="more than 10 ticks"):
        jobs.advance("1h")


def test_what_never_ends_is_left_out_where_nothing_is_to_wait(clockwork: Clockwork, jobs: Jobs) -> None:
    clockwork.report.using(delay="5h").enqueue()
    assert jobs.drain(with_scheduled=True).ran == 2  # and the tick of those hours: the latest
    assert clockwork.ticks.count(None) == 1


def test_schedules_made_while_it_runs(clockwork: Clockwork, jobs: Jobs) -> None:
    made = clockwork.app.client.schedules.create("own", clockwork.report, every="10m")
    jobs.drain(until="1h")
    assert len(clockwork.ticks) == 7
    assert made.name == "own"
    clockwork.app.client.schedules.pause("own")
    clockwork.app.client.schedules.run("report")
    jobs.drain(until="59m")
    assert len(clockwork.ticks) == 8


def test_a_century_of_ticks_is_not_walked(clockwork: Clockwork) -> None:
    with engine(clockwork.app, now=NOON) as jobs:
        with pytest.raises(WindlassError, match="more than 10,000 ticks"):
            jobs.advance(dt.timedelta(days=36_500))

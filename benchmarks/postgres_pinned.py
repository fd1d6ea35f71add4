"""PostgreSQL with a transaction that stays open for an hour, while jobs go on at 60 % of what they could.

What was deleted since that transaction began, vacuum may not take away, and a queue that has to walk past it gets slower
and slower. What two workers can do at the most is measured every five minutes, in turn in that database and in another
one on the same server, which the transaction does not touch.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import NamedTuple

from benchmarks import report
from benchmarks.peers import run as peers
from benchmarks.postgres_server import postgres_server, url_of, within
from benchmarks.report import Figure

LOAD = 0.6
BURST = 150_000
LAST = 20_000
"""Jobs, of which the time from due to start is looked at."""
STARTED = f"""
SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY e.started - j.due) / 1000.0
FROM (SELECT seq, started FROM windlass.ended ORDER BY seq DESC LIMIT {LAST}) e JOIN windlass.jobs j ON j.seq = e.seq"""


class Window(NamedTuple):
    """What was seen in one of them."""

    kept: float
    """Of the jobs of the load, in percent, those that had run when the last was enqueued."""
    late: float
    """The 99th percentile from due to start, in ms."""
    most: float
    """What the workers can do, in percent of what they can in the other database."""


class Site:
    """A database with two workers."""

    def __init__(self, name: str) -> None:
        self.name = name
        with within(name):
            peers.call("windlass", "postgres", "reset")
            self.worker = peers.Worker("windlass", "postgres")

    def burst(self) -> float:
        """Jobs a second, of a queue that was filled while it was paused."""
        before = peers.nticks()
        with within(self.name):
            peers.call("windlass", "postgres", "extra", "held_back", BURST)
        series = [(time.perf_counter(), 0)]
        while series[-1][1] < BURST:
            time.sleep(0.005)
            series.append((time.perf_counter(), peers.nticks() - before))
            if series[-1][0] - series[0][0] > 120:
                raise SystemExit(f"{series[-1][1]} of {BURST} jobs ran in two minutes")
        half = next(each for each in series if each[1] >= BURST * 0.5)  # by then, nothing is left of the filling
        last = next(each for each in series if each[1] >= BURST * 0.95)
        return (last[1] - half[1]) / (last[0] - half[0])

    def steady(self, rate: float, seconds: float) -> tuple[float, float]:
        """Load of that rate; see Window for what it answers."""
        import psycopg

        before = peers.nticks()
        with within(self.name):
            sent = peers.call("windlass", "postgres", "extra", "steady", rate, seconds, timeout=seconds + 120)["sent"]
        ran = peers.nticks() - before
        with psycopg.connect(url_of(self.name)) as connection:
            late = float(connection.execute(STARTED).fetchone()[0])  # type: ignore[index]
        while peers.nticks() - before < sent:
            time.sleep(0.1)
        return 100 * ran / sent, late


def measure(rounds: int, quick: bool) -> list[Figure]:
    """`rounds` is not looked at: an hour is an hour."""
    import psycopg

    windows, seconds = (2, 20) if quick else (12, 300)
    peers.clear_ticks()
    with postgres_server(), ExitStack() as ends:
        site, other = (Site(name) for name in ("bench", "bench_other"))
        for each in (site, other):
            ends.callback(each.worker.stop)
        time.sleep(3)
        base = min(_pair(site, other)[0] for _ in range(3))
        kept, late = site.steady(base * LOAD, min(seconds, 60))
        report.say(f"before: {base:,.0f} jobs/s; at {LOAD:.0%} of it {kept:.1f} % ran, start p99 {late:.1f} ms")
        with psycopg.connect(url_of(site.name)) as pin:
            pin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            pin.execute("SELECT count(*) FROM windlass.jobs")
            pinned = [_window(site, other, base * LOAD, seconds, f"{n + 1} of {windows}") for n in range(windows)]
        after = [_window(site, other, base * LOAD, min(seconds, 60), "after") for _ in range(3)]
    return [
        Figure("no-op jobs before it, two workers", [base], "jobs/s", digits=0),
        Figure("of 60 % load, run when the last job came", [each.kept for each in pinned], "%", 99, False, 2),
        Figure("from due to start, p99, before it", [late], "ms", digits=1),
        Figure("the same meanwhile, of that before", [each.late / late for each in pinned], "times", 3, digits=2),
        Figure(
            f"in its {windows * seconds / 60:.0f} min, the most: of that in a database without it",
            [each.most for each in pinned], "%", 80, False, 1,
        ),
        Figure("one to three minutes after it", [each.most for each in after], "%", 90, False, 1),
    ]  # fmt: skip


def _pair(site: Site, other: Site) -> tuple[float, float]:
    """Both, in turn, as the machine has its better and worse minutes."""
    return site.burst(), other.burst()


def _window(site: Site, other: Site, rate: float, seconds: float, name: str) -> Window:
    kept, late = site.steady(rate, seconds)
    here, there = _pair(site, other)
    window = Window(kept, late, 100 * here / there)
    report.say(f"{name}: {kept:.2f} % ran, p99 {late:.1f} ms, {here:,.0f} beside {there:,.0f} jobs/s")
    return window


if __name__ == "__main__":
    os.makedirs(peers.HOME, exist_ok=True)
    report.main(measure, __doc__ or "")

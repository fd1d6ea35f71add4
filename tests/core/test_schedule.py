"""Schedules: what may be said, what is due, and that a tick is the same tick whoever makes it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.sizes import examples
from windlass.core.errors import InvalidSchedule
from windlass.core.job import KeyLimit, Meta
from windlass.core.placement import is_job_id, shard_of
from windlass.core.schedule import (
    LATE,
    CatchUp,
    Definition,
    Overlap,
    Rule,
    backfill_job,
    digest,
    due,
    latest,
    next_tick,
    read,
    rule,
    run_job,
    tick_job,
    ticks,
)
from windlass.limits import Limit
from windlass.runtime import zones

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOON = 1_780_056_000 * SECOND  # 2026-05-29 12:00:00 UTC
HOURLY = Rule(cron="0 * * * *")


def definition(**of_rule: Any) -> Definition:
    return Definition(rule=Rule(**{"cron": "0 * * * *"} | of_rule), task="t", payload="[[],{}]")


def at(tick: int) -> str:
    return datetime.fromtimestamp(tick / 1e6, UTC).isoformat()


# --- what may be said ------------------------------------------------------------------------------------------------


def test_a_rule_as_said() -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    made = rule(
        {
            "every": "90s",
            "timezone": "Europe/Berlin",
            "overlap": "queue",
            "catch_up": "all",
            "catch_up_limit": 7,
            "jitter": "1m",
            "start": start,
            "end": start + timedelta(days=1),
        }
    )
    begin = 1_767_222_000 * SECOND
    assert made == Rule(
        every=90 * SECOND,
        timezone="Europe/Berlin",
        overlap=Overlap.QUEUE,
        catch_up=CatchUp.ALL,
        catch_up_limit=7,
        jitter=MINUTE,
        start=begin,
        end=begin + DAY,
    )
    assert rule({"cron": "@hourly"}) == Rule(cron="@hourly")


NAIVE = datetime(2026, 1, 1)


@pytest.mark.parametrize(
    ("said", "field", "problem"),
    [
        ({}, "cron", "say either cron or every"),
        ({"cron": "0 * * * *", "every": 60}, "every", "cannot be given together with cron"),
        ({"cron": "0 99 * * *"}, "cron.hour", "0..23"),
        ({"cron": 7}, "cron", "is no expression"),
        ({"every": "soon"}, "every", "is no duration"),
        ({"every": 0.5}, "every", "must be at least 1 s"),
        ({"every": True}, "every", "is no duration"),
        ({"every": float("nan")}, "every", "must be between"),
        ({"every": 60, "jitter": -1}, "jitter", "must be between"),
        ({"every": 60, "timezone": ""}, "timezone", "must be the name of a time zone"),
        ({"every": 60, "timezone": 7}, "timezone", "must be the name of a time zone"),
        ({"every": 60, "overlap": "maybe"}, "overlap", "must be one of skip, queue, cancel-previous"),
        ({"every": 60, "catch_up": "some"}, "catch_up", "must be one of latest, none, all"),
        ({"every": 60, "catch_up_limit": 0}, "catch_up_limit", "must be a whole number, 1..10000"),
        ({"every": 60, "catch_up_limit": True}, "catch_up_limit", "must be a whole number"),
        ({"every": 60, "start": "2026"}, "start", "must be a datetime with a time zone"),
        ({"every": 60, "end": NAIVE}, "end", "has no time zone"),
        ({"every": 60, "start": datetime(1969, 1, 1, tzinfo=UTC)}, "start", "lies before 1970"),
        ({"every": 60, "start": NAIVE.replace(tzinfo=UTC), "end": datetime(2025, 1, 1, tzinfo=UTC)}, "end", "before start"),
    ],
)
def test_what_cannot_be_is_refused_by_name(said: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(InvalidSchedule, match=problem) as refused:
        rule(said)
    assert refused.value.field == field


def test_zones_are_known_by_name() -> None:
    assert zones.load("UTC") is UTC
    assert zones.load("Europe/Berlin") == ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Europe/Berln", "Europe/Berlin"), ("berlin", "Europe/Berlin"), ("New York", "America/New_York"), ("x/y/z", None)],
)
def test_an_unknown_zone_is_refused_with_a_near_one(name: str, meant: str | None) -> None:
    with pytest.raises(InvalidSchedule) as refused:
        zones.load(name)
    assert refused.value.field == "timezone"
    assert (f"did you mean {meant!r}?" in str(refused.value)) == (meant is not None)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/localtime", "\0", "", "Europe", "x" * 5_000])
def test_no_file_is_a_zone(name: str) -> None:
    with pytest.raises(InvalidSchedule, match="is no time zone"):
        zones.load(name)


def test_a_definition_travels_as_text() -> None:
    made = definition(overlap=Overlap.CANCEL_PREVIOUS, catch_up=CatchUp.NONE, start=5)
    assert read(made.text) == made
    assert digest(made.text) == digest(definition(overlap=Overlap.CANCEL_PREVIOUS, catch_up=CatchUp.NONE, start=5).text)
    assert digest(made.text) != digest(definition().text)
    assert read('{"rule":{"cron":"* * * * *","later":1},"task":"t","payload":"p","new":2}').task == "t"


@pytest.mark.parametrize("other", [{"jitter": 5}, {"overlap": Overlap.QUEUE}, {"catch_up": CatchUp.ALL}])
def test_the_timing_is_what_ticks_depend_on(other: dict[str, Any]) -> None:
    assert definition(**other).rule.timing == definition().rule.timing


@pytest.mark.parametrize("other", [{"cron": "1 * * * *"}, {"timezone": "Asia/Tokyo"}, {"start": 1}, {"end": 1}])
def test_and_what_they_do_not_depend_on_is_not_in_it(other: dict[str, Any]) -> None:
    assert definition(**other).rule.timing != definition().rule.timing


# --- when it ticks ---------------------------------------------------------------------------------------------------


def test_every_is_counted_from_1970_and_never_drifts() -> None:
    each = Rule(every=7 * SECOND)
    found = list(ticks(each, NOON, NOON + MINUTE, UTC))
    assert [tick % (7 * SECOND) for tick in found] == [0] * len(found)
    assert next_tick(each, found[3] + 1, UTC) == found[4]


def test_every_is_counted_from_its_start() -> None:
    each = Rule(every=HOUR, start=NOON + 5, end=NOON + 5 + 2 * HOUR)
    assert list(ticks(each, NOON - DAY, NOON + DAY, UTC)) == [NOON + 5, NOON + 5 + HOUR, NOON + 5 + 2 * HOUR]
    assert next_tick(each, NOON + 5 + 2 * HOUR, UTC) is None


def test_start_and_end_belong_to_it() -> None:
    hourly = Rule(cron="0 * * * *", start=NOON, end=NOON + 2 * HOUR)
    assert list(ticks(hourly, NOON - DAY, NOON + DAY, UTC)) == [NOON, NOON + HOUR, NOON + 2 * HOUR]


def test_a_fixed_time_fires_once_in_a_repeated_hour_and_after_a_gap() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    nightly = Rule(cron="30 2 * * *", timezone="Europe/Berlin")
    spring = round(datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp()) * SECOND
    assert [at(tick) for tick in ticks(nightly, spring, spring + 2 * DAY, berlin)] == [
        "2026-03-29T01:00:00+00:00",  # 02:30 does not exist: 03:00 summer time
        "2026-03-30T00:30:00+00:00",
    ]
    autumn = round(datetime(2026, 10, 24, 12, tzinfo=UTC).timestamp()) * SECOND
    assert [at(tick) for tick in ticks(nightly, autumn, autumn + 2 * DAY, berlin)] == [
        "2026-10-25T00:30:00+00:00",  # the first of two
        "2026-10-26T01:30:00+00:00",
    ]


RULES = st.sampled_from(
    [
        Rule(every=SECOND),
        Rule(every=7 * MINUTE),
        Rule(every=HOUR, start=NOON),
        Rule(cron="* * * * *"),
        Rule(cron="*/7 * * * *"),
        Rule(cron="0 3 * * *"),
        Rule(cron="0 0 1 * *"),
        Rule(cron="30 9 * * mon-fri", end=NOON + 3 * DAY),
    ]
)


@given(RULES, st.integers(0, 3 * HOUR), st.integers(1, 20))
@examples
def test_the_latest_are_the_last_of_all(each: Rule, span: int, most: int) -> None:
    after = NOON - span
    assert latest(each, after, NOON, UTC, most) == list(ticks(each, after, NOON, UTC))[-most:]


def test_a_year_of_seconds_is_not_walked() -> None:
    each = Rule(cron="* * * * * *", catch_up=CatchUp.LATEST)
    late = tuple(range(NOON - LATE + SECOND, NOON + 1, SECOND))
    assert due(each, NOON - 365 * DAY, NOON, UTC).ticks == late
    assert due(Rule(every=SECOND), NOON - 365 * DAY, NOON, UTC).ticks == late


# --- what is due -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "fired"),
    [
        (CatchUp.LATEST, [0]),
        (CatchUp.NONE, [0]),
        (CatchUp.ALL, range(-23, 1)),
    ],
)
def test_down_for_a_day_and_back_on_the_hour(catch_up: CatchUp, fired: list[int]) -> None:
    found = due(Rule(cron="0 * * * *", catch_up=catch_up), NOON - DAY, NOON, UTC)
    assert list(found.ticks) == [NOON + n * HOUR for n in fired]
    assert (found.cursor, found.next) == (NOON, NOON + HOUR)


@pytest.mark.parametrize(
    ("catch_up", "fired"),
    [(CatchUp.LATEST, [0]), (CatchUp.NONE, []), (CatchUp.ALL, range(-23, 1))],
)
def test_down_for_a_day_and_back_half_past(catch_up: CatchUp, fired: list[int]) -> None:
    now = NOON + HOUR // 2
    found = due(Rule(cron="0 * * * *", catch_up=catch_up), NOON - DAY, now, UTC)
    assert list(found.ticks) == [NOON + n * HOUR for n in fired]
    assert (found.cursor, found.next) == (NOON if fired else now, NOON + HOUR)
    assert found.caught_up == (catch_up is CatchUp.ALL)
    assert found.dropped == (None if catch_up is CatchUp.ALL else NOON - 23 * HOUR)


@pytest.mark.parametrize("catch_up", CatchUp)
def test_what_is_merely_late_is_fired_whatever_the_policy(catch_up: CatchUp) -> None:
    """I11: a leader that died, was stopped, or was replaced by a deploy, costs no tick."""
    found = due(Rule(every=10 * SECOND, catch_up=catch_up), NOON - 50 * SECOND, NOON, UTC)
    assert found.ticks == tuple(range(NOON - 40 * SECOND, NOON + 1, 10 * SECOND))
    assert (found.caught_up, found.dropped) == (True, None)


def test_all_has_a_bound_and_keeps_the_latest() -> None:
    found = due(Rule(cron="0 * * * *", catch_up=CatchUp.ALL, catch_up_limit=3), NOON - DAY, NOON, UTC)
    assert found.ticks == (NOON - 2 * HOUR, NOON - HOUR, NOON)


def test_none_is_still_fired_when_it_is_merely_late() -> None:
    each = Rule(cron="0 * * * *", catch_up=CatchUp.NONE)
    assert due(each, NOON - HOUR, NOON + LATE - 1, UTC).ticks == (NOON,)
    assert due(each, NOON - HOUR, NOON + LATE, UTC).ticks == ()


def test_one_tick_on_time_is_not_caught_up() -> None:
    each = Rule(cron="0 * * * *", catch_up=CatchUp.ALL)
    assert due(each, NOON - HOUR, NOON + SECOND, UTC) == ((NOON,), NOON, NOON + HOUR, False, None)


def test_nothing_is_due_before_the_cursor() -> None:
    """I11: a clock that went back."""
    assert due(HOURLY, NOON, NOON - DAY, UTC) == ((), NOON, NOON + HOUR, False, None)
    assert due(HOURLY, NOON, NOON, UTC) == ((), NOON, NOON + HOUR, False, None)


def test_what_was_looked_at_is_not_looked_at_again() -> None:
    found = due(HOURLY, NOON + 1, NOON + 5, UTC)
    assert found == ((), NOON + 5, NOON + HOUR, False, None)


@given(RULES, st.sampled_from(CatchUp), st.lists(st.integers(0, 2 * HOUR), min_size=1, max_size=20))
@examples
def test_windows_share_no_tick_and_all_misses_none(each: Rule, catch_up: CatchUp, spans: list[int]) -> None:
    """I11: however often, and however late, somebody looks."""
    each = msgspec.structs.replace(each, catch_up=catch_up, catch_up_limit=10_000)
    now = cursor = NOON - DAY
    fired: list[int] = []
    for span in spans:
        now += span
        found = due(each, cursor, now, UTC)
        assert found.next is None or found.next > now
        cursor = found.cursor
        fired += found.ticks
    everything = list(ticks(each, NOON - DAY, now, UTC))
    assert fired == sorted(set(fired))
    assert set(fired) <= set(everything)
    if catch_up is CatchUp.ALL:
        assert fired == everything
    elif catch_up is CatchUp.LATEST:
        assert everything[-1:] == fired[-1:]


# --- what a tick becomes ---------------------------------------------------------------------------------------------


def test_a_tick_is_the_same_tick_whoever_makes_it() -> None:
    made = definition()
    assert tick_job("s", 3, made, NOON) == tick_job("s", 3, read(made.text), NOON)
    others = [("t", 3, NOON), ("s", 4, NOON), ("s", 3, NOON + HOUR)]
    ids = {tick_job(name, revision, made, tick).id for name, revision, tick in [("s", 3, NOON), *others]}
    assert len(ids) == 4


def test_its_id_is_a_uuid_of_its_instant() -> None:
    job = tick_job("s", 1, definition(), NOON)
    assert is_job_id(job.id)
    assert int(job.id[:8] + job.id[9:13], 16) == NOON // 1_000
    assert job.id[14] == "7"
    assert job.id[19] in "89ab"


def test_its_shard_is_that_of_its_partition_key() -> None:
    made = msgspec.structs.replace(definition(), meta='{"partition_key":"k"}')
    assert len({shard_of(tick_job("s", 1, made, NOON + n * HOUR).id) for n in range(20)}) == 1


def test_jitter_is_within_its_bound_and_follows_from_the_tick() -> None:
    made = definition(jitter=10 * MINUTE)
    dues = [(tick_job("s", 1, made, NOON + n * HOUR).at or 0) - NOON - n * HOUR for n in range(500)]
    assert dues == [(tick_job("s", 1, made, NOON + n * HOUR).at or 0) - NOON - n * HOUR for n in range(500)]
    assert 0 <= min(dues) < MINUTE
    assert 9 * MINUTE < max(dues) < 10 * MINUTE
    assert 4 * MINUTE < sum(dues) / 500 < 6 * MINUTE
    assert tick_job("s", 1, definition(), NOON).at == NOON


def test_a_job_says_where_it_comes_from_and_runs_alone() -> None:
    own = Meta(tags=("x",), limits=(KeyLimit("own", 5),))
    made = msgspec.structs.replace(definition(), meta=msgspec.json.encode(own).decode(), queue="q", expires_after=5)
    job = tick_job("s", 1, made, NOON)
    meta = msgspec.json.decode(job.meta, type=Meta)
    assert (meta.schedule, meta.tick, meta.tags) == ("s", NOON, ("x",))
    assert meta.limits == (KeyLimit("own", 5), KeyLimit(",schedule,s", 1))
    assert (job.task, job.queue, job.expires_after) == ("t", "q", 5)
    by_hand = run_job(job.id, "s", made, NOON)
    assert msgspec.json.decode(by_hand.meta, type=Meta) == meta
    assert by_hand.at is None


def test_a_backfill_is_the_tick_itself_beside_the_schedule() -> None:
    made = definition(jitter=HOUR)
    job, tick = backfill_job("s", 1, made, NOON), tick_job("s", 1, made, NOON)
    assert (job.id, job.at) == (tick.id, None)
    assert msgspec.json.decode(job.meta, type=Meta).limits == (KeyLimit(",backfill,s", 1),)


def test_no_two_schedules_share_a_limit() -> None:
    """I9: nor a schedule and the backfills of another, nor either and a limit that a user says."""
    names, made = ("y", "y:backfill", "backfill", "schedule"), definition()
    jobs = [make(name, 1, made, NOON) for name in names for make in (tick_job, backfill_job)]
    keys = [msgspec.json.decode(job.meta, type=Meta).limits[0].key for job in jobs]
    said = [Limit(1, name=name, key=lambda n: n).of("t", {"n": "y"}).key for name in names]
    assert len({*keys, *said}) == len(keys) + len(said)


def test_ids_do_not_collide() -> None:
    dice, made = random.Random(7), definition()
    ticks_ = {(f"s{dice.randrange(50)}", dice.randrange(9), NOON + dice.randrange(999) * SECOND) for _ in range(20_000)}
    assert len({tick_job(name, revision, made, tick).id for name, revision, tick in ticks_}) == len(ticks_)

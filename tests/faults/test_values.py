"""I24: what a value does in one store it does in all: it comes back as it was, or is refused with the path of the part
that cannot travel; as a result or an error it ends its job, with the reason."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.faults.kit import count, new_job
from tests.worker.harness import World, task
from windlass import Context, Discard, JobFailed, Retry, Snooze, Windlass
from windlass.core.backoff import Backoff
from windlass.core.errors import InvalidJob, PayloadInvalid, PayloadTooLarge, StoreError
from windlass.runtime.registry import Registry

STORES = {
    "memory": "memory://",
    "apsw": "sqlite:///{}/jobs.db",
    "stdlib": "sqlite+stdlib:///{}/jobs.db",
}
QUICK = Backoff(base=0.001, jitter=0.0)


def nested(depth: int, *, dicts: bool = False) -> Any:
    found: Any = []
    for _ in range(depth - 1):
        found = {"a": found} if dicts else [found]
    return found


def circular() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


TEXTS = {
    "empty": "",
    "NUL": "\0",
    "NUL inside": "a\0b",
    "NUL at the end": "a\0",
    "lone high surrogate": "\ud800",
    "lone low surrogate": "a\udfffb",
    "surrogate pair as two": "\ud83d\ude00",
    "emoji": "\U0001f600\U0001f468\u200d\U0001f469",
    "line separators": "a\u2028b\u2029c\x85d",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "escape sequences": "\x1b[31mred\x1b[0m\x07\b\r",
    "non-characters": "\ufeff\ufffe\uffff\U0010ffff",
    "decomposed": "e\u0301 is not \u00e9",
    "right to left": "\u202eabc\u05d0",
    "quotes": "'\"\\;--/*%s{}$1?:@`",
    "looks like JSON": '{"a":[1,null,"\\u0000"]}',
    "looks like NaN": "NaN",
    "percent": "100%\u0025%%",
    "250 KiB": "x" * 250_000,
    "250 KiB of two-byte characters": "\u00e9" * 125_000,
    "brackets": "[" * 10_000,
}
NUMBERS: dict[str, Any] = {
    **{f"2**{n}{d:+}": 2**n + d for n in (31, 53, 63, 64) for d in (-1, 0, 1)},
    **{f"-2**{n}{d:+}": -(2**n) + d for n in (31, 53, 63, 64) for d in (-1, 0, 1)},
    "0": 0,
    "4,300 digits": 10**4299,
    "4,301 digits": 10**4300,
    "minus 4,301 digits": -(10**4300),
    "true": True,
    "-0.0": -0.0,
    "0.1": 0.1,
    "smallest": 5e-324,
    "largest": sys.float_info.max,
    "1e22": 1e22,
    "1e23": 1e23,
    "2**53 as float": float(2**53),
    "1.0": 1.0,
    "NaN": math.nan,
    "infinity": math.inf,
    "-infinity": -math.inf,
}
OTHERS: dict[str, Any] = {
    "null": None,
    "empty list": [],
    "empty dict": {},
    "depth 63": nested(63),
    "depth 64": nested(64),
    "depth 65": nested(65),
    "depth 64 of dicts": nested(64, dicts=True),
    "depth 65 of dicts": nested(65, dicts=True),
    "depth 100,000": nested(100_000),
    "circular": circular(),
    "1 MiB": "x" * (1 << 20),
    "10,000 keys": {f"k{n}": n for n in range(10_000)},
    "empty key": {"": 1},
    "NUL in a key": {"a\0b": 1},
    "surrogate in a key": {"\ud800": 1},
    "number as key": {1: 2},
    "null as key": {None: 1},
    "keys that differ in their form": {"e\u0301": 1, "\u00e9": 2},
    "class hint": {"__class__": "os.system", "py/object": "os.system", "$ref": "#"},
    "NaN far inside": {"a": [{"b": [1, math.nan]}]},
    "surrogate far inside": {"a": [{"b": ["ok", "\ud800"]}]},
    "bytes": b"\0\xff",
    "set": {1, 2},
    "tuple": (1, (2,)),
    "decimal": Decimal("0.1"),
    "instant": datetime(2026, 1, 1, tzinfo=UTC),
    "uuid": UUID(int=7),
    "object": object(),
    "function": len,
    "class": int,
    "complex": 1j,
}
VALUES = {**TEXTS, **NUMBERS, **OTHERS}


def same(sent: Any, seen: Any) -> bool:
    """Equal, of the same type, and with the sign of a zero; lists and tuples are one to JSON."""
    if isinstance(sent, (list, tuple, set)):  # JSON has one of them, and says so
        return isinstance(seen, list) and len(sent) == len(seen) and all(map(same, sent, seen))
    if isinstance(sent, dict):
        return isinstance(seen, dict) and list(sent) == list(seen) and all(same(sent[k], seen[k]) for k in sent)
    if type(sent) is not type(seen) or sent != seen:
        return False
    return not isinstance(sent, float) or math.copysign(1, sent) == math.copysign(1, seen)


class Bench:
    """One application with every way in which a value can travel."""

    def __init__(self, store: str, path: Path) -> None:
        path.mkdir()
        self.path = path
        self.app = Windlass(STORES[store].format(path))
        self._declare(self.app)

    def _declare(self, app: Windlass) -> None:
        once = {"max_attempts": 1, "backoff": QUICK}

        @app.task(name="echo", **once)
        async def echo(value: Any) -> Any:
            return value

        @app.task(name="echo in a thread", **once)
        def echo_in_thread(**values: Any) -> Any:
            return values

        @app.task(name="give", **once)
        async def give(name: str) -> Any:
            return VALUES[name]

        @app.task(name="fail", max_attempts=2, backoff=QUICK)
        async def fail(ctx: Context, how: str, name: str) -> None:
            text = TEXTS[name]
            if ctx.attempt == 1 and how == "Retry":
                raise Retry(0.001, text)
            if ctx.attempt == 1 and how == "error":
                raise ValueError(text)
            if ctx.attempt == 1 and how == "kind":  # whose name is text as well; Python itself refuses some
                raise type("".join(c for c in text[:50] if c != "\0" and not "\ud800" <= c <= "\udfff"), (Exception,), {})
            raise Discard(text)

        @app.task(name="snooze", max_attempts=1)
        async def snooze(ctx: Context, name: str) -> str | None:
            if not ctx.headers.get("again"):
                ctx.progress(1, 2, TEXTS[name])
                ctx.log(TEXTS[name])
            if await ctx.aonce("first", first, name) == name and ctx.id not in self.snoozed:
                self.snoozed.add(ctx.id)
                raise Snooze(0.001, TEXTS[name])
            return TEXTS[name]

        async def first(name: str) -> str:
            return name

        self.snoozed: set[str] = set()

    def work(self) -> None:
        """Run everything; the store is sound afterwards, and nothing is stuck."""
        world = World(self.path, opened=self.app.opened, concurrency=8)
        world.registry = self.app.registry
        world.work()
        world.sound()


@pytest.fixture
def benches(place: Path) -> Iterator[dict[str, Bench]]:
    found = {store: Bench(store, place / store) for store in STORES}
    yield found
    for bench in found.values():
        bench.app.close()


def everywhere(benches: dict[str, Bench], act: Callable[[Bench], dict[Any, Any]]) -> dict[Any, Any]:
    """What `act` answers, which must be the same in every store."""
    answers = {store: act(bench) for store, bench in benches.items()}
    first = answers["memory"]
    for store, answer in answers.items():
        assert answer.keys() == first.keys()
        different = {name: (first[name], answer[name]) for name in first if repr(first[name]) != repr(answer[name])}
        assert not different, f"{store} differs from memory: {short(different)}"
    return first


def short(thing: Any) -> str:
    return ascii(thing)[:2_000]


def sent(bench: Bench, calls: dict[Any, tuple[str, Any]]) -> dict[Any, Any]:
    """Enqueue each call, work, and answer per call: refused, with what and where; or its result; or how it died."""
    jobs: dict[Any, Any] = {}
    answers: dict[Any, Any] = {}
    for name, (called, arguments) in calls.items():
        try:
            jobs[name] = bench.app.enqueue(called, arguments)
        except InvalidJob as error:
            answers[name] = ("refused", type(error).__name__, error.field)
    bench.work()
    for name, job in jobs.items():
        try:
            answers[name] = ("returned", job.result(timeout=5))
        except JobFailed as error:
            answers[name] = ("dead", error.reason, error.kind, error.detail)
    return {name: answers[name] for name in calls}


def test_as_arguments(benches: dict[str, Bench], record_property: Any) -> None:
    """At the top, inside a list and as a named argument in a thread: returned as it was, or refused by its path."""
    calls: dict[Any, tuple[str, Any]] = {}
    for name, value in VALUES.items():
        calls[name, "top"] = ("echo", [value])
        calls[name, "inside"] = ("echo", [{"list": [0, value]}])
        calls[name, "named"] = ("echo in a thread", {"one": 1, "two": value})
    answers = everywhere(benches, lambda bench: sent(bench, calls))
    wrap = {"top": lambda v: v, "inside": lambda v: {"list": [0, v]}, "named": lambda v: {"one": 1, "two": v}}
    for (name, place), (word, *rest) in answers.items():
        if word == "returned":
            assert same(wrap[place](VALUES[name]), rest[0]), f"{name}, {place}: {short(rest[0])}"
        elif word == "dead":  # a result has the limits of an argument, and one level more here
            assert (name, place, rest[0]) in {(f"depth 64{kind}", "named", "result_unserialisable") for kind in ("", " of dicts")}
        else:
            part = {"top": "value", "inside": "value", "named": "two"}[place]
            assert rest[1].startswith((part, "payload")), f"{name}: {rest}"
            assert rest[1] != "payload" or "depth" in name or "iB" in name or "circular" in name, f"{name}: {rest}"
    refused = {name for (name, place), answer in answers.items() if place == "top" and answer[0] == "refused"}
    assert refused >= {
        "lone high surrogate", "lone low surrogate", "surrogate pair as two", "surrogate in a key", "surrogate far inside", "NaN",
        "infinity", "-infinity", "NaN far inside", "depth 65", "depth 65 of dicts", "depth 100,000", "circular", "1 MiB",
        "object", "function", "complex", "number as key", "null as key", "4,301 digits", "minus 4,301 digits",
    }  # fmt: skip
    assert not refused & {*(each for each in TEXTS if "surrogate" not in each), "2**53+1", "-2**63+0", "-0.0", "depth 64", "null"}
    count(record_property, values=len(calls), refused_at_the_top=len(refused))


def test_the_path_of_the_guilty_part(benches: dict[str, Bench]) -> None:
    """Named to the last step, in every store alike, for tasks that are known and for those known by name only."""
    paths = {
        "NaN far inside": "value.a[0].b[1]",
        "surrogate far inside": "value.a[0].b[1]",
        "surrogate in a key": "value, key '\\ud800'",
        "number as key": "value[1]",
        "1 MiB": None,
        "depth 65": None,
    }
    for bench in benches.values():
        for called in ("echo", "elsewhere"):
            for name, path in paths.items():
                with pytest.raises((PayloadInvalid, PayloadTooLarge)) as caught:
                    bench.app.enqueue(called, [VALUES[name]])
                found = caught.value.field
                assert found.endswith((path or "").removeprefix("value")), f"{called}, {name}: {found}"


def test_as_results(benches: dict[str, Bench], record_property: Any) -> None:
    """A result that nobody could read ends the job as dead, with the reason and the path; it is never stuck."""
    calls = {name: ("give", [name]) for name in VALUES}
    answers = everywhere(benches, lambda bench: sent(bench, calls))
    for name, (word, *rest) in answers.items():
        if word == "dead":
            assert rest[0] in {"result_unserialisable", "result_too_large"}, f"{name}: {short(rest)}"
            assert rest[2].startswith("result"), f"{name}: {short(rest)}"
        elif name in {**TEXTS, **NUMBERS}:
            assert same(VALUES[name], rest[0]), f"{name}: {short(rest)}"
    dead = {name for name, answer in answers.items() if answer[0] == "dead"}
    assert dead >= {"lone high surrogate", "NaN", "infinity", "depth 65", "depth 100,000", "circular", "1 MiB", "object"}
    count(record_property, results=len(calls), dead=len(dead))


def test_as_errors_and_reasons(benches: dict[str, Bench]) -> None:
    """Whatever an exception says is kept as text that can be read, the same everywhere; the job ends."""
    calls = {(how, name): ("fail", [how, name]) for how in ("Retry", "error", "kind", "Discard") for name in TEXTS}

    def act(bench: Bench) -> dict[Any, Any]:
        jobs = {name: bench.app.enqueue(called, arguments) for name, (called, arguments) in calls.items()}
        bench.work()
        found = {}
        for name, job in jobs.items():
            record = job.refresh()
            history = [(each.outcome, each.reason, stripped(each.error)) for each in bench.app.client.attempts(job.id)]
            found[name] = (record.state.value, record.reason, stripped(record.error), history)
        return found

    answers = everywhere(benches, act)
    assert {answer[0] for answer in answers.values()} == {"dead"}
    for (how, name), (_, reason, error, history) in answers.items():
        assert len(history) == (1 if how == "Discard" else 2), f"{how}, {name}"
        text = TEXTS[name]
        if how == "error" and "surrogate" not in name and len(text) < 8_000:
            assert json.loads(history[0][2]).get("message", "") == text
        if "surrogate" not in name and 0 < len(text) < 100:
            assert reason == text.replace("\0", "\\x00"), f"{how}, {name}: {reason!a}"


def stripped(error: str | None) -> str | None:
    """Without the traceback, which names lines and files."""
    if error is None:
        return None
    found = json.loads(error)
    found.pop("trace", None)
    return json.dumps(found)


def test_as_progress_lines_and_snoozes(benches: dict[str, Bench]) -> None:
    """Notes, log lines, kept results and the reason of a snooze; the job completes, or its result says why not."""

    def act(bench: Bench) -> dict[Any, Any]:
        jobs = {name: bench.app.enqueue("snooze", [name]) for name in TEXTS}
        bench.work()
        found = {}
        for name, job in jobs.items():
            record = job.refresh()
            progress = job.progress()
            lines = [line.message for line in bench.app.client.logs(job.id)]
            history = [(each.outcome, each.reason) for each in bench.app.client.attempts(job.id)]
            found[name] = (record.state.value, record.result, progress and progress.note, lines, history)
        return found

    for name, (state, _, note, lines, history) in everywhere(benches, act).items():
        assert state == ("dead" if "surrogate" in name else "completed"), f"{name}: {short(history)}"
        assert [each[0] for each in history][0] == "snoozed"
        if "surrogate" not in name:
            assert note == TEXTS[name][:1_000]
            assert lines == [TEXTS[name][:8_192]] * 2


def test_as_options(benches: dict[str, Bench]) -> None:
    """Names, keys, tags and headers: kept as they are, or refused by the name of the option."""
    options: dict[str, Callable[[str], Any]] = {
        "queue": str,
        "idempotency_key": str,
        "partition_key": str,
        "tags": lambda text: [text],
        "headers": lambda text: {"h": text},
    }

    def act(bench: Bench) -> dict[Any, Any]:
        found = {}
        for option, make in options.items():
            for name, text in TEXTS.items():
                try:
                    job = bench.app.enqueue("elsewhere", [1], **{option: make(text)})
                except InvalidJob as error:
                    found[option, name] = ("refused", error.field)
                    continue
                record = job.refresh()
                again = bench.app.enqueue("elsewhere", [1], **{option: make(text)})
                found[option, name] = (record.queue, record.meta, again.created)
        assert bench.app.engine.run(bench.app.opened.store.audit()) == []
        return found

    for (option, name), answer in everywhere(benches, act).items():
        if answer[0] == "refused":
            assert answer[1] == option, f"{option}, {name}: {answer}"
        else:
            assert "surrogate" not in name, f"{option}, {name}"
            assert answer[2] == (option != "idempotency_key"), f"{option}, {name}: two jobs for one key"


RAW = {
    "duplicate keys": '[[{"a":1,"a":2}],{}]',
    "duplicate arguments": '[[],{"value":1,"value":2}]',
    "NaN": "[[NaN],{}]",
    "infinity": "[[1e999],{}]",
    "escaped surrogate": '[["\\ud800"],{}]',
    "escaped NUL": '[["a\\u0000b"],{}]',
    "4,301 digits": f"[[{10**4299}0],{{}}]",
    "depth 100,000": f"[[{'[' * 100_000}{']' * 100_000}],{{}}]",
    "no JSON": "Dear diary",
    "empty": "",
    "cut off": '[["a"],{',
    "of another shape": '{"a":1}',
    "null": "null",
    "too many arguments": "[[1,2,3],{}]",
    "an unknown argument": '[[1],{"b":2}]',
    "trailing words": "[[1],{}] and so on",
}
"""Payloads as other programs may put them into the store, past every check at enqueue."""


def test_as_payload_texts_that_nobody_checked(benches: dict[str, Bench]) -> None:
    """I23, I24: each ends its own job, alike in every store; the good ones around them complete."""

    def act(bench: Bench) -> dict[Any, Any]:
        run, store = bench.app.opened.shell.run, bench.app.opened.store
        jobs = {}
        for name, payload in RAW.items():
            pair = new_job(task="echo", payload=payload), new_job(task="echo", payload='[["good"],{}]')
            run(store.enqueue(pair))
            jobs[name] = pair
        bench.work()
        found = {}
        for name, (bad, good) in jobs.items():
            record, fine = run(store.fetch([bad.id, good.id]))
            assert (fine.state, fine.result) == ("completed", '"good"')
            found[name] = (record.state.value, record.reason, record.result, stripped(record.error))
        return found

    answers = everywhere(benches, act)
    ends = {name: answer[0] for name, answer in answers.items()}
    assert set(ends.values()) == {"completed", "dead"}
    completed = {name for name, end in ends.items() if end == "completed"}
    assert completed <= {"duplicate keys", "duplicate arguments", "escaped NUL", "4,301 digits"}, completed
    assert all(answer[1] == "payload" for answer in answers.values() if answer[0] == "dead"), short(answers)


@pytest.mark.parametrize("store", ["apsw", "stdlib"])
def test_what_no_database_can_hold(store: str, benches: dict[str, Bench]) -> None:
    """I23: past every check, a text that is none and a number that is too large: an error of ours to who enqueues; to a
    worker, an outcome that ends its own job, among others that complete."""
    bench = benches[store]
    run, plans = bench.app.opened.shell.run, bench.app.opened.store
    for given in ({"payload": '[["\ud800"],{}]'}, {"priority": 2**70}, {"meta": "\udfff"}):
        with pytest.raises(StoreError, match="cannot be stored"):
            run(plans.enqueue([new_job(task="echo"), new_job(task="echo", **given)]))
    world = World(bench.path, opened=bench.app.opened)
    bad = task("bad", lambda: 1, encode=lambda value: '"\ud800"')
    world.registry = Registry(tasks={"bad": bad, "good": task("good", lambda: 2)})
    ids = world.enqueue_many("good", [()] * 20)
    wrong = world.enqueue("bad")
    ids += world.enqueue_many("good", [()] * 20)
    world.work()
    world.sound()
    assert (world.job(wrong).state, world.job(wrong).reason) == ("dead", "unsettleable")
    assert {world.job(id).result for id in ids} == {"2"}


def test_a_store_that_changes_a_value_would_be_seen(benches: dict[str, Bench]) -> None:
    """The comparisons, against a zero that lost its sign, a number that became a float, and a text that was cut."""
    assert not same(-0.0, 0.0)
    assert not same([1], [1.0])
    assert not same({"a": True}, {"a": 1})
    assert not same("a\0b", "a")
    assert same([(1,)], [[1]])
    with pytest.raises(AssertionError, match="stdlib differs from memory"):
        everywhere(benches, lambda bench: {"x": "a" if bench is benches["stdlib"] else "a\0b"})

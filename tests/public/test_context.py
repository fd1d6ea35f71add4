"""What a job sees and may do, at the least executor there could be."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from tests.public.by_hand import Hand, HandRun
from windlass import Context, PayloadInvalid, Windlass, WindlassError
from windlass.core.errors import LeaseLost
from windlass.core.job import Token
from windlass.runtime.context import Transaction, current_run


@pytest.fixture
def run(app: Windlass) -> HandRun:
    app.task(name="t")(lambda n: None)
    app.named("t", 1, {"headers": {"trace": "1"}, "queue": "q", "tags": ["x"]}).enqueue(1)
    app.task(name="u", queue="q")(lambda: None)
    held = Hand(app).claim()
    assert held is not None
    return HandRun(app, held)


def test_a_job_knows_what_it_is(run: HandRun) -> None:
    ctx = Context(run)
    assert (ctx.id, ctx.task, ctx.queue, ctx.attempt) == (run.held.id, "t", "q", 1)
    assert ctx.token == Token(run.held.id, run.held.fence) and run.held.fence > 0
    assert (ctx.headers, ctx.correlation_id, ctx.parent_id) == ({"trace": "1"}, run.held.id, "")
    assert not ctx.cancelled
    run.cancelled = True
    assert ctx.cancelled


def test_progress_and_lines_are_bounded(run: HandRun) -> None:
    ctx = Context(run)
    ctx.progress(1)
    ctx.progress(2, 10, "n" * 2_000)
    assert [(p.done, p.total, len(p.note)) for p in run.progress] == [(1, None, 0), (2, 10, 1_000)]
    ctx.log("x" * 10_000)
    ctx.log("a\ud800\0", level="warning")
    ctx.log(7)  # type: ignore[arg-type]
    assert [(line.level, len(line.message)) for line in run.lines] == [("info", 8_192), ("warning", 8), ("info", 1)]
    assert run.lines[1].message == "a\\ud800\0" and run.progress[0].at > 1e15 < run.lines[0].at
    with pytest.raises(ValueError, match="^level: 'loud' must be one of debug, info, warning, error"):
        ctx.log("x", level="loud")


def test_progress_that_json_cannot_say_is_refused_to_the_handler(run: HandRun) -> None:
    ctx = Context(run)
    for done, total, field in [(math.nan, None, "done"), (10**400, None, "done"), (1, math.inf, "total"), ("1", None, "done"), (True, None, "done")]:
        with pytest.raises(ValueError, match=f"^{field}: .* must be a finite number"):
            ctx.progress(done, total)  # type: ignore[arg-type]
    ctx.progress(1, note="\ud800")
    assert run.progress[-1].note == "\\ud800"


def test_once_keeps_the_first_result(run: HandRun, app: Windlass) -> None:
    calls: list[int] = []

    def charge(amount: int, *, fee: int = 0) -> dict[str, int]:
        calls.append(amount)
        return {"charged": amount + fee}

    ctx = Context(run)
    assert ctx.once("charge", charge, 5, fee=1) == {"charged": 6}
    assert ctx.once("charge", charge, 7) == {"charged": 6}
    assert ctx.once("other", charge, 7) == {"charged": 7}
    assert calls == [5, 7]

    async def later(n: int) -> int:
        calls.append(n)
        return n

    async def main() -> tuple[Any, Any]:
        return await ctx.aonce("later", later, 9), await ctx.aonce("charge", later, 9)

    assert asyncio.run(main()) == (9, {"charged": 6})
    assert Context(run).once("none", lambda: None) is None
    assert Context(run).once("none", lambda: 1) is None


def test_once_with_a_result_that_cannot_be_kept(run: HandRun) -> None:
    """An error for good: another attempt would do the thing again."""
    ctx = Context(run)
    for value in (object(), math.nan, "\ud800"):
        with pytest.raises(PayloadInvalid, match=r"^once\('charge'\)"):
            ctx.once("charge", lambda value=value: value)
    assert ctx.once("charge", lambda: 1) == 1
    for name in ("", "x" * 129):
        with pytest.raises(ValueError, match="^name: "):
            ctx.once(name, lambda: 1)


def test_a_ghost_keeps_nothing(run: HandRun, app: Windlass) -> None:
    """I4."""
    from windlass.core.job import Released

    Hand(app).settle(run.held, Released("test"))
    with pytest.raises(LeaseLost):
        Context(run).once("charge", lambda: 1)


def test_in_a_transaction_once_is_too_late_and_enqueue_joins(run: HandRun, app: Windlass) -> None:
    ctx = Context(run)
    transaction = ctx.transaction()
    assert isinstance(transaction, Transaction)
    for use in (lambda: ctx.once("x", lambda: 1), lambda: asyncio.run(ctx.aonce("x", None))):  # type: ignore[arg-type]
        with pytest.raises(WindlassError, match="must come before ctx.transaction"):
            use()
    token = current_run.set(run)
    try:
        job = app.tasks["u"].enqueue()
        asyncio.run(app.tasks["u"].aenqueue())
        app.tasks["u"].enqueue_many([(), ()])
    finally:
        current_run.reset(token)
    assert job.id == run.children[0].id and len(run.children) == 4
    assert app.client.stats(exact=True).states["queued"] == 0


def test_a_transaction_elsewhere_is_not_joined(run: HandRun, app: Windlass, make: Any) -> None:
    other = make("memory://")
    run.url = "sqlite:///elsewhere.db"
    Context(run).transaction()
    other.task(name="v")(lambda: None)
    token = current_run.set(run)
    try:
        assert other.enqueue("v").state() == "queued"
    finally:
        current_run.reset(token)
    assert run.children == []


class Recorder:
    in_transaction = True

    def __init__(self) -> None:
        self.said: list[Any] = []

    def execute(self, *given: Any) -> str:
        self.said.append(given)
        return "cursor"

    executemany = execute


def test_the_end_of_the_transaction_is_the_workers() -> None:
    connection = Recorder()
    with Transaction(connection) as transaction:
        assert transaction.execute("INSERT INTO t VALUES (?)", (1,)) == "cursor"
        assert transaction.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)]) == "cursor"
        transaction.execute("SAVEPOINT a")
        transaction.execute("ROLLBACK TO a")
        transaction.execute("select 'commit'")
    assert len(connection.said) == 5
    for sql in ("COMMIT", " commit;", "END", "Rollback", "ROLLBACK TRANSACTION", "BEGIN IMMEDIATE", "/* x */ COMMIT", "-- x\nCOMMIT", ";COMMIT"):
        with pytest.raises(WindlassError, match="is the worker's: the transaction ends when the job is settled"):
            transaction.execute(sql)
        with pytest.raises(WindlassError):
            transaction.executemany(sql, [])
    connection.in_transaction = False
    with pytest.raises(WindlassError, match="^the transaction has ended"):
        transaction.execute("INSERT INTO t VALUES (3)")
    assert len(connection.said) == 5
    assert not hasattr(transaction, "commit") and not hasattr(transaction, "close")


def test_a_detached_context_says_what_needs_a_worker(memory: Windlass) -> None:
    ctx = Context()
    memory.task(name="t")(lambda: None)
    assert (ctx.attempt, ctx.cancelled, ctx.headers, ctx.parent_id, ctx.token.fence) == (1, False, {}, "", 0)
    ctx.progress(1, 2, "x")
    ctx.log("x")
    assert ctx.once("x", lambda a: a, 3) == 3 == asyncio.run(ctx.aonce("x", _three))
    with pytest.raises(WindlassError, match="ctx.enqueue needs a worker: this task was called plainly"):
        ctx.enqueue(memory.named("t"))
    with pytest.raises(WindlassError, match="ctx.transaction needs a worker"):
        ctx.transaction()


async def _three() -> int:
    return 3

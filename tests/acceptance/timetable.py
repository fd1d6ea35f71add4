"""The application of the tests of schedules: handlers that write down for which tick they ran."""

from __future__ import annotations

import os
import time

from windlass import Context, Windlass
from windlass.testing import ledger

LEDGER = os.environ["LEDGER"]

app = Windlass()


@app.task
async def tick(ctx: Context) -> None:
    assert ctx.tick is not None
    late = time.time() - ctx.tick.timestamp()
    ledger.write(LEDGER, "tick", ctx.id, ctx.token.fence, ctx.attempt, f"{round(ctx.tick.timestamp())} {late:.6f}")


@app.task
def children(ctx: Context, count: int, batch: int) -> int:
    """Fans out, and says after each batch that it did."""
    return ctx.fan_out(leaf, ((n,) for n in range(count)), batch=batch)


@app.task
async def leaf(n: int) -> None: ...


if not os.environ.get("SCHEDULE_NOTHING"):
    app.schedule(tick, cron="* * * * * *", name="each second", catch_up=os.environ.get("CATCH_UP", "all"), overlap="queue")

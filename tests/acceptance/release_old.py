"""An application as it was released last; `release_new.py` is the one that follows. Its tasks have names of their own,
so that both speak of the same ones."""

from __future__ import annotations

import os

from windlass import Context, Windlass
from windlass.testing import ledger

app = Windlass()


def note(ctx: Context, text: str) -> None:
    ledger.write(os.environ["LEDGER"], "start", ctx.id, ctx.token.fence, ctx.attempt, text)
    ledger.write(os.environ["LEDGER"], "end", ctx.id, ctx.token.fence, ctx.attempt, text)


@app.task(name="shop.greet")
async def greet(ctx: Context, name: str) -> str:
    note(ctx, "old greet")
    return f"hello, {name}"


@app.task(name="shop.same")
async def same(ctx: Context, number: int) -> int:
    note(ctx, "old same")
    return number


@app.task(name="shop.removed")
async def removed(ctx: Context) -> None:
    note(ctx, "old removed")

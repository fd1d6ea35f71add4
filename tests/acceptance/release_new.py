"""The release that follows `release_old.py`: greet has other parameters, one task is gone and one is new."""

from __future__ import annotations

from tests.acceptance.release_old import note
from windlass import Context, Windlass

app = Windlass()


@app.task(name="shop.greet", version=2)
async def greet(ctx: Context, first: str, last: str) -> str:
    note(ctx, "new greet")
    return f"hello, {first} of the {last}s"


@greet.upcast(1)
def _(name: str) -> tuple[str, str]:
    first, _, last = name.partition(" ")
    return first, last


@app.task(name="shop.same")
async def same(ctx: Context, number: int) -> int:
    note(ctx, "new same")
    return number


@app.task(name="shop.added")
async def added(ctx: Context) -> None:
    note(ctx, "new added")

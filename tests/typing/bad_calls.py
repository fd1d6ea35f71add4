"""Calls that mypy --strict must reject: each line that ends in `# E: code` with that error, and no other line."""

from __future__ import annotations

from windlass import Context, Task, Windlass, provided

app = Windlass("memory://")


@app.task
def add(a: int, b: int = 2) -> int:
    return a + b


@app.task(queue="mail")
async def send(user_id: int, *, greeting: str = "hi") -> str:
    return greeting


@app.task
def first(ctx: Context, path: str) -> list[str]:
    ctx.enqueue(add, "1")  # E: arg-type
    ctx.enqueue(first, ctx, path)  # E: call-arg, arg-type
    ctx.once("charge", len, 7)  # E: arg-type
    return [path]


@app.task
def late(path: str, ctx: Context = provided()) -> None: ...


add.enqueue("7")  # E: arg-type
add.enqueue()  # E: call-arg
add.enqueue(1, 2, 3)  # E: call-arg
add.enqueue(1, c=3)  # E: call-arg
add.call("7")  # E: arg-type
add("7")  # E: arg-type
first.enqueue(7)  # E: arg-type
first.enqueue(Context(), "x")  # E: call-arg, arg-type
late.enqueue(7)  # E: arg-type
send.using(priority=80).enqueue("7")  # E: arg-type
send.enqueue(7, "hello")  # E: call-arg
text: str = add.enqueue(1).result()  # E: assignment
number: int = add.enqueue(1)  # E: assignment
add.using(prio=80)  # E: call-arg
add.using(priority="high")  # E: arg-type
add.using(at="tomorrow")  # E: arg-type
add.enqueue_many(["x"])  # E: list-item


@app.task(retries=3)  # E: call-overload, untyped-decorator
def wrong_option() -> None: ...


@app.task(priority="high")  # E: call-overload, untyped-decorator
def wrong_value() -> None: ...


async def asynchronous() -> None:
    await send.aenqueue("7")  # E: arg-type
    await send("7")  # E: arg-type
    send.aenqueue(7)  # E: unused-coroutine
    job = await send.aenqueue(7)
    number: int = await job.aresult()  # E: assignment
    print(number)


def takes(task: Task[[str], int]) -> None: ...


takes(add)  # E: arg-type
Windlass(colour="red")  # E: call-arg

"""`windlass demo`: a worker and a little traffic, with nothing to prepare and nothing left behind."""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.children import worker
from windlass.cli.common import answers
from windlass.cli.exits import FAILED, OK
from windlass.cli.output import Output
from windlass.cli.show import short
from windlass.cli.template import TASKS
from windlass.core import document
from windlass.core.job import TERMINAL, State

if TYPE_CHECKING:
    from windlass import Job, Windlass

PATIENCE = 60.0


@click.command()
@answers
def demo(as_json: bool) -> int:
    """Run two workers and some jobs in a temporary directory: results, progress, retries, a dead letter, a delay.

    Takes some ten seconds, ends by itself and leaves nothing behind.
    """
    from windlass import Windlass

    out = Output(as_json=as_json)
    with tempfile.TemporaryDirectory(prefix="windlass-demo-") as place:
        with open(os.path.join(place, "tasks.py"), "w", encoding="utf-8") as file:
            file.write(TASKS)
        with Windlass(f"sqlite:///{place}/windlass.db") as app:
            out.say("a store, windlass.db, and two workers that run tasks.py (what `windlass init` writes):")
            with worker(app, "tasks.py", 2, place):
                return _play(app, out)


def _play(app: Windlass, out: Output) -> int:
    jobs = {
        "greet, 20 times": [app.enqueue("tasks.greet", [f"visitor {n}"]) for n in range(20)],
        "count to 30, showing progress": [app.enqueue("tasks.count", [30], queue="slow")],
        "fetch, which fails twice": [app.enqueue("tasks.fetch", ["https://example.org"], max_attempts=4)],
        "divide by zero": [app.enqueue("tasks.divide", [1, 0], max_attempts=1)],
        "greet, in 3 seconds": [app.enqueue("tasks.greet", ["the patient"], delay="3s")],
    }
    out.say(f"enqueued {sum(map(len, jobs.values()))} jobs; each is committed, so nothing can lose it now")
    out.say()
    told: dict[str, str] = {}
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        records = {name: [each.refresh() for each in some] for name, some in jobs.items()}
        for name, some in records.items():
            _tell(out, told, name, some)
        if all(each.state in TERMINAL for some in records.values() for each in some):
            break
        time.sleep(0.1)
    return _sum_up(app, out, jobs)


def _tell(out: Output, told: dict[str, str], name: str, some: list[Any]) -> None:
    """One line whenever something about these jobs has changed that a person would want to see."""
    first = some[0]
    ended = sum(each.state in TERMINAL for each in some)
    far, error = document.progress(first.progress), document.error(first.error)
    why = f" ({short(error)})" if error else ""
    said = f"{ended} of {len(some)} done" if len(some) > 1 else first.state.value
    if first.state is State.RUNNING and far is not None:
        said = f"running, {int(far['done'] / far['total'] * 3) * 100 // 3} %"
    elif first.state is State.RETRYING:
        said = f"attempt {first.attempt} failed, will be tried again{why}"
    elif first.state is State.DEAD:
        said = f"dead: it waits for a person to look{why}"
    elif first.result is not None and len(some) == 1:
        said = f"completed in attempt {first.attempt}: {first.result}"
    if told.get(name) != said and said != State.QUEUED:
        told[name] = said
        out.say(f"  {name:30} {said}")


def _sum_up(app: Windlass, out: Output, jobs: dict[str, list[Job[Any]]]) -> int:
    enqueued = sum(map(len, jobs.values()))
    states = {state: number for state, number in app.client.stats(exact=True).states.items() if number}
    right = states == {"completed": enqueued - 1, "dead": 1}
    if out.as_json:
        out.document({"enqueued": enqueued, "states": states, "ok": right})
    out.say()
    out.say(f"{enqueued} enqueued = " + " + ".join(f"{number} {state}" for state, number in states.items()))
    if not right:
        out.say("that is not what was expected: 1 dead and the others completed")
        return FAILED
    out.say("next: `windlass init` writes these tasks here; `windlass dev tasks.py` runs them while you edit")
    return OK

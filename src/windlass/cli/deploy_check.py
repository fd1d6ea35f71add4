"""`windlass deploy-check`: what waits now, against the code that is to be released."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from windlass.cli.common import Place, answers
from windlass.cli.exits import FAILED, OK
from windlass.core.words import count, near

if TYPE_CHECKING:
    from windlass.deployment import Report

SCHEDULES_SINCE = 4
"""The version of the schema that has schedules."""


@click.command("deploy-check")
@click.argument("target", metavar="MODULE:APP")
@click.option("--url", metavar="URL", help="The store to look at, if not the application's own.")
@click.option("--queue", "queues", metavar="NAME", multiple=True, help="Look at this queue only; may be repeated.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Look at so many jobs only: a sample.")
@answers
def deploy_check(target: str, url: str | None, queues: tuple[str, ...], limit: int | None, as_json: bool) -> int:
    """Say which jobs the code of MODULE:APP, about to be released, could not run.

    Looks at all that wait, are scheduled, retry or run, and at what schedules will enqueue; binds their arguments as a
    worker of that code would, and changes nothing, the schema included. Exit code 0: all fit; 1: some do not; else as
    for every command.
    """
    from windlass import deployment
    from windlass.loading import load

    place = Place(url, target, as_json=as_json)
    new = load(target)
    with (Place(url, None, as_json=as_json) if url is not None else place).app() as app:
        opened = app.engine.bare()  # the new code's schema may be newer: looking must not migrate
        shell, store = opened.shell, opened.store
        found = deployment.check(new.registry, deployment.pages(shell.run, store, limit), queues)
        if shell.run(store.version()) >= SCHEDULES_SINCE:
            deployment.check_schedules(found, new.registry, shell.run(store.schedules()), new.schedules, queues)
        known = {task.options.queue for task in new.tasks.values()} | found.queues
        known |= {each.queue for each in shell.run(store.stats()).queues}
    for queue in (each for each in queues if each not in known):  # its exit must not be a green check
        raise click.UsageError(f"no job, schedule or task has queue {queue!r}.{near(queue, known)}")
    if as_json:
        place.document(_document(found))
    else:
        _say(place, found)
    return OK if found.fits else FAILED


def _say(place: Place, found: Report) -> None:
    for each in found.found:
        place.say(each.sentence)
        place.say(f"    {', '.join(each.ids)}{' ...' if each.count > len(each.ids) else ''}")
    for unfit in found.unfit:
        place.say(unfit.sentence)
    looked = [count(found.looked, "job")]
    bad = [f"{found.misfits:,} of {looked[0]}"] if found.found else []
    if found.schedules:
        looked.append(count(found.schedules, "schedule"))
        bad += [f"{len(found.unfit):,} of {looked[1]}"] if found.unfit else []
    sample = "" if found.complete else ", a sample: there are more"
    if bad:
        place.say(f"{' and '.join(bad)} would not fit{sample}")
    elif found.looked or found.schedules:
        place.say(f"{' and '.join(looked)} looked at{sample}; all fit")
    else:
        place.say("no job waits")


def _document(found: Report) -> dict[str, object]:
    return {
        "ok": found.fits,
        "looked_at": found.looked,
        "complete": found.complete,
        "misfits": found.misfits,
        "problems": [
            {**msgspec.to_builtins(each.problem), "count": each.count, "ids": each.ids, "sentence": each.sentence}
            for each in found.found
        ],
        "schedules_looked_at": found.schedules,
        "schedules": [
            {"schedule": each.schedule, **msgspec.to_builtins(each.problem), "sentence": each.sentence}
            for each in found.unfit
        ],
    }

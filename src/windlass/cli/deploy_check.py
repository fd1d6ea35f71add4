"""`windlass deploy-check`: what waits now, against the code that is to be released."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from windlass.cli.common import Place, answers
from windlass.cli.exits import FAILED, OK
from windlass.core.words import count

if TYPE_CHECKING:
    from windlass.deployment import Report


@click.command("deploy-check")
@click.argument("target", metavar="MODULE:APP")
@click.option("--url", metavar="URL", help="The store to look at, if not the application's own.")
@click.option("--queue", "queues", metavar="NAME", multiple=True, help="Look at this queue only; may be repeated.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Look at so many jobs only: a sample.")
@answers
def deploy_check(target: str, url: str | None, queues: tuple[str, ...], limit: int | None, as_json: bool) -> int:
    """Say which jobs the code of MODULE:APP, about to be released, could not run.

    Looks at all that wait, are scheduled, retry or run, binds their arguments as a worker of that code would, and
    changes nothing, the schema included. Exit code 0: all fit; 1: some do not; else as for every command.
    """
    from windlass import deployment
    from windlass.loading import load

    place = Place(url, target, as_json=as_json)
    registry = load(target).registry
    with (Place(url, None, as_json=as_json) if url is not None else place).app() as app:
        opened = app.engine.bare()  # the new code's schema may be newer: looking must not migrate
        found = deployment.check(registry, deployment.pages(opened.shell.run, opened.store, limit), queues)
    if as_json:
        place.document(_document(found))
    else:
        _say(place, found)
    return FAILED if found.found else OK


def _say(place: Place, found: Report) -> None:
    for each in found.found:
        place.say(each.sentence)
        place.say(f"    {', '.join(each.ids)}{' ...' if each.count > len(each.ids) else ''}")
    looked = count(found.looked, "job")
    sample = "" if found.complete else ", a sample: there are more"
    if found.found:
        place.say(f"{found.misfits:,} of {looked} would not fit{sample}")
    else:
        place.say(f"{looked} looked at{sample}; all fit" if found.looked else "no job waits")


def _document(found: Report) -> dict[str, object]:
    return {
        "ok": not found.found,
        "looked_at": found.looked,
        "complete": found.complete,
        "misfits": found.misfits,
        "problems": [
            {**msgspec.to_builtins(each.problem), "count": each.count, "ids": each.ids, "sentence": each.sentence}
            for each in found.found
        ],
    }

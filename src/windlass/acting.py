"""What operators do to many jobs, such that nobody waits for it: found in a reading transaction, acted on by id, a few
hundred in each writing one. By filter in one go, a thousand of half a million queued jobs held the store's lock for
half a second."""

from __future__ import annotations

from collections.abc import Callable, Generator

import msgspec

from windlass.ports.plan import Plan, batches
from windlass.ports.store import Selected, Selection

CHUNK = 250
"""Jobs of one writing transaction: about 5 ms."""

Act = Callable[[Selection], Plan[Selected]]


def acting(act: Act, selection: Selection) -> Generator[Plan[Selected], Selected, Selected]:
    """The plans of one action, in order; is sent their answers and returns what they come to.

    A job that moves between being found and being acted on is treated as if it had been named by its id.
    """
    ids = selection.ids
    if selection.filter is not None:
        found = yield act(msgspec.structs.replace(selection, dry_run=True)).reading()
        if selection.dry_run:
            return found
        ids = (*found.changed, *found.asked)
    elif selection.dry_run:
        return (yield act(selection).reading())
    done = Selected()
    for chunk in batches(ids, CHUNK):
        delay = selection.delay + len(done.changed) * selection.every
        part = yield act(Selection(tuple(chunk), delay=delay, every=selection.every))
        done = _both(done, part)
    return done


def _both(one: Selected, other: Selected) -> Selected:
    return Selected(
        one.changed + other.changed,
        one.asked + other.asked,
        one.untouched + other.untouched,
        one.missing + other.missing,
    )

"""What operators do to many jobs, such that nobody waits for it: found in a reading transaction, acted on by id, a few
hundred in each writing one. By filter in one go, a thousand of half a million queued jobs held the store's lock for
half a second."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import msgspec

from windlass.ports.plan import Plan, batches
from windlass.ports.store import Filter, Selected, Selection, Store

CHUNK = 250
"""Jobs of one writing transaction: about 5 ms."""

Act = Callable[[Selection], Plan[Selected]]


def acting(act: Act, selection: Selection) -> Generator[Plan[Selected], Selected, Selected]:
    """The plans of one action, in order; is sent their answers and returns what they come to.

    A job that moves between being found and being acted on is judged again by the filter, and left alone if it does not
    match any more: a dead letter that somebody else has redriven must not run a second time, nor be purged.
    """
    if selection.filter is None or selection.ids:
        return (yield from _named(act, selection, selection.ids))
    found = yield act(msgspec.structs.replace(selection, dry_run=True)).reading()
    return found if selection.dry_run else (yield from _found(act, selection, found))


def _found(act: Act, selection: Selection, found: Selected) -> Generator[Plan[Selected], Selected, Selected]:
    done = yield from _named(act, selection, (*found.changed, *found.asked))
    return msgspec.structs.replace(done, next=found.next)


def _named(
    act: Act, selection: Selection, ids: tuple[str, ...]
) -> Generator[Plan[Selected], Selected, Selected]:
    named = msgspec.structs.replace(selection, ids=ids)
    if selection.dry_run:
        return (yield act(named).reading())
    done = Selected()
    for chunk in batches(ids, CHUNK):
        delay = selection.delay + len(done.changed) * selection.every
        part = yield act(msgspec.structs.replace(named, ids=tuple(chunk), delay=delay))
        done = _both(done, part)
    return done


def cancelling(store: Store, selection: Selection) -> Generator[Plan[Any], Any, Selected]:
    """As `acting`, of a cancel; with `children`, of the descendants as well, as far as their parents are still known.

    A job is cancelled first, and then its children are looked for: from then on it can have no others, so none of them
    gets away, whatever runs meanwhile. What is done already is passed over by whoever begins again, by its id or by a
    filter that its parent still matches. Of the descendants those count that were changed or asked: nobody has named
    the others.
    """
    if not selection.children:
        return (yield from acting(store.cancel, selection))
    if selection.filter is None or selection.ids:
        ids = selection.ids
        told = yield from acting(store.cancel, selection)
    else:
        found = yield store.cancel(msgspec.structs.replace(selection, dry_run=True)).reading()
        past = yield from _past(store, selection, found.next)
        ids = tuple(dict.fromkeys((*found.changed, *found.asked, *past)))
        told = found if selection.dry_run else (yield from _found(store.cancel, selection, found))
        yield from _of_ids(store, past, dry_run=selection.dry_run)
    changed, asked, seen = [*told.changed], [*told.asked], set(ids)
    left: list[tuple[Sequence[str], str | None]] = [(chunk, None) for chunk in batches(ids, CHUNK)]
    # The last found first: what is left is one page on each way down, and not a whole generation.
    while left:
        parents, after = left.pop()
        page = yield store.children(parents, CHUNK, after)
        if page.next is not None:
            left.append((parents, page.next))
        # A unique job may take the place of one that is older than its parent, even of its own forebear.
        young = tuple(id for id in page.ids if id not in seen)
        if young:
            seen.update(young)
            part = yield from _of_ids(store, young, dry_run=selection.dry_run)
            changed += part.changed
            asked += part.asked
            left.append((young, None))
    return Selected(tuple(changed), tuple(asked), told.untouched, told.missing, told.next)


def _past(store: Store, selection: Selection, last: str | None) -> Generator[Plan[Any], Any, tuple[str, ...]]:
    """What matches the filter, down to the job `last`, and cannot be cancelled any more itself, though its children
    can: by whoever was interrupted before he came to them, among others."""
    ids: list[str] = []
    after = selection.after
    while True:
        page = yield store.search(cast("Filter", selection.filter), CHUNK, after)
        for job in page.jobs:
            if job.state.terminal or job.cancelling:
                ids.append(job.id)
            if job.id == last:
                return tuple(ids)
        after = page.next
        if after is None:
            return tuple(ids)


def _of_ids(store: Store, ids: tuple[str, ...], *, dry_run: bool) -> Generator[Plan[Selected], Selected, Selected]:
    return (yield from acting(store.cancel, Selection(ids, dry_run=dry_run, children=True)))


def _both(one: Selected, other: Selected) -> Selected:
    return Selected(
        one.changed + other.changed,
        one.asked + other.asked,
        one.untouched + other.untouched,
        one.missing + other.missing,
    )

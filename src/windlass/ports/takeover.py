"""What becomes of a job whose worker is gone, decided once for every store. (The memory store, which is the
specification, says it in its own words.)"""

from __future__ import annotations

import msgspec

from windlass.core.job import ErrorInfo, Failed, Held, Lost, Outcome, Policy, Released, Transition, read_meta
from windlass.core.machine import decide
from windlass.ports.store import Death


def verdict(held: Held, death: Death, chance: float) -> Transition:
    """How its run ended, by what is known of the death; `chance` (0 to 1) is what its backoff is drawn from."""
    return decide(held, _policy(held.meta), _outcome(held.id, death), chance)


def _outcome(id: str, death: Death) -> Outcome:
    guilt = dict(death.guilty).get(id)
    if guilt is not None:
        kind = guilt.replace("_", " ").title().replace(" ", "")
        return Failed(ErrorInfo(kind, death.detail), reason=guilt)
    if death.stopped:
        return Released(death.detail or "stopped")
    started = death.executing is None or id in death.executing
    return Lost(started, death.alone and started, death.explained, death.detail)


def _policy(meta: str) -> Policy:
    try:
        return read_meta(meta).policy
    except msgspec.DecodeError:
        return Policy()  # one unreadable row must not keep its neighbours from being taken over (I23)

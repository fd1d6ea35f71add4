"""How a worker divides its room among its queues."""

from __future__ import annotations

from collections.abc import Sequence


class Weights:
    """Queues in strict order, or by weight; a queue without a weight counts 1.

    By weight, each claim gives every queue its share (what does not come out even is carried over, so shares are
    exact over time) and then lets the others have what a queue left unused.
    """

    def __init__(self, queues: Sequence[tuple[str, float | None]], *, strict: bool = False) -> None:
        self._strict = strict or len(queues) == 1
        self._weights = {queue: weight or 1.0 for queue, weight in queues}
        self._total = sum(self._weights.values())
        self._credit = dict.fromkeys(self._weights, 0.0)

    def share(self, room: int) -> list[tuple[str, int]]:
        """(queue, at most) in the order in which to claim; a queue may stand twice: its share, then what is left."""
        if self._strict:
            return [(queue, room) for queue in self._weights]
        for queue, weight in self._weights.items():
            self._credit[queue] += room * weight / self._total
        order = sorted(self._weights, key=lambda q: -self._credit[q])
        shares = {queue: max(0, int(self._credit[queue])) for queue in order}
        # Rounding down may leave a slot: it goes to the queue that is owed most.
        shares[order[0]] += max(0, room - sum(shares.values()))
        for queue, share in shares.items():
            self._credit[queue] = max(-float(room), min(float(room), self._credit[queue] - share))
        first = [(queue, share) for queue, share in shares.items() if share]
        return first + [(queue, room) for queue in order]

"""Flow control: who may run beside whom, counted from the rows themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from windlass.core import flow
from windlass.core.job import KeyLimit, NewJob, State
from windlass.ports.store import QueueRules
from windlass.stores.memory.tables import Row, Tables, replace

NO_RULES = QueueRules()


class Flow:
    """What the operations ask about limits."""

    def __init__(self) -> None:
        self.data = Tables()

    def _rules(self, queue: str) -> QueueRules:
        return self.data.rules.get(queue, NO_RULES)

    def _runs_under(self, key: str) -> int:
        """How many jobs run that carry `key`."""
        return sum(key in flow.keys_of((row.limits,)) for row in self._run())

    def _first_under(self, key: str) -> Row | None:
        """Whoever runs under `key`, and if nobody does, whose turn it is."""
        run = [row for row in self._run() if key in flow.keys_of((row.limits,))]
        if run:
            return min(run, key=lambda row: row.new.id)
        line = (row for row in self.data.jobs.values() if row.state is State.QUEUED)
        carrying = (row for row in line if key in flow.keys_of((row.limits,)))
        return min(carrying, key=lambda row: (row.rank, row.seq), default=None)

    def _runs_in(self, queue: str) -> int:
        """How many jobs of `queue` run."""
        return sum(row.new.queue == queue for row in self._run())

    def _run(self) -> list[Row]:
        held = [worker for name, worker in self.data.jobs.lines if name == "held"]
        return [row for worker in held for row in self.data.jobs.line("held", worker)]

    def _queue_room(self, queue: str) -> int | None:
        """How many more of `queue` may start; None where nobody has set a limit."""
        limit = self._rules(queue).limit
        return None if limit is None else max(0, limit - self._runs_in(queue))

    def _line(self, jobs: Sequence[NewJob], now: int) -> flow.Line:
        """How full the queues are to which these jobs go."""
        bounds = {queue: rules.bounds for queue, rules in self.data.rules.items() if rules.bounds != flow.Bounds()}
        found = flow.Line(bounds)
        for queue in {job.queue for job in jobs} & bounds.keys():
            line = self.data.jobs.line("ready", (False, queue))
            age = max(0, now - line[0].due_at) if line else 0
            found.looks(queue, min(len(line), bounds[queue].depth or 0), age)
        return found

    def _admit(self, line: Sequence[Row], room: int) -> tuple[list[Row], list[tuple[Row, KeyLimit]]]:
        """Of jobs in their order: those to let in, and those that a limit keeps back, with that limit."""
        running = {key: self._runs_under(key) for key in flow.keys_of(row.limits for row in line)}
        # An answer ends where the room does: what stands behind was not looked at.
        judged = list(zip(line, flow.admit([row.limits for row in line], running, room), strict=False))
        return [row for row, full in judged if full is None], [(row, full) for row, full in judged if full is not None]

    def _block(self, row: Row, limit: KeyLimit) -> None:
        self.data.jobs[row.new.id] = replace(row, state=State.BLOCKED, reason="limit", blocked_by=limit)

    def _free(self, ended: Iterable[Row]) -> bool:
        """These runs are over: whose turn is it? Answers whether it is anybody's."""
        return self._unblock(Counter(key for row in ended for key in flow.keys_of((row.limits,))))

    def _unblock(self, freed: Mapping[str, int | None]) -> bool:
        back = [self._let_back(line, freed[line[0]]) for line in self._blocked_lines() if line[0] in freed]
        return any(back)

    def _blocked_lines(self) -> list[tuple[str, bool, str, int]]:
        """Keys, each with a kind and a queue in which jobs are blocked under it, and the number that those go by."""
        return [which for name, which in self.data.jobs.lines if name == "blocked" and isinstance(which, tuple)]

    def _let_back(self, line: tuple[str, bool, str, int], freed: int | None) -> bool:
        back = self.data.jobs.line("blocked", line, flow.turns(freed, line[3], self._runs_under(line[0])))
        for row in back:
            self.data.jobs[row.new.id] = replace(row, state=State.QUEUED, reason=None, blocked_by=None)
        return bool(back)

    def _sweep(self) -> None:
        """Whoever had a turn may have been cancelled instead of claimed."""
        self._unblock({line[0]: None for line in self._blocked_lines()})

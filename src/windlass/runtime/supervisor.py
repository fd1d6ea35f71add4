"""The supervisor: starts workers, keeps them alive, beats for them, kills what must be killed; runs no user code.

Three threads. The main one owns every process and every decision and waits for nothing but its loop. The beat thread
says that the workers live. The keeper thread runs everything else that needs the store. The store's URL comes from the
first worker that has loaded the application: the supervisor itself never imports it.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Sequence

import msgspec

from windlass.core.errors import ConfigError
from windlass.ports.store import BeatAnswer, Death, Listener, Opened, Reaped
from windlass.runtime import lockfile, logs, process, slots
from windlass.runtime.beat import Beat, Round
from windlass.runtime.judge import Judge
from windlass.runtime.keeper import Keeper
from windlass.runtime.limits import EVERY, Limits
from windlass.runtime.logs import Log
from windlass.runtime.loop import Loop, hostname, is_ignored
from windlass.runtime.maintainer import Maintainer
from windlass.runtime.member import Identity, Member, Phase, new_id
from windlass.runtime.messages import (
    Boot,
    Broken,
    Cancel,
    Channel,
    Go,
    NeedSlot,
    Quarantine,
    Ready,
    Reconcile,
    SlotDone,
    SlotReady,
    Stop,
    Stopped,
    Taken,
    ToSupervisor,
    Want,
    pair,
)
from windlass.runtime.orphans import Orphans
from windlass.runtime.poller import Poller
from windlass.runtime.reload import DEADLINE as RELOAD_DEADLINE
from windlass.runtime.reload import EVERY as RELOAD_EVERY
from windlass.runtime.reload import Sources
from windlass.runtime.slot_pool import SlotPool, SlotProcess
from windlass.runtime.slots import SlotTable

COMMAND = (sys.executable, "-m", "windlass.entry")
STOP_TIMEOUT = 30.0
SAME_SIGNAL = 0.5
KILL_AFTER = 1.0
"""Seconds past the deadline that a worker gets to hand back what it could not finish."""
TAKEN_GRACE = 5.0
LAST_WORDS = 5.0
"""Seconds that a stopping supervisor waits for the store to take its workers' jobs back."""
BACKOFF_FIRST, BACKOFF_MOST = 0.1, 5.0
SETTLED_IN = 2.0
"""Seconds after which a worker's death is no longer taken for a failure to start."""
QUARANTINE_WARM = 60.0

log = Log("supervisor")


class Supervisor:
    """Runs the workers of one application on this machine until it is told to stop."""

    def __init__(
        self,
        target: str,
        open_store: Callable[..., Opened],
        *,
        processes: int = 2,
        concurrency: int | None = None,
        queues: str | None = None,
        stop_timeout: float = STOP_TIMEOUT,
        reload: bool = False,
        log_level: str = "info",
        log_json: bool | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Prepare to run `target` ("module:attribute", or the path of a file).

        `open_store` opens the store by its URL and options. `processes` workers (1..256) run `concurrency` jobs each
        (None: what the application says) from `queues` ("a,b:3"; None: the application's). At a stop, running jobs get
        `stop_timeout` seconds. `reload` restarts the workers when a source file changes. `command` starts a child.
        Raises ConfigError.
        """
        if not 1 <= processes <= 256:
            raise ConfigError(f"processes: {processes!r} must be within 1..256")
        if concurrency is not None and not 1 <= concurrency <= slots.CAPACITY:
            raise ConfigError(f"concurrency: {concurrency!r} must be within 1..{slots.CAPACITY}")
        self._target = target
        self._open_store = open_store
        self._processes = processes
        self._boot = Boot(
            role="worker",
            target=target,
            parent=os.getpid(),
            channel=-1,
            concurrency=concurrency,
            queues=queues,
            log_level=log_level,
            log_json=log_json,
        )
        self._stop_timeout = stop_timeout
        self._sources = Sources() if reload else None
        self._awaiting_change = False
        self._command = tuple(command)
        self._identity = Identity(new_id("s"), hostname())
        self._loop = Loop()
        self._pool = SlotPool(self._loop, self._start_slot)
        self._limits = Limits(self._pool, lambda _: self._balance(), lambda: self._store_error is None)
        self._members: dict[int, Member] = {}
        self._opened: Opened | None = None
        self._directory: str | None = None
        self._url = ""
        self._beat: Beat | None = None
        self._keeper: Keeper | None = None
        self._listener: Listener | None = None
        self._listening = False
        self._store_error: Exception | None = None
        self._stopping = 0
        """How often it was told to."""
        self._told_at = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._quarantine_idle = 0.0
        self._exit_code = 0

    # --- life --------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until stopped by SIGTERM, SIGINT or SIGHUP (a second one ends patience). Main thread only. Returns 0
        after a clean stop, 1 if something had to be killed for it, 2 if the application could not be loaded."""
        logs.setup(self._boot.log_level, as_json=self._boot.log_json)
        process.become_subreaper()
        for number in process.TERMINAL_SIGNALS:
            if not is_ignored(number):
                self._loop.on_signal(number, lambda number=number: self._told(number))  # type: ignore[misc]
        self._loop.on_signal(signal.SIGCHLD, self._children)
        log.info("supervisor starts", id=self._identity.supervisor, pid=os.getpid(), processes=self._processes)
        try:
            self._balance()
            self._loop.later(EVERY, self._look)
            self._loop.later(RELOAD_EVERY, self._look_at_sources)
            self._loop.run(self._done)
        finally:
            self._close()
        log.info("supervisor stopped", id=self._identity.supervisor, exit_code=self._exit_code)
        return self._exit_code

    def stop(self, reason: str = "asked to stop") -> None:
        """As a SIGTERM; on the loop's thread."""
        self._stopping += 1
        deadline = self._stop_timeout if self._stopping == 1 else 0.0
        log.info("stopping", reason=reason, deadline=deadline, workers=len(self._members))
        self._pool.close()
        for member in list(self._members.values()):
            if member.phase is Phase.BOOTING:
                self._end(member, "stopped while it started")
            elif member.alive:
                self._ask_to_leave(member, deadline, reason)

    def _done(self) -> bool:
        return bool(self._stopping) and not (self._members or self._pool.pids)

    def _close(self) -> None:
        for member in list(self._members.values()):  # only after an error of our own
            process.kill(member.pid)
        if self._beat is not None:
            self._beat.stop()
        if self._keeper is not None:
            self._keeper.stop(LAST_WORDS)
        if self._listener is not None:
            self._listener.close()
        if self._opened is not None:
            self._opened.close()
        self._loop.close()

    def _told(self, number: int) -> None:
        # One Ctrl-C may come twice: from the terminal, and passed on by whatever wrapper started us (make, timeout).
        if not self._stopping or self._loop.clock() - self._told_at > SAME_SIGNAL:
            self._told_at = self._loop.clock()
            self.stop(f"signal {signal.Signals(number).name}")

    # --- starting workers --------------------------------------------------------------------------------------------

    def _balance(self) -> None:
        """Start as many workers as are missing, unless they keep dying as they start."""
        if self._stopping or self._awaiting_change:
            return
        active = sum(
            m.phase in {Phase.BOOTING, Phase.REGISTERING, Phase.RUNNING} and not m.quarantine
            for m in self._members.values()
        )
        missing = self._processes - active
        wait = self._not_before - self._loop.clock()
        if missing > 0 and wait > 0:
            self._loop.later(wait, self._balance)
            return
        for _ in range(missing):
            self._start_worker(quarantine=False)

    def _start_worker(self, *, quarantine: bool) -> None:
        ours, theirs = pair()
        table_fd = slots.create()
        mark = secrets.token_hex(8)
        try:
            boot = msgspec.structs.replace(
                self._boot, channel=theirs.fileno(), table=table_fd, quarantine=quarantine
            )
            pid = process.spawn(self._argv(boot), mark, (theirs.fileno(), table_fd))
            table = SlotTable(table_fd)
        finally:
            theirs.close()
            os.close(table_fd)
        ours.setblocking(False)
        channel: Channel[ToSupervisor] = Channel(ours, ToSupervisor)
        member = Member(pid, mark, channel, table, self._loop.clock())
        member.quarantine = quarantine
        self._members[pid] = member
        self._loop.watch(channel, lambda: self._heard(member))
        log.info("worker starts", pid=pid, quarantine=quarantine)

    def _start_slot(self) -> SlotProcess:
        ours, theirs = pair()
        mark = secrets.token_hex(8)
        try:
            boot = msgspec.structs.replace(self._boot, role="slot", channel=theirs.fileno())
            pid = process.spawn(self._argv(boot), mark, (theirs.fileno(),))
        finally:
            theirs.close()
        ours.setblocking(False)
        return SlotProcess(pid, mark, Channel(ours, SlotReady))

    def _argv(self, boot: Boot) -> list[str]:
        return [*self._command, msgspec.json.encode(boot).decode()]

    # --- what workers say --------------------------------------------------------------------------------------------

    def _heard(self, member: Member) -> int:
        """Read and obey what it says; answers how many messages there were."""
        try:
            messages = member.channel.receive()
        except msgspec.MsgspecError as problem:
            log.error("a worker talks nonsense", pid=member.pid, problem=problem)
            process.kill(member.pid)
            messages = []
        for message in messages:
            self._understand(member, message)
        if member.channel.closed:
            self._loop.forget(member.channel)
            # It cannot be told anything any more. Usually its exit follows at once.
            self._loop.later(1.0, lambda: process.kill(member.pid) if member.alive else None)
        return len(messages)

    def _understand(self, member: Member, message: ToSupervisor) -> None:
        match message:
            case Ready():
                self._ready(member, message)
            case Want(wanted=wanted):
                member.want(wanted)
                self._listen()
            case NeedSlot():
                self._pool.need(member)
            case SlotDone(pid=pid):
                self._pool.done(member, pid)
            case Stopped():
                member.stopped = True
                member.phase = Phase.LEAVING
            case Broken(reason=reason, detail=detail, files=files):
                member.broken = reason
                if self._sources is not None:
                    self._sources.watch(files)
                log.error("a worker cannot work", pid=member.pid, reason=reason)
                if detail:
                    sys.stderr.write(detail if detail.endswith("\n") else detail + "\n")

    def _ready(self, member: Member, ready: Ready) -> None:
        member.ready = ready
        if self._sources is not None:
            self._sources.watch(ready.files)
        if self._url and ready.url != self._url:
            member.broken = "the application now names another store; restart the supervisor"
            self._end(member, member.broken)
            return
        if not self._url:
            self._url = ready.url
            self._keeper = Keeper(self._loop.post, ready.hold / 6)
            self._keeper.start()
            self._keeper.submit(
                lambda: self._opened_with_schema(ready), lambda opened: self._have_store(opened, ready), self._no_store
            )
        if ready.processes:
            self._pool.keep_warm(1)
        if self._opened is not None:
            self._register(member)

    def _opened_with_schema(self, ready: Ready) -> Opened:
        opened = self._open_store(ready.url, **ready.options)
        opened.shell.run(opened.store.migrate())
        return opened

    def _no_store(self, problem: Exception) -> None:
        self._exit_code = 2
        log.error("the store cannot be used", problem=problem)
        if not self._stopping:
            self.stop("the store cannot be used")

    def _have_store(self, opened: Opened, first: Ready) -> None:
        self._opened = opened
        # WINDLASS_LIVENESS=lease: leases judge on one machine too, as they do between machines.
        by_lease = os.environ.get("WINDLASS_LIVENESS") == "lease"
        self._directory = None if by_lease else opened.run_directory()
        self._beat = Beat(opened, first.hold, self._loop.post, self._beaten)
        self._beat.start()
        keeper = self._keeper
        assert keeper is not None
        suspected = lambda queues=None: self._loop.post(lambda: self._suspected(queues))
        keeper.add(Judge(opened, self._directory, first.hold, self._own_workers, suspected))
        keeper.add(Maintainer(opened, self._identity.supervisor, first.rules, suspected))
        keeper.add(Poller(opened, lambda: self._loop.post(self._hinted)))
        self._listener = opened.shell.listen()
        for member in self._members.values():
            if member.ready is not None and member.alive:
                self._register(member)

    def _own_workers(self) -> list[str]:
        return [member.id for member in list(self._members.values()) if member.id]

    def _register(self, member: Member) -> None:
        assert self._beat is not None
        member.id = new_id("w")
        member.phase = Phase.REGISTERING
        if self._directory is not None:
            member.lock = lockfile.create(self._directory, member.id)
        self._beat.add(member.id, lambda: member.report(self._identity))
        if self._stopping:
            self._ask_to_leave(member, 0.0, "stopping")

    def _go(self, member: Member) -> None:
        assert self._directory is None or member.lock is not None
        member.phase = Phase.RUNNING
        member.channel.send(Go(member.id, lock=member.lock is not None), member.lock.fd if member.lock else -1)
        if member.lock is not None:
            member.lock.close()  # from here on the worker and its process slots hold it, and nobody else
        log.info("worker runs", worker=member.id, pid=member.pid, quarantine=member.quarantine)

    # --- what the store says -----------------------------------------------------------------------------------------

    def _beaten(self, beat: Round) -> None:
        if (beat.error is None) != (self._store_error is None):
            if beat.error is not None:
                log.warning("the store does not answer; workers go on", problem=beat.error)
            else:
                log.info("the store answers again")
        self._store_error = beat.error
        by_id = {member.id: member for member in self._members.values() if member.id}
        for answer in beat.answers:
            if answer.id in by_id and by_id[answer.id].alive:
                self._answered(by_id[answer.id], answer, beat.sent)

    def _answered(self, member: Member, answer: BeatAnswer, sent: float) -> None:
        if answer.taken:
            if member.phase is not Phase.LEAVING:
                log.error("a worker was taken over by another supervisor", worker=member.id, pid=member.pid)
            member.channel.send(Taken())
            member.explained = "it had been taken over"
            self._leaving(member, TAKEN_GRACE)
            return
        member.renewed = sent
        if member.phase is Phase.REGISTERING:
            self._go(member)
        if answer.cancel:
            member.channel.send(Cancel(answer.cancel))
        # Once is usual while a claim or a settle is under way; twice in a row, a grant may have got lost.
        member.mismatches = member.mismatches + 1 if answer.mismatch else 0
        if member.mismatches >= 2:
            member.channel.send(Reconcile())

    def _hinted(self) -> None:
        if self._listener is not None and self._listening:
            self._listener.drain()
        for member in self._members.values():
            member.hint()
        self._listen()

    def _listen(self) -> None:
        """Listen while a hint would be passed on: a busy store hints thousands of times a second for nobody."""
        wanted = any(member.wants for member in self._members.values())
        if self._listener is None or wanted == self._listening:
            return
        if wanted:
            self._loop.watch(self._listener, self._hinted)
        else:
            self._loop.forget(self._listener)
        self._listening = wanted

    # --- ends --------------------------------------------------------------------------------------------------------

    def _ask_to_leave(self, member: Member, deadline: float, reason: str) -> None:
        member.channel.send(Stop(deadline, reason))
        self._leaving(member, deadline + KILL_AFTER)

    def _leaving(self, member: Member, grace: float) -> None:
        leave_by = self._loop.clock() + grace
        member.leave_by = min(member.leave_by, leave_by) if member.leave_by else leave_by
        member.phase = Phase.LEAVING
        self._balance()

    def _end(self, member: Member, reason: str) -> None:
        member.explained = member.explained or reason
        process.kill(member.pid)

    def _look(self) -> None:
        now = self._loop.clock()
        for member in self._members.values():
            member.channel.flush()
            if member.alive and member.leave_by and now > member.leave_by:
                log.warning("killing a worker that did not leave in time", worker=member.id, pid=member.pid)
                self._exit_code = 1 if self._stopping else self._exit_code
                self._end(member, "it did not stop in time")
        self._limits.look(list(self._members.values()))
        self._cool_quarantine(now)
        self._loop.later(EVERY, self._look)

    def _children(self) -> None:
        for pid, status in process.exits():
            member = self._members.get(pid)
            if member is not None:
                self._exited(member, status)
            else:
                self._pool.exited(pid, status)  # or an orphan that we adopted: it only had to be waited for

    def _exited(self, member: Member, status: int) -> None:
        self._heard_last(member)
        member.exited(status)
        if self._beat is not None:
            self._beat.remove(member.id)
        self._pool.kill_of(member)
        self._note_exit(member)
        self._balance()
        if member.executing:
            Orphans(self._loop, member.mark, lambda: self._bury(member)).wait()
        else:
            self._bury(member)

    def _heard_last(self, member: Member) -> None:
        """What it said before it died may still be in the socket."""
        while not member.channel.closed and self._heard(member):
            pass
        self._loop.forget(member.channel)

    def _note_exit(self, member: Member) -> None:
        how = process.describe_exit(member.status)
        facts = {"worker": member.id or "-", "pid": member.pid, "how": how, "executing": len(member.executing)}
        if member.clean or (self._stopping and not member.id):
            log.info("worker left", **facts)
        else:
            log.error("worker died", **facts, because=member.broken or member.explained or "unknown")
        lived = self._loop.clock() - member.started
        if member.clean or member.executing or (member.id and lived > SETTLED_IN):
            self._failures = 0
            return
        if member.broken and self._sources is not None:
            log.info("waiting for a source file to change")
            self._awaiting_change = True
            return
        if member.broken and not self._url:
            # It never worked: more of the same would only bury the reason.
            self._exit_code = 2
            if not self._stopping:
                self.stop("the application cannot be loaded")
            return
        self._failures += 1
        delay = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** (self._failures - 1))
        self._not_before = self._loop.clock() + delay
        if not self._stopping:
            log.warning("workers die as they start; waiting", delay=delay, reason=member.broken or how)

    def _bury(self, member: Member) -> None:
        """Hand its jobs back once nothing of it lives."""
        if self._pool.left_of(member):
            self._loop.later(0.005, lambda: self._bury(member))
            return
        if not member.id or self._opened is None:
            if member.lock is not None:
                member.lock.remove()
            self._gone(member)
            return
        opened, keeper = self._opened, self._keeper
        assert keeper is not None
        death = member.death()
        lock = lockfile.obtain(self._directory, member.id) if self._directory is not None else None
        if self._stopping:
            self._loop.later(LAST_WORDS, lambda: self._give_up(member))

        def taken(answer: list[Reaped]) -> None:
            if lock is not None:
                lock.remove()
            self._taken_over(member, death, answer)

        keeper.submit(lambda: opened.shell.run(opened.store.reap([death])), taken)

    def _taken_over(self, member: Member, death: Death, answer: list[Reaped]) -> None:
        jobs = answer[0].jobs
        if jobs:
            log.warning("took a worker's jobs back", worker=member.id, jobs=jobs, because=death.detail)
            self._hinted()
            assert self._opened is not None
            self._opened.shell.hint()
        self._gone(member)
        if jobs and death.executing and not death.explained:
            self._suspected()

    def _gone(self, member: Member) -> None:
        self._members.pop(member.pid, None)
        self._listen()

    def _give_up(self, member: Member) -> None:
        if member.pid in self._members:
            log.error("the store does not take its jobs back; the next supervisor will", worker=member.id)
            self._gone(member)

    def _look_at_sources(self) -> None:
        if self._sources is None or self._stopping:
            return
        changed = self._sources.changed()
        if changed:
            log.info("reloading", changed=", ".join(changed))
            self._awaiting_change = False
            self._failures, self._not_before = 0, 0.0
            self._pool.refresh()
            for member in list(self._members.values()):
                if member.phase is Phase.BOOTING:
                    self._end(member, "reloading")
                elif member.alive:
                    self._ask_to_leave(member, min(RELOAD_DEADLINE, self._stop_timeout), "reloading")
            self._balance()
        self._loop.later(RELOAD_EVERY, self._look_at_sources)

    # --- quarantine --------------------------------------------------------------------------------------------------

    def _suspected(self, queues: Sequence[str] | None = None) -> None:
        """There may be suspects (in `queues`, if that is known): have one worker that runs them, one at a time."""
        served = {queue for member in self._members.values() if member.ready for queue in member.ready.queues}
        if queues is not None and not served & set(queues):
            return
        self._quarantine_idle = self._loop.clock()
        active = any(m.quarantine and m.phase in {Phase.BOOTING, Phase.REGISTERING, Phase.RUNNING}
                     for m in self._members.values())  # fmt: skip
        if active or self._stopping:
            return
        idle = [m for m in self._members.values() if m.phase is Phase.RUNNING and m.idle]
        if idle:  # it is there at once; a new one would have to load the application first
            idle[0].quarantine = True
            idle[0].channel.send(Quarantine())
            log.info("worker runs suspects", worker=idle[0].id, pid=idle[0].pid)
            self._balance()
        else:
            self._start_worker(quarantine=True)

    def _cool_quarantine(self, now: float) -> None:
        for member in self._members.values():
            if member.quarantine and member.phase is Phase.RUNNING:
                if member.table.busy or member.table.executing():
                    self._quarantine_idle = now
                elif now - self._quarantine_idle > QUARANTINE_WARM:
                    self._ask_to_leave(member, self._stop_timeout, "no suspects left")

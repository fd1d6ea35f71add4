"""The supervisor: starts workers, keeps them alive, beats for them, kills what must be killed; runs no user code.

Three threads. The main one owns every process and every decision and waits for nothing but its loop. The beat thread
says that the workers live. The keeper thread runs everything else that needs the store. The store's URL comes from the
first worker that has loaded the application: the supervisor itself never imports it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence

import msgspec

from windlass.core.errors import ConfigError, StoreReplaced
from windlass.ports.store import BeatAnswer, Death, Opened, Reaped
from windlass.runtime import logs, process
from windlass.runtime.beat import Round
from windlass.runtime.bounds import CONCURRENCY_MOST, PROCESSES_MOST
from windlass.runtime.crew import Crew
from windlass.runtime.host import HOST, Host
from windlass.runtime.liaison import LAST_WORDS, Liaison
from windlass.runtime.limits import EVERY, EVERY_IDLE, Limits
from windlass.runtime.logs import Log
from windlass.runtime.loop import hostname, is_ignored
from windlass.runtime.member import Identity, Member, Phase, new_id
from windlass.runtime.messages import (
    Boot,
    Broken,
    Cancel,
    Go,
    NeedSlot,
    Ready,
    Reconcile,
    SlotDone,
    Stop,
    Stopped,
    Taken,
    ToSupervisor,
    Want,
)
from windlass.runtime.orphans import Orphans
from windlass.runtime.reload import DEADLINE as RELOAD_DEADLINE
from windlass.runtime.reload import EVERY as RELOAD_EVERY
from windlass.runtime.reload import Sources
from windlass.runtime.slot_pool import SlotPool

COMMAND = (sys.executable, "-m", "windlass.entry")
STOP_TIMEOUT = 30.0
STAGGER = 0.002
"""Seconds by which the other idle workers are woken later than the first."""
SAME_SIGNAL = 0.5
KILL_AFTER = 1.0
"""Seconds past the deadline that a worker gets to hand back what it could not finish."""
TAKEN_GRACE = 5.0

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
        host: Host = HOST,
    ) -> None:
        """Prepare to run `target` ("module:attribute", or the path of a file).

        `open_store` opens the store by its URL and options. `processes` workers (1..256) run `concurrency` jobs each
        (None: what the application says) from `queues` ("a,b:3"; None: the application's). At a stop, running jobs get
        `stop_timeout` seconds. `reload` restarts the workers when a source file changes. `command` starts a child
        of `host`. Raises ConfigError.
        """
        if not 1 <= processes <= PROCESSES_MOST:
            raise ConfigError(f"processes: {processes!r} must be within 1..{PROCESSES_MOST}")
        if concurrency is not None and not 1 <= concurrency <= CONCURRENCY_MOST:
            raise ConfigError(f"concurrency: {concurrency!r} must be within 1..{CONCURRENCY_MOST}")
        boot = Boot(
            role="worker",
            target=target,
            concurrency=concurrency,
            queues=queues,
            log_level=log_level,
            log_json=log_json,
        )
        self._boot = boot
        self._processes = processes
        self._stop_timeout = stop_timeout
        self._sources = Sources() if reload else None
        self._identity = Identity(new_id("s"), hostname())
        self._loop = loop = host.loop()
        self._crew = Crew(loop, host, command, boot, processes, self._heard)
        self._pool = SlotPool(loop, self._crew.start_slot)
        self._store = Liaison(
            loop,
            host,
            self._identity,
            open_store,
            beaten=self._beaten,
            hinted=self._hinted,
            suspected=self._crew.suspected,
            own=self._crew.ids,
            replaced=self._store_replaced,
        )
        self._limits = Limits(self._pool, lambda _: self._crew.balance(), lambda: self._store.error is None)
        self._stopping = 0
        """How often it was told to."""
        self._told_at = 0.0
        self._exit_code = 0
        self.problem = ""
        """Why nothing of what was asked for can be done, if that is so; whoever called `run` is to say it."""
        self.replaced = False
        """Whether that is so because the store's file was deleted or replaced; started anew, all may be well."""

    # --- life --------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until stopped by SIGTERM, SIGINT or SIGHUP (a second one ends patience). Main thread only. Returns 0
        after a clean stop, 1 if something had to be killed for it, 2 for a `problem`: the application could not be
        loaded, or its store not be used; 4 if the store's file was deleted or replaced meanwhile."""
        logs.setup(self._boot.log_level, as_json=self._boot.log_json, aside=True)
        try:
            self.begin()
            self._loop.run(lambda: self.done)
        finally:
            self.end()
            logs.flush()
        return self._exit_code

    def begin(self) -> None:
        """The first half of `run`: from here on everything happens on the loop."""
        process.become_subreaper()
        for number in process.TERMINAL_SIGNALS:
            if not is_ignored(number):
                self._loop.on_signal(number, lambda number=number: self._told(number))  # type: ignore[misc]
        self._loop.on_signal(signal.SIGCHLD, self._children)
        log.info("supervisor starts", id=self._identity.supervisor, pid=os.getpid(), processes=self._processes)
        self._crew.balance()
        self._loop.later(EVERY, self._look)
        self._loop.later(RELOAD_EVERY, self._look_at_sources)

    @property
    def done(self) -> bool:
        """Whether it was told to stop and nothing of it is left."""
        return bool(self._stopping) and not (self._crew or self._pool.pids)

    def end(self) -> None:
        """The second half of `run`."""
        for member in self._crew:  # only after an error of our own
            process.kill(member.pid)
        self._store.close()
        self._loop.close()
        if not self.problem:
            log.info("supervisor stopped", id=self._identity.supervisor, exit_code=self._exit_code)

    def stop(self, reason: str = "asked to stop") -> None:
        """As a SIGTERM; on the loop's thread."""
        deadline = 0.0 if self._stopping else self._stop_timeout
        log.info("stopping", reason=reason, deadline=deadline, workers=len(self._crew))
        self._leave(deadline, reason)

    def _leave(self, deadline: float, reason: str) -> None:
        self._stopping += 1
        self._crew.closed = True
        self._pool.close()
        self._ask_all_to_leave(deadline, reason)
        for member in self._crew:
            if member.burying:
                self._loop.later(LAST_WORDS, lambda member=member: self._give_up(member))  # type: ignore[misc]

    def _told(self, number: int) -> None:
        # One Ctrl-C may come twice: from the terminal, and passed on by whatever wrapper started us (make, timeout).
        if not self._stopping or self._loop.clock() - self._told_at > SAME_SIGNAL:
            self._told_at = self._loop.clock()
            self.stop(f"signal {signal.Signals(number).name}")

    def _fail(self, event: str, problem: str, trace: str = "") -> None:
        """What was asked for cannot be done at all. Said once, though every worker finds it."""
        if self.problem:
            return
        self._exit_code, self.problem = 2, problem
        log.error(event, reason=problem, **({"trace": trace} if trace else {}))
        if not self._stopping:
            self._leave(0.0, event)

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
                if member.told == "starting":  # this is the first that is heard of one that has come up
                    self._tell()
                self._listen()
            case NeedSlot():
                self._pool.need(member)
            case SlotDone(pid=pid):
                self._pool.done(member, pid)
            case Stopped():
                member.stopped = True
                member.phase = Phase.LEAVING
            case Broken():
                self._broken(member, message)

    def _ready(self, member: Member, ready: Ready) -> None:
        member.ready = ready
        if self._sources is not None:
            self._sources.watch(ready.files, member.started_at)
        if not self._store.url:
            for queue, meant in ready.unused.items():
                perhaps = {"perhaps": meant} if meant else {}
                log.warning("no task of the application uses this queue", queue=queue, **perhaps)
            self._store.open(ready, self._have_store, self._no_store)
        elif ready.url != self._store.url:
            member.broken = "the application now names another store; restart the supervisor"
            self._end(member, member.broken)
            return
        if ready.processes:
            self._pool.keep_warm(1)
        if self._store.known:
            self._register(member)

    def _broken(self, member: Member, message: Broken) -> None:
        member.broken = message.reason
        if self._sources is None and not self._store.url:
            # None has ever worked: more of the same would only bury the reason.
            self._fail("the application cannot be loaded", message.reason, message.detail)
            return
        trace = {"trace": message.detail} if message.detail else {}
        log.error("a worker cannot work", pid=member.pid, reason=message.reason, **trace)
        if self._sources is not None:
            self._sources.watch(message.files, member.started_at)

    def _no_store(self, problem: Exception) -> None:
        self._fail("the store cannot be used", str(problem))

    def _store_replaced(self, problem: StoreReplaced) -> None:
        """What the workers hold is lost, and what is enqueued from now on they would never see."""
        if not self.problem:
            self.replaced = True
            self._fail("the store is not the one that was opened", str(problem))
            self._exit_code = 4

    def _have_store(self) -> None:
        for member in self._crew:
            if member.ready is not None and member.alive:
                self._register(member)

    def _register(self, member: Member) -> None:
        member.id = new_id("w")
        member.phase = Phase.REGISTERING
        self._store.register(member)
        if self._stopping:
            self._ask_to_leave(member, 0.0, "stopping")

    def _go(self, member: Member) -> None:
        member.phase = Phase.RUNNING
        member.channel.send(Go(member.id, lock=member.lock is not None), member.lock.fd if member.lock else -1)
        assert member.ready is not None
        known = {"store": member.ready.where, "queues": ",".join(member.ready.queues)}
        log.info("worker runs", worker=member.id, pid=member.pid, quarantine=member.quarantine, **known)

    # --- what the store says -----------------------------------------------------------------------------------------

    def _beaten(self, beat: Round) -> None:
        for answer in beat.answers:
            member = self._crew.by_id(answer.id)
            if member is not None and member.alive:
                self._answered(member, answer, beat.sent)

    def _answered(self, member: Member, answer: BeatAnswer, sent: float) -> None:
        if answer.taken:
            if member.phase is not Phase.LEAVING:
                log.error("a worker was taken over by another supervisor", worker=member.id, pid=member.pid)
            member.channel.send(Taken())
            member.explained = "it had been taken over"
            self._leaving(member, TAKEN_GRACE)
            return
        member.renewed = sent
        self._pool.hand_out()
        if member.phase is Phase.REGISTERING:
            self._go(member)
        if answer.cancel:
            member.channel.send(Cancel(answer.cancel))
        # Once is usual while a claim or a settle is under way; twice in a row, a grant may have got lost.
        member.mismatches = member.mismatches + 1 if answer.mismatch else 0
        if member.mismatches >= 2:
            member.channel.send(Reconcile())

    def _hinted(self) -> None:
        """Wake one worker that waits at once, and the others a moment later: woken together, they would be in its way,
        and in that of whoever enqueued, at the lock and at the processors."""
        later = [member for member in self._crew if member.wants][1:]
        _hint([member for member in self._crew if member not in later])
        if later:
            self._loop.later(STAGGER, lambda: _hint(later))
        self._listen()

    def _listen(self) -> None:
        self._store.listen(any(member.wants for member in self._crew))

    # --- ends --------------------------------------------------------------------------------------------------------

    def _ask_all_to_leave(self, deadline: float, reason: str) -> None:
        for member in self._crew:
            if member.phase is Phase.BOOTING:
                member.dismissed = True
                self._end(member, reason)
            elif member.alive:
                self._ask_to_leave(member, deadline, reason)

    def _ask_to_leave(self, member: Member, deadline: float, reason: str) -> None:
        member.dismissed = True
        member.channel.send(Stop(deadline, reason))
        self._leaving(member, deadline + KILL_AFTER)

    def _leaving(self, member: Member, grace: float) -> None:
        leave_by = self._loop.clock() + grace
        member.leave_by = min(member.leave_by, leave_by) if member.leave_by else leave_by
        member.phase = Phase.LEAVING
        self._crew.balance()

    def _end(self, member: Member, reason: str) -> None:
        member.explained = member.explained or reason
        process.kill(member.pid)

    def _look(self) -> None:
        now = self._loop.clock()
        for member in self._crew:
            member.channel.flush()
            if member.alive and member.leave_by and now > member.leave_by:
                log.warning("killing a worker that did not leave in time", worker=member.id, pid=member.pid)
                self._exit_code = 1 if self._stopping else self._exit_code
                self._end(member, "it did not stop in time")
        self._limits.look(list(self._crew))
        self._tell()
        for member in self._crew.cooled():
            self._ask_to_leave(member, self._stop_timeout, "no suspects left")
        self._loop.later(EVERY_IDLE if all(member.idle for member in self._crew) else EVERY, self._look)

    def _tell(self) -> None:
        """Whoever asks why a job waits must not be told what a worker was at five seconds ago."""
        if any(member.told not in ("", member.state) for member in self._crew if member.alive):
            self._store.tell()

    def _children(self) -> None:
        for pid, status in process.exits():
            member = self._crew.by_pid(pid)
            if member is not None:
                self._exited(member, status)
            else:
                self._pool.exited(pid, status)  # or an orphan that we adopted: it only had to be waited for

    def _exited(self, member: Member, status: int) -> None:
        while not member.channel.closed and self._heard(member):
            pass  # what it said before it died may still be in the socket
        self._loop.forget(member.channel)
        member.exited(status)
        self._pool.kill_of(member)
        self._tell_exit(member)
        if member.broken and not member.id and self._sources is not None and not member.explained:
            log.info("waiting for a source file to change")
            self._crew.held_back = True
        else:
            self._crew.note_exit(member)
        self._crew.balance()
        if member.executing:
            Orphans(self._loop, member.mark, lambda: self._bury(member)).wait()
        else:
            self._bury(member)

    def _tell_exit(self, member: Member) -> None:
        if self.problem or (member.broken and not member.id):
            return  # it has said why
        how = process.describe_exit(member.status)
        facts = {"worker": member.id or "-", "pid": member.pid, "how": how, "executing": len(member.executing)}
        if member.clean or (member.explained and not member.id):
            log.info("worker left", **facts)
        else:
            log.error("worker died", **facts, because=member.broken or member.explained or "unknown")

    def _bury(self, member: Member) -> None:
        """Hand its jobs back once nothing of it lives."""
        if self._pool.left_of(member):
            self._loop.later(0.005, lambda: self._bury(member))
            return
        if not member.id:
            self._gone(member)
            return
        death = member.death()
        member.burying = True
        self._store.bury(member, death, lambda reaped: self._taken_over(member, death, reaped))
        if self._stopping:
            self._loop.later(LAST_WORDS, lambda: self._give_up(member))

    def _taken_over(self, member: Member, death: Death, reaped: Reaped) -> None:
        if reaped.jobs:
            log.warning("took a worker's jobs back", worker=member.id, jobs=reaped.jobs, because=death.detail)
            self._hinted()
        self._gone(member)
        if reaped.jobs and death.executing and not death.explained:
            self._crew.suspected()

    def _gone(self, member: Member) -> None:
        self._store.gone(member)
        self._crew.gone(member)
        self._listen()

    def _give_up(self, member: Member) -> None:
        if self._crew.by_pid(member.pid) is member:
            log.error("the store does not take its jobs back; the next supervisor will", worker=member.id)
            # Its lock stays ours as long as the store may still hear of it from us.
            self._crew.gone(member)

    # --- reloading ---------------------------------------------------------------------------------------------------

    def _look_at_sources(self) -> None:
        if self._sources is None or self._stopping:
            return
        changed = self._sources.changed()
        if changed:
            log.info("reloading", changed=", ".join(changed))
            self._crew.forgive()
            self._pool.refresh()
            self._ask_all_to_leave(min(RELOAD_DEADLINE, self._stop_timeout), "reloading")
            self._crew.balance()
        self._loop.later(RELOAD_EVERY, self._look_at_sources)


def _hint(members: Iterable[Member]) -> None:
    for member in members:
        member.hint()

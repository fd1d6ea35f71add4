"""Locks of users' own code, in processes that are killed and stopped while they hold one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from windlass import Windlass

HOLDER = """
import sys, time
from windlass import Windlass
app = Windlass(sys.argv[1])
with app.lock("one", ttl=sys.argv[2]) as lock:
    print("held", lock.fence, flush=True)
    sys.stdin.readline()
    print("lost" if lock.lost else "held", lock.fence, flush=True)
    if lock.lost:
        sys.stdin.readline()
"""
CONTENDER = """
import os, random, sys, time
from windlass import Windlass
app, ledger, dice = Windlass(sys.argv[1]), sys.argv[2], random.Random(os.getpid())
print("ready", 0, flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    with app.semaphore("some", 2, ttl="2s") as lock:
        fd = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{os.getpid()} begin {lock.fence} {time.monotonic()}\\n".encode())
        time.sleep(dice.uniform(0, 0.01))
        os.write(fd, f"{os.getpid()} end {lock.fence} {time.monotonic()}\\n".encode())
        os.close(fd)
"""


@contextlib.contextmanager
def process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.send_signal(signal.SIGCONT)
            started.kill()
        started.communicate()


def said(holder: subprocess.Popen[str]) -> tuple[str, int]:
    assert holder.stdout is not None
    word, fence = holder.stdout.readline().split()
    return word, int(fence)


def go_on(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.flush()


def test_the_lock_of_a_killed_holder_is_had_within_its_ttl(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/locks.db"
    with Windlass(url) as app, process(HOLDER, url, "1s") as holder:
        word, fence = said(holder)
        assert word == "held"
        holder.kill()
        killed = time.monotonic()
        with app.lock("one", timeout="10s") as lock:
            assert time.monotonic() - killed < 1.0 + 1.0
            assert lock.fence > fence


def test_a_holder_that_was_stopped_past_its_ttl_finds_it_lost(tmp_path: Path) -> None:
    """I4: its fence is smaller than the next holder's, which it does not disturb."""
    url = f"sqlite:///{tmp_path}/locks.db"
    with Windlass(url) as app, process(HOLDER, url, "1s") as holder:
        _, fence = said(holder)
        holder.send_signal(signal.SIGSTOP)
        with app.lock("one", timeout="10s") as lock:
            assert lock.fence > fence
            holder.send_signal(signal.SIGCONT)
            go_on(holder)
            assert said(holder) == ("lost", fence)
            go_on(holder)
            assert holder.wait(10) == 0
            assert lock.held
        assert app.opened.shell.run(app.opened.store.audit()) == []


def test_a_holder_that_lives_keeps_it(tmp_path: Path) -> None:
    """For longer than its ttl: it is renewed by a thread of its own."""
    url = f"sqlite:///{tmp_path}/locks.db"
    with process(HOLDER, url, "1s") as holder:
        _, fence = said(holder)
        with Windlass(url) as app:
            store, run = app.opened.store, app.opened.shell.run
            terms = set()
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                terms.add(run(store.lead("lock:one", "somebody", 1_000_000)).term)
                time.sleep(0.02)
        assert terms == {fence}
        go_on(holder)
        assert said(holder) == ("held", fence)
        assert holder.wait(10) == 0


def test_never_more_than_the_slots_while_holders_are_killed(tmp_path: Path) -> None:
    """I9, for users' own code: by what the holders wrote down themselves; and fences only grow."""
    url, ledger = f"sqlite:///{tmp_path}/locks.db", tmp_path / "ledger"
    with Windlass(url) as app, contextlib.ExitStack() as stack:
        assert app.opened
        contenders = [stack.enter_context(process(CONTENDER, url, str(ledger), "25")) for _ in range(5)]
        for each in contenders:  # all at once, or on a busy machine each would be done before the next has begun
            said(each)
        for each in contenders:
            go_on(each)
        deaths = {}
        while not ledger.exists() or ledger.read_text().count("begin") < 20:
            time.sleep(0.01)
        for victim in contenders[:2]:
            deaths[victim.pid] = time.monotonic()
            os.kill(victim.pid, signal.SIGKILL)
        for each in contenders[2:]:
            assert each.wait(60) == 0
    lines = [line.split() for line in ledger.read_text().splitlines()]
    begun = {(int(pid), int(fence)): float(at) for pid, what, fence, at in lines if what == "begin"}
    ended = {(int(pid), int(fence)): float(at) for pid, what, fence, at in lines if what == "end"}
    fences = [fence for _, fence in sorted(begun, key=lambda hold: begun[hold])]
    assert len(set(fences)) == len(fences)
    steps = [(at, 1) for at in begun.values()]
    steps += [(ended.get(hold, deaths.get(hold[0], float("inf"))), -1) for hold in begun]
    inside = most = 0
    for _, step in sorted(steps):
        inside += step
        most = max(most, inside)
    print(f"held {len(begun)} times, killed {len(deaths)}, at once {most}")
    assert most == 2

"""How children are started, tied to their parent, and told apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.runtime.harness import eventually
from windlass.runtime import process


def parent_of(child: str, *, linux: bool) -> subprocess.Popen[bytes]:
    """A process that starts a child which ties itself to it; the child's pid is its output."""
    program = f"""if True:
        import os, subprocess, sys, time
        child = '''if True:
            from windlass.runtime import process
            process.LINUX = {linux}
            process.die_with_parent({{parent}})
            print("tied", flush=True)
            {child}
        '''.format(parent=os.getpid())
        made = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
        made.stdout.readline()
        print(made.pid, flush=True)
        time.sleep(60)
    """
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("child", "linux"),
    [("import time; time.sleep(60)", False)]
    + ([("import ctypes; ctypes.PyDLL(None).sleep(60)", True)] if process.LINUX else []),
    ids=lambda value: str(value)[:12],
)
def test_a_child_dies_with_its_parent(child: str, linux: bool) -> None:
    """Also, on Linux, in a C call that keeps the GIL."""
    parent = parent_of(child, linux=linux)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not os.path.exists(f"/proc/{pid}/exe"), 3.0)


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from windlass.runtime import process; process.die_with_parent(1234567); print('lives')"],
        check=False,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_terminal_signals_are_blocked_until_the_child_is_ready_for_them() -> None:
    """A Ctrl-C while it boots must not kill it, and one afterwards must not either; but its own children are mortal."""
    program = """if True:
        import signal, subprocess, time
        from windlass.runtime import process
        from windlass.runtime.loop import ignore_but_pass_on
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        time.sleep(0.3)
        ignore_but_pass_on(*process.TERMINAL_SIGNALS)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, process.TERMINAL_SIGNALS)
        time.sleep(0.3)
        grandchild = subprocess.Popen(["sleep", "60"])
        grandchild.terminate()
        raise SystemExit(7 if grandchild.wait(5) == -signal.SIGTERM else 8)
    """
    pid = process.spawn([sys.executable, "-c", program], "mark", ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    for _ in range(10):
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)
    _, status = os.waitpid(pid, 0)
    assert process.describe_exit(status) == "exited with status 7"


def test_ends_in_words() -> None:
    assert process.describe_exit(0) == "exited with status 0"
    assert process.describe_exit(signal.SIGKILL) == "killed by signal 9 (SIGKILL)"
    assert process.describe_exit(signal.SIGRTMIN + 3) == f"killed by signal {signal.SIGRTMIN + 3}"


@pytest.mark.skipif(not process.LINUX, reason="subreapers are Linux's")
def test_orphans_are_told_apart_by_their_mark() -> None:
    process.become_subreaper()
    try:
        program = "import subprocess; subprocess.Popen(['sleep', '60'])"
        pids = [process.spawn([sys.executable, "-c", program], mark, ()) for mark in ("one", "two")]
        for pid in pids:
            os.waitpid(pid, 0)
        # Each counts for both while it is in the middle of its exec.
        eventually(lambda: [len(process.orphans(mark)) for mark in ("one", "two")] == [1, 1])
        [first], [second] = process.orphans("one"), process.orphans("two")
        assert first != second
        assert process.orphans("three") == []
        for pid in (first, second):
            process.kill(pid)
            os.waitpid(pid, 0)  # adopted, so ours to wait for
        assert process.orphans("one") == process.orphans("two") == []
    finally:
        process._prctl(process._PR_SET_CHILD_SUBREAPER, 0)


@pytest.mark.skipif(not process.LINUX, reason="read from /proc")
def test_a_child_in_the_middle_of_an_exec_counts_for_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is not laid out yet; one that has none for good, or has ended, is nobody's."""
    bare = subprocess.Popen(["sleep", "60"], env={})
    ended = subprocess.Popen(["true"], env={**os.environ, process.MARK: "one"})
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    eventually(lambda: process._read(bare.pid, "cmdline"))
    before = process.orphans("one")
    monkeypatch.setattr(process, "_read", lambda pid, name: b"")
    counted = process.orphans("one")
    bare.kill()
    bare.wait()
    ended.wait()
    assert before == []
    assert bare.pid in counted
    assert ended.pid not in counted

"""The supervisor's loop."""

from __future__ import annotations

import os
import signal
import threading
import time

from windlass.runtime.loop import Loop


def test_timers_come_in_order_and_can_be_cancelled() -> None:
    loop, came = Loop(), []
    loop.later(0.03, lambda: came.append(3))
    loop.later(0.01, lambda: came.append(1))
    loop.later(0.02, lambda: came.append(2)).cancel()
    loop.run(lambda: 3 in came)
    loop.close()
    assert came == [1, 3]


def test_what_other_threads_post_runs_here_in_order() -> None:
    loop, came = Loop(), []
    here = threading.get_ident()

    def post() -> None:
        for number in range(5_000):
            loop.post(lambda number=number: came.append((number, threading.get_ident())))

    thread = threading.Thread(target=post)
    thread.start()
    loop.run(lambda: len(came) == 5_000)
    thread.join()
    loop.close()
    assert came == [(number, here) for number in range(5_000)]
    loop.post(lambda: None)  # after the end: to nobody


def test_signals_are_heard_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    loop, came = Loop(), []
    loop.on_signal(signal.SIGUSR1, lambda: came.append(time.monotonic()))
    began = time.monotonic()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    loop.run(lambda: bool(came))
    timer.join()
    loop.close()
    assert 0.04 < came[0] - began < 1.0
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_is_heard_behind_any_number_of_posted_calls() -> None:
    """A SIGCHLD that got lost would leave a dead worker unburied."""
    loop, came, ran = Loop(), [], []
    loop.on_signal(signal.SIGUSR1, lambda: came.append("signal"))
    for number in range(5_000):
        loop.post(lambda number=number: ran.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.later(5.0, lambda: came.append("never"))
    loop.run(lambda: bool(came))
    loop.close()
    assert came == ["signal"]
    assert ran == list(range(5_000))


def test_readiness_is_watched_until_forgotten() -> None:
    loop, came = Loop(), []
    read, write = os.pipe()
    loop.watch(read, lambda: came.append(os.read(read, 1)))
    os.write(write, b"ab")
    loop.run(lambda: len(came) == 2)
    loop.forget(read)
    loop.forget(read)
    os.write(write, b"c")
    loop.later(0.02, lambda: came.append(b"-"))
    loop.run(lambda: b"-" in came)
    loop.close()
    os.close(read)
    os.close(write)
    assert came == [b"a", b"b", b"-"]

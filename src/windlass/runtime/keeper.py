"""The keeper: a supervisor's thread for everything that waits for the store, so that its main loop never does.

A store may take seconds to answer, or be away; a signal, an exit or a hard limit may not wait that long.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import TypeVar

from windlass.core.errors import OutcomeUnknown, StoreError, StoreUnavailable
from windlass.runtime.host import HOST, Host
from windlass.runtime.logs import Log
from windlass.runtime.service import Clock, Post, Service, SystemClock

T = TypeVar("T")

FIRST_RETRY = 0.05

log = Log("keeper")


class _Errand:
    __slots__ = ("delay", "done", "due", "failed", "work")

    def __init__(
        self,
        work: Callable[[], object],
        done: Callable[..., object],
        failed: Callable[[Exception], object] | None,
        due: float,
    ) -> None:
        self.work = work
        self.done = done
        self.failed = failed
        self.due = due
        self.delay = FIRST_RETRY


class Keeper:
    """Runs errands until they succeed, and services when they are due, on one thread."""

    def __init__(self, post: Post, retry_most: float, clock: Clock | None = None, host: Host = HOST) -> None:
        self._post = post
        self._retry_most = retry_most
        self._clock = clock or SystemClock()
        self._new: queue.SimpleQueue[_Errand | Service] = queue.SimpleQueue()
        self._errands: list[_Errand] = []
        self._services: dict[Service, float] = {}
        self._ticker = host.ticker("windlass-keeper", self._step, self._end)

    def start(self) -> None:
        """Begin."""
        self._ticker.start()

    def submit(
        self,
        work: Callable[[], T],
        done: Callable[[T], object],
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        """Run `work` on the thread, again and again while the store is away, then `done` with its answer on the loop;
        without `failed`, after every StoreError; with it, it is told what no repetition can cure (a newer schema)."""
        self._new.put(_Errand(work, done, failed, self._clock.monotonic()))
        self._ticker.poke()

    def add(self, service: Service) -> None:
        """Start a service and tick it from now on."""
        self._new.put(service)
        self._ticker.poke()

    def stop(self, timeout: float) -> bool:
        """Stop the services and end the thread; False if it was still waiting for the store after `timeout` s."""
        return self._ticker.stop(timeout)

    def _step(self) -> float | None:
        for _ in range(self._new.qsize()):
            self._take(self._new.get_nowait())
        for errand in [each for each in self._errands if each.due <= self._clock.monotonic()]:
            self._attempt(errand)
        for service in [each for each, due in self._services.items() if due <= self._clock.monotonic()]:
            self._tick(service)
        return self._wait()

    def _end(self) -> None:
        for service in self._services:
            self._guarded(service, service.stop)

    def _take(self, item: _Errand | Service) -> None:
        if isinstance(item, _Errand):
            self._errands.append(item)
        else:
            self._guarded(item, item.start)
            self._services[item] = self._clock.monotonic()

    def _wait(self) -> float | None:
        dues: Sequence[float] = [each.due for each in self._errands] + list(self._services.values())
        return max(0.0, min(dues) - self._clock.monotonic()) if dues else None

    def _attempt(self, errand: _Errand) -> None:
        try:
            answer = errand.work()
        except Exception as problem:  # one broken errand must not end the thread that serves all
            self._trouble(errand, problem)
            return
        self._errands.remove(errand)
        self._post(lambda: errand.done(answer))

    def _trouble(self, errand: _Errand, problem: Exception) -> None:
        passing = StoreError if errand.failed is None else (StoreUnavailable, OutcomeUnknown)
        if isinstance(problem, passing):
            if errand.delay == FIRST_RETRY:
                log.warning("the store does not answer; trying again", problem=problem)
            errand.due = self._clock.monotonic() + errand.delay
            errand.delay = min(errand.delay * 2, self._retry_most)
            return
        self._errands.remove(errand)
        failed = errand.failed
        if failed is None:
            log.error("an errand failed for good", problem=repr(problem))
        else:
            self._post(lambda: failed(problem))

    def _tick(self, service: Service) -> None:
        delay = self._guarded(service, service.tick)
        self._services[service] = self._clock.monotonic() + (self._retry_most if delay is None else delay)

    def _guarded(self, service: Service, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except StoreError as problem:
            log.debug("a service waits for the store", service=service.name, problem=problem)
        except Exception as problem:
            log.error("a service failed", service=service.name, problem=repr(problem))
        return None

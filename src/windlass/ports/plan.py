"""Plans: a store operation written once, as a generator that says what it needs, for every driver and colour.

A plan yields `Statement`s (or a tuple of statements that do not need each other) and receives rows. It imports no
driver and never awaits; a shell runs it: begin, feed rows, commit at the return, roll back on an exception, start it
again on busy, deadlock or serialisation failure. So every I/O boundary is a `yield`: a fault injector is ten lines,
and a simulator can stop a worker at each of them. Plans compose with `yield from`.

Rules: inputs and random values are materialised before the first yield (a restarted plan is the same plan); no yield
inside `finally` and no catch-all around one; a plan holds no cursor.

The idea is psycopg's generators and httpx's auth flow, one level up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, overload

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S")

Rows = list[tuple[Any, ...]]


class Statement(NamedTuple):
    """One statement by name, with its parameters; with `many`, once per parameter row and no rows back."""

    name: str
    params: tuple[Any, ...] = ()
    many: Sequence[tuple[Any, ...]] | None = None


NOW = Statement("now")
"""Asks the shell for the store's clock: rows are `[(microseconds,)]`, read inside the transaction."""

Steps = Generator[Statement, Rows, T]


class Plan(Generic[T]):
    """An operation that can be started any number of times; iterate it (or `yield from` it) to run it once.

    `write` says that it changes something, `hint` that listeners will want to know.
    """

    __slots__ = ("_make", "hint", "name", "write")

    def __init__(self, make: Callable[[], Steps[T]], name: str, *, write: bool, hint: bool = False) -> None:
        self._make = make
        self.name = name
        self.write = write
        self.hint = hint

    def __iter__(self) -> Steps[T]:
        return self._make()

    def reading(self) -> Plan[T]:
        """The same, of which it is known that it will change nothing this time: a dry run."""
        return Plan(self._make, self.name, write=False)

    def __repr__(self) -> str:
        return f"<plan {self.name}>"


@overload
def plan(method: Callable[Concatenate[S, P], Steps[T]]) -> Callable[Concatenate[S, P], Plan[T]]: ...
@overload
def plan(
    *, write: bool = True, hint: bool = False
) -> Callable[[Callable[Concatenate[S, P], Steps[T]]], Callable[Concatenate[S, P], Plan[T]]]: ...
def plan(method: Any = None, *, write: bool = True, hint: bool = False) -> Any:
    """Make a generator method return a restartable Plan; `write=False` lets a shell use a reading transaction, and
    `hint=True` has it tell listeners."""

    def wrap(made: Callable[..., Steps[Any]]) -> Callable[..., Plan[Any]]:
        def start(*args: Any, **kwargs: Any) -> Plan[Any]:
            return Plan(lambda: made(*args, **kwargs), made.__name__, write=write, hint=hint)

        start.__name__ = made.__name__
        start.__doc__ = made.__doc__
        return start

    return wrap(method) if method is not None else wrap


def drive(steps: Steps[T], execute: Callable[[Statement], Rows]) -> T:
    """Feed `steps` with what `execute` returns, or throw in what it raises, until the plan returns."""
    try:
        wanted = next(steps)
        while True:
            try:
                rows = execute(wanted)
            except Exception as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(rows)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def chain(*plans: Plan[Any]) -> Plan[list[Any]]:
    """One plan that runs `plans` in order in one transaction and answers their results: settle and claim at once."""

    def steps() -> Steps[list[Any]]:
        answers = []
        for each in plans:
            answers.append((yield from each))
        return answers

    write, hint = any(p.write for p in plans), any(p.hint for p in plans)
    return Plan(steps, "+".join(p.name for p in plans), write=write, hint=hint)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut `items` into runs of at most `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))

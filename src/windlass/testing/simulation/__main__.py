"""`python -m windlass.testing.simulation`: replay one life with its trace, or live many; see the package's head."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from windlass.core.words import redacted
from windlass.testing.simulation import SERVERS, STORES, Life, simulate


def main(arguments: list[str] | None = None) -> int:
    """Answers 0 if no invariant was broken, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m windlass.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this life, with its trace")
    parser.add_argument("--seeds", metavar="A..B", help="live all of these")
    parser.add_argument("--store", choices=STORES, default="memory")
    parser.add_argument("--url", default="", help="of a server: a database in which a store may be made")
    parser.add_argument("--quiet", action="store_true", help="with --seed: no trace")
    given = parser.parse_args(arguments)
    if given.store in SERVERS and not given.url:
        shown = SERVERS[given.store]
        parser.error(f"--store {given.store} needs a server: name a database of it, --url {shown}")
    if given.seeds:
        first, _, last = given.seeds.partition("..")
        return _many(range(int(first), int(last or first) + 1), given.store, given.url)
    return _one(given.seed or 0, given.store, given.url, trace=not given.quiet)


def repro(life: Life) -> str:
    """The one line that lives it again."""
    server = f" --url '{redacted(life.url)}'" if life.url else ""
    return f"python -m windlass.testing.simulation --seed {life.seed} --store {life.store}{server}"


def told(life: Life) -> str:
    """Its violations, and how to see them again."""
    return "\n  ".join([repro(life), *life.violations])


def _one(seed: int, store: str, url: str, *, trace: bool) -> int:
    life = simulate(seed, store, trace=trace, url=url)
    for line in life.trace or ():
        print(line)  # noqa: T201 - what it is for
    figures = ", ".join(f"{name} {count}" for name, count in life.figures().items())
    print(f"seed {seed} on {store}: {life.seconds:.1f} s of virtual time, {figures}; ledger {life.hash}")  # noqa: T201
    for violation in life.violations:
        print(f"BROKEN {violation}")  # noqa: T201
    return 1 if life.violations else 0


def _many(seeds: range, store: str, url: str) -> int:
    began = time.monotonic()
    sums: Counter[str] = Counter()
    broken = 0
    for seed in seeds:
        life = simulate(seed, store, url=url)
        sums.update(life.figures())
        if life.violations:
            broken += 1
            print(told(life), flush=True)  # noqa: T201
    took = time.monotonic() - began
    figures = ", ".join(f"{name} {count:,}" for name, count in sums.items())
    print(f"{len(seeds):,} lives on {store} in {took:.1f} s, {broken} broken: {figures}")  # noqa: T201
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

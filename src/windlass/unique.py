"""Jobs of which one is enough at a time, as a task says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from windlass.core.duration import Duration, micros
from windlass.core.job import UniqueKey
from windlass.core.unique import POLICIES
from windlass.keys import Key, check_key, key_of

Policy = Literal["reject", "return-existing", "replace", "keep-last", "debounce", "throttle"]


class Unique(msgspec.Struct, frozen=True):
    """Of the jobs of a task with one key, at most one lives: waits, runs, or is going to be tried again.

    `key` is the name of a parameter, or a function that takes the arguments by name and answers text; without one, all
    the arguments are the key. `policy` says what becomes of a job whose key another one has:

    - reject: `DuplicateJob` is raised
    - return-existing: the answer is a handle to that one
    - replace: it takes the place of that one; a run is asked to cancel, and the new job follows it
    - keep-last: the same, but a run is let finish, and then the last job that came meanwhile follows
    - debounce: the same, and it is due `wait` after the last arrival, at most `max_wait` after the first
    - throttle: as return-existing, for at least `window` from the enqueue of the one that goes, ended or not
    """

    key: Key | None = None
    policy: Policy = "reject"
    wait: Duration | None = None
    max_wait: Duration | None = None
    window: Duration | None = None

    def __post_init__(self) -> None:
        """Raises ValueError that names the field."""
        check_key(self.key)
        if self.policy not in POLICIES:
            raise ValueError(f"policy: {self.policy!r} must be one of {', '.join(POLICIES)}")
        for name, policy in (("wait", "debounce"), ("max_wait", "debounce"), ("window", "throttle")):
            given = getattr(self, name)
            if given is None:
                if self.policy == policy and name != "max_wait":
                    raise ValueError(f'{name}: is missing; a {policy} needs one, for instance {name}="10s"')
            elif self.policy != policy:
                raise ValueError(f"{name}: is for the policy {policy}, not for {self.policy}")
            elif micros(given, name) == 0:
                raise ValueError(f"{name}: {given!r} is no time at all")
        if self.max_wait is not None and micros(self.max_wait, "max_wait") < self.after:
            raise ValueError(f"max_wait: {self.max_wait!r} is less than wait, {self.wait!r}")

    @property
    def after(self) -> int:
        """Microseconds from an arrival until the job is due."""
        return 0 if self.wait is None else micros(self.wait, "wait")

    def of(self, arguments: Mapping[str, Any], payload: str) -> UniqueKey:
        """The unique key of one job. Raises InvalidJob for a key that cannot be had."""
        return UniqueKey(
            _digest(arguments, payload) if self.key is None else key_of(self.key, arguments, "unique"),
            self.policy,
            None if self.max_wait is None else micros(self.max_wait, "max_wait"),
            0 if self.window is None else micros(self.window, "window"),
        )


def _digest(arguments: Mapping[str, Any], payload: str) -> str:
    """All the arguments, whether they were given by position, by name, or by default; where their names are not known,
    the payload as it is."""
    from hashlib import blake2b

    from windlass.core.codec import builtins, encode

    named = [[name, builtins(arguments[name], name)] for name in sorted(arguments)]
    return blake2b((encode(named, "unique") if arguments else payload).encode(), digest_size=16).hexdigest()

"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from windlass.core.duration import seconds
from windlass.core.errors import InvalidValue

Curve = Literal["exponential", "linear", "constant", "polynomial"]


class Backoff(msgspec.Struct, frozen=True, omit_defaults=True):
    """A retry curve: the wait after the n-th failed attempt (n from 1), in seconds.

    exponential: base * factor**(n-1) · linear: base * n · constant: base · polynomial: base * n**factor,
    never over `max`. `jitter` is the largest share of the wait that may be *added* at random (0..1); it never
    shortens a wait, so a retry is never earlier than its curve (I12). Full additive jitter spreads a crowd that
    failed at one instant over a whole period.

    Parameters: `base` and `max` are durations ("1s", "10m", or seconds), `factor` >= 1. Raises InvalidValue,
    a ValueError, naming the field. The defaults wait 1, 2, 4, 8 s between five attempts, plus up to 100 %.
    """

    base: str | float = 1.0
    factor: float = 2.0
    max: str | float = 3_600.0
    jitter: float = 1.0
    curve: Curve = "exponential"

    def __post_init__(self) -> None:
        force = msgspec.structs.force_setattr
        force(self, "base", seconds(self.base, "backoff.base"))
        force(self, "max", seconds(self.max, "backoff.max"))
        _require(_within(self.factor, 1, 1_000), "factor", self.factor, "1..1000")
        _require(_within(self.jitter, 0, 1), "jitter", self.jitter, "0..1")
        _require(self.curve in _CURVES, "curve", self.curve, ", ".join(_CURVES))

    def wait(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` failed attempts (>= 1); `chance` in [0, 1) draws the jitter."""
        base, most = float(self.base), float(self.max)
        try:
            plain = min(_CURVES[self.curve](base, float(self.factor), failures), most)
        except OverflowError:  # 2.0**1024, and every other curve that has left all maxima far behind
            plain = most if base else 0.0
        return plain * (1 + self.jitter * chance)


def _require(ok: bool, field: str, value: Any, right: str) -> None:
    if not ok:
        raise InvalidValue(f"backoff.{field}", f"{value!r} must be one of or within {right}")


def _within(value: Any, least: float, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


_CURVES: dict[str, Callable[[float, float, int], float]] = {
    "exponential": lambda base, factor, n: base * factor ** (n - 1),
    "linear": lambda base, _, n: base * n,
    "constant": lambda base, _, __: base,
    "polynomial": lambda base, factor, n: base * float(n) ** factor,
}

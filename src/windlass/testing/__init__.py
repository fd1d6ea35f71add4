"""What tests of Windlass, of a store for it, and of applications that use it are made of."""

from __future__ import annotations

from windlass.testing.clock import ManualClock

__all__ = ["ManualClock"]

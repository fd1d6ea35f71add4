"""How many examples Hypothesis tries, by WINDLASS_PROOF."""

from __future__ import annotations

from hypothesis import settings

from windlass.testing.conformance.sizes import size

examples = settings(max_examples=size(100, 3_000, 100_000), deadline=None)

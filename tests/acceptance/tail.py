"""Ledgers that are still being written, read as they grow: each byte once."""

from __future__ import annotations

from pathlib import Path

import msgspec

from windlass.testing.ledger import Line

_decode = msgspec.json.Decoder(Line).decode


class Tail:
    """Of all actors."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, int] = {}

    def lines(self) -> list[Line]:
        """What was written since the last look."""
        found: list[Line] = []
        for path in self._directory.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            found += map(_decode, whole.splitlines())
        return found

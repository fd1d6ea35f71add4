"""Statements kept in .sql files under names, and the numbered migrations beside them."""

from __future__ import annotations

import re
from importlib import resources

_HEADER = re.compile(r"^-- (name|fragment): (\w+).*$", re.MULTILINE)
_STATEMENT = re.compile(r"(?:[^;$]|\$(?!\$)|\$\$.*?\$\$)+", re.DOTALL)
_USE = re.compile(r"\{(\w+)\}")


def load_queries(package: str, file: str = "queries.sql") -> dict[str, str]:
    """Read `file` of `package`: statement name -> SQL text, with `{fragment}` filled in."""
    text = resources.files(package).joinpath(file).read_text("utf-8")
    heads = list(_HEADER.finditer(text))
    ends = [h.start() for h in heads[1:]] + [len(text)]
    parts = {h[2]: (h[1], text[h.end() : end].strip().rstrip(";")) for h, end in zip(heads, ends, strict=True)}
    fragments = {name: body for name, (kind, body) in parts.items() if kind == "fragment"}

    def fill(body: str) -> str:
        return _USE.sub(lambda use: fill(fragments[use[1]]), body)

    return {name: fill(body) for name, (kind, body) in parts.items() if kind == "name"}


def load_migrations(package: str) -> list[str]:
    """Read `migrations/NNN_*.sql` of `package` in order; the n-th brings the schema from n-1 to n."""
    folder = resources.files(package).joinpath("migrations")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    for number, found in enumerate(files, 1):
        if not found.name.startswith(f"{number:03d}_"):
            raise ValueError(f"migrations are numbered without gaps; expected {number:03d}_, found {found.name}")
    return [f.read_text("utf-8") for f in files]


def split(script: str) -> list[str]:
    """Cut a script into statements; ours hold no semicolon inside a literal, only in bodies between two `$$`."""
    bare = re.sub(r"^\s*--.*$", "", script, flags=re.MULTILINE)
    return [s.strip() for s in _STATEMENT.findall(bare) if s.strip()]

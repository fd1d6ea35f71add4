"""Style as tests: what a linter does not know about this house."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.source import REPOSITORY, SRC, module_name, trees

FUNCTION_LINES_MAX = 70
LINE_LENGTH_MAX = 120
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """From `def` to the end, the docstring not counted: words are not what makes a function hard to follow."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(REPOSITORY)}:{function.lineno} {function.name}: {body_lines(function)} lines"
        for path, tree in trees().items()
        for function in functions(tree)
        if body_lines(function) > FUNCTION_LINES_MAX
    ]
    assert not long, long


def test_a_long_function_would_be_seen() -> None:
    lines = "\n".join(f"    x = {n}" for n in range(FUNCTION_LINES_MAX))
    (function,) = functions(ast.parse(f'def f():\n    """One\n    two."""\n{lines}\n'))
    assert body_lines(function) == FUNCTION_LINES_MAX + 1


def test_lines_are_short() -> None:
    """Python is the linter's; SQL, shell and configuration are seen here."""
    wide = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for pattern in (
            *("src/**/*.py", "src/**/*.sql", "src/**/*.lua", "scripts/*", "examples/**/*.py"),
            "examples/**/*.html",
        )
        for path in REPOSITORY.glob(pattern)
        if path.is_file()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LINE_LENGTH_MAX
    ]
    assert not wide, wide


def test_public_functions_have_docstrings() -> None:
    """What `windlass` itself exports is read by people who do not have the source open."""
    public = next((set(names) for path, names in exports() if path == SRC / "windlass/__init__.py"), set())
    bare = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}"
        for path, tree in trees().items()
        for node in tree.body
        if isinstance(node, Function | ast.ClassDef) and node.name in public and not ast.get_docstring(node)
    ]
    assert not bare, bare


def exports() -> Iterator[tuple[Path, list[str]]]:
    for path, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
                yield path, ast.literal_eval(node.value)


def test_all_is_sorted() -> None:
    for path, names in exports():
        assert names == sorted(set(names)), f"{path.relative_to(REPOSITORY)}: __all__ should be {sorted(set(names))}"


def test_every_public_name_exists() -> None:
    windlass = pytest.importorskip("windlass")
    for path, names in exports():
        if path == SRC / "windlass/__init__.py":
            assert [name for name in names if not hasattr(windlass, name)] == []


ENTRANCES = {
    "windlass.cli",  # the console script
    "windlass.__main__",  # python -m windlass
}


def mentions(path: Path, tree: ast.Module) -> Iterator[str]:
    """Modules that a file imports, at any depth, or names in a string, as lazy imports do."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
            word = node.value.split(":")[0]
            yield word
            yield f"windlass.{word.lstrip('.')}"


def test_no_file_is_dead() -> None:
    """Every module is reached from another file of the package; tools for tests, from the tests."""
    reached: dict[str, set[Path]] = {}
    for path, tree in trees().items():
        for name in mentions(path, tree):
            reached.setdefault(name, set()).add(path)
    outside = "\n".join(path.read_text() for path in (REPOSITORY / "tests").rglob("*.py"))
    dead = []
    for path in trees():
        name = module_name(path)
        if name in ENTRANCES or path.name == "__init__.py":
            continue
        known = bool(reached.get(name, set()) - {path})
        if not known and name.startswith(("windlass.testing", "windlass.integrations")):
            known = name in outside or f"{name.rpartition('.')[0]} import" in outside
        if not known:
            dead.append(str(path.relative_to(REPOSITORY)))
    assert not dead, f"nothing imports {dead}"


def test_every_sql_file_is_read() -> None:
    """By its name, or as one of a folder of migrations."""
    source = "\n".join(path.read_text() for path in trees())
    unread = [
        str(path.relative_to(REPOSITORY))
        for path in SRC.rglob("*.sql")
        if path.name not in source and path.parent.name not in source
    ]
    assert not unread, unread


def test_no_file_is_empty_or_left_over() -> None:
    kept = {".py", ".sql", ".lua", ".typed", ".html", ".css", ".js", ".md"}
    odd = [
        str(path.relative_to(REPOSITORY))
        for path in (SRC / "windlass").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in kept and path.name != "py.typed"
    ]
    assert not odd, odd

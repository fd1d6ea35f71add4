"""The pages that list what there is list all of it, as it is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import msgspec

from tests.docs.pages import REPOSITORY
from windlass.config import Settings
from windlass.core.why import explain
from windlass.options import JobOptions
from windlass.runtime.context import Context
from windlass.task import TaskOptions

DOCS = REPOSITORY / "docs"


def rows(page: str, head: str) -> dict[str, list[str]]:
    """The table under the header row that begins with `head`: its cells, by each name in the first of them."""
    text = (DOCS / page).read_text()
    table = re.search(rf"^\| {head} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, f"{page} has no table {head!r}"
    found = {}
    for line in table[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found.update({name: cells for name in re.findall(r"`(\w+)`", cells[0])})
    return found


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate_docs", REPOSITORY / "scripts/docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_up_to_date() -> None:
    old = [page.relative_to(REPOSITORY).as_posix() for page in generator().outdated()]
    assert not old, f"run `python scripts/docs.py` for {old}"


def test_an_outdated_part_would_be_seen() -> None:
    page = (DOCS / "internals.md").read_text()
    assert generator().generated(page.replace("queued --> running: claim", "queued --> running: grab")) == page
    assert "queued --> running: claim" in page


def test_every_setting_is_listed_with_its_default() -> None:
    listed = rows("reference/configuration.md", "setting")
    fields = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert set(listed) == set(fields)
    said = {name: cells[1].strip("`") for name, cells in listed.items() if name != "queues"}
    meant = {name: "none" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)
             for name, value in fields.items() if name != "queues"}  # fmt: skip
    assert said == meant


def test_every_option_is_listed() -> None:
    of_tasks = rows("guides/tasks.md", "option \\| default")
    assert set(of_tasks) == set(TaskOptions.__annotations__)
    of_jobs = rows("guides/tasks.md", "option \\|")
    assert set(of_jobs) == set(JobOptions.__annotations__) - set(TaskOptions.__annotations__)


def test_every_cause_is_listed() -> None:
    """Those that `explain` can name, as its source spells them."""
    source = Path(explain.__code__.co_filename).read_text()
    named = set(re.findall(r'(?:Cause\(\s*|_until\(\s*facts,\s*)"(\w+)"', source))
    named |= {"unknown_task", "unknown_version"}
    listed = set(rows("guides/why.md", "cause"))
    assert named - {"blocked"} == listed  # what a newer store blocks for a reason that this code does not know


def test_every_table_is_described() -> None:
    folder = REPOSITORY / "src/windlass/stores/sqlite/migrations"
    script = "".join(path.read_text() for path in folder.glob("*.sql"))
    page = (DOCS / "internals.md").read_text()
    built = set(re.findall(r"ALTER TABLE windlass_(\w+) RENAME", script))  # in the place of one that is described
    tables = [name for name in re.findall(r"CREATE TABLE (?:windlass_)?(\w+)", script) if name not in built]
    assert len(tables) > 10
    assert [name for name in tables if f"`{name}`" not in page] == []


def test_every_file_that_internals_names_is_there() -> None:
    """A name that is given without its folder may lie anywhere."""
    named = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|sql))", (DOCS / "internals.md").read_text()))
    package = REPOSITORY / "src/windlass"
    gone = [name for name in named if not list(package.rglob(name)) and not (REPOSITORY / name).exists()]
    assert len(named) > 20
    assert not gone


def test_all_of_context_is_listed() -> None:
    page = (DOCS / "guides/tasks.md").read_text()
    missing = [name for name in dir(Context) if not name.startswith("_") and not re.search(rf"`{name}[`(]", page)]
    assert not missing

"""Every snippet of the README and of docs/ does what its page says (see pages.py for the convention)."""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from tests.docs.pages import LANGUAGES, PAGES, REPOSITORY, Block, Ids, blocks
from tests.docs.session import session
from windlass import config
from windlass.cli import windlass

RUN = {"python", "console", "text"}
PARSED = [(page, block) for page in PAGES for block in blocks(page) if block.language not in {*RUN, "", "mermaid"}]


def name(value: object) -> str:
    if isinstance(value, Path):
        return value.relative_to(REPOSITORY).as_posix()
    return str(value.line) if isinstance(value, Block) else ""


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language in RUN for b in blocks(page))], ids=name)
def test_page(page: Path, tmp_path: Path) -> None:
    with session(page, tmp_path) as running:
        for block in blocks(page):
            running.run(block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_languages(page: Path) -> None:
    """A block in a language without a rule would be neither run nor parsed; an open fence would hide all after it."""
    text = page.read_text()
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks(page))


@pytest.mark.parametrize(("page", "block"), PARSED, ids=name)
def test_parsed(page: Path, block: Block, tmp_path: Path) -> None:
    match block.language:
        case "toml":
            table = tomllib.loads(block.text).get("tool", {}).get("windlass")
            (tmp_path / "pyproject.toml").write_text(block.text)
            assert table is None or config.load({}, environ={}, directory=str(tmp_path))
        case "json":
            json.loads(block.text)
        case "ini":
            unit = configparser.ConfigParser(strict=False, interpolation=None)
            unit.optionxform = str  # type: ignore[assignment,method-assign]
            unit.read_string(block.text)
            check_commands([value for each in unit.sections() for key, value in unit[each].items() if key == "ExecStart"])
        case "bash":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
            check_commands(statements(block.text))
        case "dockerfile":
            lines = [line for line in re.sub(r"\\\n", "", block.text).splitlines() if line.strip() and line[0] != "#"]
            assert all(re.match(r"(FROM|WORKDIR|COPY|RUN|ENV|USER|VOLUME|EXPOSE|STOPSIGNAL|CMD|ENTRYPOINT) ", line) for line in lines)
            exec_form = [json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith(("CMD", "ENTRYPOINT"))]
            check_commands([shlex.join(words) for words in exec_form])


def statements(text: str) -> list[str]:
    """What a shell takes together: a text in quotes may be of several lines; what is read by `<<` is no command."""
    found: list[str] = []
    pending, end = "", ""
    for line in text.splitlines():
        if end:
            end = "" if line == end else end
            continue
        pending += line
        try:
            shlex.split(pending, comments=True)
        except ValueError:
            pending += "\n"
            continue
        found.append(pending)
        pending = ""
        here = re.search(r"<<'(\w+)'", line)
        end = here[1] if here else ""
    assert not (pending or end), pending or end
    return found


def check_commands(lines: list[str]) -> None:
    """Each `windlass ...` is a command with those options, each `make ...` a verb."""
    for line in lines:
        words = shlex.split(line, comments=True)
        words = words[: words.index("|")] if "|" in words else words
        if words and words[0] == "make":
            verbs = [word for word in words[1:] if "=" not in word]
            assert all(re.search(rf"^{verb}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE) for verb in verbs), line
        if words and words[0].rpartition("/")[2] == "windlass":
            check_usage(words[1:])


def check_usage(words: list[str]) -> None:
    """Parse, and run nothing."""
    command: click.Command = windlass
    # With its own settings: click keeps the first help option that is made, and the reference shows it.
    context = click.Context(command, **command.context_settings)
    while isinstance(command, click.Group) and not words[0].startswith("-"):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    if "--help" not in words and "--version" not in words:
        command.make_context("windlass", list(words), parent=context)


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links(page: Path) -> None:
    """Every link within the repository leads to a file that is there, and to a heading that it has."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_can_be_reached() -> None:
    """From the README, by links."""
    seen, found = {REPOSITORY / "README.md"}, [REPOSITORY / "README.md"]
    while found:
        page = found.pop()
        for link in LINK.findall(page.read_text()):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in seen:
                seen.add(target)
                found.append(target)
    assert not set(PAGES) - seen


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))], ids=name)
def test_what_is_shown_can_be_pasted(page: Path) -> None:
    """Into Python's own prompt, where a blank line ends a compound statement, and nothing else does."""
    for block in blocks(page):
        if block.language != "python" or block.file is not None:
            continue
        lines = [*block.text.splitlines(), ""]
        for node in compile(block.text, page.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT).body:
            if isinstance(node, COMPOUND):
                where = f"{page.name}, line {block.line + node.lineno - 1}"
                first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
                assert all(line.strip() for line in lines[first - 1 : node.end_lineno]), f"{where}: a blank line within"
                assert not lines[node.end_lineno or 0].strip(), f"{where}: no blank line behind it"


COMPOUND = (
    ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Match,
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
)  # fmt: skip
WRONG = {
    "output": "```console\n$ echo one\ntwo\n```\n",
    "more output": "```console\n$ printf '1\\n2\\n'\n1\n```\n",
    "exit status": "```console\n$ exit 3\n```\n",
    "exception": "```python\nassert 1 == 2\n```\n",
    "printed": "```python\nprint(1)\n```\n```text\n2\n```\n",
    "await": "```python\nimport asyncio\nasync def f(): raise ValueError\nawait f()\n```\n",
    "id": "```console\n$ echo 01a207ad-a60d-7b28-9efb-17af57e73040\n01a207ad-a60d-7b28-9efb-17af57e73040\n"
    "$ echo 01a207ad-a60d-7b28-9efb-17af57e73041\n01a207ad-a60d-7b28-9efb-17af57e73040\n```\n",
    "server": "```console\n$ windlass worker nothing:here\nworker runs\n```\n",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_page_fails(wrong: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(WRONG[wrong])
    with pytest.raises(AssertionError), session(page, tmp_path) as running:
        for block in blocks(page):
            running.run(block)


def test_what_varies_stands_for_what_is_there() -> None:
    ids = Ids()
    shown = "job 01a207ad-a60d-7b28-9efb-17af57e73040  due 2026-11-23T09:12:28.569Z (in 58s)\n...\nend ... 3\n"
    said = "job 01b00000-a60d-7b28-9efb-000000000000 due 2030-01-01T00:00:00.000Z (in 1m 4s)\nx\ny\nend of all 3\n"
    assert ids.match(shown, said)
    assert ids.put("show 01a207ad-a60d-7b28-9efb-17af57e73040") == "show 01b00000-a60d-7b28-9efb-000000000000"
    assert not ids.match(shown, said.replace("01b0", "01b1"))
    assert not ids.match("end 3", "end 4")

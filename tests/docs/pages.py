"""What README and docs/ promise is run. This is the convention, by the language of a fenced block:

python      Runs, in order, in one interpreter per page; `await` works at the top level. A block that begins with a
            comment `# name.py` is written to that file instead; `# name.py, continued` is added to it.
text        Right behind a python block: what it printed.
console     Lines that begin with `$ ` are run by bash in the page's own directory (`> ` continues one) and must
            succeed; what follows each is its output, standard error included. Workers and servers (SERVERS) go on
            running, once the output shown has been seen, until a `^C` in the block or the end of the page.
toml, ini,  Files. `# pyproject.toml` at the top writes them, as for python; all of them are parsed, and tables
json        [tool.windlass] and command lines in them are checked as far as that goes without running.
bash,       Not run (it needs root, a network, or minutes), but parsed: every `windlass ...` must be a command with
dockerfile  those options, every `make ...` a verb of the Makefile.
(none),     Not looked at: a figure; a chart that is generated.
mermaid

Blocks inside HTML comments count too: so a page prepares what its reader need not see.

In outputs, ids, instants, spans of time (`3m 5s`, `0.123`) and process numbers stand for whatever is there in their place; an id then
means the same job wherever the page says it again, also in commands and in Python. Port 8000 stands for a free one, and
/home/ada/shop for the page's own directory.
Runs of spaces are equal. `...` stands for anything in a line, and alone on a line for any lines.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parent.parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
LANGUAGES = {"", "python", "text", "console", "toml", "ini", "json", "bash", "dockerfile", "mermaid"}
PORT = "8000"
HOME = "/home/ada/shop"
SERVERS = re.compile(r"(\w+=\S+ )*(windlass (worker|serve|dev) |uvicorn )")

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.\w+)(, continued)?\n")
_VARYING = re.compile(
    r"(?P<id>\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b[ws]-[0-9a-f]{12}\b)"
    r"|(?P<instant>\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?)"
    r"|(?P<clock>\b\d\d:\d\d:\d\d\.\d{3}\b)"
    r"|(?P<pid>\bpid=\d+)"
    r"|(?P<span>\b\d+(?:\.\d+)?(?:us|ms|s|m|h|d)\b(?: \d+[smh]\b)?)"
    r"|(?P<decimal>\b\d+\.\d{3,}\b)"
    r"|(?P<any>\.\.\.)"
    r"|(?P<spaces>[ \t]+)"
)
_PATTERNS = {
    "instant": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?",
    "clock": r"\d\d:\d\d:\d\d\.\d{3}",
    "pid": r"pid=\d+",
    "span": r"\d+(?:\.\d+)?(?:us|ms|s|m|h|d)\b(?: \d+[smh]\b)?",
    "decimal": r"\d+\.\d+",
    "any": r".*?",
    "spaces": r"[ \t]+",
}


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    text: str
    line: int
    """Of its first line in the page."""

    @property
    def file(self) -> tuple[str, bool] | None:
        """The file that it says it is, and whether it continues one."""
        found = _FILE.match(self.text)
        return (found[1], bool(found[2])) if found and not found[1].startswith("/") else None


class Command(NamedTuple):
    """A line of a console, and what is shown below it."""

    line: str
    shown: str


class Ids(dict[str, str]):
    """The page's ids (its port, and its directory), and those that took their place in this run."""

    def put(self, text: str) -> str:
        """`text` with this run's ids and port."""
        text = self._here(text)
        return _VARYING.sub(lambda m: self.get(m[0], m[0]) if m.lastgroup == "id" else m[0], text)

    def match(self, shown: str, said: str, *, prefix: bool = False) -> bool:
        """Whether `said` is what the page shows, or with `prefix` begins so; learns the ids if it is."""
        shown = self._here(shown)
        wanted = re.compile(self._pattern(clean(shown)) + (".*" if prefix else ""), re.DOTALL)
        found = wanted.fullmatch(clean(said) + "\n")
        if found is not None:
            self.update({name: found[self._group(name)] for name in self._fresh(shown)})
        return found is not None

    def _here(self, text: str) -> str:
        return re.sub(rf"\b{PORT}\b", self.get(PORT, PORT), text).replace(HOME, self.get(HOME, HOME))

    def _fresh(self, shown: str) -> list[str]:
        ids = dict.fromkeys(m[0] for m in _VARYING.finditer(shown) if m.lastgroup == "id")
        return [each for each in ids if each not in self]

    def _group(self, name: str) -> str:
        return "id_" + name.replace("-", "_")

    def _pattern(self, shown: str) -> str:
        seen: set[str] = set()
        lines = []
        for line in shown.split("\n"):
            if line.strip() == "...":
                lines.append(r"(?:[^\n]*\n)*?")
                continue
            lines.append(self._line(line, seen) + r"\n")
        return "".join(lines)

    def _line(self, line: str, seen: set[str]) -> str:
        parts, at = [], 0
        for found in _VARYING.finditer(line):
            parts.append(re.escape(line[at : found.start()]))
            at = found.end()
            kind, text = str(found.lastgroup), found[0]
            if kind != "id":
                parts.append(_PATTERNS[kind].replace(".*?", r"[^\n]*?"))
            elif text in self:
                parts.append(re.escape(self[text]))
            else:
                group = self._group(text)
                parts.append(f"(?P={group})" if text in seen else rf"(?P<{group}>[\w-]+)")
                seen.add(text)
        return "".join(parts) + re.escape(line[at:])


def clean(text: str) -> str:
    """Without the ends of lines and of the text that nobody sees."""
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in _FENCE.finditer(text)]


def commands(block: Block) -> list[Command]:
    """The commands of a console block; what stands before the first one is an error of the page."""
    found: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], ""))
        elif not found:
            raise AssertionError(f"line {block.line}: a console block begins with `$ `, not with {line!r}")
        elif line.startswith("> ") and not found[-1].shown:
            found[-1] = Command(f"{found[-1].line}\n{line[2:]}", "")
        else:
            found[-1] = Command(found[-1].line, f"{found[-1].shown}{line}\n")
    return found


def difference(shown: str, said: str) -> str:
    """Both, for a person."""
    lines = difflib.unified_diff(clean(shown).split("\n"), clean(said).split("\n"), "the page", "this run", "", "", 99, "")
    return "\n".join(lines)

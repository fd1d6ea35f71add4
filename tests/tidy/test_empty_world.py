"""The guard of tests/conftest.py is seen to fail, once for each kind of leak, before it is trusted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.source import REPOSITORY

LEAKS = {  # what a test does, and what is then said about it
    "process": ("subprocess.Popen(['sleep', '60'], start_new_session=True)", r"process \d+: sleep 60"),
    "orphan": ("subprocess.run(['sh', '-c', 'sleep 60 & exit 0'], check=True)", r"process \d+: sleep 60"),
    "forked_child": ("if os.fork() == 0: time.sleep(60)", r"process \d+: .*pytest"),
    "zombie": ("if os.fork() == 0: os._exit(0)", r"process \d+: ended, and nobody waited for it"),
    "thread": ("threading.Thread(target=time.sleep, args=(1,), name='idle').start()", r"thread idle"),
    "descriptor": ("kept.extend(os.pipe() for _ in range(5))", r"descriptor \d+: pipe"),
    "mount": ("subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', tmp_path], check=True)", r"mount /\S*test_mount"),
    "nothing": ("pass", None),
}
# Two descriptors a test are allowed, and are too many after a while: seen at the end, in the last test's name.
SLOW = "@pytest.mark.parametrize('n', range(15))\ndef test_slow(n):\n    kept.extend(os.pipe())\n"

pytestmark = pytest.mark.xdist_group("leaks")  # one run for all of them
linux_only = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the guard reads /proc")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one run says in which every test leaks something."""
    place = tmp_path_factory.mktemp("leaks")
    guard = (REPOSITORY / "tests/conftest.py").read_text()
    (place / "conftest.py").write_text(guard.replace("GRACE = 3.0", "GRACE = 0.1"))
    tests = [f"def test_{name}(tmp_path):\n    {does}\n" for name, (does, _) in LEAKS.items()]
    imports = "import os, pytest, subprocess, threading, time\nkept = []\n"
    (place / "test_leaks.py").write_text("\n\n".join([imports, *tests, SLOW]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", place, place]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def remarks(said: str, test: str) -> str:
    """What was left behind by one test, according to the guard."""
    parts = re.split(r"^_+ ERROR at teardown of (\S+) _+$", said, flags=re.MULTILINE)
    texts = [text for name, text in zip(parts[1::2], parts[2::2], strict=True) if name == test]
    return "\n".join(line for text in texts for line in text.splitlines() if line.startswith("E "))


@linux_only
@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_fails_its_test(leak: str, said: str, tmp_path: Path) -> None:
    expected = LEAKS[leak][1]
    if leak == "mount" and not can_mount(tmp_path):
        pytest.skip("nothing can be mounted here: it needs root")
    if expected is None:
        assert remarks(said, f"test_{leak}") == ""
    else:
        assert re.search(expected, remarks(said, f"test_{leak}")), said


@linux_only
def test_a_slow_leak_fails_the_last_test(said: str) -> None:
    found = remarks(said, "test_slow[14]")
    assert re.search(r"the session left behind:\n.*descriptor \d+: pipe", found), said


def can_mount(place: Path) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, check=False)
    return done.returncode == 0 and subprocess.run(["umount", place], check=True).returncode == 0

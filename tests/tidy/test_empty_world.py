"""The guard of tests/conftest.py is seen to fail, once for each kind of leak, before it is trusted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.source import REPOSITORY

LEAKS = {
    "process": (
        "import subprocess\ndef test_leak():\n    subprocess.Popen(['sleep', '60'], start_new_session=True)\n",
        r"process \d+: sleep 60",
    ),
    "orphan": (
        "import subprocess\ndef test_leak():\n    subprocess.run(['sh', '-c', 'sleep 60 & exit 0'], check=True)\n",
        r"process \d+: sleep 60",
    ),
    "forked child": (
        "import os, time\ndef test_leak():\n    if os.fork() == 0:\n        time.sleep(60)\n",
        r"process \d+: .*pytest",
    ),
    "zombie": (
        "import os\ndef test_leak():\n    if os.fork() == 0:\n        os._exit(0)\n",
        r"nobody waited for it",
    ),
    "thread": (
        "import threading, time\ndef test_leak():\n    threading.Thread(target=time.sleep, args=(1,), name='idle').start()\n",
        r"thread idle",
    ),
    "descriptor": (
        "import os\nkept = []\ndef test_leak():\n    kept.extend(os.pipe() for _ in range(5))\n",
        r"descriptor \d+: pipe",
    ),
    "slow descriptor": (
        "import os, pytest\nkept = []\n@pytest.mark.parametrize('n', range(15))\ndef test_leak(n):\n    kept.extend(os.pipe())\n",
        r"the session left behind:\n.*descriptor \d+: pipe",
    ),
}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the guard reads /proc")
@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_fails_its_test(leak: str, tmp_path: Path) -> None:
    program, said = LEAKS[leak]
    guard = (REPOSITORY / "tests/conftest.py").read_text()
    (tmp_path / "conftest.py").write_text(guard.replace("GRACE = 3.0", "GRACE = 0.1"))
    (tmp_path / "test_leak.py").write_text(program)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", tmp_path, tmp_path]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(said, done.stdout), done.stdout

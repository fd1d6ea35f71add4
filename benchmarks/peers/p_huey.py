"""Huey: SqliteHuey (embedded) and RedisHuey; 2 processes.  A None result is not stored (default)."""
import os
import sys

import common
from common import V, tick, probe, sleep_job

VARIANTS = {
    "sqlite": {"w4": ["backlog"], "n": 10000, "single_n": 4000, "import": "huey"},
    "sqlite-nosync": {"w4": ["backlog"], "n": 50000, "single_n": 4000},
    "redis": {"n": 25000, "single_n": 8000},
}
from huey import RedisHuey, SqliteHuey

if not V.startswith("redis"):
    DB = os.path.join(common.HOME, "huey.db")
    # default: fsync=None, WAL, and so SQLite's own default, synchronous=FULL; fsync=False is synchronous=OFF
    h = SqliteHuey("bench", filename=DB, fsync=False if V.endswith("nosync") else None)
else:
    h = RedisHuey("bench", port=common.REDIS_PORT)


@h.task()
def noop():
    tick()


@h.task()
def pr(t):
    probe(t)


@h.task()
def sl():
    sleep_job()


def reset():
    if V.startswith("sqlite"):
        for s in ("", "-wal", "-shm"):
            try:
                os.unlink(DB + s)
            except FileNotFoundError:
                pass
    else:
        common.redis_flush()


class client:
    def submit(self):
        noop()

    def submit_probe(self, t):
        pr(t)

    def submit_sleep(self):
        sl()


def worker(kind):
    k = ["-k", "thread", "-w", "100"] if kind == "sleep" else ["-k", "process", "-w", os.environ.get("HUEY_W", "2")]
    os.execv(sys.executable, [sys.executable, os.path.join(os.path.dirname(sys.executable), "huey_consumer"), "p_huey.h", *k, "-q"])


def clone(kind, m):
    import sqlite3

    c = sqlite3.connect(DB)
    c.execute(f"with recursive g(i) as (select 1 union all select i+1 from g where i<{m}) "
              "insert into task(queue, data, priority) select t.queue, t.data, t.priority from (select * from task limit 1) t, g")
    c.commit()
    c.close()

if __name__ == "__main__":
    import p_huey  # task names carry the module name, so use the importable one

    common.main({**vars(p_huey), "__name__": "__main__"})

"""Windlass on SQLite or PostgreSQL: `windlass worker --processes 2`.  Results and attempts kept (default)."""
import os
import sqlite3
import sys
import time

import common
from common import V, tick, probe, asleep_job

VARIANTS = {
    # the default: synchronous=FULL, every commit flushed
    "sqlite": {"w4": ["backlog", "history"], "n": 200000, "single_n": 4000, "bulk": True, "import": "windlass"},
    # durability="normal": the last commits may be lost in a power cut
    "sqlite-normal": {"w4": ["backlog", "history"], "n": 200000, "single_n": 4000, "bulk": True},
    # the same jobs in a plain `def`, each handed to a thread and back
    "sqlite-thread": {"n": 150000, "single_n": 4000, "bulk": True},
    # needs ./servers.sh, and psycopg beside Windlass
    "postgres": {"w4": ["backlog", "history"], "n": 200000, "single_n": 4000, "bulk": True},
}
from windlass import Windlass

DB = os.path.join(os.path.abspath(common.HOME), "windlass.db")
app = (
    Windlass(common.PG, log_level="warning")
    if V == "postgres"
    else Windlass(f"sqlite:///{DB}", durability="normal" if V.endswith("normal") else "full", log_level="warning")
)


@app.task(name="noop")
async def noop() -> None:
    tick()


@app.task(name="noop_thread")
def noop_thread() -> None:
    tick()


@app.task(name="pr")
async def pr(t: int) -> None:
    probe(t)


@app.task(name="sl")
async def sl() -> None:
    await asleep_job()


NOOP = noop_thread if V.endswith("thread") else noop


def reset():
    import shutil

    if V == "postgres":
        common.pg_wipe()
    for s in ("", "-wal", "-shm"):
        try:
            os.unlink(DB + s)
        except FileNotFoundError:
            pass
    shutil.rmtree(DB + "-run", ignore_errors=True)
    app.opened  # makes the schema
    app.close()


class client:
    def __init__(self):
        app.opened  # opening the store is no part of an enqueue

    def submit(self):
        NOOP.enqueue()

    def submit_many(self, n):
        while n:
            k = min(n, 1000)
            NOOP.enqueue_many([()] * k)
            n -= k

    def submit_probe(self, t):
        pr.enqueue(t)

    def submit_sleep(self):
        sl.enqueue()


def worker(kind):
    p, c = ("1", "100") if kind == "sleep" else ("2", os.environ.get("WINDLASS_SLOTS", "100"))
    os.execv(sys.executable, [sys.executable, "-m", "windlass", "worker", "p_windlass:app", "--processes", p, "--concurrency", c])


def idle_enqueue(n, between):
    """n times, in turn: a bare commit of one row at the same durability, and an enqueue; seconds each took.

    Between them nothing ("hot"), 10 ms of other work ("awake"), or 20 ms of sleep ("asleep").
    """
    import json
    import time

    import apsw

    page = {"rows": [{"id": i, "name": "x" * 20, "tags": ["a", "b"]} for i in range(200)]}

    def pause():
        if between == "asleep":
            time.sleep(0.02)
        until = time.perf_counter() + 0.01
        while between == "awake" and time.perf_counter() < until:
            json.loads(json.dumps(page))

    bare, whole = [], []
    path = os.path.join(os.path.abspath(common.HOME), "bare.db")
    c = apsw.Connection(path)
    c.execute("pragma journal_mode=wal; pragma synchronous=full; pragma wal_autocheckpoint=4000")
    c.execute("create table if not exists q (seq integer primary key, id text not null unique, payload text)")
    noop.enqueue()
    for i in range(int(n)):
        pause()
        t = time.perf_counter()
        c.execute("insert into q (id, payload) values (hex(randomblob(16)), '[[],{}]')")
        bare.append(time.perf_counter() - t)
        pause()
        t = time.perf_counter()
        noop.enqueue()
        whole.append(time.perf_counter() - t)
    c.close()
    os.unlink(path)
    return {"bare": bare, "enqueue": whole}


def steady(rate, seconds):
    """That many no-ops a second, twenty times a second; how many it were."""
    import time

    sent, began = 0, time.perf_counter()
    while (past := time.perf_counter() - began) < float(seconds):
        due = int(past * float(rate)) - sent
        if due > 0:
            noop.enqueue_many([()] * min(due, 2000))
            sent += min(due, 2000)
        if due <= 2000:
            time.sleep(0.05)
    return {"sent": sent}


def held_back(n):
    """Fill the queue while it is paused, and let it go: when that was."""
    import time

    app.client.pause("default")
    client().submit_many(int(n))
    app.client.resume("default")
    return {"at": time.perf_counter()}


def clone(kind, m):
    """Copy the one job m times, where it lies: in `ready` (backlog) or in `ended` (history)."""
    if V == "postgres":
        return clone_postgres({"backlog": "ready", "history": "ended"}[kind], m)
    c = sqlite3.connect(DB)
    g = f"with recursive g(i) as (select 1 union all select i+1 from g where i<{m})"
    (seq,) = c.execute("select max(seq) from windlass_jobs").fetchone()
    table = {"backlog": "windlass_ready", "history": "windlass_ended"}[kind]
    for name in ("windlass_jobs", table):
        columns = [r[1] for r in c.execute(f"pragma table_info({name})")]
        # an id looks like the real ones (UUIDv7) and is larger the later it was made, as theirs is
        # ids look like the real ones (UUIDv7) and grow with time, as theirs do
        new = {"seq": f"{seq} + g.i", "id": "printf('%08x-%04x-7000-8000-%012x', 25900000 + g.i / 65536, g.i % 65536, g.i)"}
        values = ", ".join(new.get(x, "t." + x) for x in columns)
        c.execute(f"{g} insert into {name}({', '.join(columns)}) select {values} from (select * from {name} where seq={seq}) t, g")
    c.commit()
    c.execute("pragma wal_checkpoint(truncate)")
    c.close()


def clone_postgres(table, m):
    """The same there, as if they had come over the last six days: in all parts that have been in turn since."""
    ms = f"({int(time.time() * 1000) - 518400000} + g::bigint * 518400000 / {m})"
    digits = f"lpad(to_hex({ms}), 12, '0')"
    id = f"format('%s-%s-7000-8000-%s', left({digits}, 8), right({digits}, 4), lpad(to_hex(g), 12, '0'))"
    part = f"windlass.part_of({id})"
    seq = f"((t.seq >> 4) + g) * 16 + {part}"
    common.pg_clone("windlass.jobs", m, {"seq": seq, "id": id, "part": part})
    common.pg_clone(f"windlass.{table}", m, {"seq": seq} | ({"part": part} if table == "ended" else {}))
    common.pg_exec("select setval('windlass.jobs_seq', (select max(seq >> 4) from windlass.jobs))")


if __name__ == "__main__":
    import p_windlass  # workers import it by this name

    common.main({**vars(p_windlass), "__name__": "__main__"})

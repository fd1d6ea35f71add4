"""Shared, dependency-free half of every peer file.  Runs inside each peer's venv.

A peer file p_<name>.py defines
    VARIANTS = {"variant": {"n": jobs_for_W1, "bulk_n": ..., "workers": [...]}}   (see run.py)
    reset()                    empty the queue / create the schema
    client()                   -> object with  submit()  and maybe  submit_many(n)
                                  submit_probe(t_ns)  submit_sleep()
                                  (plain or async; an async one also has open()/close())
    worker(kind)               run (exec) the worker in the foreground; kind is "main" or "sleep"
and ends with  common.main(globals()).
Jobs call tick() / probe(t) / slept(t0).
"""
import asyncio
import inspect
import json
import os
import struct
import sys
import time

LOG = os.environ.get("PEERS_TICKS", "ticks")
V = os.environ.get("PEER_VARIANT", "")
HOME = os.environ.get("PEERS_HOME", os.path.join(os.path.dirname(os.path.abspath(__file__)), ".scratch"))
REDIS_PORT = int(os.environ.get("PEERS_REDIS_PORT", "6390"))
PG_PORT = int(os.environ.get("PEERS_PG_PORT", "5440"))
AMQP_PORT = int(os.environ.get("PEERS_AMQP_PORT", "5690"))
REDIS = f"redis://127.0.0.1:{REDIS_PORT}"
PG_DB = os.environ.get("PEERS_PG_DB", "bench")
PG = f"postgresql://bench@127.0.0.1:{PG_PORT}/{PG_DB}"
AMQP = f"amqp://guest:guest@127.0.0.1:{AMQP_PORT}"
HERE = os.path.dirname(os.path.abspath(__file__))

_fd = None


def _file():
    global _fd
    if _fd is None:
        _fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return _fd


def tick():
    """W1: one byte per job that ran; O_APPEND is atomic across processes, threads and forks."""
    os.write(_fd if _fd is not None else _file(), b".")


def probe(t_ns):
    """W2: (enqueued, started) pair."""
    os.write(_file(), struct.pack("qq", t_ns, time.time_ns()))


def slept(t0_ns):
    """W6: (started, finished) pair."""
    os.write(_file(), struct.pack("qq", t0_ns, time.time_ns()))


def sleep_job():
    t0 = time.time_ns()
    time.sleep(0.1)
    slept(t0)


async def asleep_job():
    t0 = time.time_ns()
    await asyncio.sleep(0.1)
    slept(t0)


def _run(coro):
    try:
        import uvloop

        return uvloop.run(coro)
    except ImportError:
        return asyncio.run(coro)


def _drive(client, cmd, n, interval):
    """Yields nothing; sync driver."""
    out = {}
    if cmd == "single":
        t = time.perf_counter()
        for _ in range(n):
            client.submit()
        out["s"] = time.perf_counter() - t
    elif cmd == "many":
        t = time.perf_counter()
        client.submit_many(n)
        out["s"] = time.perf_counter() - t
    elif cmd == "sleep":
        t = time.perf_counter()
        for _ in range(n):
            client.submit_sleep()
        out["s"] = time.perf_counter() - t
    elif cmd == "probe":
        durs = []
        client.submit_probe(time.time_ns())
        time.sleep(0.5)
        nxt = time.perf_counter()
        for _ in range(n):
            d = nxt - time.perf_counter()
            if d > 0:
                time.sleep(d)
            nxt += interval
            a = time.perf_counter()
            client.submit_probe(time.time_ns())
            durs.append(time.perf_counter() - a)
        out["durs"] = durs
    return out


async def _adrive(client, cmd, n, interval):
    out = {}
    await client.open()
    try:
        if cmd == "single":
            t = time.perf_counter()
            for _ in range(n):
                await client.submit()
            out["s"] = time.perf_counter() - t
        elif cmd == "many":
            t = time.perf_counter()
            await client.submit_many(n)
            out["s"] = time.perf_counter() - t
        elif cmd == "sleep":
            t = time.perf_counter()
            for _ in range(n):
                await client.submit_sleep()
            out["s"] = time.perf_counter() - t
        elif cmd == "probe":
            durs = []
            await client.submit_probe(time.time_ns())
            await asyncio.sleep(0.5)
            nxt = time.perf_counter()
            for _ in range(n):
                d = nxt - time.perf_counter()
                if d > 0:
                    await asyncio.sleep(d)
                nxt += interval
                a = time.perf_counter()
                await client.submit_probe(time.time_ns())
                durs.append(time.perf_counter() - a)
            out["durs"] = durs
    finally:
        await client.close()
    return out


def pg_exec(*stmts):
    """Run SQL with psql (so peer venvs need no driver for it)."""
    import subprocess

    args = ["psql", "-h", "127.0.0.1", "-p", str(PG_PORT), "-U", "bench", "-d", PG_DB, "-qAtX", "-v", "ON_ERROR_STOP=1"]
    for s in stmts:
        args += ["-c", s]
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout.strip()


def pg_wipe():
    pg_exec(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname=current_database() and pid<>pg_backend_pid()",
        "do $$ declare s text; begin for s in select nspname from pg_namespace where nspname not like 'pg\\_%' "
        "and nspname <> 'information_schema' loop execute format('drop schema %I cascade', s); end loop; end $$",
        "create schema public",
    )


def pg_clone(table, m, sets):
    """Copy the table's one row m times (W4); sets: column -> SQL expression, g is 1..m, t the row."""
    schema, _, name = ("public." + table if "." not in table else table).partition(".")
    cols = pg_exec(f"select column_name from information_schema.columns where table_schema='{schema}' and table_name='{name}' "
                   "and is_generated='NEVER' order by ordinal_position").split()
    exprs = ", ".join(sets.get(c, "t." + c) for c in cols)
    pg_exec("set session_replication_role=replica",
            f"insert into {table}({', '.join(cols)}) overriding system value select {exprs} from (select * from {table} limit 1) t, generate_series(1,{m}) g")
    pg_exec(f"vacuum analyze {table}")


def redis_flush():
    import subprocess

    subprocess.run(["redis-cli", "-p", str(REDIS_PORT), "flushall"], check=True, capture_output=True)


def amqp_wipe(*queues):
    """Delete queues through whichever AMQP client the venv has."""
    for q in queues:
        try:
            import pika

            c = pika.BlockingConnection(pika.URLParameters(AMQP + "/%2F"))
            c.channel().queue_delete(q)
            c.close()
        except ImportError:
            from kombu import Connection

            with Connection(AMQP + "//") as c:
                try:
                    c.channel().queue_delete(q)
                except Exception:
                    pass


def fork_workers(n, target):
    """n child processes running target(); parent waits (for peers without a supervisor of their own)."""
    if n == 1:
        target()
        return
    import signal

    pids = []
    for _ in range(n):
        pid = os.fork()
        if pid == 0:
            try:
                target()
            finally:
                os._exit(0)
        pids.append(pid)

    def stop(*_):
        for p in pids:
            try:
                os.kill(p, signal.SIGTERM)
            except ProcessLookupError:
                pass

    signal.signal(signal.SIGTERM, stop)
    for p in pids:
        os.waitpid(p, 0)


def main(g):
    if g.get("__name__") != "__main__":
        return
    cmd = sys.argv[1]
    if cmd == "info":
        print(json.dumps(g["VARIANTS"]))
    elif cmd == "reset":
        g["reset"]()
    elif cmd == "worker":
        g["worker"](sys.argv[2])
    elif cmd == "clone":  # W4: blow the one existing row up to m rows
        g["clone"](sys.argv[2], int(sys.argv[3]))
    elif cmd == "extra":  # something only this peer can do
        print("\nJSON " + json.dumps(g[sys.argv[2]](*sys.argv[3:])), flush=True)
    elif cmd in ("single", "many", "sleep", "probe"):
        n = int(sys.argv[2])
        interval = float(sys.argv[3]) if len(sys.argv) > 3 else 0.02
        c = g["client"]()
        if hasattr(c, "open"):
            out = _run(_adrive(c, cmd, n, interval))
        else:
            out = _drive(c, cmd, n, interval)
            if hasattr(c, "finish"):
                c.finish()
        out["n"] = n
        sys.stdout.flush()
        sys.stderr.flush()
        print("\nJSON " + json.dumps(out), flush=True)
        os._exit(0)
    else:
        raise SystemExit(f"unknown command {cmd}")

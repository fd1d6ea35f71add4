#!/usr/bin/env python3
"""Runs W1 (throughput), W2 (latency), W3 (memory), W5 (import), W6 (sleep) for any set of peers.

  (-w 4b / 4h: W4, a million rows of backlog / of history, for the peers that have a clone())
  python run.py [-r RUNS] [-w 1,2,6] [peer[:variant] ...]        (no peer named: all that are installed)

A peer is p_<peer>.py in this folder; its environment is $PEERS_VENVS/<peer> (see setup.sh).
Results are appended to results.jsonl; table.py turns that into markdown.
"""
import argparse
import glob
import json
import os
import re
import signal
import statistics
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
VENVS = os.environ.get("PEERS_VENVS", os.path.join(HERE, ".venvs"))
HOME = os.environ.setdefault("PEERS_HOME", os.path.join(HERE, ".scratch"))
SHM = os.environ.get("PEERS_SHM", "/dev/shm" if os.path.isdir("/dev/shm") else HOME)
os.makedirs(HOME, exist_ok=True)
TICKS = os.path.join(SHM, f"peers-ticks-{os.getpid()}")


def env(variant):
    path = os.pathsep.join(x for x in (HERE, os.environ.get("PYTHONPATH")) if x)
    e = dict(os.environ, PEER_VARIANT=variant, PEERS_TICKS=TICKS, PEERS_HOME=HOME, PYTHONPATH=path,
             PYTHONWARNINGS="ignore", PYTHONUNBUFFERED="1")
    e.pop("PYTHONDONTWRITEBYTECODE", None)
    return e


def installed(peer):
    return os.path.exists(py(peer))


def py(peer):
    own = os.path.join(VENVS, peer.split("@")[0], "bin", "python")
    # Windlass is measured in the environment that runs this, unless it was given one of its own
    return sys.executable if peer == "windlass" and not os.path.exists(own) else own


def variants(peer):
    return json.loads(call(peer, "", "info").strip().splitlines()[-1])


def call(peer, variant, *args, timeout=900):
    f = os.path.join(HERE, f"p_{peer}.py")
    p = subprocess.run([py(peer), f, *map(str, args)], env=env(variant), cwd=HERE, capture_output=True, text=True, timeout=timeout)
    if p.returncode:
        raise RuntimeError(f"{peer}:{variant} {args} -> rc {p.returncode}\n{p.stdout[-1500:]}\n{p.stderr[-2500:]}")
    for line in reversed(p.stdout.splitlines()):
        if line.startswith("JSON "):
            return json.loads(line[5:])
    return p.stdout


class Worker:
    def __init__(self, peer, variant, kind="main"):
        self.log = open(os.path.join(HOME, f"worker-{peer}-{variant}.log"), "ab")
        self.p = subprocess.Popen([py(peer), os.path.join(HERE, f"p_{peer}.py"), "worker", kind], env=env(variant), cwd=HERE,
                                  stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)

    def tree(self):
        """pids of the worker's own session (children included)."""
        out = []
        for d in glob.glob("/proc/[0-9]*"):
            try:
                with open(d + "/stat") as f:
                    s = f.read()
                rest = s[s.rindex(")") + 2:].split()
                if int(rest[3]) == self.p.pid and rest[0] != "Z":
                    out.append(int(d[6:]))
            except (FileNotFoundError, ProcessLookupError):
                pass
        return out

    def mem(self):
        rss = pss = 0
        pids = self.tree()
        for pid in pids:
            try:
                for line in open(f"/proc/{pid}/smaps_rollup"):
                    k = line.split()
                    if k[0] == "Rss:":
                        rss += int(k[1])
                    elif k[0] == "Pss:":
                        pss += int(k[1])
            except (FileNotFoundError, ProcessLookupError):
                pass
        return {"rss_mb": round(rss / 1024, 1), "pss_mb": round(pss / 1024, 1), "procs": len(pids)}

    def cpu(self):
        tot = 0
        for pid in self.tree():
            try:
                s = open(f"/proc/{pid}/stat").read()
                r = s[s.rindex(")") + 2:].split()
                tot += sum(map(int, r[11:15]))
            except (FileNotFoundError, ProcessLookupError):
                pass
        return tot / os.sysconf("SC_CLK_TCK")

    def stop(self):
        for sig, wait in ((signal.SIGTERM, 6), (signal.SIGKILL, 3)):
            pids = self.tree()
            if not pids and self.p.poll() is not None:
                break
            if sig == signal.SIGTERM:
                targets = [self.p.pid]
            else:
                targets = pids
            for pid in targets:
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    pass
            end = time.time() + wait
            while time.time() < end:
                self.p.poll()
                if not self.tree():
                    break
                time.sleep(0.05)
        self.p.wait()
        self.log.close()


def clear_ticks():
    with open(TICKS, "wb"):
        pass


def nticks():
    return os.stat(TICKS).st_size


def pairs():
    """What W2's and W6's jobs wrote: two instants each, in nanoseconds."""
    with open(TICKS, "rb") as f:
        raw = f.read()
    return [struct.unpack_from("qq", raw, i) for i in range(0, len(raw) - 15, 16)]


def server_cpu():
    """CPU seconds of the brokers/databases, by process name (children included)."""
    tot = 0
    for d in glob.glob("/proc/[0-9]*"):
        try:
            s = open(d + "/stat").read()
            name = s[s.index("(") + 1:s.rindex(")")]
            if name in ("redis-server", "postgres") or "beam" in name or name[:4] in ("1_sc", "erts") :
                r = s[s.rindex(")") + 2:].split()
                tot += sum(map(int, r[11:15]))
        except (FileNotFoundError, ProcessLookupError, ValueError):
            pass
    return tot / os.sysconf("SC_CLK_TCK")


def broker_stats():
    """Redis commands, PostgreSQL transactions and WAL bytes so far."""
    out = {}
    try:
        t = subprocess.run(["redis-cli", "-p", os.environ.get("PEERS_REDIS_PORT", "6390"), "info", "commandstats"], capture_output=True, text=True).stdout
        calls = {x[8:x.index(":")]: int(x.split("calls=")[1].split(",")[0]) for x in t.splitlines() if x.startswith("cmdstat_")}
        out["redis"] = sum(v for k, v in calls.items() if k not in ("info", "ping"))
        out["calls"] = calls
    except Exception:
        pass
    try:
        t = subprocess.run(["psql", "-h", "127.0.0.1", "-p", os.environ.get("PEERS_PG_PORT", "5440"), "-U", "bench", "-d", "postgres", "-qAtXF,", "-c",
                            "select xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') from pg_stat_database where datname='bench'"], capture_output=True, text=True).stdout
        out["xact"], out["wal"] = (float(x) for x in t.strip().split(","))
    except Exception:
        pass
    return out


def per_job(a, b, n):
    r = {}
    if "redis" in a and b["redis"] - a["redis"] > n * 0.2:
        r["redis_cmds"] = round((b["redis"] - a["redis"]) / n, 2)
        r["redis_top"] = {k: round((v - a["calls"].get(k, 0)) / n, 2) for k, v in sorted(b["calls"].items(), key=lambda t: -(t[1] - a["calls"].get(t[0], 0)))[:8]
                          if v - a["calls"].get(k, 0) > n * 0.02}
    if "xact" in a and b["wal"] - a["wal"] > n * 50:
        r["pg_xacts"] = round((b["xact"] - a["xact"]) / n, 2)
        r["pg_wal_bytes"] = round((b["wal"] - a["wal"]) / n)
    return r


def drain(w, n, limit, stop_at=None):
    """Wait for n ticks; returns the series' first, 10 %, 90 % and last instants."""
    series = []
    t0 = time.perf_counter()
    last = -1
    last_change = t0
    target = stop_at or n
    while True:
        k = nticks()
        now = time.perf_counter()
        if k != last:
            series.append((now, k))
            last = k
            last_change = now
        if k >= target:
            break
        if now - t0 > limit or now - last_change > 25 or w.p.poll() is not None:
            break
        time.sleep(0.005)
    return t0, series, last >= target


def steady(series, n):
    first = next((t for t, k in series if k > 0), None)
    if first is None:
        return None
    lo, hi = 0.1 * n, 0.9 * n
    a = next(((t, k) for t, k in series if k >= lo), None)
    b = next(((t, k) for t, k in series if k >= hi), None)
    tot = series[-1][1] / max(series[-1][0] - first, 1e-9)
    if not a or not b or b[0] - a[0] < 0.02:
        return tot, tot
    return (b[1] - a[1]) / (b[0] - a[0]), tot


def pct(xs, p):
    xs = sorted(xs)
    return xs[min(len(xs) - 1, int(len(xs) * p))]


def wait_ready(w, secs):
    end = time.time() + secs
    while time.time() < end:
        if w.p.poll() is not None:
            raise RuntimeError("worker died at boot; see its log")
        time.sleep(0.1)


def w1(peer, variant, cfg, scale=1.0, limit=60):
    n = max(100, int(cfg["n"] * scale))
    r = {}
    call(peer, variant, "reset")
    clear_ticks()
    b1 = broker_stats()
    if cfg.get("single", True):
        ns = min(n, cfg.get("single_n", 5000))
        o = call(peer, variant, "single", ns)
        r["enq_single"] = ns / o["s"]
    else:
        ns = 0
    rest = n - ns
    if cfg.get("bulk"):
        if rest:
            o = call(peer, variant, "many", rest)
            r["enq_bulk"] = rest / o["s"]
    elif rest:
        o = call(peer, variant, "single", rest)
        r["enq_single"] = n / (o["s"] + ns / r["enq_single"])
    sc0 = server_cpu()
    b0 = broker_stats()
    if "wal" in b0:
        r["enq_wal_bytes"] = round((b0["wal"] - b1["wal"]) / n)
    w = Worker(peer, variant)
    try:
        t0, series, ok = drain(w, n, limit)
        st = steady(series, n)
        time.sleep(0.3)
        r["per_job"] = per_job(b0, broker_stats(), max(series[-1][1], 1) if series else 1)
        r.update(n=n, complete=ok, got=series[-1][1] if series else 0)
        if st:
            r.update(rate=st[0], rate_total=st[1], boot_s=next(t for t, k in series if k > 0) - t0)
        r["worker_cpu_us_per_job"] = w.cpu() / max(r["got"], 1) * 1e6
        r["server_cpu_us_per_job"] = (server_cpu() - sc0) / max(r["got"], 1) * 1e6
        time.sleep(0.5)
        r["mem_after"] = w.mem()
    finally:
        w.stop()
    return r


def w2(peer, variant, cfg, n=500, interval=0.02):
    call(peer, variant, "reset")
    clear_ticks()
    w = Worker(peer, variant)
    try:
        wait_ready(w, cfg.get("boot", 3))
        idle = w.mem()
        c0 = w.cpu()
        s0 = server_cpu()
        time.sleep(2)
        idle_cpu = (w.cpu() - c0) / 2
        idle_srv = (server_cpu() - s0) / 2
        o = call(peer, variant, "probe", n, interval)
        end = time.time() + 12
        while nticks() < 16 * (n + 1) and time.time() < end:
            time.sleep(0.05)
    finally:
        w.stop()
    lat = [(b - a) / 1e6 for a, b in pairs()][1:]
    d = [x * 1e3 for x in o["durs"]]
    sent = sorted(pairs())[1:]
    after = [(start - at) / 1e6 - took for (at, start), took in zip(sent, d)]
    if not lat:
        raise RuntimeError("no probe ran")
    return {"enq_p50_ms": pct(d, .5), "enq_p99_ms": pct(d, .99), "start_p50_ms": pct(lat, .5), "start_p99_ms": pct(lat, .99),
            "after_p50_ms": pct(after, .5), "after_p99_ms": pct(after, .99), "start_max_ms": max(lat), "ran": len(lat), "mem_idle": idle, "idle_cpu_pct": idle_cpu * 100, "idle_server_cpu_pct": idle_srv * 100}


def w6(peer, variant, cfg, n=1000):
    n = cfg.get("sleep_n", n)
    call(peer, variant, "reset")
    clear_ticks()
    call(peer, variant, "sleep", n)
    w = Worker(peer, variant, "sleep")
    try:
        end = time.time() + 60
        last, at = -1, time.time()
        while nticks() < 16 * n and time.time() < end:
            k = nticks()
            if k != last:
                last, at = k, time.time()
            if time.time() - at > 20:
                break
            time.sleep(0.02)
    finally:
        w.stop()
    ran = pairs()
    if not ran:
        raise RuntimeError("no sleep job ran")
    span = (max(b for a, b in ran) - min(a for a, b in ran)) / 1e9
    conc = cfg.get("sleep_conc", 100)
    ideal = len(ran) * 0.1 / conc
    return {"span_s": span, "ran": len(ran), "ideal_s": ideal, "conc": conc, "efficiency": ideal / span}


def w4(peer, variant, cfg, kind, m):
    """Throughput with m rows of backlog (pending) or history (finished) in the tables."""
    call(peer, variant, "reset")
    clear_ticks()
    call(peer, variant, "single", 1)
    if kind == "history":
        w = Worker(peer, variant)
        drain(w, 1, 20)
        time.sleep(2.5)
        w.stop()
        clear_ticks()
    t = time.time()
    call(peer, variant, "clone", kind, m)
    fill_s = time.time() - t
    n = m
    if kind == "history":
        n = cfg["n"]
        call(peer, variant, "many" if cfg.get("bulk") else "single", n)
    secs = 10
    w = Worker(peer, variant)
    try:
        s = []
        first = None
        end = time.time() + 45
        while time.time() < end:
            k, now = nticks(), time.perf_counter()
            if k and first is None:
                first = now
            if not s or k != s[-1][1]:
                s.append((now, k))
            if k >= n or (first and now - first > secs):
                break
            time.sleep(0.005)
        s.append((time.perf_counter(), nticks())) if nticks() < n else None
        a = next(((t, k) for t, k in s if first and t >= first + min(1.0, (s[-1][0] - first) * .1)), None)
        r = {"kind": kind, "rows": m, "fill_s": fill_s, "ran": s[-1][1], "rate": (s[-1][1] - a[1]) / max(s[-1][0] - a[0], 1e-9) if a else 0.0}
    finally:
        w.stop()
    return r


def w5(peer, mod, runs=15):
    taken = {"pass": [], f"import {mod}": []}
    for run in range(runs + 1):  # the first fills the caches
        for code, times in taken.items():
            a = time.perf_counter()
            subprocess.run([py(peer), "-c", code], check=True, env=dict(os.environ, PYTHONWARNINGS="ignore"), capture_output=True)
            if run:
                times.append((time.perf_counter() - a) * 1e3)
    base, whole = (statistics.median(times) for times in taken.values())
    return {"import": mod, "ms": whole - base, "bare_ms": base}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("-r", "--runs", type=int, default=3)
    ap.add_argument("-w", "--work", default="1,2,5,6")
    ap.add_argument("--rows", type=int, default=1_000_000, help="W4 table size")
    ap.add_argument("--scale", type=float, default=1.0)
    ap.add_argument("--out", default=os.path.join(HERE, "results.jsonl"))
    ap.add_argument("peers", nargs="*")
    a = ap.parse_args()
    work = set(a.work.split(","))
    known = sorted(os.path.basename(f)[2:-3] for f in glob.glob(os.path.join(HERE, "p_*.py")))
    names = a.peers or [x for x in known if installed(x)]
    todo = []
    for name in names:
        peer, _, var = name.partition(":")
        for v, cfg in variants(peer).items():
            if not var or v in var.split(","):
                todo.append((peer, v, cfg))
    # interleave the runs, so that machine drift hits every peer alike
    for run in range(a.runs):
        for peer, v, cfg in todo:
            for key in ("1", "2", "6", "5", "4b", "4h"):
                if key not in work or (key == "2" and run >= cfg.get("lat_runs", 2)) or (key == "5" and (run or not cfg.get("import"))):
                    continue
                if key == "6" and (cfg.get("no_sleep") or run >= 2):
                    continue
                t = time.time()
                try:
                    if key == "1":
                        r = w1(peer, v, cfg, a.scale)
                    elif key == "2":
                        r = w2(peer, v, cfg)
                    elif key[0] == "4":
                        kind = {"b": "backlog", "h": "history"}[key[1]]
                        if kind not in cfg.get("w4", []):
                            continue
                        r = w4(peer, v, cfg, kind, a.rows)
                    elif key == "6":
                        r = w6(peer, v, cfg)
                    else:
                        r = w5(peer, cfg["import"])
                    err = None
                except Exception as e:
                    r, err = {}, f"{type(e).__name__}: {e}"
                rec = {"peer": peer, "variant": v, "w": key, "run": run, "at": time.strftime("%F %T"), "took": round(time.time() - t, 1), **r}
                if err:  # keep file names, not this machine's folders
                    rec["error"] = re.sub(r"(?<![\w.])/(?:[^\s/\"']+/)+", "", err)[-1500:]
                with open(a.out, "a") as f:
                    f.write(json.dumps(rec) + "\n")
                short = {k: (round(x, 3) if isinstance(x, float) else x) for k, x in r.items()}
                print(f"{peer}:{v} W{key} #{run} {rec['took']}s {json.dumps(short)}{' ERROR ' + err if err else ''}", flush=True)
    try:
        os.unlink(TICKS)
    except FileNotFoundError:
        pass


if __name__ == "__main__":
    main()

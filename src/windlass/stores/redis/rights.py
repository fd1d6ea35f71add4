"""What logins of a server have to be allowed."""

from __future__ import annotations

READ = (
    *("@connection", "evalsha_ro", "script|load", "info", "time", "ping", "exists", "get", "hexists", "hget"),
    *("hgetall", "hlen", "hmget", "hstrlen", "hvals", "lindex", "lrange", "zcard", "zcount", "zlexcount", "zrange"),
    *("zrangebylex", "zrangebyscore", "zrevrange", "zrevrangebylex", "zrevrangebyscore", "zscore"),
)
"""The commands that scripts which read give."""
# WAIT and WAITAOF are among those that block; servers before 7.2 know no WAITAOF, and refuse a user who may.
WRITE = (
    *("evalsha", "hdel", "hincrby", "hset", "hsetnx", "incr", "ltrim", "rpush", "set", "zadd", "zrem"),
    *("spublish", "ssubscribe", "sunsubscribe", "@blocking"),
)


def roles(prefix: str) -> str:
    """As `redis-cli` takes them. Whoever enqueues needs what whoever works needs: a server knows commands and keys, and
    both write the same with the same."""
    keys = f"resetkeys ~{prefix}:* resetchannels &{prefix}:*"
    reader = " ".join(f"+{name}" for name in READ)
    worker = " ".join(f"+{name}" for name in (*READ, *WRITE))
    read_keys = f"resetkeys %R~{prefix}:* resetchannels"
    return (
        "# Who migrates, works and enqueues. Put a password in the place of CHANGE-ME, twice.\n"
        f"ACL SETUSER windlass reset on >CHANGE-ME {keys} -@all {worker}\n"
        "# Who only reads: searches, statistics, the doctor.\n"
        f"ACL SETUSER windlass_reader reset on >CHANGE-ME {read_keys} -@all {reader}\n"
        "# And keep them: ACL SAVE, or CONFIG REWRITE where there is no ACL file.\n"
    )

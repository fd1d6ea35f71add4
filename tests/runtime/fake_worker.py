"""A worker without an engine: it speaks the messages, and does what its target (a JSON object) says.

Its supervisor under test runs in the test's own process, where the store and the worker's slot table can be reached.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import msgspec

from windlass.runtime import process
from windlass.runtime.loop import ignore_but_pass_on
from windlass.runtime.messages import (
    Boot,
    Broken,
    Channel,
    Go,
    NeedSlot,
    Ready,
    SlotGone,
    SlotReady,
    Stop,
    Stopped,
    Taken,
    ToWorker,
    Wake,
    Want,
)
from windlass.runtime.slots import SlotTable, now_ns


def main() -> None:
    boot = msgspec.json.decode(sys.argv[1], type=Boot)
    process.die_with_parent(boot.parent)
    ignore_but_pass_on(signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, process.TERMINAL_SIGNALS)
    target = json.loads(boot.target)
    channel: Channel[ToWorker] = Channel(socket.socket(fileno=boot.channel), ToWorker)
    if boot.role == "slot":
        channel.send(SlotReady())
        signal.pause()
    if target.get("broken"):
        channel.send(Broken(target["broken"]))
        sys.exit(1)
    if target.get("die_once") and not os.path.exists(target["die_once"]):
        with open(target["die_once"], "w"):
            sys.exit(3)
    table = SlotTable(boot.table)
    channel.send(
        Ready(
            url="memory://",
            hold=target.get("hold", 15.0),
            queues=("default",),
            tasks=("t",),
            concurrency=boot.concurrency or 4,
            processes=target.get("processes", False),
            stall_timeout=target.get("stall_timeout"),
        )
    )
    serve(channel, table, target)


def serve(channel: Channel[ToWorker], table: SlotTable, target: dict[str, object]) -> None:
    while not channel.closed:
        for message in channel.receive():
            if isinstance(message, Go):
                if message.lock:
                    channel.take_fd()
                table.turned = now_ns()
                if target.get("orphan"):
                    subprocess.Popen(["sleep", str(target["orphan"])])
                if target.get("nonsense"):
                    channel.sock.send(b'{"type":"explode"}\n')
                if target.get("needs_slot"):
                    channel.send(NeedSlot())
                channel.send(Want(True))
            elif isinstance(message, Wake):
                table.busy += bool(target.get("count_wakes"))
                time.sleep(float(str(target.get("look", 0))))
                channel.send(Want(True))
            elif isinstance(message, Stop) and not target.get("stubborn"):
                channel.send(Stopped())
                sys.exit(0)
            elif isinstance(message, Taken):
                sys.exit(0)
            elif isinstance(message, SlotGone):
                table.set_held(0, abs(hash(message.reason)) % 2**32 if message.reason else 1)


if __name__ == "__main__":
    main()

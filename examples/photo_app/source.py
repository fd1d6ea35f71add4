"""A photo source on the loopback that is really unreliable, so that there is something to survive.

    /busy/<photo>   503, then 503 with `Retry-After: 1`, then the photo
    /slow/<photo>   answers the first request only when it is told to; later ones at once
"""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that was killed while it waited for its answer is no error of ours."""


class Source:
    """Serves photographs by name; `asked` keeps the instant and the answer of every request."""

    def __init__(self, photos: dict[str, Path]) -> None:
        self.photos = photos
        self.asked: dict[str, list[tuple[float, int]]] = {}
        self.slow_asked = threading.Event()
        self.slow_may_answer = threading.Event()
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, content = source.answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """What was asked is in `asked`."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.slow_may_answer.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for one request."""
        way, _, name = path.strip("/").partition("/")
        times = len(self.asked.setdefault(path, []))
        if way not in {"busy", "slow"} or name not in self.photos:
            status, headers = 404, {}
        elif way == "busy" and times < 2:
            status, headers = 503, {"Retry-After": "1"} if times == 1 else {}
        else:
            status, headers = 200, {"Content-Type": "image/jpeg"}
        self.asked[path].append((time.time(), status))
        if way == "slow" and times == 0:
            self.slow_asked.set()
            self.slow_may_answer.wait(60)
        return status, headers, self.photos[name].read_bytes() if status == 200 else b""

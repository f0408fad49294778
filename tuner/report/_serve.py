"""A report in the browser that grows with its run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tuner.report._page import render
from tuner.report._read import read_run
from tuner.report._sections import report_page

_WATCHED = ("events.jsonl", "ledger.jsonl", "run.json", "best/result.json")
_STATUS_SECONDS = 30
"""How often a page is renewed while trials run and none begins or ends."""
_REQUEST_SECONDS = 5.0
_LEAST_SECONDS = 2.0
"""Between two renderings: a busy run changes its files many times a second."""
_NAMES = frozenset(("127.0.0.1", "localhost", "[::1]", "::1"))


class ReportServer:
    """Serves the report of a run on loopback; a page in a browser reloads itself when it changed.

    Each request is bounded in time; nothing but the page and its version can be asked for, and
    only under a name of this machine, so that no web page from elsewhere can read it. Changes
    nothing in the run's folder.

    Args:
        folder: Of the run.
        port: 0: any that is free.

    Raises:
        OSError: The port is taken.
    """

    def __init__(
        self, folder: Path, port: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._version = ""
        self._page = b""
        self._rendered = -_LEAST_SECONDS
        self._rendering = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def serve(self) -> None:
        """Serve until :meth:`close` is called from elsewhere, or an exception such as Ctrl-C."""
        self._server.serve_forever(poll_interval=0.2)

    def __enter__(self) -> ReportServer:
        self._thread = threading.Thread(target=self.serve, name="report", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def version(self) -> str:
        """Changes when the run's files do, though not more often than every two seconds."""
        if self._clock() - self._rendered >= _LEAST_SECONDS:
            return self._signature()
        return self._version

    def page(self) -> bytes:
        """The report as of now."""
        with self._rendering:
            version = self.version()
            if version != self._version or not self._page:
                self._page = render(report_page(read_run(self._folder)), live=version).encode()
                self._version, self._rendered = version, self._clock()
            return self._page

    def _signature(self) -> str:
        parts = []
        for name in _WATCHED:
            try:
                found = (self._folder / name).stat()
                parts.append(f"{found.st_mtime_ns:x}.{found.st_size:x}")
            except OSError:
                parts.append("-")
        try:
            renewed = (self._folder / "status.json").stat().st_mtime
        except OSError:
            renewed = 0.0
        return "_".join([*parts, f"{renewed // _STATUS_SECONDS:.0f}"])


def _handler(server: ReportServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS
        server_version = "npu-tuner"
        sys_version = ""

        def do_GET(self) -> None:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            path = urlsplit(self.path).path
            if host not in _NAMES:
                self._answer(403, b"ask under a name of this machine\n", "text/plain")
            elif path == "/version":
                self._answer(200, server.version().encode(), "text/plain")
            elif path == "/":
                self._answer(200, server.page(), "text/html; charset=utf-8")
            else:
                self._answer(404, b"there is only /\n", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Frame-Options", "DENY"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are of no interest."""

    return Handler

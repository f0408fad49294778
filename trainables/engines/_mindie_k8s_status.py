"""Whether a deployment serves: a real request, and a small server that tells the answer."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_QUESTION = "Please introduce yourself."
_TOKENS = 4
_BODY_CHARS = 300
_WAIT_S = 3.0
"""Less than whoever asks waits for; a check that takes longer is answered at a later question."""


def question(path: str, served_name: str) -> dict[str, Any]:
    """A request for a few tokens in the form of the endpoint at ``path``: one of OpenAI's, or that
    of the text generation interface."""
    if path.endswith("/chat/completions"):
        messages = [{"role": "user", "content": _QUESTION}]
        return {"model": served_name, "messages": messages, "max_tokens": _TOKENS}
    if path.endswith("/completions"):
        return {"model": served_name, "prompt": _QUESTION, "max_tokens": _TOKENS}
    return {"inputs": _QUESTION, "parameters": {"max_new_tokens": _TOKENS}}


def ask(url: str, path: str, served_name: str, timeout: float) -> str | None:
    """Why a real request is not answered with 200; None when it is."""
    body = json.dumps(question(path, served_name)).encode()
    request = urllib.request.Request(
        f"{url}{path}", body, {"Content-Type": "application/json"}, method="POST"
    )
    # A proxy of the environment must not get between us and a private address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            response.read()
            status = response.status
    except urllib.error.HTTPError as error:
        with error:
            said = " ".join(error.read(4096).decode(errors="replace").split())[:_BODY_CHARS]
        return f"POST {url}{path} answers {error.code}: {said}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return f"POST {url}{path}: {reason or type(error).__name__}"
    return None if status == 200 else f"POST {url}{path} answers {status}"


class Prober:
    """Asks ``check`` again and again in a thread of its own until it finds nothing wrong.

    Attributes:
        fine: Set once it has.
        said: What was wrong last.
    """

    def __init__(self, check: Callable[[], str | None], pause: float) -> None:
        self.fine = threading.Event()
        self.said = "nothing was asked yet"
        self._check, self._pause = check, pause
        self._closed = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            wrong = self._check()
            if wrong is None:
                self.fine.set()
                return
            self.said = wrong
            self._closed.wait(self._pause)


class StatusServer:
    """``GET`` of any path answers 200 after a check that finds nothing wrong, else 503.

    A check is begun by a question and answered by it or, where it takes longer, by a later one.
    """

    def __init__(self, host: str, port: int, check: Callable[[], str | None]) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._pending: Future[str | None] | None = None
        self._server = _Server(host, port, self._asked)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _asked(self) -> str | None:
        with self._lock:
            if self._pending is None:
                self._pending = Future()
                threading.Thread(target=self._run, args=(self._pending,), daemon=True).start()
            pending = self._pending
        try:
            wrong = pending.result(_WAIT_S)
        except NotYet:
            return "the check goes on"
        with self._lock:
            self._pending = None if self._pending is pending else self._pending
        return wrong

    def _run(self, pending: Future[str | None]) -> None:
        try:
            pending.set_result(self._check())
        except Exception as error:
            pending.set_result(f"{type(error).__name__}: {error}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, asked: Callable[[], str | None]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.asked = asked
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without asking a name server who we are, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        wrong = self.server.asked()
        body = (wrong or "").encode()
        self.send_response(200 if wrong is None else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The log is the pods'."""

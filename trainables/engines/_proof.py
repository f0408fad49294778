"""Proof that an engine serves: requests in a worker thread, so that nobody waits for them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from cluster import ProcessTree, port_owners
from trainables.engines._engine import Deployment, Engine
from trainables.engines._log import EngineLog

if TYPE_CHECKING:
    import httpx

_PAUSES_S = (0.05, 0.3)
_PATIENCE = 0.1
"""A pause between two looks takes this share of the time waited so far, within the above."""
_QUICK_S = 5.0
_BODY_CHARS = 500
_END_BOUND_S = 5.0
_PROMPT = " ".join(["it is as if we do so or go up to an ox in my"] * 5)
"""80 short words, so at least as many tokens and with any tokenizer fewer than 256: a first
prompt of a few tokens kills vLLM on processors with AMX."""

Step: TypeAlias = Callable[[], str | None]
"""What is still missing, in words; None when the step is proven."""


class Refused(Exception):
    """The engine will not serve, however long one waits.

    Attributes:
        suggestion: What the user can do.
    """

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.suggestion = suggestion


class Proof:
    """One proof under way, begun when it is made.

    The engine says that it is ready, where it says so; the sockets that listen on its port are
    its own; its health path answers; it lists the served name; it answers a completion.

    Args:
        timeout: Seconds that one completion may take.
        again: Leave out what cannot have changed since an earlier proof.

    Attributes:
        waiting: What is still missing, in words.
        listening: Whether the engine listens on its port.
        error: Why the proof failed: :class:`Refused`, or a fault of this code.
    """

    def __init__(
        self,
        engine: Engine,
        deployment: Deployment,
        tree: ProcessTree,
        log: EngineLog,
        *,
        timeout: float,
        again: bool = False,
    ) -> None:
        self._engine, self._deployment = engine, deployment
        self._tree, self._log = tree, log
        self._timeout = timeout
        # Not at the top: stage programs read this package too, and it is a third of their start.
        import httpx

        self._strangers: set[int | None] = set()
        self._halted = threading.Event()
        # A proxy of the environment must not get between us and a local address.
        self._client = httpx.Client(
            base_url=base_url(deployment), timeout=_QUICK_S, trust_env=False
        )
        self.waiting = "" if again else f"it does not listen on port {deployment.port} yet"
        self.listening = again
        self.error: Exception | None = None
        first: list[Step] = [] if again else [self._says_ready, self._owns_port]
        listed: list[Step] = [] if again else [self._lists_model]
        steps = [*first, self._answers, *listed, self._completes, self._owns_port]
        self._thread = threading.Thread(target=self._run, args=(steps,), daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has come to its end, with :attr:`error` or without."""
        return not self._thread.is_alive()

    def wait(self, timeout: float) -> None:
        """Return at its end, after ``timeout`` seconds at the latest."""
        self._thread.join(timeout)

    def halt(self) -> None:
        """Give up; returns once the worker has, which the end of the engine makes it do."""
        self._halted.set()
        self._thread.join(_END_BOUND_S)

    def _run(self, steps: Sequence[Step]) -> None:
        begun = time.monotonic()
        shortest, longest = _PAUSES_S
        try:
            with self._client:
                for step in steps:
                    while missing := step():
                        self.waiting = missing
                        waited = time.monotonic() - begun
                        if self._halted.wait(min(max(_PATIENCE * waited, shortest), longest)):
                            return
        except Exception as error:
            self.error = error

    def _says_ready(self) -> str | None:
        pattern = self._engine.ready_line
        if pattern is None or re.search(pattern, self._log.text()):
            return None
        return f"its log does not say {pattern.pattern!r} yet"

    def _owns_port(self) -> str | None:
        port = self._deployment.port
        owners = port_owners(port)
        strangers = owners - self._tree.pids()
        # One that ended between the two looks is no stranger; a real one is still there later.
        if strangers & self._strangers:
            who = ", ".join("of another user" if pid is None else str(pid) for pid in strangers)
            raise Refused(
                f"port {port} is also served by process {who}, which is not this engine",
                "leave engine.port out to have a free one chosen",
            )
        self._strangers = strangers
        if strangers or not owners:
            return f"it does not listen on port {port} yet"
        self.listening = True
        return None

    def _answers(self) -> str | None:
        response = self._request("GET", self._engine.health_path)
        if isinstance(response, str):
            return response
        if response.status_code in self._engine.ready_statuses:
            return None
        if response.status_code in (401, 403):
            raise Refused(
                f"{self._engine.health_path} answers {_said(response)}",
                "start the engine without an API key",
            )
        return f"{self._engine.health_path} answers {_said(response)}"

    def _lists_model(self) -> str | None:
        path = self._engine.models_path
        if path is None:
            return None
        response = self._request("GET", path)
        if isinstance(response, str):
            return response
        if response.status_code != 200:
            return f"{path} answers {_said(response)}"
        names = [model.get("id") for model in _listed(_json(response), "data")]
        if self._deployment.served_name not in names:
            raise Refused(
                f"it serves {', '.join(map(repr, names)) or 'no model'}, "
                f"not {self._deployment.served_name!r}",
                "let the engine take its name from served_model_name",
            )
        return None

    def _completes(self) -> str | None:
        path = self._engine.completions_path
        if path is None:
            return None
        self.waiting = "the first completion is not there yet"
        question = {
            "model": self._deployment.served_name,
            "prompt": _PROMPT,
            "max_tokens": 8,
            "temperature": 0,
        }
        response = self._request("POST", path, json=question, timeout=self._timeout)
        if isinstance(response, str):
            return response
        if response.status_code == 503:
            return f"{path} answers {_said(response)}"
        choices = _listed(_json(response), "choices")
        fine = response.status_code == 200 and choices
        if not (fine and isinstance(choices[0].get("text"), str)):
            raise Refused(f"it cannot complete a text: {path} answers {_said(response)}")
        return None

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response | str:
        """The response, or in words why there is none."""
        import httpx

        try:
            return self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            return f"{path}: {type(error).__name__} {error}".strip()


def base_url(deployment: Deployment) -> str:
    """URL of a deployment, without a slash at its end."""
    host = deployment.host
    if ":" in host:
        host = f"[{host.replace('%', '%25')}]"
    return f"http://{host}:{deployment.port}"


def _said(response: httpx.Response) -> str:
    body = " ".join(response.text.split())[:_BODY_CHARS]
    return f"{response.status_code}: {body}" if body else str(response.status_code)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _listed(document: Any, key: str) -> list[dict[str, Any]]:
    """The objects listed under ``key``; none where the document is of another shape."""
    found = document.get(key) if isinstance(document, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

"""A serving engine without a model, for tests: OpenAI's protocol as vLLM speaks it.

Started like the real one, only the standard library needed::

    python tests/stubs/openai_engine.py --model FOLDER --host H --port P --served-model-name N ...
    python tests/stubs/openai_engine.py serve FOLDER --host H --port P ...
    PYTHONPATH=tests/stubs python -m openai_engine --model FOLDER ...

What it does is decided by ``stub.json`` in the model's folder, an object with the attributes of
:class:`Behaviour`; an environment variable ``STUB_<ATTRIBUTE>`` (JSON, or plain text) wins over it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import Any

_GARBAGE = "@#" * 40
_CHAT = "I am a stub and have this one sentence to say."
_CHILD = """import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("VLLM::EngineCore stub", flush=True)
time.sleep(3600)"""


@dataclass(frozen=True)
class Behaviour:
    """What the stub does differently from a healthy engine.

    Attributes:
        say: Printed at the start, before anything else.
        start_delay: Seconds before it listens.
        die_at_start: Printed to standard error instead of listening; then it ends with exit_code.
        exit_code: Status of every death.
        die_after: Completions (chats included, the warm-up too) after which the next one kills it.
        die_message: Printed when die_after strikes.
        list_as: Name in /v1/models instead of the served one.
        health_status: Status of /health and /v1/models.
        status: Status of completions and chats; other than 200 with an error body.
        answers: Question to answer. A question is found by equality, else as a part of the prompt.
        correct: Share of sums answered right, for questions with ``a+b`` and no entry in answers;
            which ones are wrong depends only on a and b.
        garbage: Answer everything with garbage.
        hang: Never answer a completion.
        latency: Seconds before each answer.
        stubborn_child: Start a grandchild in a session of its own that ignores TERM.
        slots: Answers under way at once at most; further ones wait. None: no limit.
        ttft: Seconds before a stream's first token, in its slot.
        tpot: Seconds between two tokens of a stream.
        burst: Tokens of a stream that are sent at once.
        usage: Whether streams tell their usage to those who ask for it.
        fail_after, fail_count: Completions number ``fail_after + 1`` and following, ``fail_count``
            of them, get status 500.
        cut_after: Tokens after which a stream is cut off, its connection closed.
        record: File to which the body of every completion is appended as a line of JSON.
        gate: While this file is there, no more completions than ``gate_after`` are answered.
    """

    say: str = ""
    start_delay: float = 0.0
    die_at_start: str = ""
    exit_code: int = 1
    die_after: int | None = None
    die_message: str = "stub: dies after its last request"
    list_as: str = ""
    health_status: int = 200
    status: int = 200
    answers: Mapping[str, str] = field(default_factory=dict)
    correct: float = 1.0
    garbage: bool = False
    hang: bool = False
    latency: float = 0.0
    stubborn_child: bool = False
    slots: int | None = None
    ttft: float = 0.0
    tpot: float = 0.0
    burst: int = 1
    usage: bool = True
    fail_after: int = 0
    fail_count: int = 0
    cut_after: int | None = None
    record: str = ""
    gate: str = ""
    gate_after: int = 12

    @classmethod
    def of(cls, model: Path, environment: Mapping[str, str]) -> Behaviour:
        file = model / "stub.json"
        given = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for attribute in fields(cls):
            if (text := environment.get(f"STUB_{attribute.name.upper()}")) is not None:
                try:
                    given[attribute.name] = json.loads(text)
                except ValueError:
                    given[attribute.name] = text
        return cls(**given)

    def answer(self, prompt: str) -> str:
        if self.garbage:
            return _GARBAGE
        question = prompt.strip()
        for known, answer in self.answers.items():
            if known == question:
                return answer
        for known, answer in self.answers.items():
            if known in prompt:
                return answer
        if sums := re.findall(r"(\d+)\s*\+\s*(\d+)", prompt):
            return self._sum(*map(int, sums[-1]))
        return _CHAT

    def _sum(self, a: int, b: int) -> str:
        digest = hashlib.sha256(f"{a}+{b}".encode()).digest()
        wrong = int.from_bytes(digest[:4], "big") / 2**32 >= self.correct
        return str(a + b + wrong)


class Stub(ThreadingHTTPServer):
    """The server: one thread for each connection."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, host: str, port: int, name: str, behaviour: Behaviour) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.name, self.behaviour = name, behaviour
        self._completions = 0
        self._lock = threading.Lock()
        slots = behaviour.slots
        self.slot = nullcontext() if slots is None else threading.BoundedSemaphore(slots)
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        """Without asking a name server who we are, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def count_completion(self, body: bytes) -> int:
        """The number of this one, from 1. Die if it is one too many."""
        behaviour = self.behaviour
        with self._lock:
            self._completions += 1
            if behaviour.record:
                with Path(behaviour.record).open("ab") as file:
                    file.write(b" ".join(body.splitlines()) + b"\n")
            if behaviour.die_after is not None and self._completions > behaviour.die_after:
                print(behaviour.die_message, file=sys.stderr, flush=True)
                os._exit(behaviour.exit_code)
            return self._completions


class Handler(BaseHTTPRequestHandler):
    """OpenAI's routes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Stub

    def do_GET(self) -> None:
        behaviour = self.server.behaviour
        path = self.path.partition("?")[0]
        if path in ("/health", "/v1/models") and behaviour.health_status != 200:
            self._error(behaviour.health_status, "stub: not well")
        elif path == "/health":
            self._send(200, None)
        elif path == "/version":
            self._send(200, {"version": "0.0.0-stub"})
        elif path == "/v1/models":
            name = behaviour.list_as or self.server.name
            self._send(200, {"object": "list", "data": [{"id": name, "object": "model"}]})
        else:
            self._error(404, f"there is no {path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json.loads(body)
        chat = self.path == "/v1/chat/completions"
        behaviour = self.server.behaviour
        if not chat and self.path != "/v1/completions":
            self._error(404, f"there is no {self.path}")
            return
        number = self.server.count_completion(body)
        while number > behaviour.gate_after and behaviour.gate and Path(behaviour.gate).exists():
            time.sleep(0.05)
        number -= behaviour.fail_after
        if behaviour.hang:
            time.sleep(3600)
        time.sleep(behaviour.latency)
        if behaviour.status != 200:
            self._error(behaviour.status, "stub: inference is broken")
        elif 0 < number <= behaviour.fail_count:
            self._error(500, "stub: fails this one")
        elif request.get("model") != self.server.name:
            self._error(404, f"The model `{request.get('model')}` does not exist.")
        else:
            with self.server.slot:
                self._answer(request, chat)

    def _answer(self, request: Mapping[str, Any], chat: bool) -> None:
        prompt = _prompt(request, chat)
        words = re.findall(r"\S+\s*", self.server.behaviour.answer(prompt))
        limit = request.get("max_tokens") or request.get("max_completion_tokens")
        if request.get("ignore_eos") and limit is not None:
            words = [*islice(cycle(words or ["on "]), limit)]
        kept = words if limit is None else words[:limit]
        reason = "length" if request.get("ignore_eos") or kept != words else "stop"
        asked, answered = len(prompt.split()), len(kept)
        usage = {
            "prompt_tokens": asked,
            "completion_tokens": answered,
            "total_tokens": asked + answered,
        }
        if request.get("stream"):
            options = request.get("stream_options") or {}
            told = options.get("include_usage") and self.server.behaviour.usage
            self._stream(kept, reason, usage if told else None, chat)
            return
        text = "".join(kept)
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice = {"index": 0, "finish_reason": reason, **said}
        kind = "chat.completion" if chat else "text_completion"
        self._send(200, self._document(kind, [choice]) | {"usage": usage})

    def _stream(
        self, words: list[str], reason: str, usage: Mapping[str, int] | None, chat: bool
    ) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        kind = "chat.completion.chunk" if chat else "text_completion"
        time.sleep(self.server.behaviour.ttft)
        for number, choice in enumerate(_chunks(self._bursts(words), reason, chat)):
            if number > chat and choice["finish_reason"] is None:
                time.sleep(self.server.behaviour.tpot)
            self._event(json.dumps(self._document(kind, [choice])))
            if number == self.server.behaviour.cut_after:
                self.close_connection = True
                return
        if usage is not None:
            self._event(json.dumps(self._document(kind, []) | {"usage": usage}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _bursts(self, words: list[str]) -> list[str]:
        """The words in groups that are sent at once."""
        size = self.server.behaviour.burst
        return ["".join(words[at : at + size]) for at in range(0, len(words), size)]

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.flush()

    def _document(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": "stub",
            "object": kind,
            "created": int(time.time()),
            "model": self.server.name,
            "choices": choices,
        }

    def _error(self, status: int, message: str) -> None:
        self._send(status, {"error": {"message": message, "type": "stub", "code": status}})

    def _send(self, status: int, document: object) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _prompt(request: Mapping[str, Any], chat: bool) -> str:
    """What is asked: of a chat, its last message."""
    if not chat:
        prompt = request["prompt"]
        if isinstance(prompt, list) and isinstance(prompt[0], int):
            return " ".join(map(str, prompt))
        return prompt if isinstance(prompt, str) else str(prompt[0])
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part["text"] for part in content)


def _chunks(words: list[str], reason: str, chat: bool) -> Iterator[dict[str, Any]]:
    """The choices of a streamed answer: the role, the words, the reason of the end."""
    if chat:
        first = {"role": "assistant", "content": ""}
        yield {"index": 0, "delta": first, "finish_reason": None}
    for word in words:
        said = {"delta": {"content": word}} if chat else {"text": word}
        yield {"index": 0, **said, "finish_reason": None}
    said = {"delta": {}} if chat else {"text": ""}
    yield {"index": 0, **said, "finish_reason": reason}


def _arguments(arguments: list[str]) -> argparse.Namespace:
    """Those the stub understands; like ``vllm serve`` it takes the model without a flag too."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name")
    if arguments[:1] == ["serve"]:
        arguments = ["--model", *arguments[1:]]
    known, _ = parser.parse_known_args(arguments)
    return known


def main() -> None:
    options = _arguments(sys.argv[1:])
    behaviour = Behaviour.of(Path(options.model), os.environ)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(f"stub engine: {sys.argv[1:]}", flush=True)
    if behaviour.say:
        print(behaviour.say, flush=True)
    if behaviour.stubborn_child:
        subprocess.Popen([sys.executable, "-c", _CHILD], start_new_session=True)
    time.sleep(behaviour.start_delay)
    if behaviour.die_at_start:
        print(behaviour.die_at_start, file=sys.stderr, flush=True)
        sys.exit(behaviour.exit_code)
    name = options.served_model_name or options.model
    Stub(options.host, options.port, name, behaviour).serve_forever()


if __name__ == "__main__":
    main()

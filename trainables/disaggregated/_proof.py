"""Proof that a split serves: a real streamed answer, and a KV cache that really moved.

Everything here blocks, for a bounded time, and belongs into a thread: :func:`aside`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TypeVar

import httpx

from trainables._trial import POLL_SECONDS, Json, Progress
from trainables.disaggregated._plan import Instance
from trainables.serving._engine_windows import read_counters

R = TypeVar("R")

_WORDS = ["it", "is", "as", "if", "we", "do", "so", "or", "go", "up", "to", "an", "ox", "in", "my"]
_LENGTHS = (80, 240, 640)
"""Words of a question, each a token or more: only whole blocks of a cache move, and they may have
128 tokens or more; longer ones may be more than the model takes."""
_TOKENS = 8
_ROUNDS = 3
_QUICK_S = 5.0
_ENDED = "vllm:request_success_total"
_ERRORS = re.compile(
    r'^router_errors_total\{instance="([^"]+)",.*reason="(\w+)"\} (\d+)$', re.MULTILINE
)
_BROKEN = ("connect", "broken")


class Unproven(Exception):
    """What is missing, in words."""


class Uncounted(Unproven):
    """It cannot be known."""


class Refused(Unproven):
    """It will not serve, however long one waits."""


def aside(work: Callable[[], R], progress: Progress) -> Generator[Progress, None, R]:
    """Do work in a thread, and yield until it is done; what it raises is raised here."""
    found: list[R] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, name=progress.stage, daemon=True)
    thread.start()
    while thread.is_alive():
        yield progress
        thread.join(POLL_SECONDS)
    if failed:
        raise failed[0]
    return found[0]


def complete(
    base_url: str, served_name: str, timeout: float, number: int = 0, words: int = _LENGTHS[0]
) -> None:
    """Ask for a streamed completion, and read it to its end.

    Args:
        number: Makes the question another one, from its first word on.
        words: Length of the question.

    Raises:
        Unproven: It was not answered as it should be.
        Refused: The service says that it will not.
    """
    body = {
        "model": served_name,
        "prompt": _question(number, words),
        "max_tokens": _TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    limits = httpx.Timeout(_QUICK_S, read=timeout)
    url = f"{base_url}/v1/completions"
    try:
        with httpx.stream("POST", url, json=body, timeout=limits, trust_env=False) as reply:
            if reply.status_code != 200:
                reply.read()
                sort = Refused if 400 <= reply.status_code < 500 else Unproven
                raise sort(f"{reply.status_code}: {' '.join(reply.text.split())[:500]}")
            read_events(reply.iter_lines())
    except httpx.HTTPError as error:
        raise Unproven(f"{type(error).__name__} {error}".strip()) from error


def wait_for_completion(
    base_url: str, served_name: str, timeout: float, number: int, ends: threading.Event
) -> None:
    """:func:`complete`, again and again until it works.

    Raises :class:`Unproven` after ``timeout`` seconds, when ``ends`` is set, or at once when the
    service refuses.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return complete(base_url, served_name, max(1.0, deadline - time.monotonic()), number)
        except Refused:
            raise
        except Unproven:
            if ends.wait(POLL_SECONDS) or time.monotonic() >= deadline:
                raise


def transferred_tokens(
    base_url: str,
    served_name: str,
    receivers: Sequence[Instance],
    counter: Callable[[str], float | None],
    timeout: float,
) -> dict[str, float]:
    """Ask questions until every receiver got a part of a KV cache from elsewhere.

    Args:
        base_url: Who is asked.
        receivers: Whose metrics are read.
        counter: Tokens that came from elsewhere, from the text of ``/metrics``; None where it does
            not tell.
        timeout: Seconds that one answer may take.

    Returns: Tokens that each receiver got. Those that no question was passed on to have none.

    Raises:
        Uncounted: A receiver does not tell what it got.
        Unproven: A receiver answered and got nothing, or nobody did.
    """

    def count(one: Instance, text: str) -> float:
        tokens = counter(text)
        if tokens is None:
            raise Uncounted(f"{one.name} does not count what it gets from elsewhere")
        return tokens

    before = {one.name: _metrics(one) for one in receivers}
    number = 0
    for words in _LENGTHS:
        for _ in range(_ROUNDS * len(receivers)):
            number += 1
            try:
                complete(base_url, served_name, timeout, number, words)
            except Refused:
                if number == 1:
                    raise
                break  # longer than the model takes
            got = {
                one.name: count(one, _metrics(one)) - count(one, before[one.name])
                for one in receivers
            }
            if all(tokens > 0 for tokens in got.values()):
                return got
    idle = {
        one.name
        for one in receivers
        if read_counters(_metrics(one)).get(_ENDED, 0)
        <= read_counters(before[one.name]).get(_ENDED, 0)
    }
    without = [name for name, tokens in got.items() if tokens <= 0 and name not in idle]
    if without or not any(got.values()):
        names = ", ".join(without or got)
        raise Unproven(f"{names} answered {number} questions without a KV cache from elsewhere")
    return got


def broken_connections(router_url: str) -> Counter[str]:
    """Requests whose instance could not be reached, or broke off, by instance; from the counters of
    the builtin router, none where there are no such."""
    try:
        reply = httpx.get(f"{router_url}/metrics", timeout=_QUICK_S, trust_env=False)
    except httpx.HTTPError:
        return Counter()
    found: Counter[str] = Counter()
    for name, reason, count in _ERRORS.findall(reply.text):
        if reason in _BROKEN:
            found[name] += int(count)
    return found


def _metrics(instance: Instance) -> str:
    try:
        reply = httpx.get(f"{instance.base_url}/metrics", timeout=_QUICK_S, trust_env=False)
    except httpx.HTTPError as error:
        raise Unproven(f"{instance.name}: /metrics: {type(error).__name__} {error}") from error
    if reply.status_code != 200:
        raise Uncounted(f"{instance.name}: /metrics answers {reply.status_code}")
    return reply.text


def _question(number: int, words: int) -> str:
    first = [_WORDS[int(digit)] for digit in f"{number:04}"]
    more = [_WORDS[position % len(_WORDS)] for position in range(words - len(first))]
    return " ".join([*first, *more])


def read_events(lines: Iterator[str]) -> None:
    """Read the events of a stream; raise :class:`Unproven` unless it is a whole answer."""
    chunks = 0
    for line in lines:
        kind, _, data = line.partition(":")
        if kind != "data":
            continue
        if data.strip() == "[DONE]":
            if chunks:
                return
            break
        chunks += _has_choice(data)
    raise Unproven(f"the stream ended after {chunks} chunks, without its end mark or any text")


def _has_choice(data: str) -> bool:
    try:
        document: Mapping[str, Json] = json.loads(data)
    except ValueError:
        raise Unproven(f"a chunk of the stream is no JSON: {data[:200]}") from None
    if "error" in document:
        raise Unproven(f"the stream has an error: {str(document['error'])[:300]}")
    return bool(document.get("choices"))

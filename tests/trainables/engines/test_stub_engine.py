"""The stub speaks OpenAI's protocol as vLLM does, so that tests with it say something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from trainables.engines import Service, make_engine

Ask = Callable[..., httpx.Response]
SUMS = [(a, b) for a in range(20) for b in range(20)]


@pytest.fixture
def serve(
    start: Callable[..., Service], block: Callable[..., dict[str, Any]], model: Callable[..., Path]
) -> Callable[..., Ask]:
    """Start a stub of some behaviour; returns what posts to one of its paths."""

    def begin(**behaviour: Any) -> Ask:
        service = start(make_engine(block()), model(**behaviour))
        client = httpx.Client(base_url=service.base_url)

        def ask(path: str, **body: Any) -> httpx.Response:
            return client.post(path, json={"model": "tiny-model", **body})

        return ask

    return begin


def chat(ask: Ask, question: str, **more: Any) -> str:
    asked = [{"role": "system", "content": "1+1="}, {"role": "user", "content": question}]
    answer = ask("/v1/chat/completions", messages=asked, **more).json()["choices"][0]
    text: str = answer["message"]["content"]
    return text


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_answers(serve: Callable[..., Ask]) -> None:
    ask = serve(answers={"Who are you?": "a stub", "capital": "Paris or so"})
    assert chat(ask, "What is 2+2?") == "4"
    assert chat(ask, "Who are you?") == "a stub"
    assert chat(ask, "The capital of France?") == "Paris or so"
    assert chat(ask, "The capital of France?", max_tokens=1).strip() == "Paris"
    assert len(chat(ask, "How are you?").split()) > 5
    answer = ask("/v1/completions", prompt="1+1=2\n7 + 8=", max_tokens=1).json()
    assert answer["choices"][0] == {"index": 0, "text": "15", "finish_reason": "stop"}
    assert answer["usage"]["completion_tokens"] == 1
    assert ask("/v1/completions", model="other", prompt="").status_code == 404


def test_streams_end_with_their_usage(serve: Callable[..., Ask]) -> None:
    ask = serve(answers={"q": "one two three"})
    more = {"stream": True, "stream_options": {"include_usage": True}}
    for path, question, text in (
        ("/v1/completions", {"prompt": "q"}, lambda choice: choice["text"]),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "q"}]},
            lambda choice: choice["delta"].get("content", ""),
        ),
    ):
        found = events(ask(path, **question, **more))
        assert "".join(text(event["choices"][0]) for event in found[:-1]) == "one two three"
        assert found[-2]["choices"][0]["finish_reason"] == "stop"
        assert found[-1]["choices"] == []
        assert found[-1]["usage"]["completion_tokens"] == 3
        assert "usage" not in events(ask(path, **question, stream=True))[-1]


def test_garbage(serve: Callable[..., Ask]) -> None:
    assert not any(character.isalnum() for character in chat(serve(garbage=True), "2+2"))


def test_a_share_of_the_sums_is_wrong_always_the_same(serve: Callable[..., Ask]) -> None:
    ask = serve(correct=0.75)
    right = [chat(ask, f"{a}+{b}=") == str(a + b) for a, b in SUMS]
    assert 0.68 < sum(right) / len(right) < 0.82
    assert right == [chat(ask, f"What is {a} + {b}?") == str(a + b) for a, b in SUMS]

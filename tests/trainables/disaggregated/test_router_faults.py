"""No fault of an instance makes a client wait, or take half an answer for a whole one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import pytest

from tests.trainables.disaggregated.net import (
    COMPLETIONS,
    SHORT,
    Net,
    ask,
    ask_and_wait,
    free_port,
    listen_to,
    metric,
    until,
)
from trainables.benchmarks._builtin_stream import Heard, Refused, exchange
from trainables.disaggregated import _router_pool
from trainables.disaggregated._router_protocol import METASERVER


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net()
    yield net
    net.close()


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "prefill refuses": ({"refuses": True}, {}, "prefill", "connect"),
    "decode refuses": ({}, {"refuses": True}, "decode", "connect"),
    "prefill fails": ({"status": 500}, {}, "prefill", "status"),
    "decode fails": ({}, {"status": 503}, "decode", "status"),
    "prefill garbles": ({"garbled": True}, {}, "prefill", "garbled"),
    "prefill hangs": ({"hang": True}, {}, "prefill", "silent"),
    "decode hangs": ({}, {"hang": True}, "decode", "silent"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("decode_first", [False, True])
def test_a_fault_before_the_answer_is_a_502(net: Net, fault: str, decode_first: bool) -> None:
    *behaviours, role, reason = FAULTS[fault]
    patience = SHORT if reason == "silent" else {}
    urls = []
    engines = []
    for name, behaviour in zip(("prefill", "decode"), behaviours, strict=True):
        if behaviour.pop("refuses", False):
            urls.append(f"http://127.0.0.1:{free_port()}")
            behaviour["refuses"] = True
        else:
            engine, address = net.engine(name, **behaviour)
            engines.append(engine)
            urls.append(address)
    url = net.router(prefill=urls[:1], decode=urls[1:], decode_first=decode_first, **patience)
    answer = ask(url, stream=True)
    assert answer.status_code == 502
    if decode_first and fault == "prefill hangs":
        # The decode instance waits longer, and is silent as long as it does.
        role = "decode"
        assert f"; prefill-1 at {urls[0]} had not finished" in answer.json()["error"]["message"]
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (502, "upstream_error")
    assert f"{role}-1 at {urls[role == 'decode']}" in error["message"]
    assert metric(url, "errors_total", role=role, reason=reason) == 1
    assert metric(url, "errors_total") == 1
    until(lambda: metric(url, "requests_in_flight") == 0)
    until(lambda: all(engine.under_way == 0 for engine in engines))


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [({"die_after": 2}, "broken"), ({"stop_after": 2}, "broken"), ({"hang_after": 2}, "silent")],
)
def test_a_fault_in_mid_stream_is_an_error_to_every_client(
    net: Net, behaviour: dict[str, Any], reason: str
) -> None:
    """One that reads events gets an error, one that only counts bytes a connection that broke."""
    _, first = net.engine("prefill")
    _, second = net.engine("decode", **behaviour)
    url = net.router(prefill=[first], decode=[second], **(SHORT if reason == "silent" else {}))
    came, whole = listen_to(url, max_tokens=9)
    *tokens, error = came.decode().strip().split("\n\n")
    assert not whole
    assert len(tokens) == 2
    assert "decode-1 at" in json.loads(error.removeprefix("data: "))["error"]["message"]
    until(lambda: metric(url, "answers_total", status="200") == 1)
    assert metric(url, "errors_total", role="decode", reason=reason) == 1
    assert metric(url, "broken_streams_total") == 1

    async def measured() -> None:
        async with aiohttp.ClientSession() as session:
            body = {"prompt": "x", "stream": True}
            await exchange(session, url + COMPLETIONS, body, Heard(), lambda: None)

    with pytest.raises(Refused, match="an error in its answer"):
        net.run(measured())


def test_a_prefill_that_fails_after_the_beginning_of_a_stream_ends_it(net: Net) -> None:
    _, first = net.engine("prefill", status=500)
    decode, second = net.engine("decode", early=True)
    url = net.router(prefill=[first], decode=[second], decode_first=True)
    came, whole = listen_to(url)
    assert not whole
    error = json.loads(came.removeprefix(b"data: "))["error"]
    assert error["message"].startswith(f"prefill-1 at {first}: HTTP 500")
    until(lambda: decode.under_way == 0)
    until(lambda: metric(url, "errors_total", role="prefill", reason="status") == 1)
    assert metric(url, "errors_total") == 1
    assert metric(url, "client_disconnects_total") == 0


def test_a_prefill_that_never_arrives_ends_with_the_silence(net: Net) -> None:
    _, first = net.engine("prefill", unpushed=True)
    decode, second = net.engine("decode")
    url = net.router(prefill=[first], decode=[second], decode_first=True, **SHORT)
    assert ask(url).status_code == 502
    until(lambda: decode.cancelled == 1)


def test_nobody_may_order_prefill_who_does_not_wait_for_it(net: Net) -> None:
    prefill, first = net.engine("prefill")
    _, second = net.engine("decode")
    url = net.router(prefill=[first], decode=[second], decode_first=True)
    for body in ({"request_id": "cmpl-stranger-0"}, {"request_id": ["x"]}, {}):
        assert httpx.post(url + METASERVER, json=body).status_code == 404
    assert prefill.seen == []


def test_a_dead_instance_does_not_attract_all_requests(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_router_pool, "_REST_S", 3600.0)
    alive, address = net.engine("mixed")
    url = net.router(mixed=[f"http://127.0.0.1:{free_port()}", address])
    assert [ask(url).status_code for _ in range(6)] == [502, *[200] * 5]
    assert len(alive.seen) == 5


@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_a_client_that_leaves_ends_the_work_for_it(net: Net, where: str) -> None:
    prefill, first = net.engine("prefill", hang=where == "prefill")
    decode, second = net.engine("decode", hang_after=1)
    url = net.router(prefill=[first], decode=[second])
    busy, idle = (prefill, decode) if where == "prefill" else (decode, prefill)
    leave = ask_and_wait(url)
    until(lambda: busy.under_way == 1)
    leave()
    until(lambda: busy.cancelled == 1)
    until(lambda: metric(url, "client_disconnects_total") == 1)
    assert idle.cancelled == 0
    until(lambda: metric(url, "requests_in_flight") == 0)
    assert metric(url, "errors_total") == 0


def test_a_client_that_leaves_ends_the_prefill_that_was_ordered_for_it(net: Net) -> None:
    prefill, first = net.engine("prefill", hang=True)
    decode, second = net.engine("decode")
    url = net.router(prefill=[first], decode=[second], decode_first=True)
    leave = ask_and_wait(url)
    until(lambda: prefill.under_way == 1)
    leave()
    until(lambda: (prefill.cancelled, decode.cancelled) == (1, 1))
    until(lambda: metric(url, "requests_in_flight") == 0)
    assert metric(url, "errors_total") == 0

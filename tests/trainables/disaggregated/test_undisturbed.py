"""Requests that failed because the router did not reach an instance are no measurement."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from trainables import Progress, TrialFailure
from trainables.disaggregated._proof import broken_connections
from trainables.disaggregated._router_pool import LEAST_LOADED, Counts, Pool, metrics_text
from trainables.disaggregated._supervision import undisturbed


@pytest.fixture
def pools() -> dict[str, Pool]:
    urls = ["http://10.0.0.2:7100", "http://10.0.0.3:7100"]
    return {role: Pool(role, urls, LEAST_LOADED) for role in ("prefill", "decode")}


@pytest.fixture
def router(pools: dict[str, Pool]) -> Iterator[str]:
    """A router's counters over HTTP, as it writes them itself."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics_text(pools, Counts()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_connections_that_broke_are_counted_by_instance(
    router: str, pools: dict[str, Pool]
) -> None:
    assert not broken_connections(router)
    first, second = pools["decode"].upstreams
    first.errors |= Counter(connect=2, status=7, silent=1)
    second.errors |= Counter(broken=3)
    pools["prefill"].upstreams[0].errors |= Counter(garbled=1)
    assert broken_connections(router) == {"decode-1": 2, "decode-2": 3}


def test_a_router_that_counts_nothing_tells_nothing() -> None:
    assert not broken_connections("http://127.0.0.1:9")


def said(value: object) -> Generator[Progress, None, Any]:
    yield Progress("benchmark-1")
    return value


def run(before: Counter[str], after: Counter[str]) -> object:
    """What ``undisturbed`` makes of a run between two readings of the router's counters."""
    readings = iter((before, after))
    front = SimpleNamespace(
        check=lambda stage: None,
        broken_connections=lambda stage: said(next(readings)),
        still_answers=lambda name, stage: said(None),
    )
    fleet = SimpleNamespace(watch=lambda stage: None, nodes={"decode-1": "10.0.0.3"})
    course = SimpleNamespace(steps=lambda: said("answer"), runs=[{"stage": "benchmark-1"}])
    steps: Generator[Progress, None, object] = undisturbed(course, fleet, front, "tiny", "transfer")  # type: ignore[arg-type]
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def test_a_run_counts_whose_connections_held() -> None:
    assert run(Counter(), Counter()) == "answer"
    assert run(Counter({"decode-1": 2}), Counter({"decode-1": 2})) == "answer"


def test_a_run_whose_connections_broke_is_a_failure_of_the_network() -> None:
    with pytest.raises(TrialFailure, match=r"1 to decode-1 on 10\.0\.0\.3") as caught:
        run(Counter({"decode-1": 2}), Counter({"decode-1": 3}))
    assert caught.value.failure == "network"
    assert caught.value.stage == "benchmark-1"

"""The built-in router keeps vLLM's protocols, between stub instances and between processes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import lease_ports
from tests.stubs import pd_engine
from tests.stubs.pd_engine import TEXT
from tests.trainables.disaggregated.net import (
    CHAT,
    COMPLETIONS,
    PATHS,
    Net,
    ask,
    free_port,
    listen_to,
    metric,
    until,
)
from trainables.disaggregated import router as program
from trainables.disaggregated._plan import Instance
from trainables.disaggregated._router import make_router
from trainables.disaggregated._router_pool import Pool


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net()
    yield net
    net.close()


@PATHS
def test_an_answer_is_computed_by_one_and_told_by_the_other(net: Net, path: str) -> None:
    prefill, first = net.engine("prefill")
    decode, second = net.engine("decode")
    url = net.router(prefill=[first], decode=[second])
    answer = ask(url, path, max_tokens=3, max_completion_tokens=3, temperature=0.5)
    assert (answer.status_code, answer.content) == (200, decode.bodies[0])
    (id_there, at_prefill), (id_here, at_decode) = prefill.seen[0], decode.seen[0]
    assert id_there == id_here == answer.headers["x-request-id"] != ""
    assert (at_prefill["temperature"], at_prefill["max_completion_tokens"]) == (0.5, 1)
    params = at_decode.pop("kv_transfer_params")
    assert params["remote_request_id"] == id_there
    assert at_decode["max_tokens"] == at_decode["max_completion_tokens"] == 3


@PATHS
def test_a_stream_comes_byte_for_byte(net: Net, path: str) -> None:
    _, first = net.engine("prefill")
    decode, second = net.engine("decode", tpot=0.001)
    url = net.router(prefill=[first], decode=[second])
    options = {"include_usage": True}
    body = {"messages": []} if path == CHAT else {}
    came, whole = listen_to(url, path, max_tokens=50, stream_options=options, **body)
    assert (came, whole) == (decode.bodies[0], True)
    assert TEXT.encode() in came
    assert decode.seen[0][1]["stream_options"] == options


def test_a_decode_instance_gets_the_clients_bytes_where_caches_move_unseen(net: Net) -> None:
    _, first = net.engine("prefill", silent=True)
    decode, second = net.engine("decode", silent=True)
    url = net.router(prefill=[first], decode=[second])
    raw = b'{ "prompt": "\xc3\xb6",  "max_tokens" : 2 }'
    assert httpx.post(url + COMPLETIONS, content=raw).status_code == 200
    assert decode.raw == [raw]


@pytest.mark.parametrize(
    ("path", "body", "orders"),
    [
        (COMPLETIONS, {}, 1),
        (CHAT, {}, 1),
        (COMPLETIONS, {"prompt": [5, 6, 7]}, 1),
        (COMPLETIONS, {"prompt": ["a", "b", "c"]}, 3),
    ],
)
def test_a_decode_instance_orders_its_prefill(
    net: Net, path: str, body: dict[str, Any], orders: int
) -> None:
    prefill, first = net.engine("prefill")
    decode, second = net.engine("decode")
    url = net.router(prefill=[first], decode=[second], decode_first=True)
    answer = ask(url, path, **body)
    assert answer.content == decode.bodies[0]
    ((id_there, asked),) = prefill.seen
    assert id_there == decode.seen[0][0] == answer.headers["x-request-id"]
    assert len(asked["kv_transfer_params"].get("batch_kv_transfer_params", [0])) == orders
    assert asked.get("prompt") == decode.seen[0][1].get("prompt")


@pytest.mark.slow
def test_many_at_once_are_balanced_and_do_not_meet(net: Net) -> None:
    prefills = [net.engine("prefill", delay=0.01) for _ in range(2)]
    decodes = [net.engine("decode", tpot=0.005) for _ in range(3)]
    url = net.router(prefill=[u for _, u in prefills], decode=[u for _, u in decodes])
    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(lambda n: listen_to(url, max_tokens=n), range(1, 49)))
    assert [came.count(b"data: ") - 1 for came, _ in answers] == list(range(1, 49))
    assert all(whole for _, whole in answers)
    given_to = [len(engine.seen) for engine, _ in decodes]
    assert sum(given_to) == 48
    assert min(given_to) >= 8
    assert metric(url, "requests_total", role="prefill") == 48
    assert metric(url, "requests_in_flight") == 0
    assert metric(url, "answers_total", status="200") == 48


def test_mixed_instances_answer_by_themselves(net: Net) -> None:
    engine, only = net.engine("mixed")
    url = net.router(mixed=[only])
    assert ask(url, max_tokens=2).content == engine.bodies[0]
    assert "kv_transfer_params" not in engine.seen[0][1]


@pytest.mark.parametrize("stream", [False, True])
def test_prefill_instances_alone_answer_with_one_token(net: Net, stream: bool) -> None:
    engine, only = net.engine("prefill")
    url = net.router(prefill=[only])
    answer = ask(url, max_tokens=99, stream=stream)
    assert (answer.status_code, answer.content) == (200, engine.bodies[0])
    assert engine.seen[0][1]["stream"] == stream


def test_prompts_whose_caches_cannot_be_told_apart_are_refused(net: Net) -> None:
    """A prefill instance says where one KV cache is; decode would use it for all prompts."""
    _, first = net.engine("prefill")
    decode, second = net.engine("decode")
    url = net.router(prefill=[first], decode=[second])
    answer = ask(url, prompt=["one", "two"])
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        400,
        "send one prompt a request",
    )
    assert decode.seen == []
    assert ask(url, prompt=["one"]).status_code == ask(url, prompt=[1, 2, 3]).status_code == 200


def test_what_a_client_asks_wrong_is_told_by_the_instance(net: Net) -> None:
    _, first = net.engine("prefill", status=422)
    decode, second = net.engine("decode")
    url = net.router(prefill=[first], decode=[second])
    answer = ask(url)
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, "stub says no")
    assert decode.seen == []
    assert metric(url, "errors_total") == 0
    for raw in (b"", b"{", b"[1]", b"\xff", b"[" * 100_000):
        answer = httpx.post(url + COMPLETIONS, content=raw)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)


def test_long_prompts_and_keys_reach_the_instances(net: Net) -> None:
    seen: list[tuple[str, int]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.headers["Authorization"], len(await request.read())))
        return web.json_response({})

    app = web.Application(client_max_size=2**30)
    app.router.add_post(COMPLETIONS, answer)
    engine = net.serve(app)
    url = net.router(prefill=[engine], decode=[engine])
    body = {"prompt": "x" * 5_000_000}
    headers = {"Authorization": "Bearer key"}
    assert httpx.post(url + COMPLETIONS, json=body, headers=headers).status_code == 200
    assert [key for key, _ in seen] == ["Bearer key"] * 2
    assert min(size for _, size in seen) > 5_000_000


def test_it_names_the_models_and_itself(net: Net) -> None:
    _, alive = net.engine("decode")
    nobody = f"http://127.0.0.1:{free_port()}"
    url = net.router(prefill=[nobody], decode=[nobody, alive])
    assert httpx.get(f"{url}/v1/models").json()["data"] == [{"id": "stub"}]
    assert httpx.get(f"{url}/health").json() == {
        "status": "ok",
        "prefill": 1,
        "decode": 2,
        "mixed": 0,
    }
    assert httpx.get(f"{net.router(mixed=[nobody])}/v1/models").status_code == 502


@settings(deadline=None)
@given(
    policy=st.sampled_from(["least_loaded", "round_robin"]),
    role=st.sampled_from(["prefill", "decode"]),
    count=st.integers(1, 5),
    requests=st.integers(1, 40),
)
def test_equal_requests_are_spread_evenly(
    policy: Any, role: str, count: int, requests: int
) -> None:
    pool = Pool(role, [f"http://h:{n}" for n in range(count)], policy)
    for _ in range(requests):
        pool.choose(0.0).busy(100).__enter__()
    loads = [one.in_flight for one in pool.upstreams]
    assert max(loads) - min(loads) <= 1


@settings(deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 1000)), max_size=60))
def test_the_least_loaded_instance_is_chosen_whatever_came_before(
    steps: list[tuple[bool, int]],
) -> None:
    pool = Pool("prefill", ["http://a:1", "http://b:1", "http://c:1"], "least_loaded")
    under_way = []
    for begins, size in steps:
        if begins or not under_way:
            least = min(one.bytes_in_flight for one in pool.upstreams)
            chosen = pool.choose(0.0)
            assert chosen.bytes_in_flight == least
            held = chosen.busy(size)
            held.__enter__()
            under_way.append(held)
        else:
            under_way.pop(size % len(under_way)).__exit__(None, None, None)
    for held in under_way:
        held.__exit__(None, None, None)
    assert [one.bytes_in_flight for one in pool.upstreams] == [0, 0, 0]


@settings(deadline=None)
@given(tired=st.sets(st.integers(0, 3)), policy=st.sampled_from(["least_loaded", "round_robin"]))
def test_tired_instances_rest_as_long_as_others_can(tired: set[int], policy: Any) -> None:
    pool = Pool("decode", [f"http://h:{n}" for n in range(4)], policy)
    for number in tired:
        pool.upstreams[number].rest(100.0)
    chosen = {pool.upstreams.index(pool.choose(100.1)) for _ in range(8)}
    assert chosen == ({0, 1, 2, 3} - tired or {0, 1, 2, 3})
    assert {pool.upstreams.index(pool.choose(200.0)) for _ in range(4)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give the instances"),
        (["--mixed", "http://a:1", "--decode", "http://a:1"], "either --mixed"),
        (["--prefill", "a:1"], "not of the form"),
        (["--prefill", "http://a:port"], "not of the form"),
        (["--decode", "http://a:1", "--flow", "decode_first"], "needs --prefill"),
        (["--mixed", "http://a:1", "--silence-timeout", "0"], "not above 0"),
        (
            [
                "--prefill",
                "http://a:1",
                "--decode",
                "http://a:1",
                "--flow",
                "decode_first",
                "--host",
                "::",
            ],
            "--advertise",
        ),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.main(words)
    assert said in capsys.readouterr().err


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    given = program._parser().parse_args(["--mixed", "http://a:1"])
    assert given.host == "127.0.0.1"


def test_the_program_routes_between_processes_of_which_one_dies(tmp_path: Path) -> None:
    """As an experiment starts it; the decode instance's process ends in mid-stream."""
    with lease_ports(4) as lease:
        ports = lease.ports
    roles = ["kv_producer", "kv_consumer", "kv_consumer"]
    behaviours = [{}, {}, {"die_after": 3}]
    running = []
    try:
        for port, role, behaviour in zip(ports, roles, behaviours, strict=False):
            words = ["serve", "m", "--port", str(port)]
            words += ["--kv-transfer-config", json.dumps({"kv_role": role})]
            environment = {"STUB_BEHAVIOUR": json.dumps(behaviour), "PATH": ""}
            argv = [sys.executable, pd_engine.__file__, *words]
            running.append(subprocess.Popen(argv, env=environment))
        instances = [
            Instance("prefill", 1, "one", 1, host="127.0.0.1", port=ports[0]),
            Instance("decode", 1, "one", 1, host="127.0.0.1", port=ports[1]),
            Instance("decode", 2, "one", 1, host="127.0.0.1", port=ports[2]),
        ]
        launch = make_router({}).launch("127.0.0.1", ports[3], instances)
        running.append(subprocess.Popen(launch.argv, cwd=tmp_path))
        for port in ports:
            until(lambda port=port: _listens(port))
        url = f"http://127.0.0.1:{ports[3]}"
        assert httpx.get(url + make_router({}).ready_path).status_code == 200
        first, second = (listen_to(url, max_tokens=9) for _ in range(2))
        assert first[1]
        assert not second[1]
        assert b"decode-2 at" in second[0]
        assert running[2].wait(120) == 1
        answers = [ask(url).status_code for _ in range(4)]
        # Every five seconds it is tried again whether it is back.
        assert set(answers) == {200, 502}
        running[3].send_signal(signal.SIGTERM)
        assert running[3].wait(120) == 0
    finally:
        for process in running:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as test:
        return test.connect_ex(("127.0.0.1", port)) == 0

"""Routers are started with the commands that their own guides show."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.trainables.disaggregated.splits import ASCEND, CPU, split
from trainables._program import StageError
from trainables.disaggregated import router as program
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._router import make_router, router_types

PROXY = "load_balance_proxy_server_example.py"
LAYERWISE = "load_balance_proxy_layerwise_server_example.py"


def serving(role: Any, number: int, host: str, port: int) -> Instance:
    return Instance(role, number, "one", 1, host=host, port=port)


PAIR = [serving("prefill", 1, "10.0.0.1", 7100), serving("decode", 1, "10.0.0.2", 7100)]


def recipe() -> list[Instance]:
    """Two prefill nodes with two instances each, two decode nodes with sixteen."""
    hosts = [("prefill", "192.0.0.1", 2), ("prefill", "192.0.0.2", 2)]
    hosts += [("decode", "192.0.0.3", 16), ("decode", "192.0.0.4", 16)]
    return [
        serving(role, number + 1, host, 7100 + number)
        for role, host, count in hosts
        for number in range(count)
    ]


def test_the_proxy_command_of_vllm_ascends_guide(tmp_path: Path) -> None:
    script = tmp_path / PROXY
    router = make_router({"type": "vllm_ascend", "script": str(script)})
    launch = router.launch("192.0.0.1", 1999, recipe())
    decoders = [str(port) for port in range(7100, 7116)]
    assert list(launch.argv) == [
        *("python", str(script), "--port", "1999", "--host", "192.0.0.1"),
        *("--prefiller-hosts", "192.0.0.1", "192.0.0.1", "192.0.0.2", "192.0.0.2"),
        *("--prefiller-ports", "7100", "7101", "7100", "7101"),
        *("--decoder-hosts", *["192.0.0.3"] * 16, *["192.0.0.4"] * 16),
        *("--decoder-ports", *decoders, *decoders),
    ]
    assert {"http_proxy", "https_proxy"} <= set(launch.unset)
    assert router.ready_path == "/healthcheck"


def test_its_workers_are_processes(tmp_path: Path) -> None:
    block = {"type": "vllm_ascend", "script": str(tmp_path / PROXY), "workers": 2}
    argv = make_router(block).launch("h", 1, PAIR).argv
    assert argv[argv.index("--workers") + 1] == "2"


def test_our_own_command_is_one_that_the_program_understands() -> None:
    router = make_router({"policy": "round_robin", "silence_timeout": 60})
    mixed = [serving("mixed", 1, "fd00::1", 81), serving("mixed", 2, "10.0.0.2", 82)]
    launch = router.launch("127.0.0.1", 8000, mixed)
    assert launch.argv[:3] == (sys.executable, "-m", program.__name__)
    settings = program._settings(program._parser().parse_args(launch.argv[3:]))
    assert settings.mixed == ["http://[fd00::1]:81", "http://10.0.0.2:82"]
    assert (settings.policy, settings.silence_timeout) == ("round_robin", 60)
    launch = make_router({}).launch("10.0.0.9", 8000, PAIR, "decode_first")
    settings = program._settings(program._parser().parse_args(launch.argv[3:]))
    assert (settings.prefill, settings.decode) == (
        ["http://10.0.0.1:7100"],
        ["http://10.0.0.2:7100"],
    )
    assert settings.metaserver == "http://10.0.0.9:8000/v1/metaserver"


def test_lists_of_instances_in_a_command_of_ones_own() -> None:
    block = {
        "type": "command",
        "command": [
            *("proxy", "--listen", "$HOST:${PORT}", "--p", "$PREFILL_URLS"),
            *("--d=$DECODE_ADDRESSES", "--m", "$MIXED_HOSTS", "--ports", "$PREFILL_PORTS"),
        ],
        "env_vars": {"LEVEL": 3},
        "ready_path": "/up",
    }
    instances = [serving("prefill", 1, "a", 1), serving("prefill", 2, "b", 2)]
    instances += [serving("decode", 1, "fd00::1", 3), serving("decode", 2, "d", 4)]
    router = make_router(block)
    launch = router.launch("127.0.0.1", 9, instances)
    assert list(launch.argv) == [
        *("proxy", "--listen", "127.0.0.1:9", "--p", "http://a:1", "http://b:2"),
        *("--d=[fd00::1]:3,d:4", "--ports", "1", "2"),
    ]
    assert launch.env == {"LEVEL": "3"}
    assert router.ready_path == "/up"


@pytest.mark.parametrize("kind", ["builtin", "vllm_ascend"])
def test_decode_instances_must_be_able_to_call_the_router(kind: str, tmp_path: Path) -> None:
    script = {"script": str(tmp_path / LAYERWISE)} if kind == "vllm_ascend" else {}
    router = make_router({"type": kind, **script})
    with pytest.raises(StageError, match=r"not reachable from decode-1 on 10\.0\.0\.2"):
        router.launch("127.0.0.1", 8000, PAIR, "decode_first")
    with pytest.raises(StageError, match="no address that instances could call"):
        router.launch("0.0.0.0", 8000, PAIR, "decode_first")
    local = [serving(one.role, one.number, "127.0.0.1", one.port) for one in PAIR]
    assert router.launch("127.0.0.1", 8000, local, "decode_first").argv
    assert router.launch("127.0.0.1", 8000, PAIR).argv


def test_faults_of_the_blocks_are_told_without_starting_anything(tmp_path: Path) -> None:
    script = tmp_path / LAYERWISE
    block = {"type": "vllm_ascend", "script": str(script), "workers": 2, "command": ["nothing-9"]}
    assert [path for path, _ in make_router(block).problems()] == ["script", "command", "workers"]
    script.touch()
    block |= {"workers": 1, "command": [sys.executable]}
    assert make_router(block).problems() == []
    block = {"type": "command", "command": ["nothing-9", "$PREFIL_URLS"], "work_path": "/no/where"}
    said = make_router(block).problems()
    assert [path for path, _ in said] == ["command", "command", "command", "work_path"]
    assert "$PORT" in said[1][1]
    assert "$PREFIL_URLS: not among DECODE_ADDRESSES" in said[2][1]
    for wrong in ({"policy": "random"}, {"connect_timeout": 0}, {"host": "0.0.0.0"}):
        with pytest.raises(ValidationError):
            make_router(wrong)
    assert router_types() == ["builtin", "command", "vllm_ascend"]


def test_routers_are_for_the_splits_they_can_route() -> None:
    decodes = {"additional-config": {"recompute_scheduler_enable": True}}
    for config in (
        decodes,
        {"additional-config": json.dumps({"scheduler_config": decodes["additional-config"]})},
    ):
        whole = split({"type": "mooncake"}, ASCEND, decode=config)
        assert "use router: {type: vllm_ascend}" in make_router({}).misfits(whole)[0]
    plain = split({"type": "mooncake"}, ASCEND)
    assert make_router({}).misfits(plain) == []
    assert make_router({}).misfits(plain, "decode_first") == []
    first = make_router({"type": "vllm_ascend", "script": f"/x/{PROXY}"})
    second = make_router({"type": "vllm_ascend", "script": f"/x/{LAYERWISE}"})
    assert first.misfits(plain) == second.misfits(plain, "decode_first") == []
    assert f"must be {LAYERWISE}" in first.misfits(plain, "decode_first")[0]
    assert f"must be {PROXY}" in second.misfits(plain)[0]
    mixed = Plan(Path("/m"), "m", CPU, (Instance("mixed", 1, "one", 1),))
    assert "both are needed" in first.misfits(mixed)[0]
    assert make_router({}).misfits(mixed) == []
    assert make_router({}).misfits(mixed, "decode_first") != []
    with pytest.raises(StageError, match="no instance"):
        make_router({}).launch("127.0.0.1", 1, [])


def test_identities_have_no_places_and_no_patience_in_them() -> None:
    assert make_router({"silence_timeout": 5}).identity() == make_router({}).identity()
    other = make_router({"policy": "round_robin"}).identity()
    assert other != make_router({}).identity()
    proxy = make_router({"type": "vllm_ascend", "script": "/some/where/x.py"}).identity()
    assert "/some" not in json.dumps(proxy)

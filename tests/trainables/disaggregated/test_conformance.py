"""All built-in transfers and routers keep their contracts."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.disaggregated import proxy
from tests.trainables.disaggregated.net import Net
from trainables.disaggregated._router import router_types
from trainables.disaggregated._router_builtin import PROGRAM
from trainables.disaggregated._transfer import transfer_types
from trainables.disaggregated.testing import Stand, check_router, check_transfer

ASCEND = {"engine": {"type": "vllm-ascend", "command": ["vllm", "serve"]}}
MINDIE = {"engine": {"type": "mindie"}}
PUSHES = {**ASCEND, "transfer": {"type": "mooncake_layerwise"}}
MIXED = {"baseline": {"mixed_instances": 2}}
MOVED = 'vllm:prompt_tokens_by_source_total{engine="0",source="external_kv_transfer"} 48.0'


def roles(**args: Any) -> dict[str, Any]:
    return {"roles": {role: {"args": own} for role, own in args.items()}}


def sized(prefill: int, decode: int) -> dict[str, Any]:
    """Shapes of so many devices, by tensor parallelism."""
    return {
        "shapes": {
            role: {"devices": size, "roles": [role], "args": {"tensor-parallel-size": size}}
            for role, size in (("prefill", prefill), ("decode", decode))
        }
    }


TRANSFERS: dict[str, dict[str, Any]] = {
    "example": {
        "misfits": [MINDIE, sized(1, 2), roles(prefill={"block-size": 32})],
        "matters": [{"config": {"kv_buffer_size": 1}}],
        "neutral": [{"folder": "/elsewhere"}],
    },
    "nixl": {
        "trial": sized(2, 4),
        "misfits": [MINDIE, sized(2, 3), roles(decode={"kv-transfer-config": {}})],
        "matters": [{"buffer_device": "cpu"}],
    },
    "mooncake": {
        "trial": {**ASCEND, **sized(4, 2)},
        "misfits": [MINDIE, sized(2, 4), {"engine": {"type": "vllm"}}],
        "matters": [{"config": {"kv_load_failure_policy": "recompute"}}],
        "neutral": [{"devices_per_node": 8}],
    },
    "mooncake_layerwise": {
        "trial": ASCEND,
        "misfits": [roles(prefill={"block-size": 128}, decode={"block-size": 64})],
        "matters": [{"config": {"kv_load_failure_policy": "recompute"}}],
        "neutral": [{"devices_per_node": 8}],
    },
    "custom": {
        "block": {
            "prefill": {"kv_connector": "Mine", "kv_role": "kv_producer", "kv_port": "$PORT"},
            "decode": {"kv_connector": "Mine", "kv_role": "kv_consumer", "kv_port": "$PORT"},
            "env_vars": {"MINE_HOST": "$HOST", "MINE_RANK": "$RANK"},
            "ports": 2,
        },
        "misfits": [MINDIE],
        "matters": [{"flow": "decode_first"}, {"env_vars": {}}],
        "neutral": [{"ports": 3}],
    },
}


def test_all_of_them_are_checked() -> None:
    assert sorted(TRANSFERS) == transfer_types()
    assert router_types() == ["builtin", "command", "vllm_ascend"]


@pytest.mark.parametrize("name", TRANSFERS)
def test_a_transfer_keeps_its_contract(name: str) -> None:
    wanted = dict(TRANSFERS[name])
    block = {"type": name, **wanted.pop("block", {})}
    counted = [(MOVED, 48.0), (f"{MOVED}\n{MOVED}", 96.0), ("vllm:other 3", None)]
    check_transfer(block, counted=counted, **wanted)


@contextmanager
def serve(role: str, **behaviour: Any) -> Iterator[Stand]:
    """An instance in this process, which is strict about what it is asked."""
    with ExitStack() as held:
        net = Net()
        held.callback(net.close)
        engine, url = net.engine(role, tpot=0.005, **behaviour)
        yield Stand(url, lambda: [body for _, body in engine.seen], held.close)


RECOMPUTE = roles(decode={"additional-config": {"recompute_scheduler_enable": True}})


@pytest.mark.parametrize(
    "trial", [{}, {**PUSHES}, MIXED], ids=["prefill_first", "decode_first", "mixed"]
)
def test_the_builtin_router_keeps_its_contract(trial: dict[str, Any], tmp_path: Path) -> None:
    check_router(
        {"type": "builtin"},
        serve,
        folder=tmp_path / "trials",
        trial=trial,
        misfits=[] if trial == MIXED else [RECOMPUTE],
        matters=[{"policy": "round_robin"}],
        neutral=[{"silence_timeout": 5}, {"connect_timeout": 5}],
    )


def test_the_proxy_of_vllm_ascend_keeps_its_contract(tmp_path: Path) -> None:
    script = tmp_path / "load_balance_proxy_server_example.py"
    shutil.copy(proxy.__file__, script)
    check_router(
        {"type": "vllm_ascend", "script": str(script), "command": [sys.executable]},
        serve,
        folder=tmp_path / "trials",
        misfits=[MIXED, PUSHES],
        matters=[{"workers": 2}],
        neutral=[{"command": ["python"]}],
    )


@pytest.mark.slow
def test_a_command_keeps_the_contract(tmp_path: Path) -> None:
    listens = ["--host", "$HOST", "--port", "$PORT"]
    knows = ["--prefill", "$PREFILL_URLS", "--decode", "$DECODE_URLS", "--mixed", "$MIXED_URLS"]
    check_router(
        {"type": "command", "command": [sys.executable, "-m", PROGRAM, *listens, *knows]},
        serve,
        folder=tmp_path / "trials",
        matters=[{"command": ["python", "$PORT"]}, {"env_vars": {"A": "1"}}],
        neutral=[{"ready_path": "/up"}, {"work_path": "/tmp"}],
    )

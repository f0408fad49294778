"""The adapter with a real vLLM, where ``make tools`` has made one."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cluster import port_owners
from tests.tiny_qwen3 import write_tiny_qwen3
from trainables import Progress, TrialFailure, TrialRun
from trainables.engines import make_engine, split_arguments, start_service
from trainables.engines.testing import check_engine, drive

TOOL = Path(__file__).parents[3] / ".tools" / "vllm" / "bin"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not (TOOL / "vllm").exists(), reason="no vLLM; see make tools"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen3(tmp_path_factory.mktemp("model") / "tiny")


def real(*, command: tuple[str, ...] = ("python",), **args: Any) -> dict[str, Any]:
    """A block for a small machine without accelerator; ``command[0]`` lies beside vLLM."""
    return {
        "type": "vllm",
        "command": [str(TOOL / command[0]), *command[1:]],
        "startup_timeout": 300,
        "env_vars": {
            "VLLM_ENABLE_V1_MULTIPROCESSING": 0,
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": 1,
            "HF_HUB_OFFLINE": 1,
        },
        "args": {
            "max-model-len": 256,
            "enforce-eager": True,
            "distributed-executor-backend": "uni",
            "kv-cache-memory-bytes": "16M",
            **args,
        },
    }


def test_vllm_keeps_the_contract_for_real(tiny_qwen3: Path, tmp_path: Path) -> None:
    changed = [{"args": {"dtype": "float32"}}]
    check_engine(real(), model=tiny_qwen3, folder=tmp_path / "trials", matters=changed)


@pytest.mark.parametrize(
    ("args", "failure", "said"),
    [
        ({"no-such-argument": 1}, "input", "unrecognized arguments: --no-such-argument"),
        ({"max-model-len": "much"}, "input", "max-model-len"),
        (
            {"max-num-batched-tokens": 16, "no-enable-chunked-prefill": True},
            "input",
            "max_num_batched_tokens (16) is smaller than max_model_len (256)",
        ),
        ({"kv-cache-memory-bytes": "900G"}, "out_of_memory", "less than requested memory for kv"),
    ],
)
def test_why_a_start_fails(
    args: dict[str, Any], failure: str, said: str, tiny_qwen3: Path, trial: TrialRun
) -> None:
    with pytest.raises(TrialFailure) as caught:
        drive(start_service(trial, make_engine(real(**args)), model=tiny_qwen3), within_s=300)
    assert caught.value.failure == failure
    assert said in str(caught.value)


def test_tuned_variables_and_typed_arguments_reach_it(tiny_qwen3: Path, trial: TrialRun) -> None:
    text = """--max-num-seqs $SEQS '--compilation-config {\\"mode\\": $MODE}' --seed $SEED"""
    block = {**real(**{"max-model-len": "$LEN"}), "extra_args": split_arguments(text)}
    env = {"LEN": 248, "SEQS": 3, "MODE": 0, "SEED": None}
    service = drive(
        start_service(trial, make_engine(block), model=tiny_qwen3, env=env), within_s=300
    )
    with service:
        listed = httpx.get(f"{service.base_url}/v1/models", trust_env=False).json()
        assert listed["data"][0]["max_model_len"] == 248
        log = service.log.read_text()
        assert "'max_num_seqs': 3" in log
        assert "'seed'" not in log.split("non-default args:")[1].split("\n")[0]


def test_vllm_without_its_core_is_noticed(tiny_qwen3: Path, trial: TrialRun) -> None:
    engine = make_engine(real(command=("vllm", "serve")))
    service = drive(start_service(trial, engine, model=tiny_qwen3), within_s=300)

    def loses_its_core() -> Generator[Progress, None, str]:
        for server in port_owners(service.deployment.port):
            for child in psutil.Process(server).children(recursive=True):
                if "EngineCore" in child.name() + "".join(child.cmdline()):
                    child.kill()
        yield Progress("use")
        return "a wrong number"

    with service, pytest.raises(TrialFailure, match="EngineCore"):
        drive(service.watch(loses_its_core()))

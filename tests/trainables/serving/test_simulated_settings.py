"""What command lines and configuration files mean for the simulated scheduler."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_qwen3 import write_tiny_qwen3
from tests.trainables.serving.simulated import LLAMA_8B, engine_block, write_config
from trainables import StageError
from trainables.engines import Deployment, make_engine
from trainables.engines._simulated import SimulatedEngine
from trainables.serving._simulated import understand
from trainables.serving._simulated_model import parameters_of, weight_dtype
from trainables.serving._simulated_settings import Understood

SCHEDULE = "BackendConfig.ScheduleConfig"
MODEL = "BackendConfig.ModelDeployConfig.ModelConfig.0"
GIB = 2**30


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_config(tmp_path / "model")


def understood(
    model: Path,
    of: dict[str, Any],
    *,
    options: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    env: dict[str, Any] | None = None,
    **more: Any,
) -> Understood:
    engine = make_engine(engine_block(of, **more))
    assert isinstance(engine, SimulatedEngine)
    where = Deployment(model, "m", "localhost", 8000, options or {}, env or {}, config or {})
    return understand(engine, where)


def vllm(model: Path, *words: str, **more: Any) -> Understood:
    of = {"type": more.pop("kind", "vllm"), "extra_args": list(words)}
    return understood(model, of | more.pop("of", {}), **more)


# vLLM


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"device_memory": "64GiB"}, (2048, 256, 16, True)),
        ({"device_memory": "80GiB"}, (8192, 1024, 16, True)),
        ({"device_memory": "192GiB"}, (16384, 1024, 16, True)),
        ({"device_memory": "64GiB", "kind": "vllm-ascend"}, (2048, 256, 128, True)),
        ({"device_memory": "64GiB", "platform": "cpu"}, (2048, 128, 128, False)),
        (
            {"of": {"env_vars": {"VLLM_CPU_KVCACHE_SPACE": 4}}, "device_memory": None},
            (2048, 128, 128, False),
        ),
    ],
)
def test_defaults_are_those_of_the_platform(
    model: Path, more: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    found = vllm(model, **more).settings
    assert wanted == (
        found.max_num_batched_tokens,
        found.max_num_seqs,
        found.block_size,
        found.async_scheduling,
    )
    assert (found.max_model_len, found.prefix_caching, found.chunked_prefill) == (8192, True, True)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--max-num-seqs 7", {"max_num_seqs": 7}),
        ("--max_num_seqs=7 --max-num-seqs 8", {"max_num_seqs": 8}),
        ("--max-num-seqs 9 --max-num-active-seqs 4", {"max_num_seqs": 4}),
        ("--max-num-batched-tokens 4k", {"max_num_batched_tokens": 4000}),
        # Of sequences that are not said there are no more than tokens in an iteration.
        ("--max-num-batched-tokens 64", {"max_num_seqs": 64}),
        ("--max-model-len 100 --max-num-seqs 3", {"max_num_batched_tokens": 300}),
        ("--no-enable-chunked-prefill", {"chunked_prefill": False, "max_num_batched_tokens": 8192}),
        ("--no-enable-prefix-caching", {"prefix_caching": False}),
        ("--no-enable-prefix-caching --enable-prefix-caching", {"prefix_caching": True}),
        ("--long-prefill-token-threshold 512", {"long_prefill_token_threshold": 512}),
        ("--no-async-scheduling", {"async_scheduling": False}),
        ("-pp 2", {"async_scheduling": False}),
        ("-pp 2 --async-scheduling", {"async_scheduling": True}),
        ("--block-size 32", {"block_size": 32}),
        ("--watermark 0.1", {"watermark": 0.1}),
        ("--no-scheduler-reserve-full-isl", {"reserve_full_prompt": False}),
        ("--performance-mode throughput", {"max_num_seqs": 512, "max_num_batched_tokens": 4096}),
        ("--num-gpu-blocks-override 1001", {"num_blocks": 1000}),
        # 131072 bytes a token, blocks of 16, one of which stands for none.
        ("--kv-cache-memory-bytes 1G", {"num_blocks": 511}),
        ("--kv-cache-memory-bytes 1G --kv-cache-dtype fp8", {"num_blocks": 1023}),
        ("--kv-cache-memory-bytes 1G -tp 4", {"num_blocks": 2047}),
    ],
)
def test_flags_of_vllm(model: Path, words: str, wanted: dict[str, Any]) -> None:
    found = vllm(model, *words.split())
    assert {name: getattr(found.settings, name) for name in wanted} == wanted
    assert found.notes == ("the weights are not here; their size is computed from config.json",)


def test_the_kv_cache_has_what_weights_and_activations_leave(model: Path) -> None:
    found = vllm(model, "--gpu-memory-utilization", "0.9").settings
    weights = 2 * parameters_of(LLAMA_8B)
    most = (64 * GIB * 0.9 - weights) / (16 * 131072)
    assert 0.97 * most < found.num_blocks < most
    spread = vllm(model, "--gpu-memory-utilization", "0.9", "-tp", "2").settings
    assert spread.num_blocks > 2.3 * found.num_blocks


def test_the_number_of_blocks_may_be_given_and_then_counts(model: Path) -> None:
    given = {"device_memory": None}
    assert vllm(model, num_blocks=77, **given).settings.num_blocks == 77
    assert vllm(model, kv_cache_tokens=1000, **given).settings.num_blocks == 62
    override = vllm(model, "--num-gpu-blocks-override", "9", num_blocks=77, **given)
    assert override.settings.num_blocks == 77


def test_whether_the_longest_sequence_fits_is_known(model: Path) -> None:
    assert vllm(model, num_blocks=512).fits
    assert not vllm(model, num_blocks=511).fits
    assert vllm(model, "--max-model-len", "auto", num_blocks=511).fits


def test_a_model_that_does_not_fit_is_an_out_of_memory(model: Path) -> None:
    with pytest.raises(StageError, match="leaves no room") as error:
        vllm(model, device_memory="16GiB")
    assert error.value.failure == "out_of_memory"


def test_what_the_latency_model_is_told_of_vllm(model: Path) -> None:
    words = "-tp 4 -pp 2 -dp 2 --enable-expert-parallel --kv-cache-dtype fp8"
    words += " --cudagraph-capture-sizes 8 1 4"
    found = vllm(model, *words.split())
    served = found.served
    parallel = (served.tensor_parallel, served.pipeline_parallel, served.expert_parallel)
    assert (found.replicas, *parallel) == (2, 4, 2, 8)
    assert (served.eager, served.graph_sizes, served.kv_dtype) == (False, (1, 4, 8), "fp8")
    eager = vllm(model, "--enforce-eager").served
    assert (eager.eager, eager.graph_sizes) == (True, ())
    assert vllm(model).served.graph_sizes is None
    block = {"cudagraph_capture_sizes": [16, 2]}
    given = vllm(model, of={"args": {"compilation-config": block}}).served
    assert given.graph_sizes == (2, 16)
    assert vllm(model, "-cc.cudagraph_mode=NONE").served.eager


def test_what_is_not_simulated_is_said(model: Path) -> None:
    of = {"env_vars": {"VLLM_USE_MAGIC": 1, "VLLM_LOGGING_LEVEL": "INFO"}}
    found = vllm(model, "--speculative-config", "{}", "--seed", "3", "--swap-space=4", of=of)
    assert found.notes[0] == "not simulated: --speculative-config, --swap-space, VLLM_USE_MAGIC"


# MindIE


def mindie(model: Path, config: dict[str, Any] | None = None, **more: Any) -> Understood:
    return understood(model, {"type": "mindie"} | more.pop("of", {}), config=config, **more)


def test_mindie_without_its_file_has_its_documented_defaults(model: Path) -> None:
    found = mindie(model)
    settings = found.settings
    assert (settings.max_num_seqs, settings.max_prefill_seqs) == (200, 50)
    assert (settings.max_num_batched_tokens, settings.block_size) == (8192, 128)
    assert (settings.max_model_len, found.most_output) == (2560, 512)
    assert settings.separate_prefill
    assert not settings.chunked_prefill
    assert not settings.async_scheduling
    assert any("MindIE's own defaults are simulated" in note for note in found.notes)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({f"{SCHEDULE}.maxBatchSize": 33}, {"max_num_seqs": 33}),
        ({f"{SCHEDULE}.maxPrefillBatchSize": 0}, {"max_prefill_seqs": 1}),
        ({f"{SCHEDULE}.maxPrefillTokens": 4096}, {"max_num_batched_tokens": 4096}),
        ({f"{SCHEDULE}.cacheBlockSize": 64}, {"block_size": 64}),
        ({"BackendConfig.ModelDeployConfig.maxSeqLen": 9000}, {"max_model_len": 9000}),
        ({f"{MODEL}.npuMemSize": 8}, {"num_blocks": 512}),
        ({f"{SCHEDULE}.templateType": "Mix"}, {"separate_prefill": False, "chunked_prefill": True}),
        (
            {f"{MODEL}.plugin_params": '{"plugin_type": "prefix_cache,splitfuse"}'},
            {"prefix_caching": True, "separate_prefill": False},
        ),
    ],
)
def test_entries_of_mindies_file(
    model: Path, config: dict[str, Any], wanted: dict[str, Any]
) -> None:
    settings = mindie(model, config).settings
    assert {name: getattr(settings, name) for name in wanted} == wanted


def test_mindies_installed_file_counts_and_tuned_entries_go_over_it(
    model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    document = {
        "ServerConfig": {"httpsEnabled": False},
        "BackendConfig": {
            "ModelDeployConfig": {
                "maxSeqLen": 4096,
                "ModelConfig": [{"worldSize": 8, "dp": 2, "npuMemSize": -1}],
            },
            "ScheduleConfig": {
                "maxBatchSize": 10,
                "maxPreemptCount": 3,
                "supportSelectBatch": True,
                "prefillTimeMsPerReq": 150,
                "maxQueueDelayMicroseconds": 5000,
            },
        },
    }
    file.write_text(json.dumps(document))
    of = {"config_path": str(file), "config": {f"{SCHEDULE}.maxIterTimes": 99}}
    found = mindie(model, {f"{SCHEDULE}.maxBatchSize": 20}, of=of)
    assert (found.settings.max_num_seqs, found.most_output) == (20, 99)
    assert (found.replicas, found.served.tensor_parallel) == (2, 4)
    said = "; ".join(found.notes)
    assert "supportSelectBatch is simulated as false" in said
    assert "not simulated: maxPreemptCount=3" in said
    assert "maxQueueDelay" not in said


def test_an_entry_that_vllm_has_no_file_for_is_refused(model: Path) -> None:
    with pytest.raises(StageError, match="no configuration file"):
        understood(model, {"type": "vllm"}, config={f"{SCHEDULE}.maxBatchSize": 1})


# Models


@pytest.mark.parametrize(
    ("config", "billions"),
    [
        (LLAMA_8B, 8.03),
        (
            {  # Qwen3-30B-A3B
                "hidden_size": 2048,
                "num_hidden_layers": 48,
                "intermediate_size": 6144,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
                "head_dim": 128,
                "vocab_size": 151936,
                "num_experts": 128,
                "moe_intermediate_size": 768,
            },
            30.5,
        ),
        (
            {  # DeepSeek-V3
                "hidden_size": 7168,
                "num_hidden_layers": 61,
                "intermediate_size": 18432,
                "num_attention_heads": 128,
                "vocab_size": 129280,
                "n_routed_experts": 256,
                "n_shared_experts": 1,
                "moe_intermediate_size": 2048,
                "first_k_dense_replace": 3,
                "kv_lora_rank": 512,
                "q_lora_rank": 1536,
                "qk_nope_head_dim": 128,
                "qk_rope_head_dim": 64,
                "v_head_dim": 128,
            },
            671.0,
        ),
    ],
)
def test_the_number_of_weights_is_that_of_known_models(
    config: dict[str, Any], billions: float
) -> None:
    assert parameters_of(config) / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(
    ("config", "description", "dtype"),
    [
        ({}, None, "bfloat16"),
        ({"torch_dtype": "float16"}, None, "float16"),
        ({"quantize": "w8a8"}, None, "w8a8"),
        ({}, {"model_quant_type": "W8A8_DYNAMIC"}, "w8a8"),
        ({"quantization_config": {"quant_method": "fp8"}}, None, "fp8"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, None, "w4a16"),
        (
            {
                "quantization_config": {
                    "config_groups": {
                        "group_0": {
                            "weights": {"num_bits": 8, "type": "int"},
                            "input_activations": {"num_bits": 8},
                        }
                    }
                }
            },
            None,
            "w8a8",
        ),
    ],
)
def test_the_type_of_the_weights(
    tmp_path: Path, config: dict[str, Any], description: dict[str, Any] | None, dtype: str
) -> None:
    if description is not None:
        (tmp_path / "quant_model_description.json").write_text(json.dumps(description))
    assert weight_dtype(tmp_path, config) == dtype


# vLLM itself

VLLM = Path(__file__).parents[3] / ".tools" / "vllm" / "bin" / "python"
LINES = [
    "",
    "--max-num-seqs 7 --max-num-batched-tokens 300",
    "--max-num-batched-tokens 64",
    "--max-model-len 100 --max-num-seqs 3",
    "--no-enable-chunked-prefill",
    "--no-enable-prefix-caching --long-prefill-token-threshold 64 --block-size 32",
    "--performance-mode throughput --watermark 0.1 --no-scheduler-reserve-full-isl",
    "--async-scheduling",
]
THEIRS = """
import json, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
model, lines = json.loads(sys.argv[1])
found = []
for line in lines:
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    words = parser.parse_args(["--model", model, *line.split()])
    config = AsyncEngineArgs.from_cli_args(words).create_engine_config(
        UsageContext.OPENAI_API_SERVER
    )
    scheduler, cache = config.scheduler_config, config.cache_config
    found.append({
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "block_size": cache.block_size,
        "max_model_len": config.model_config.max_model_len,
        "prefix_caching": cache.enable_prefix_caching,
        "chunked_prefill": scheduler.enable_chunked_prefill,
        "long_prefill_token_threshold": scheduler.long_prefill_token_threshold,
        "async_scheduling": scheduler.async_scheduling,
        "reserve_full_prompt": scheduler.scheduler_reserve_full_isl,
        "watermark": scheduler.watermark,
    })
print(json.dumps(found))
"""


@pytest.mark.engine
@pytest.mark.skipif(not VLLM.exists(), reason="no vLLM; see make tools")
@pytest.mark.timeout(600)
def test_vllm_itself_understands_its_command_lines_in_the_same_way(tmp_path: Path) -> None:
    folder = write_tiny_qwen3(tmp_path / "tiny", hidden=64, head_dim=16)
    asked = json.dumps([str(folder), LINES])
    said = subprocess.run(
        [VLLM, "-c", THEIRS, asked],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
    )
    theirs = json.loads(said.stdout.splitlines()[-1])
    for line, wanted in zip(LINES, theirs, strict=True):
        ours = asdict(vllm(folder, *line.split(), platform="cpu", num_blocks=4096).settings)
        assert {name: ours[name] for name in wanted} == wanted, line

"""What vLLM's command line means for the simulated scheduler.

Defaults are those of vLLM 0.32's server (``EngineArgs``, ``SchedulerConfig``, ``CacheConfig``) on
a device with so much memory, of its CPU platform, and of vllm-ascend (blocks of 128 tokens).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from trainables._program import StageError
from trainables._trial import Json
from trainables.engines import Launch
from trainables.engines._simulated import SimulatedSize
from trainables.latency import Served
from trainables.serving._command_line import CommandLine
from trainables.serving._memory import MemoryPlan
from trainables.serving._simulated_model import SimulatedModel
from trainables.serving._simulated_settings import (
    Understood,
    activation_bytes,
    kv_blocks,
    kv_token_bytes,
)
from trainables.serving._vllm_memory import SHORT, vllm_plan
from trainables.simulation import SchedulerSettings

Platform: TypeAlias = Literal["gpu", "npu", "cpu"]

_GIB = 2**30
_LARGE, _MEDIUM = 160 * _GIB, 70 * _GIB
"""From so much memory on a device's defaults are larger."""
_BLOCK = {"gpu": 16, "npu": 128, "cpu": 128}
_CPU_SPACE = "VLLM_CPU_KVCACHE_SPACE"
_ASYNC_SINCE = (0, 14)
_NO_ASYNC = ("ray",)
_UNDERSTOOD = frozenset(
    {
        *("max-num-seqs", "max-num-active-seqs", "max-num-batched-tokens", "block-size"),
        *("max-model-len", "enable-prefix-caching", "no-enable-prefix-caching"),
        *("enable-chunked-prefill", "no-enable-chunked-prefill", "long-prefill-token-threshold"),
        *("async-scheduling", "no-async-scheduling", "tensor-parallel-size"),
        *("pipeline-parallel-size", "data-parallel-size", "num-gpu-blocks-override"),
        *("kv-cache-memory-bytes", "gpu-memory-utilization", "enforce-eager", "no-enforce-eager"),
        *("cudagraph-capture-sizes", "cuda-graph-sizes", "max-cudagraph-capture-size"),
        *("compilation-config", "kv-cache-dtype", "dtype", "quantization", "watermark"),
        *("enable-expert-parallel", "no-enable-expert-parallel", "performance-mode"),
        *("scheduler-reserve-full-isl", "no-scheduler-reserve-full-isl"),
        *("distributed-executor-backend", "stream-interval"),
    }
)
_NEUTRAL = frozenset(
    {
        *("model", "host", "port", "served-model-name", "tokenizer", "tokenizer-mode", "seed"),
        *("trust-remote-code", "no-trust-remote-code", "download-dir", "load-format", "revision"),
        *("disable-log-stats", "disable-log-requests", "enable-log-requests", "uvicorn-log-level"),
        *("no-enable-log-requests", "disable-uvicorn-access-log", "max-log-len", "chat-template"),
        *("generation-config", "enable-auto-tool-choice", "tool-call-parser", "reasoning-parser"),
        *("disable-frontend-multiprocessing", "api-server-count", "allowed-origins"),
        *("data-parallel-backend", "data-parallel-address", "data-parallel-rpc-port"),
        *("data-parallel-size-local", "disable-custom-all-reduce", "hf-overrides"),
    }
)
_NEUTRAL_VARIABLES = (
    "HF_",
    "TRANSFORMERS_",
    "NPU_TUNER_",
    "PYTHON",
    "PATH",
    "LD_",
    "VLLM_LOGGING",
    "HOME",
)
_NEUTRAL_NAMES = frozenset(
    {
        *("VLLM_NO_USAGE_STATS", "VLLM_USE_V1", _CPU_SPACE, "VLLM_WORKER_MULTIPROC_METHOD"),
        *("ASCEND_RT_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "VLLM_ENABLE_V1_MULTIPROCESSING"),
        *("VLLM_HOST_IP", "HCCL_IF_IP", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"),
        *("HCCL_SOCKET_IFNAME", "ASCEND_GLOBAL_LOG_LEVEL", "ASCEND_PROCESS_LOG_PATH"),
    }
)


@dataclass(frozen=True)
class _Parallel:
    tensor: int
    pipeline: int
    data: int


def understood_vllm(
    launch: Launch,
    model: SimulatedModel,
    size: SimulatedSize,
    platform: Platform,
    version: str | None = None,
) -> Understood:
    """A vLLM command line as the simulator sees it.

    Args:
        version: The engine's, where it is known; without, the defaults are those of 0.32.

    Raises:
        StageError: A value cannot be understood, or the KV cache's size is not known.
    """
    try:
        return _understood(launch, model, size, platform, version)
    except ValueError as error:
        raise StageError("input", f"engine.of: {error}", "see its arguments") from None


def _understood(
    launch: Launch,
    model: SimulatedModel,
    size: SimulatedSize,
    platform: Platform,
    version: str | None,
) -> Understood:
    line = CommandLine(launch.argv, SHORT)
    parallel = _Parallel(
        line.number("tensor-parallel-size") or 1,
        line.number("pipeline-parallel-size") or 1,
        line.number("data-parallel-size") or 1,
    )
    longest = _longest(line, model)
    settings = _scheduling(line, parallel, longest, size.device_memory, platform)
    plan = _plan(launch, line, model, size.device_memory, platform, settings.block_size)
    given = size.num_blocks is not None or size.kv_cache_tokens is not None
    override = line.number("num-gpu-blocks-override")
    if override is not None and not given:
        size = replace(size, num_blocks=override)
    needs = activation_bytes(
        model.config, settings.max_num_batched_tokens, settings.max_num_seqs, parallel.tensor
    )
    blocks = kv_blocks(model, plan, size, needs)
    # One block is never given away: what stands for no block.
    count = blocks.count if given else max(1, blocks.count - 1)
    fits = longest is None or line.text("max-model-len") in ("auto", "-1")
    fits = fits or count * settings.block_size >= (longest or 0)
    settings = replace(
        settings,
        num_blocks=count,
        async_scheduling=_asynchronous(line, parallel, platform, version),
    )
    return Understood(
        settings,
        _served(line, model, parallel, settings, platform),
        parallel.data,
        blocks.source,
        fits,
        notes=tuple(_notes(line, launch.env)),
        kv_token_bytes=kv_token_bytes(model, plan),
    )


def _longest(line: CommandLine, model: SimulatedModel) -> int | None:
    if line.text("max-model-len") in (None, "auto", "-1"):
        return model.longest
    return line.number("max-model-len")


def _scheduling(
    line: CommandLine,
    parallel: _Parallel,
    longest: int | None,
    memory: int | None,
    platform: Platform,
) -> SchedulerSettings:
    """All but the number of blocks."""
    tokens, sequences = _defaults(memory, platform, parallel.tensor * parallel.pipeline)
    if line.text("performance-mode") == "throughput":
        tokens, sequences = 2 * tokens, 2 * sequences
    chunked = line.switch("enable-chunked-prefill") is not False
    given_tokens, given = line.number("max-num-batched-tokens"), line.number("max-num-seqs")
    most = given or sequences
    if given_tokens is None:
        tokens = tokens if chunked else max(tokens, longest or 0)
        tokens = min(tokens, most * longest) if longest else tokens
    budget = given_tokens or tokens
    most = most if given else min(most, budget)
    return SchedulerSettings(
        max_num_seqs=min(most, line.number("max-num-active-seqs") or most),
        max_num_batched_tokens=budget,
        block_size=line.number("block-size") or _BLOCK[platform],
        max_model_len=longest,
        prefix_caching=line.switch("enable-prefix-caching") is not False,
        chunked_prefill=chunked,
        long_prefill_token_threshold=line.number("long-prefill-token-threshold") or 0,
        reserve_full_prompt=line.switch("scheduler-reserve-full-isl") is not False,
        watermark=line.share("watermark", 0.0),
    )


def _defaults(memory: int | None, platform: Platform, ranks: int) -> tuple[int, int]:
    """Tokens of an iteration, and sequences, where nothing is said."""
    if platform == "cpu":
        return 2048 * ranks, 128 * ranks
    if memory is not None and memory >= _LARGE:
        return 16384, 1024
    if memory is not None and memory >= _MEDIUM:
        return 8192, 1024
    return 2048, 256


def _asynchronous(
    line: CommandLine, parallel: _Parallel, platform: Platform, version: str | None
) -> bool:
    if platform == "cpu":
        return False
    said = line.switch("async-scheduling")
    if said is not None:
        return said
    if parallel.pipeline > 1 or line.text("distributed-executor-backend") in _NO_ASYNC:
        return False
    numbers = tuple(int(part) for part in (version or "").split(".")[:2] if part.isdecimal())
    return len(numbers) < 2 or numbers >= _ASYNC_SINCE


def _plan(
    launch: Launch,
    line: CommandLine,
    model: SimulatedModel,
    memory: int | None,
    platform: Platform,
    block_size: int,
) -> MemoryPlan:
    argv = _without(launch.argv, "num-gpu-blocks-override", "kv-offloading-size")
    plan = vllm_plan(argv, model.config, memory)
    if plan is None:
        raise ValueError("an argument about memory cannot be understood")
    kind = line.text("kv-cache-dtype") or "auto"
    # The plan takes what it does not know for the smallest, so as never to refuse too much.
    element = 1 if kind.startswith(("fp8", "int8")) else max(plan.element_bytes, 2)
    plan = replace(plan, block_size=block_size, element_bytes=element)
    space = launch.env.get(_CPU_SPACE)
    if platform == "cpu" and plan.kv_bytes is None and space:
        plan = replace(plan, kv_bytes=int(space) * _GIB)
    return plan


def _without(argv: Sequence[str], *names: str) -> list[str]:
    """The command line without some options, of one value each."""
    kept: list[str] = []
    skip = False
    for word in argv:
        name = word.partition("=")[0].lstrip("-").replace("_", "-")
        if word.startswith("--") and name in names:
            skip = "=" not in word
        elif skip:
            skip = False
        else:
            kept.append(word)
    return kept


def _served(
    line: CommandLine,
    model: SimulatedModel,
    parallel: _Parallel,
    settings: SchedulerSettings,
    platform: Platform,
) -> Served:
    compilation = line.mapping("compilation-config")
    eager = bool(line.switch("enforce-eager")) or platform == "cpu"
    eager = eager or compilation.get("cudagraph_mode") == "NONE"
    sizes = line.numbers("cudagraph-capture-sizes") or line.numbers("cuda-graph-sizes")
    sizes = sizes or tuple(map(int, compilation.get("cudagraph_capture_sizes") or ()))
    most = line.number("max-cudagraph-capture-size")
    most = most or compilation.get("max_cudagraph_capture_size")
    if not sizes and most:
        sizes = _usual_sizes(int(most))
    limit = settings.max_num_batched_tokens
    graphs = tuple(sorted({one for one in sizes if one <= limit})) or None
    dtype = {"half": "float16", "float": "float32"}.get(said := line.text("dtype") or "auto", said)
    expert = parallel.tensor * parallel.data if line.switch("enable-expert-parallel") else 1
    return Served(
        config=model.config,
        weight_bytes=model.weight_bytes,
        tensor_parallel=parallel.tensor,
        pipeline_parallel=parallel.pipeline,
        expert_parallel=expert,
        eager=eager,
        graph_sizes=() if eager else graphs,
        dtype=model.dtype if dtype == "auto" or model.quantized else dtype,
        kv_dtype=line.text("kv-cache-dtype") or "auto",
        max_num_seqs=settings.max_num_seqs,
    )


def _usual_sizes(most: int) -> tuple[int, ...]:
    """Batches for which vLLM captures a graph, up to one size."""
    sizes = [1, 2, 4, *range(8, min(most + 1, 256), 8), *range(256, most + 1, 16)]
    return tuple(one for one in sizes if one <= most)


def _notes(line: CommandLine, env: Mapping[str, Json]) -> Iterator[str]:
    known = _UNDERSTOOD | _NEUTRAL
    unknown = [
        f"--{name}"
        for name in line.names
        if name not in known and not name.startswith("compilation-config.")
    ]
    unknown += [name for name in env if not _neutral(name)]
    if unknown:
        yield f"not simulated: {', '.join(unknown)}"


def _neutral(name: str) -> bool:
    return name in _NEUTRAL_NAMES or name.startswith(_NEUTRAL_VARIABLES) or "LOG" in name

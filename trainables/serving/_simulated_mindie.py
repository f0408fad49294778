"""What MindIE's config.json means for the simulated scheduler.

Names and defaults are those of MindIE's documentation of config.json (2.0 to 2.3). Its scheduler
takes prompts first by default, and never prompts and decodes together unless it is told to split
prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from trainables._program import StageError
from trainables._trial import Json
from trainables.engines import Deployment, Engine, Launch
from trainables.engines._mindie_config import corrected, values_at, with_entries
from trainables.engines._simulated import SimulatedSize
from trainables.engines._substitution import is_void
from trainables.latency import Served
from trainables.serving._memory import MemoryPlan
from trainables.serving._simulated_model import SimulatedModel
from trainables.serving._simulated_settings import (
    Understood,
    activation_bytes,
    kv_blocks,
    kv_token_bytes,
)
from trainables.simulation import SchedulerSettings

_GIB = 2**30
_BACKEND = "BackendConfig"
_DEPLOY = "ModelDeployConfig"
_SCHEDULE = "ScheduleConfig"
_MEMORY_SHARE = "NPU_MEMORY_FRACTION"
_ASYNC = "MINDIE_ASYNC_SCHEDULING_ENABLE"
_SCHEDULE_DEFAULTS: Mapping[str, int] = {
    "maxBatchSize": 200,
    "maxPrefillBatchSize": 50,
    "maxPrefillTokens": 8192,
    "maxIterTimes": 512,
    "cacheBlockSize": 128,
}
_UNDERSTOOD = frozenset(
    {
        *_SCHEDULE_DEFAULTS,
        *("templateType", "templateName", "enablePrefixCache", "enableSplit", "splitChunkTokens"),
        *("supportSelectBatch", "prefillTimeMsPerReq", "decodeTimeMsPerReq"),
    }
)
_DEFAULT_VALUES: Mapping[str, Json] = {
    "maxPreemptCount": 0,
    "maxQueueDelayMicroseconds": 5000,
    "prefillPolicyType": 0,
    "decodePolicyType": 0,
    "bufferResponseEnabled": False,
    "maxFirstTokenWaitTime": 2500,
}
"""Of what is not simulated; other values than these are said."""
_NOT_AT_ALL = ("speculationGamma", "truncation", "loraModules", "sp", "cp", "moe_tp")
_NEUTRAL_VARIABLES = ("MINDIE_LOG", "MIES_", "HF_", "PYTHON", "LD_", "PATH", "ASCEND_RT_VISIBLE")


def configured_backend(of: Engine, deployment: Deployment) -> tuple[dict[str, Any], str]:
    """``BackendConfig`` as a deployment would have it, and a note where there is no file here.

    Raises:
        StageError: An entry leads nowhere.
    """
    note = ""
    try:
        found = of.configured([_BACKEND])
    except StageError as error:
        found, note = {}, f"{error}; MindIE's own defaults are simulated"
    tuned = {path: value for path, value in deployment.config.items() if not is_void(value)}
    entries, _ = corrected({**of.options.config, **tuned})
    try:
        document = with_entries(found, entries)
    except ValueError as error:
        # Lists of a file that is not there begin with the entries themselves.
        raise StageError("input", str(error), "see the positions of the parameters") from None
    backend = document.get(_BACKEND, {})
    return backend if isinstance(backend, dict) else {}, note


def understood_mindie(
    backend: Mapping[str, Any],
    launch: Launch,
    model: SimulatedModel,
    size: SimulatedSize,
) -> Understood:
    """A MindIE configuration as the simulator sees it.

    Raises:
        StageError: A value cannot be understood, or the KV cache's size is not known.
    """
    schedule = backend.get(_SCHEDULE) or {}
    deploy = backend.get(_DEPLOY) or {}
    instance: Mapping[str, Any] = (deploy.get("ModelConfig") or [{}])[0]
    try:
        return _understood(schedule, deploy, instance, launch, model, size)
    except (TypeError, ValueError) as error:
        said = f"{_BACKEND} cannot be understood: {error}"
        raise StageError("input", said, "see MindIE's config.json") from None


def _understood(
    schedule: Mapping[str, Any],
    deploy: Mapping[str, Any],
    instance: Mapping[str, Any],
    launch: Launch,
    model: SimulatedModel,
    size: SimulatedSize,
) -> Understood:
    world = int(instance.get("worldSize") or 1)
    data = _given(instance, "dp", 1)
    tensor = _given(instance, "tp", max(1, world // data))
    plugins = _plugins(instance)
    wanted = {name: int(schedule.get(name, usual)) for name, usual in _SCHEDULE_DEFAULTS.items()}
    sequences = max(1, wanted["maxBatchSize"])
    mixed = schedule.get("templateType") == "Mix" or "splitfuse" in plugins
    mixed = mixed or bool(schedule.get("enableSplit"))
    budget = max(wanted["maxPrefillTokens"], sequences)
    if mixed and schedule.get("splitChunkTokens"):
        budget = max(int(schedule["splitChunkTokens"]), sequences)
    block = max(1, wanted["cacheBlockSize"])
    plan = MemoryPlan(
        kv_bytes=_kv_bytes(instance),
        device_bytes=size.device_memory,
        utilization=float(launch.env.get(_MEMORY_SHARE) or 0.8),
        tensor_parallel=tensor,
        element_bytes=2,
        block_size=block,
    )
    needs = activation_bytes(model.config, budget, sequences, tensor)
    blocks = kv_blocks(model, plan, size, needs)
    settings = SchedulerSettings(
        max_num_seqs=sequences,
        max_num_batched_tokens=budget,
        num_blocks=blocks.count,
        block_size=block,
        max_model_len=int(deploy.get("maxSeqLen") or 2560),
        prefix_caching="prefix_cache" in plugins or bool(schedule.get("enablePrefixCache")),
        chunked_prefill=mixed,
        async_scheduling=launch.env.get(_ASYNC) == "1",
        separate_prefill=not mixed,
        max_prefill_seqs=None if mixed else max(1, wanted["maxPrefillBatchSize"]),
    )
    served = Served(
        config=model.config,
        weight_bytes=model.weight_bytes,
        tensor_parallel=tensor,
        expert_parallel=_given(instance, "moe_ep", 1),
        eager=True,
        graph_sizes=(),
        dtype=model.dtype,
        max_num_seqs=sequences,
    )
    notes = tuple(_notes(schedule, instance, deploy, launch, mixed=mixed))
    most = max(1, wanted["maxIterTimes"])
    moved = kv_token_bytes(model, plan)
    return Understood(settings, served, data, blocks.source, True, most, notes, moved)


def _given(instance: Mapping[str, Any], name: str, usual: int) -> int:
    """A number of ranks; -1 and nothing mean the usual one."""
    found = int(instance.get(name) or -1)
    return found if found > 0 else usual


def _kv_bytes(instance: Mapping[str, Any]) -> int | None:
    """What ``npuMemSize`` (GB per device) leaves to the KV cache; None: all that remains."""
    given = float(instance.get("npuMemSize", -1))
    return round(given * _GIB) if given > 0 else None


def _plugins(instance: Mapping[str, Any]) -> frozenset[str]:
    """Names of the plug-ins of ``plugin_params``, which is JSON in a string."""
    given = instance.get("plugin_params") or "{}"
    document = json.loads(given) if isinstance(given, str) else given
    names = document.get("plugin_type") or "" if isinstance(document, dict) else ""
    return frozenset(name.strip() for name in str(names).split(",") if name.strip())


def _notes(
    schedule: Mapping[str, Any],
    instance: Mapping[str, Any],
    deploy: Mapping[str, Any],
    launch: Launch,
    *,
    mixed: bool,
) -> Iterator[str]:
    if schedule.get("supportSelectBatch") and not mixed:
        yield (
            "supportSelectBatch is simulated as false: prompts always go first, "
            "prefillTimeMsPerReq and decodeTimeMsPerReq have no effect"
        )
    other = [
        f"{name}={value}"
        for name, value in schedule.items()
        if name not in _UNDERSTOOD and _DEFAULT_VALUES.get(name, object()) != value
    ]
    other += [
        f"{name}={block[name]}"
        for block in (deploy, instance)
        for name in _NOT_AT_ALL
        if block.get(name) not in (None, False, 0, 1, -1, "", [])
    ]
    known = {"splitfuse", "prefix_cache"}
    other += [f"plug-in {name}" for name in sorted(_plugins(instance) - known)]
    known_names = {_MEMORY_SHARE, _ASYNC}
    other += [
        name
        for name in launch.env
        if name not in known_names and not name.startswith(_NEUTRAL_VARIABLES) and "LOG" not in name
    ]
    if other:
        yield f"not simulated: {', '.join(other)}"
    inputs = values_at(deploy, ["maxInputTokenLen"]).get("maxInputTokenLen")
    if inputs is not None:
        yield f"maxInputTokenLen {inputs} refuses no prompt here, only maxSeqLen does"

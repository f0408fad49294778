"""Schedules of vLLM's own scheduler on a virtual clock; run by the Python that vLLM is in.

Reads cases from standard input, as ``{"cases": [...]}``, and writes the trace of each to standard
output. Times are whole numbers of 2^-20 s, so that sums of them are exact. No model is computed:
each iteration lasts what the case says, and each sampled token is the same.

The loop is that of vLLM's engine core: ``step``, or ``step_with_batch_queue`` with two batches.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

MODEL = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": 16,
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 1 << 20,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "torch_dtype": "float32",
    "vocab_size": 512,
}


def scheduler_of(settings: dict[str, Any], folder: Path) -> Scheduler:
    size, blocks = settings["block_size"], settings["num_blocks"] + 1
    asynchronous = settings["async_scheduling"]
    longest = settings["max_model_len"]
    config = VllmConfig(
        model_config=ModelConfig(
            model=str(folder), skip_tokenizer_init=True, max_model_len=longest, dtype="float32"
        ),
        cache_config=CacheConfig(block_size=size, enable_prefix_caching=settings["prefix_caching"]),
        scheduler_config=SchedulerConfig(
            max_num_seqs=settings["max_num_seqs"],
            max_num_batched_tokens=settings["max_num_batched_tokens"],
            max_model_len=longest,
            is_encoder_decoder=False,
            enable_chunked_prefill=settings["chunked_prefill"],
            long_prefill_token_threshold=settings["long_prefill_token_threshold"],
            scheduler_reserve_full_isl=settings["reserve_full_prompt"],
            watermark=settings["watermark"],
            async_scheduling=asynchronous,
        ),
    )
    config.cache_config.num_gpu_blocks = blocks
    config.scheduler_config.long_prefill_token_threshold = settings["long_prefill_token_threshold"]
    group = KVCacheGroupSpec(
        ["layer"], FullAttentionSpec(size, num_kv_heads=1, head_size=1, dtype=torch.float32)
    )
    return (AsyncScheduler if asynchronous else Scheduler)(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[group]
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=size,
        log_stats=True,
    )


def prompt(number: int, request: dict[str, Any]) -> list[int]:
    """Equal to that of another request as far as their hashes are equal."""
    tokens = [
        1_000_000 * (1 + name) + place
        for name in request["prefix"]
        for place in range(request["prefix_block"])
    ]
    tokens += [-1_000_000 * (1 + number) - place for place in range(request["input_tokens"])]
    return tokens[: request["input_tokens"]]


class Engine:
    def __init__(self, case: dict[str, Any], folder: Path) -> None:
        settings = case["settings"]
        self.scheduler = scheduler_of(settings, folder)
        self.latency = case["latency"]
        self.depth = 2 if settings["async_scheduling"] else 1
        self.clock = self.device_free = 0
        self.queue: deque[tuple[int, Any, ModelRunnerOutput]] = deque()
        self.iterations: list[list[Any]] = []
        self.times: list[list[int]] = [[] for _ in case["requests"]]
        self.cached = [0] * len(case["requests"])
        self.preemptions = [0] * len(case["requests"])
        self.live: dict[str, Request] = {}
        hasher = get_request_block_hasher(settings["block_size"], sha256)
        self.incoming = deque(
            (one["arrival"], self.request(number, one, hasher))
            for number, one in enumerate(case["requests"])
        )

    def request(self, number: int, one: dict[str, Any], hasher: Any) -> Request:
        sampling = SamplingParams(max_tokens=one["output_tokens"], ignore_eos=True)
        tokens = prompt(number, one)
        return Request(str(number), tokens, sampling, None, block_hasher=hasher)

    def run(self) -> dict[str, Any]:
        while True:
            busy = self.queue or self.scheduler.has_requests()
            if not busy and not self.incoming:
                break
            if not busy:
                self.clock = max(self.clock, self.incoming[0][0])
            while self.incoming and self.incoming[0][0] <= self.clock:
                _, request = self.incoming.popleft()
                self.live[request.request_id] = request
                self.scheduler.add_request(request)
            self.step()
        requests = zip(self.times, self.cached, self.preemptions, strict=True)
        return {"iterations": self.iterations, "requests": [list(one) for one in requests]}

    def step(self) -> None:
        if self.scheduler.has_requests():
            executed = self.schedule()
            if len(self.queue) < self.depth and (executed or self.scheduler.has_requests()):
                return
        end, output, result = self.queue.popleft()
        self.clock = max(self.clock, end)
        for engine_outputs in self.scheduler.update_from_output(output, result).values():
            for one in engine_outputs.outputs:
                self.times[int(one.request_id)] += [end] * len(one.new_token_ids)
                if one.finish_reason is not None:
                    self.live.pop(one.request_id)

    def schedule(self) -> bool:
        before = {name: one.is_prefill_chunk for name, one in self.live.items()}
        counts = {name: one.num_preemptions for name, one in self.live.items()}
        running = {one.request_id for one in self.scheduler.running}
        output = self.scheduler.schedule()
        for name, one in self.live.items():
            self.preemptions[int(name)] += one.num_preemptions - counts[name]
        tokens = output.num_scheduled_tokens
        end, sampled = self.clock, [[] for _ in tokens]
        if tokens:
            chunks, decodes = [], []
            for place, (name, count) in enumerate(tokens.items()):
                one = self.live[name]
                context = one.num_computed_tokens - count
                if name in running and not before[name]:
                    decodes.append(context)
                else:
                    chunks.append([count, context])
                if not one.is_prefill_chunk:
                    sampled[place] = [int(name)]
            for one in output.scheduled_new_reqs:
                if not self.times[int(one.req_id)] and not self.preemptions[int(one.req_id)]:
                    self.cached[int(one.req_id)] = one.num_computed_tokens
            end = self.note(chunks, decodes)
        names = list(tokens)
        places = {name: place for place, name in enumerate(names)}
        result = ModelRunnerOutput(req_ids=names, req_id_to_index=places, sampled_token_ids=sampled)
        self.queue.append((end, output, result))
        return bool(tokens)

    def note(self, chunks: list[list[int]], decodes: list[int]) -> int:
        start = max(self.clock, self.device_free)
        new = sum(count for count, _ in chunks) + len(decodes)
        context = sum(context for _, context in chunks) + sum(decodes)
        fixed, token, shift = self.latency
        end = self.device_free = start + fixed + token * new + (context >> shift)
        pool = self.scheduler.kv_cache_manager.block_pool
        used = pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()
        lengths = [sum(decodes), max(decodes, default=0), min(decodes, default=0)]
        self.iterations.append([start, end, chunks, len(decodes), *lengths, used])
        return end


def main() -> None:
    init_none_hash(sha256)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL), encoding="utf-8")
        cases = json.load(sys.stdin)["cases"]
        print(json.dumps([Engine(case, Path(folder)).run() for case in cases]))


if __name__ == "__main__":
    main()

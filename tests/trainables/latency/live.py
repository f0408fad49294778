"""What the recorder reads of vLLM's scheduler and of its outputs, by the same names."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainables.latency import IterationRecord, read_records, record_vllm

NAME = record_vllm.PLUGIN
TOOL = Path(__file__).parents[3] / ".tools" / "vllm" / "bin" / "python"


def output(*new: tuple[str, int, int], cached: Any = (), old: bool = False) -> SimpleNamespace:
    """A SchedulerOutput of (request, tokens, context); ``old``: of old versions of vLLM."""
    tokens = {name: count for name, count, _ in (*cached, *new)}
    if old:
        later: Any = [SimpleNamespace(req_id=n, num_computed_tokens=c) for n, _, c in cached]
    else:
        later = SimpleNamespace(
            req_ids=[name for name, _, _ in cached], num_computed_tokens=[c for *_, c in cached]
        )
    return SimpleNamespace(
        scheduled_new_reqs=[SimpleNamespace(req_id=n, num_computed_tokens=c) for n, _, c in new],
        scheduled_cached_reqs=later,
        num_scheduled_tokens=tokens,
        total_num_scheduled_tokens=sum(tokens.values()),
    )


class Scheduler:
    """Does what it is told: :attr:`script` is what ``schedule`` returns next."""

    def __init__(self, **prompts: int) -> None:
        self.requests = {n: SimpleNamespace(num_prompt_tokens=p) for n, p in prompts.items()}
        self.running, self.waiting = list(prompts), ["another"]
        self.script: list[Any] = []
        self.busy = True
        self.block_size = 16
        self.vllm_config = SimpleNamespace(
            cache_config=SimpleNamespace(num_gpu_blocks=101, cache_dtype="auto"),
            scheduler_config=SimpleNamespace(max_num_seqs=8, async_scheduling=True),
        )

    def schedule(self, throttle: bool = False) -> Any:
        return self.script.pop(0)

    def update_from_output(self, scheduler_output: Any, outcome: str) -> str:
        return outcome.upper()

    def has_unfinished_requests(self) -> bool:
        return self.busy

    def shutdown(self) -> str:
        return "down"


class Bench:
    """A recorder with a clock that is set by hand."""

    def __init__(self, **prompts: int) -> None:
        self.scheduler = Scheduler(**prompts)
        self.now = 0.0
        self.records: list[dict[str, Any]] = []
        self.recorder = record_vllm.Recorder(
            self.records.append, lambda: self.now, lambda: self.now / 4
        )

    def scheduled(self, at: float, batch: Any) -> Any:
        self.now = at
        self.recorder.scheduled(self.scheduler, batch)
        return batch

    def arrived(self, at: float, batch: Any, *, busy: bool = True) -> None:
        self.now = at
        self.recorder.arrived(batch)
        self.scheduler.busy = busy
        self.recorder.updated(self.scheduler)

    def work(self, begin: float, end: float, batch: Any, *, busy: bool = True) -> dict[str, Any]:
        self.scheduled(begin, batch)
        self.arrived(end, batch, busy=busy)
        return self.records[-1]


def iterate(scheduler: Any, count: int, first: int = 1000) -> None:
    for context in range(first, first + count):
        batch = output(cached=[("a", 1, context)])
        scheduler.script.append(batch)
        assert scheduler.schedule(False) is batch
        assert scheduler.update_from_output(batch, "outcome") == "OUTCOME"


def until_written(file: Path, count: int) -> list[IterationRecord]:
    """Records of a file whose writer has been told to write but need not have done so yet."""
    deadline = time.monotonic() + 30
    while len(found := read_records(file)) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return list(found)

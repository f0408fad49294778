"""The benchmark ``ais_bench``: AISBench in its perf mode."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

from trainables._aisbench import (
    DATASETS,
    MODELS,
    OFFLINE,
    aisbench_version,
    config_digest,
    config_problem,
)
from trainables._aisbench_data import data_digest
from trainables._content import content_digest
from trainables._trial import Json, Progress, TrialRun
from trainables.benchmarks._ais_bench_options import AisBenchOptions
from trainables.benchmarks._benchmark import (
    Benchmark,
    BenchmarkResult,
    Load,
    Target,
    register_benchmark,
)
from trainables.benchmarks._metrics import ALL
from trainables.benchmarks._tool_call import ToolCall, tool_stage
from trainables.benchmarks._workload import make_workload
from trainables.engines._arguments import canonical

_PLACES = {"command", "config_dir", "args", "workload", "custom_dataset_path"}


@register_benchmark("ais_bench")
class AisBenchBenchmark(Benchmark):
    """One run of the tool for each measurement; it tells nothing before its end.

    With a workload, equal seeds ask the same; where also the concurrency is not limited, they ask
    it at the same times. Datasets of AISBench's own do not depend on the seed.
    """

    Options = AisBenchOptions
    options: AisBenchOptions

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
        options = self.options
        call = ToolCall(
            argv=options.command,
            env={**options.env_vars, **target.env},
            defaults=OFFLINE,
            folder=str(trial.folder / stage),
            log=str(trial.folder / f"{stage}.log"),
            base_url=target.base_url,
            timeout=timeout,
            suggestion="name AISBench's program in benchmark.command",
        )
        return tool_stage(
            self,
            trial,
            call,
            load,
            program="trainables.benchmarks.run_ais_bench",
            stage=stage,
            seed=seed,
            version=self._version(),
            options=options.model_dump(mode="json"),
            target={"served_name": target.served_name, "model": str(target.model)},
        )

    def requests(self) -> int:
        return self.options.num_prompts

    def identity(self) -> Json:
        options = self.options
        document = options.model_dump(mode="json", exclude=_PLACES)
        workload = options.own_workload
        document["args"] = canonical(options.args)
        document["workload"] = make_workload(workload).identity() if workload else None
        for kinds, name in ((MODELS, options.models), (DATASETS, options.datasets)):
            digest = config_digest(options.config_dir, kinds, name) if name else None
            document[f"{kinds[0]}_content"] = digest
        if options.datasets:
            found = data_digest(options.command[0], options.config_dir, options.datasets)
            document["datasets_data"] = found
        if options.custom_dataset_path:
            document["custom_dataset"] = content_digest(options.custom_dataset_path)
        return {**document, "version": self._version()}

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        program = options.command[0]
        found = options.argument_problems()
        if shutil.which(program) is None:
            said = f"there is no program {program!r} here; name AISBench's own, such as"
            found.append(("command", f"{said} [/opt/aisbench/bin/ais_bench]"))
        if options.config_dir and not Path(options.config_dir).is_dir():
            found.append(("config_dir", f"{options.config_dir} is no folder"))
        for kinds, name in ((MODELS, options.models), (DATASETS, options.datasets)):
            if name and (said := config_problem(program, options.config_dir, kinds, name)):
                found.append((kinds[0], said))
        if options.custom_dataset_path and not Path(options.custom_dataset_path).is_file():
            found.append(("custom_dataset_path", f"{options.custom_dataset_path} is no file"))
        if options.workload:
            problems = make_workload(options.workload).problems()
            found += [(f"workload.{place}", said) for place, said in problems]
        return found

    def metric_names(self) -> frozenset[str]:
        return ALL - {"goodput_per_s"}

    def _version(self) -> str | None:
        return aisbench_version(self.options.command[0])

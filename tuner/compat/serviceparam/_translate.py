"""From the settings and a command line of ``msserviceprofiler optimizer`` to an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchers import Json, strategy_options, strategy_types
from tuner._fitness import Fitness
from tuner.compat._hardware import machine_cpus
from tuner.compat._options import Problems
from tuner.compat.serviceparam._benchmarks import ais_bench, counted_latencies, vllm_benchmark
from tuner.compat.serviceparam._config import AisBench, VllmBenchmark
from tuner.compat.serviceparam._engines import Served, vllm_engine
from tuner.compat.serviceparam._fields import Today, Translated, entries, translate_fields
from tuner.compat.serviceparam._kubernetes import installed_scripts, kubernetes_engine
from tuner.compat.serviceparam._loads import load_block, operating_point, refinement
from tuner.compat.serviceparam._mindie import Installed, installed_mindie, mindie_engine
from tuner.compat.serviceparam._parameters import Remarks
from tuner.compat.serviceparam._reading import Configuration
from tuner.compat.serviceparam._request import OptimizerRequest
from tuner.compat.serviceparam._unused import unused

NAME = "tuner"
"""The experiment's name, and so the folder in ``output`` that the run works in."""
_MOST = 200
"""The original takes no more particles or iterations."""
_RETRIES = 2
_WATCHED = ("service_errors", "benchmark_errors")
_VLLM_PROGRAM = "vllm.entrypoints.cli.main"
"""The module of ``vllm``, for an interpreter."""
_CLASSES = {
    "mindie": "Simulator",
    "kubectl": "DisaggregationSimulator",
    "vllm": "VllmSimulator",
    "ais_bench": "AisBench",
    "vllm_benchmark": "VllmBenchMark",
}
"""Names under which the original backs files up."""
_DELIVERED = (
    "what is delivered is the best that keeps all limits, found by the search; the original "
    "chooses among the baseline and refined points, and shipped penalties make it the baseline"
)


_EVERYWHERE = (
    "each engine is on one node, and several trials run at once on all nodes of the Ray cluster "
    "(python -m tuner cluster start, and join on the others); no engine spans several machines, "
    "and the original ignores the flag"
)


@dataclass(frozen=True)
class OptimizerTranslation:
    """An experiment, and what a person should know about how it came about.

    Attributes:
        data: The experiment document, JSON values only.
        notes: What the settings say and the experiment does differently, or not at all.
        problems: What cannot be translated.
        store: Folder of ``data_storage_*.csv``.
    """

    data: dict[str, Any]
    notes: tuple[str, ...]
    problems: Problems
    store: Path


def translate_settings(
    configuration: Configuration, request: OptimizerRequest
) -> OptimizerTranslation:
    """The experiment that asks what the settings ask."""
    return _Translator(configuration, request).translation()


class _Translator:
    def __init__(self, configuration: Configuration, request: OptimizerRequest) -> None:
        self._configuration = configuration
        self._settings = configuration.settings
        self._request = request
        self._remarks = Remarks(notes=list(configuration.notes))
        self._output = _below(request.cwd, self._settings.output)
        self._installed: Installed | None = None
        if request.disaggregated:
            self._installed = installed_scripts(self._settings, request.cwd, self._remarks)
        elif request.engine == "mindie":
            self._installed = installed_mindie(self._settings, request.environment, self._remarks)

    def translation(self) -> OptimizerTranslation:
        request, remarks = self._request, self._remarks
        fields = self._fields()
        if not fields.space and not remarks.problems:
            remarks.problem(f"{request.engine}.target_field", "nothing in it is to be searched")
        benchmark = self._benchmark()
        served = self._engine(fields)
        latencies = counted_latencies(self._tool(), request.benchmark, remarks)
        limits = self._limits(latencies)
        if request.native:
            load, refined = operating_point(self._settings, fields, remarks), dict[str, Json]()
        else:
            load = load_block(self._settings, fields, benchmark, remarks)
            refined = refinement(self._settings, fields, limits, remarks)
        if self._settings.service == "slave":
            said = "no machine is started as a slave; start the optimizer on the master only, and "
            remarks.problem("service", f"{said}here `python -m tuner cluster join`")
        fitness, search = self._fitness(latencies), self._search(fields)
        data: dict[str, Any] = {
            "name": NAME,
            "trial": self._trial(served, benchmark, load, fields) | refined,
            "search": search,
            "objective": self._objective(fitness, limits),
            "budget": self._budget(search, served),
            "cluster": self._cluster(served),
            "storage": str(self._output),
            "views": [self._view(fields, fitness, benchmark, load)],
        }
        remarks.notes += unused(
            self._configuration,
            request.engine,
            request.benchmark,
            refined="refine" in refined,
            disaggregated=request.disaggregated,
        )
        return OptimizerTranslation(
            data, tuple(dict.fromkeys(remarks.notes)), remarks.problems, self._store
        )

    @property
    def _trials(self) -> int:
        settings = self._settings
        return min(settings.n_particles, _MOST) * min(settings.iters, _MOST)

    @property
    def _store(self) -> Path:
        named = self._settings.data_storage.store_dir
        return self._output / "store" if named is None else _below(self._request.cwd, named)

    def _tool(self) -> AisBench | VllmBenchmark:
        settings = self._settings
        ais = self._request.benchmark == "ais_bench"
        return settings.ais_bench if ais else settings.vllm_benchmark

    def _fields(self) -> Translated:
        request, settings = self._request, self._settings
        engine = settings.mindie if request.engine == "mindie" else settings.vllm
        given = entries(request.engine, engine.target_field)
        given += entries(request.benchmark, self._tool().target_field)
        today = Today()
        if self._installed is not None:
            today = Today(request.environment, self._installed.tuned(given))
        return translate_fields(given, today, self._remarks, disaggregated=request.disaggregated)

    def _benchmark(self) -> dict[str, Json]:
        request, command = self._request, self._request.tools.ais_bench
        if request.benchmark == "ais_bench":
            return ais_bench(self._settings, self._remarks, command=command)
        command = request.tools.vllm
        if command is not None:
            serves = command[-1] == "serve"
            command = command[:-1] if serves else [*command, "-m", _VLLM_PROGRAM]
        return vllm_benchmark(self._settings, request.engine, self._remarks, command=command)

    def _engine(self, fields: Translated) -> Served:
        request = self._request
        if request.disaggregated:
            return kubernetes_engine(self._settings, self._installed, self._remarks)
        if self._installed is not None:
            return mindie_engine(self._settings, self._installed, self._remarks)
        kind = "vllm-ascend" if request.device == "npu" else "vllm"
        return vllm_engine(
            self._settings, fields.space, self._remarks, kind=kind, command=request.tools.vllm
        )

    def _trial(
        self,
        served: Served,
        benchmark: dict[str, Json],
        load: dict[str, Json],
        fields: Translated,
    ) -> dict[str, Any]:
        settings, native = self._settings, self._request.native
        loads = {one.name for one in fields.load.values()} if native else set()
        trial: dict[str, Any] = {
            "type": "serving",
            "model": served.model,
            "engine": served.block,
            "benchmark": benchmark,
            "load": load,
            "positions": {k: v for k, v in fields.positions.items() if k not in loads},
            "baseline": {k: v for k, v in fields.baseline.items() if k not in loads},
        }
        if native:
            rejection: dict[str, Json] = {"memory": settings.theory_guided_enable}
        else:
            trial["final_repeats"] = 1
            rejection = {"memory": settings.theory_guided_enable, "windows": False}
            rejection["incumbent"] = False
        trial["early_rejection"] = rejection
        trial["timeouts"] = {"benchmark": settings.particles_time_out}
        return trial

    def _search(self, fields: Translated) -> dict[str, Any]:
        request, settings = self._request, self._settings
        kind = request.search or ("auto" if request.native else "particle_swarm")
        if kind not in strategy_types():
            said = f"unknown strategy {kind!r}; there are {', '.join(strategy_types())}"
            self._remarks.problem("--search", said)
            return {"type": kind, "space": fields.space}
        block: dict[str, Any] = {"type": kind}
        if kind == "particle_swarm":
            block |= self._swarm()
        elif "trials" in strategy_options(kind).model_fields:
            block["trials"] = self._trials
        for key in ("n_particles", "iters"):
            if (given := getattr(settings, key)) > _MOST:
                self._remarks.note(key, f"{given} counts as {_MOST}, as in the original")
        return {**block, "space": fields.space}

    def _swarm(self) -> dict[str, Json]:
        """Shape and constants; those of the file count where there are any."""
        settings = self._settings
        block: dict[str, Json] = {
            "particles": min(settings.n_particles, _MOST),
            "iterations": min(settings.iters, _MOST),
            "preset": "constriction",
        }
        given, schedules = settings.pso_options, settings.pso_strategy
        if given is None and schedules is None:
            said = "the original's constants (w=1.8, c1=c2=2) search at random; the standard ones"
            self._remarks.note(
                "search", f"{said} are used (--set search.preset=serviceparam: those)"
            )
        names = {"inertia": "w", "cognitive": "c1", "social": "c2"}
        for ours, theirs in names.items():
            if given is not None and theirs in given.model_fields_set:
                block[ours] = getattr(given, theirs)
            if schedules is not None and theirs in schedules.model_fields_set:
                kind = getattr(schedules, theirs).replace("lin_variation", "linear")
                default = 0.9 if theirs == "w" else 2.0
                block[ours] = {"schedule": kind, "start": block.get(ours, default)}
        for table, value in (("pso_options", given), ("pso_strategy", schedules)):
            if value is not None:
                self._remarks.note(table, "counts here; the original reads it and does not use it")
        return block

    def _fitness(self, latencies: dict[str, str]) -> dict[str, Json]:
        settings = self._settings
        block: dict[str, Json] = {
            key: getattr(settings, key)
            for key in Fitness.model_fields
            if key in type(settings).model_fields
        }
        if self._request.engine == "mindie":
            block["generate_speed_target"] = "baseline"
            if self._configuration.wrote("generate_speed_target"):
                said = "is ten times the baseline's for MindIE, as in the original"
                self._remarks.note("generate_speed_target", said)
        return block | latencies

    def _limits(self, latencies: dict[str, str]) -> list[dict[str, Json]]:
        """The SLO: limits on what has a penalty."""
        settings = self._settings
        limits: list[dict[str, Json]] = []
        if settings.ttft_penalty:
            limits.append({"metric": latencies["ttft_metric"], "max": settings.ttft_slo})
        if settings.tpot_penalty:
            limits.append({"metric": latencies["tpot_metric"], "max": settings.tpot_slo})
        if settings.success_rate_penalty:
            limits.append({"metric": "success_rate", "min": min(1.0, settings.success_rate_slo)})
        for name in ("ttft", "tpot"):
            if not getattr(settings, f"{name}_penalty") and self._configuration.wrote(
                f"{name}_slo"
            ):
                said = f"is no limit, since {name}_penalty is 0"
                self._remarks.note(f"{name}_slo", said)
        return limits

    def _objective(
        self, fitness: dict[str, Json], limits: list[dict[str, Json]]
    ) -> dict[str, Json]:
        if self._request.native:
            return {"maximize": "output_tokens_per_s", "limits": limits}
        if limits:
            self._remarks.note("objective", _DELIVERED)
        return {"fitness": fitness, "limits": limits}

    def _budget(self, search: dict[str, Any], served: Served) -> dict[str, int]:
        """Of trials, where the search has no end of its own, whose reaching is a result. What the
        settings call retryable is retried as often as in the original."""
        ends = {"trials", "iterations"} & set(search)
        errors = served.block.get("health_check", {})
        retryable = any("retryable_patterns" in errors.get(whose, {}) for whose in _WATCHED)
        retried = {"retries": _RETRIES} if retryable else {}
        one = {"concurrent": 1} if self._request.disaggregated else {}
        return ({} if ends else {"trials": self._trials}) | retried | one

    def _cluster(self, served: Served) -> dict[str, Any]:
        resources = {"resources": self._resources(served)}
        if not self._request.everywhere:
            return resources
        self._remarks.note("--deploy_policy", _EVERYWHERE)
        return {"address": "auto", **resources}

    def _resources(self, served: Served) -> dict[str, int]:
        if self._request.device == "cpu":
            return {"CPU": machine_cpus()}
        return {"NPU": served.width}

    def _view(
        self,
        fields: Translated,
        fitness: dict[str, Json],
        benchmark: dict[str, Json],
        load: dict[str, Json],
    ) -> dict[str, Json]:
        view: dict[str, Json] = {"type": "serviceparam", "folder": str(self._output)}
        if self._settings.data_storage.store_dir is not None:
            view["store"] = str(self._store)
        view["fields"] = fields.columns
        view["load"] = {one.name: load for load, one in fields.load.items()}
        known = {"fixed": ("concurrency", "request_rate"), "calibrated": ("concurrency",)}
        view["constants"] = {
            one.name: load.get(key, 0)
            for key, one in fields.load.items()
            if key in known.get(load["type"], ())
        }
        view["num_prompts"] = benchmark["num_prompts"]
        if "requests" in load:
            view["sample_size"] = load["requests"]
        view["fitness"] = fitness
        if self._request.backup:
            view["backup"] = True
            engine = "kubectl" if self._request.disaggregated else self._request.engine
            view["classes"] = [_CLASSES[engine], _CLASSES[self._request.benchmark]]
        return view


def _below(folder: Path, path: str) -> Path:
    return (folder / Path(path).expanduser()).absolute()

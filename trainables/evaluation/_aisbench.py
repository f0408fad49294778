"""The evaluator ``aisbench``: AISBench asks a model that a serving engine serves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Mapping
from functools import cached_property
from pathlib import Path

from trainables._aisbench import DATASETS, aisbench_version, config_digest, config_problem
from trainables._aisbench_data import data_digest
from trainables._blocks import plugin_schemas
from trainables._trial import Json, Progress, TrialRun
from trainables.engines import Engine, engine_type, engine_types, make_engine, start_service
from trainables.engines._arguments import argument_name
from trainables.evaluation._aisbench_course import Course, stage_of
from trainables.evaluation._aisbench_options import PRECHECK, AisbenchOptions
from trainables.evaluation._evaluator import (
    EvaluationResult,
    Evaluator,
    Subject,
    register_evaluator,
)
from trainables.evaluation._prechecks import precheck_type, precheck_types

_MEASURING_MODES = ("all", "eval")
_QUANTIZATION = "quantization"


@register_evaluator("aisbench")
class AisbenchEvaluator(Evaluator):
    """Serves the model, asks the prechecks, then evaluates dataset by dataset with AISBench.

    Metrics are ``<dataset>/<key>`` with AISBench's keys, in its units: an accuracy in percent, with
    its binomial standard error as ``<dataset>/accuracy_se`` where it is a share of questions. Where
    there are prechecks, there is ``precheck/passed``: 1, or 0 for a model that failed one. Such a
    model was measured and found broken: no dataset is evaluated, and as a missing metric never
    meets a demand, it meets none.
    """

    Options = AisbenchOptions
    options: AisbenchOptions

    def carry_out(
        self, trial: TrialRun, subject: Subject, *, timeout: float
    ) -> Generator[Progress, None, EvaluationResult]:
        course = Course(self.options, trial, subject, time.monotonic() + timeout)
        yield from course.resume()
        if course.next_stage() is not None:
            yield from self._serve(trial, subject, course)
        return course.result({"engine": self._engine.options.type, **self._versions()})

    def _serve(
        self, trial: TrialRun, subject: Subject, course: Course
    ) -> Generator[Progress, None, None]:
        # The argument names the format of quantized weights, which a float model does not have.
        drop = not subject.quantized and self._names_quantization()
        options = {_QUANTIZATION: None} if drop else {}
        service = yield from start_service(
            trial, self._engine, model=subject.model, options=options
        )
        with service:
            course.served(service)
            yield from service.watch(course.rest(service))

    def datasets(self) -> Mapping[str, frozenset[str]]:
        return {name: frozenset(self.options.metric_keys(name)) for name in self.options.datasets}

    def stage_names(self) -> tuple[str, ...]:
        prechecks = (PRECHECK,) if self.options.precheck else ()
        return ("deploy", "health", *prechecks, *map(stage_of, self.options.datasets))

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        found = [(f"engine.{place}", said) for place, said in self._engine.problems()]
        if shutil.which(options.command[0]) is None:
            said = f"there is no program {options.command[0]!r} here; name AISBench's own, such as"
            found.append(("command", f"{said} [/opt/aisbench/bin/ais_bench]"))
        if options.settings.config_dir and not Path(options.settings.config_dir).is_dir():
            found.append(("settings.config_dir", f"{options.settings.config_dir} is no folder"))
        if PRECHECK in options.datasets and options.precheck:
            said = f"{PRECHECK} is what the prechecks report as; give the dataset another name"
            found.append((f"datasets.{PRECHECK}", said))
        keys = options.settings.default_metric_keys
        for name in keys if isinstance(keys, dict) else ():
            if name not in options.datasets:
                said = f"there is no dataset {name}"
                found.append((f"settings.default_metric_keys.{name}", said))
        return found + self._dataset_problems()

    def _dataset_problems(self) -> list[tuple[str, str]]:
        options = self.options
        found = []
        if options.settings.mode not in _MEASURING_MODES:
            found.append(("settings.mode", f"{options.settings.mode} yields no accuracy; say all"))
        for name, dataset in options.datasets.items():
            if dataset.mode and dataset.mode not in _MEASURING_MODES:
                said = f"{dataset.mode} yields no accuracy; say all"
                found.append((f"datasets.{name}.mode", said))
            if said := self._config_problem(dataset.config_name):
                found.append((f"datasets.{name}.config_name", said))
        return found

    def identity(self) -> Json:
        """Without what only decides how long it takes: rates, retries, timeouts, concurrency."""
        options, settings = self.options, self.options.settings
        datasets = {
            name: {
                **dataset.model_dump(mode="json", exclude={"request_rate"}),
                "mode": dataset.mode or settings.mode,
                "max_out_len": dataset.max_out_len or settings.max_out_len,
                "extra_args": [*settings.extra_args, *dataset.extra_args],
                "metric_keys": options.metric_keys(name),
                "config": config_digest(settings.config_dir, DATASETS, dataset.config_name),
                "data": data_digest(options.command[0], settings.config_dir, dataset.config_name),
            }
            for name, dataset in options.datasets.items()
        }
        return {
            "type": options.type,
            "engine": self._engine.identity(),
            "precheck": [
                {key: value for key, value in rule.items() if key != "timeout"}
                for rule in options.precheck
            ],
            "datasets": datasets,
            "generation_kwargs": settings.generation_kwargs,
            "pred_postprocessor": settings.pred_postprocessor or "",
            **self._versions(),
        }

    @classmethod
    def schema(cls) -> dict[str, Json]:
        document = super().schema()
        definitions = document.setdefault("$defs", {})
        properties = document["properties"]
        engines = plugin_schemas(engine_types(), engine_type, definitions)
        rules = plugin_schemas(precheck_types(), precheck_type, definitions)
        properties["engine"] = {"oneOf": engines}
        properties["precheck"]["items"] = {"oneOf": rules}
        return document

    @cached_property
    def _engine(self) -> Engine:
        return make_engine(self.options.engine)

    def _config_problem(self, name: str) -> str:
        options = self.options
        return config_problem(options.command[0], options.settings.config_dir, DATASETS, name)

    def _names_quantization(self) -> bool:
        args = getattr(self._engine.options, "args", {})
        return any(argument_name(key) == _QUANTIZATION for key in args)

    def _versions(self) -> dict[str, str]:
        own = aisbench_version(self.options.command[0])
        named = {"ais_bench": own} if own else {}
        return {**named, **self._engine.versions()}

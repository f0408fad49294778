"""One evaluation by AISBench under way: prechecks, then dataset after dataset."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Generator, Mapping
from pathlib import Path

from trainables._trial import Json, Progress, TrialFailure, TrialRun
from trainables.engines import Service
from trainables.evaluation._aisbench_command import Call, call_for
from trainables.evaluation._aisbench_options import ACCURACY, PRECHECK, AisbenchOptions
from trainables.evaluation._evaluator import EvaluationResult, Subject
from trainables.evaluation._options import SE_SUFFIX
from trainables.evaluation._prechecks import make_precheck
from trainables.evaluation._statistics import share_error

_REPORT_S = 30.0
"""What a stage program needs, beyond the time its work may take, to begin and to report."""
_LONGEST_NAME = 80
_PRINTED = 0.5e-4 + 1e-9
"""How much a share may differ from its printed percentage."""


class Course:
    """What has been found so far, and what comes next.

    A stage that an earlier attempt finished needs no engine, so :meth:`resume` takes in all that
    are known before one is started.

    Args:
        options: The evaluation block.
        trial: The trial.
        subject: What is evaluated.
        deadline: When all has to be done, on the monotonic clock.
    """

    def __init__(
        self, options: AisbenchOptions, trial: TrialRun, subject: Subject, deadline: float
    ) -> None:
        self._options, self._trial, self._subject = options, trial, subject
        self._deadline = deadline
        self._precheck: dict[str, Json] | None = None
        self._found: dict[str, dict[str, Json]] = {}
        self._seconds: dict[str, float] = {}

    def next_stage(self) -> str | None:
        """The stage that has to run next; None when nothing is left to find out."""
        if self._options.precheck and self._precheck is None:
            return PRECHECK
        name = self._next_dataset()
        return None if name is None else stage_of(name)

    def resume(self) -> Generator[Progress, None, None]:
        """Take in what is known."""
        while (stage := self.next_stage()) is not None and self._trial.known(stage) is not None:
            yield from self._advance(None)

    def served(self, service: Service) -> None:
        """Note how long the engine took to come up."""
        for stage, seconds in service.seconds.items():
            self._seconds[stage] = seconds
            self._trial.stages.append({"name": stage, "seconds": seconds, "resumed": False})

    def rest(self, service: Service) -> Generator[Progress, None, None]:
        """Everything that is left, asked of ``service``."""
        while self.next_stage() is not None:
            yield from self._advance(service)

    def result(self, environment: Mapping[str, Json]) -> EvaluationResult:
        """What was found."""
        metrics: dict[str, float] = {}
        datasets: dict[str, Json] = {}
        if self._precheck is not None:
            metrics[f"{PRECHECK}/passed"] = float(self._precheck["passed"])
            datasets[PRECHECK] = self._precheck
        for name, found in self._found.items():
            for key, text in found["values"].items():
                metrics[f"{name}/{key}"] = float(text)
                error = _accuracy_error(float(text), found["items"]) if key == ACCURACY else None
                if error is not None:
                    metrics[f"{name}/{key}{SE_SUFFIX}"] = error
            datasets[name] = found
        return EvaluationResult(
            metrics,
            {},
            datasets,
            skipped=tuple(name for name in self._options.datasets if name not in self._found),
            seconds=self._seconds,
            environment=environment,
            note=self._note(),
        )

    def _note(self) -> str:
        """Why datasets were skipped, if some were."""
        if self._precheck is not None and not self._precheck["passed"]:
            return f"the precheck {_fault(self._precheck)}"
        skipped = [name for name in self._options.datasets if name not in self._found]
        return f"not evaluated after that: {', '.join(skipped)}" if skipped else ""

    def _next_dataset(self) -> str | None:
        if self._precheck is not None and not self._precheck["passed"]:
            return None
        if any(self._breaks(rule.dataset) for rule in self._subject.stop_when):
            return None
        return next((name for name in self._options.datasets if name not in self._found), None)

    def _breaks(self, dataset: str) -> bool:
        """Whether a demand on ``dataset`` cannot be met any more: its metric is bad or missing."""
        found = self._found.get(dataset)
        if found is None:
            return False
        values = found["values"]
        return any(
            rule.metric not in values or rule.broken_by(float(values[rule.metric]))
            for rule in self._subject.stop_when
            if rule.dataset == dataset
        )

    def _advance(self, service: Service | None) -> Generator[Progress, None, None]:
        """Run the next stage; one that is known needs no service."""
        name = None if self.next_stage() == PRECHECK else self._next_dataset()
        if name is None:
            yield from self._check(service)
        else:
            yield from self._evaluate(name, service)

    def _check(self, service: Service | None) -> Generator[Progress, None, None]:
        blocks = self._options.precheck
        request: dict[str, Json] = {"rules": blocks}
        if service is not None:
            request |= {"url": service.base_url, "model": service.served_name}
        rules = [make_precheck(block) for block in blocks]
        needed = sum(rule.questions() * rule.options.timeout for rule in rules)
        timeout = min(needed, self._left(PRECHECK)) + _REPORT_S
        module = "trainables.evaluation.precheck"
        found = yield from self._trial.program(PRECHECK, module, request, timeout=timeout)
        if not found["passed"] and not self._subject.quantized:
            raise _float_model_fails(found)
        self._precheck = found
        self._seconds[PRECHECK] = found["seconds"]

    def _evaluate(self, name: str, service: Service | None) -> Generator[Progress, None, None]:
        stage = stage_of(name)
        request: dict[str, Json] = {}
        timeout = left = self._left(stage)
        if service is not None:
            call = self._call(name, service, left)
            request, timeout = call.model_dump(mode="json"), call.timeout
        module = "trainables.evaluation.run_aisbench"
        program = self._trial.program(stage, module, request, timeout=timeout + _REPORT_S)
        found = yield from program
        self._found[name] = {"config_name": self._options.datasets[name].config_name, **found}
        self._seconds[name] = found["seconds"]

    def _call(self, name: str, service: Service, left: float) -> Call:
        folder, at = self._trial.folder, service.deployment
        logs = Path(self._options.settings.log_dir or folder / "aisbench_logs")
        short = self._trial.spec.identity[:8]
        return call_for(
            self._options,
            name,
            served={
                "path": str(at.model),
                "model": service.served_name,
                "host_ip": at.host,
                "host_port": at.port,
            },
            trial=short,
            folder=folder / "aisbench_output" / file_safe(name),
            log=logs / f"{file_safe(name)}_trial{short}.log",
            timeout=left,
        )

    def _left(self, stage: str) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TrialFailure(
                "timeout",
                stage,
                f"no time is left for {stage}: the evaluation took longer than it may",
                suggestion="raise the trial's timeouts.evaluate, or evaluate less",
            )
        return left


def _accuracy_error(percent: float, items: int | None) -> float | None:
    """Standard error, in percent, of an accuracy that is the share of ``items`` answered right.

    None where it is no such share, but for instance a mean of marks or over several attempts: then
    it stands for no whole number of items, as far as two printed decimals tell.
    """
    if items is None or not 0 <= percent <= 100:
        return None
    right = percent / 100 * items
    if abs(right - round(right)) > items * _PRINTED:
        return None
    error = share_error(percent / 100, items)
    return None if error is None else 100 * error


def stage_of(dataset: str) -> str:
    """The stage that evaluates a dataset."""
    return f"evaluate-{file_safe(dataset)}"


def file_safe(name: str) -> str:
    """``name`` as part of a file's name; another one for every other name."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:_LONGEST_NAME]
    if safe == name:
        return name
    return f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _float_model_fails(found: Mapping[str, Json]) -> TrialFailure:
    """The float model is what all others are measured by: if it fails, the question is wrong."""
    return TrialFailure(
        "input",
        PRECHECK,
        f"the float model itself fails the precheck {_fault(found)}",
        suggestion="ask something that the float model answers, or check engine.args",
    )


def _fault(found: Mapping[str, Json]) -> str:
    """The rule that a model failed, and how."""
    fault = found["rules"][-1]
    asked = f"asked {fault['message']!r} it replied {fault['reply'][:200]!r}"
    return f"{fault['type']}: {asked}; {fault['reason']}"

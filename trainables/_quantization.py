"""The quantization trial: quantize, then evaluate what was written.

Kinds: ``baseline`` evaluates the float model, ``candidate`` a quantization of it, ``analysis``
ranks its layers by sensitivity, ``verification`` proves that what is about to be delivered is the
winner: its own weights, just as they are delivered.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainables._blocks import model_folder, model_ready
from trainables._extras import how_to_install, missing_modules
from trainables._measurement import Measurement
from trainables._program import StageError
from trainables._quantization_checks import find_problems
from trainables._quantization_demands import broken_rule, stop_rules
from trainables._quantization_options import QuantizationOptions, QuantizationSearch
from trainables._quantization_practice import PARAMETERS, Practices
from trainables._trial import Json, Progress, Result, Steps, TrialRun
from trainables._types import TrialType, register_trial_type
from trainables.analysis import AnalysisOptions, groups_of, table, write_picture, write_table
from trainables.evaluation import (
    SE_SUFFIX,
    EvaluationResult,
    Evaluator,
    StopRule,
    Subject,
    evaluation_schema,
    make_evaluator,
    resolved_block,
)
from trainables.models import (
    ModelError,
    describe_model,
    model_fingerprint,
    read_header,
    verify_digest,
    weight_files,
)
from trainables.quantization import (
    MsModelSlimOptions,
    Quantizer,
    calibration_digest,
    make_quantizer,
)

_WEIGHTS = "artifacts/weights"


@register_trial_type("quantization")
class QuantizationTrial(TrialType):
    """Parameters a strategy may vary: ``fallback`` (layer names kept in float), ``scheme``,
    ``smoothquant``, and the practice's processors (see :class:`Practices`).
    Metrics: ``<dataset>/<metric>`` and ``weight_bytes``."""

    Options = QuantizationOptions
    SearchOptions = QuantizationSearch
    options: QuantizationOptions
    search: QuantizationSearch

    @classmethod
    def schema(cls) -> dict[str, Json]:
        document = super().schema()
        evaluation = evaluation_schema()
        document.setdefault("$defs", {}).update(evaluation.pop("$defs"))
        document["properties"]["evaluation"] = evaluation
        return document

    @cached_property
    def practices(self) -> Practices:
        """What proposals stand for."""
        return Practices(self.options, self.search)

    def prepare(self, trial: TrialRun) -> Generator[Progress, None, None]:
        yield from model_ready(trial, self.options.model)
        try:
            describe_model(self._folder())
        except ModelError as error:
            raise StageError("input", f"trial.model: {error}") from error

    def identity(self, kind: str) -> Json:
        options = self.options
        document: dict[str, Json] = {"model": model_fingerprint(self._folder())}
        if kind != "analysis":
            document["evaluation"] = self._evaluator.identity()
        if kind != "baseline":
            document["practice"] = self.practices.base.digest()
        if kind == "analysis":
            analysis = self._analysis()
            document["analysis"] = analysis.identity()
            document["calibration"] = _content(analysis.calibration)
        elif kind != "baseline":
            document["rollback_path"] = self.practices.rollback_path
            document["quantizer"] = self._quantizer.identity()
            document["calibration"] = self._quantizer.calibration_identity(
                self.practices.base, options.calibration
            )
        return document

    def settings(self) -> dict[str, Json]:
        """Options as JSON for another node, with another working folder."""
        settings = super().settings()
        settings["options"]["evaluation"] = resolved_block(self.options.evaluation)
        return settings

    def problems(self) -> list[tuple[str, str]]:
        return find_problems(self.options, self.practices)

    def parameter_names(self) -> frozenset[str]:
        return PARAMETERS

    def datasets(self) -> Mapping[str, frozenset[str]] | None:
        try:
            return self._evaluator.datasets()
        except (ValidationError, KeyError, ImportError):
            return None  # said by the check of the evaluation itself

    def metric_names(self) -> frozenset[str] | None:
        datasets = self.datasets()
        if datasets is None:
            return None
        named = {f"{name}/{metric}" for name, own in datasets.items() for metric in own}
        return frozenset({*named, *(f"{name}{SE_SUFFIX}" for name in named), "weight_bytes"})

    def stage_names(self, kind: str) -> tuple[str, ...]:
        evaluation = self._evaluator.stage_names()
        return {
            "baseline": evaluation,
            "analysis": ("analyze",),
            "candidate": ("quantize", *evaluation),
            "verification": ("deliver", *(evaluation if self._measures_again else ())),
        }[kind]

    def fallback_groups(self) -> int | None:
        """What the analysis will rank, by the shapes of the checkpoint's weights."""
        folder = self._folder()
        try:
            names = [
                name.removesuffix(".weight")
                for file in weight_files(folder)
                for name, tensor in read_header(folder / file).items()
                if name.endswith("_proj.weight") and len(tensor["shape"]) == 2
            ]
        except ModelError:
            return None
        return len(groups_of(names, self.search.analysis.unit)) or None

    def verifies(self) -> bool:
        return True

    def run(self, trial: TrialRun) -> Steps:
        yield from model_ready(trial, self.options.model)
        kind = trial.spec.kind
        if kind == "baseline":
            return (yield from self._baseline(trial))
        if kind == "analysis":
            return (yield from self._analyzed(trial))
        if kind == "verification":
            return (yield from self._verified(trial))
        weights, quantized = yield from self._quantized(trial)
        return (yield from self._measured(trial, weights, quantized))

    def practice_document(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return self.practices.of(parameters).document()

    def pedigree(self) -> str:
        return self._quantizer.pedigree()

    def deliver(self, verified: Measurement, folder: Path) -> None:
        weights = Path(verified.artifacts["weights"]["path"])
        weights.rename(folder / "weights")

    def holds(self, verified: Measurement, folder: Path) -> bool:
        weights, files = folder / "weights", verified.artifacts["weights"]["files"]
        return weights.is_dir() and not verify_digest(weights, files)

    def deliverables(self, parameters: Mapping[str, Json]) -> Mapping[str, str]:
        practice = self.practices.of(parameters)
        if model_type := getattr(self._quantizer.options, "model_type", None):
            verified = {"verified_model_types": [model_type]}
            metadata = practice.metadata.model_copy(update=verified)
            practice = practice.model_copy(update={"metadata": metadata})
        return {"practice.yaml": practice.yaml()}

    def show_analysis(self, data: Mapping[str, Json], folder: Path) -> list[str]:
        write_table(data, folder / "sensitivity.yaml")
        lines = [*table(data).splitlines(), f"table:   {folder / 'sensitivity.yaml'}"]
        if missing_modules("picture"):
            return [*lines, f"no picture: needs matplotlib; {how_to_install('quantize')}"]
        write_picture(data, folder / "sensitivity.png")
        return [*lines, f"picture: {folder / 'sensitivity.png'}"]

    def _folder(self) -> Path:
        return model_folder(self.options.model)

    def _baseline(self, trial: TrialRun) -> Steps:
        evaluated = yield from self._evaluated(trial, self._folder(), quantized=False)
        return Result(evaluated.metrics, _data(evaluated), {}, evaluated.environment)

    def _measured(self, trial: TrialRun, weights: Path, quantized: Mapping[str, Json]) -> Steps:
        evaluated = yield from self._evaluated(trial, weights, quantized=True)
        artifact = {
            "path": str(weights),
            "files": quantized["files"],
            "practice": self.practices.of(trial.spec.parameters).document(),
        }
        data = _data(evaluated)
        if broken := broken_rule(self._stop_rules(trial), evaluated):
            data["stopped"] = broken
        metrics = {"weight_bytes": float(quantized["bytes"]), **evaluated.metrics}
        return Result(metrics, data, {"weights": artifact}, evaluated.environment)

    def _quantized(
        self, trial: TrialRun
    ) -> Generator[Progress, None, tuple[Path, dict[str, Json]]]:
        options, weights = self.options, trial.folder / _WEIGHTS
        calibration = options.calibration.model_dump()
        calibration["seed"] += trial.spec.repeat
        result = yield from trial.program(
            "quantize",
            "trainables.quantization.quantize",
            {
                "model": str(self._folder()),
                "practice": self.practices.of(trial.spec.parameters).document(),
                "quantizer": options.quantizer,
                "output": str(weights),
                "calibration": calibration,
                "device": options.device,
                "threads": options.threads,
                "trust_remote_code": options.trust_remote_code,
            },
            timeout=options.timeouts.quantize,
            valid=lambda result: weights.is_dir() and not _sizes_differ(weights, result["sizes"]),
        )
        return weights, result

    def _verified(self, trial: TrialRun) -> Steps:
        """The winner's own weights, moved here; made again where they no longer exist.

        Weights made again are measured again. Those that are, byte for byte, what the winner was
        measured from, are so too unless the experiment is content with their digest.
        """
        source = trial.spec.context.get("source")
        winner = None if source is None else Measurement.read(Path(source))
        kept = None
        if source is not None and winner is not None:
            kept = yield from self._taken_over(trial, Path(source), winner)
        if kept is None:
            weights, quantized = yield from self._quantized(trial)
            return (yield from self._measured(trial, weights, quantized))
        assert winner is not None
        if self._measures_again:
            quantized = {"files": winner.artifacts["weights"]["files"]}
            quantized["bytes"] = winner.metrics["weight_bytes"]
            return (yield from self._measured(trial, kept, quantized))
        artifact = {**winner.artifacts["weights"], "path": str(kept)}
        data = {"verified_by": "digest", "measured_by": winner.identity}
        return Result(winner.metrics, data, {"weights": artifact}, winner.environment)

    def _taken_over(
        self, trial: TrialRun, source: Path, winner: Measurement
    ) -> Generator[Progress, None, Path | None]:
        """The winner's weights, here and whole; None if they are gone or damaged."""
        weights = trial.folder / _WEIGHTS
        yield Progress("deliver")
        if not weights.exists() and (kept := source / _WEIGHTS).is_dir():
            weights.parent.mkdir(parents=True, exist_ok=True)
            kept.rename(weights)
        if not weights.is_dir():
            return None
        request = {"folder": str(weights), "files": winner.artifacts["weights"]["files"]}
        result = yield from trial.program(
            "deliver",
            "trainables.models.verify",
            request,
            timeout=self.options.timeouts.quantize,
            valid=lambda result: False,
        )
        if result["faults"]:
            shutil.rmtree(weights)
            return None
        return weights

    def _evaluated(
        self, trial: TrialRun, model: Path, *, quantized: bool
    ) -> Generator[Progress, None, EvaluationResult]:
        options = self.options
        subject = Subject(
            model=model,
            device=options.device.partition(",")[0],
            threads=options.threads,
            trust_remote_code=options.trust_remote_code,
            quantized=quantized,
            stop_when=self._stop_rules(trial),
        )
        evaluator, timeout = self._evaluator, options.timeouts.evaluate
        return (yield from evaluator.carry_out(trial, subject, timeout=timeout))

    def _stop_rules(self, trial: TrialRun) -> tuple[StopRule, ...]:
        """The demands the driver told of."""
        if not self.options.fast_fail:
            return ()
        return stop_rules(trial.spec.context.get("demands", ()), self._evaluator.datasets())

    def _analyzed(self, trial: TrialRun) -> Steps:
        options = self.options
        result = yield from trial.program(
            "analyze",
            "trainables.analysis.analyze",
            {
                "model": str(self._folder()),
                "practice": self.practices.base.document(),
                "device": options.device,
                "threads": options.threads,
                "trust_remote_code": options.trust_remote_code,
                **self._analysis().model_dump(mode="json"),
            },
            timeout=options.timeouts.analyze,
        )
        return Result({"groups": float(len(result["ranking"]))}, data=result)

    @cached_property
    def _quantizer(self) -> Quantizer:
        return make_quantizer(self.options.quantizer)

    @cached_property
    def _evaluator(self) -> Evaluator:
        return make_evaluator(self.options.evaluation)

    @property
    def _measures_again(self) -> bool:
        return self.options.verify == "measure"

    def _analysis(self) -> AnalysisOptions:
        """The analysis' options, with the trial's calibration and tool where it names none."""
        given = self.search.analysis
        calibration = self.options.calibration.model_dump() | given.calibration
        update: dict[str, Any] = {"calibration": calibration}
        tool = self._quantizer.options
        if given.msmodelslim is None and isinstance(tool, MsModelSlimOptions):
            update["msmodelslim"] = tool
        return given.model_copy(update=update)


def _data(evaluated: EvaluationResult) -> dict[str, Json]:
    data: dict[str, Json] = {"per_item": evaluated.per_item, "datasets": evaluated.datasets}
    if evaluated.skipped:
        data["skipped"] = list(evaluated.skipped)
    if evaluated.note:
        data["note"] = evaluated.note
    return data


def _content(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """A calibration by what its file holds, wherever that lies."""
    rest = {key: value for key, value in calibration.items() if key != "dataset"}
    return {**rest, "content": calibration_digest(calibration["dataset"])}


def _sizes_differ(folder: Path, sizes: Mapping[str, int]) -> bool:
    """Whether weights kept for a resumed trial are not what the quantizer left."""
    return any(
        not (folder / name).is_file() or (folder / name).stat().st_size != size
        for name, size in sizes.items()
    )

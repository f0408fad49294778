"""The quantization trial: quantize, then evaluate what was written.

Kinds: ``baseline`` evaluates the float model, ``candidate`` a quantization of it, ``analysis``
ranks its layers by sensitivity, ``verification`` evaluates the winner's own weights once more, just
as they are delivered.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trainables._extras import how_to_install, missing_modules
from trainables._measurement import Measurement
from trainables._program import StageError
from trainables._quantization_options import QuantizationOptions, QuantizationSearch
from trainables._trial import Json, Progress, Result, Steps, TrialRun
from trainables._types import TrialType, register_trial_type
from trainables.analysis import AnalysisOptions, table, write_picture, write_table
from trainables.evaluation import SE_SUFFIX, Evaluator, make_evaluator
from trainables.models import (
    ModelError,
    builtin_folder,
    builtin_source,
    describe_model,
    is_builtin,
    is_complete,
    model_fingerprint,
    read_header,
    verify_digest,
    weight_files,
)
from trainables.quantization import (
    Practice,
    PracticeError,
    Quantizer,
    calibration_digest,
    check_rollback_path,
    default_rollback_path,
    fused_with,
    make_quantizer,
    parse_practice,
    practice_from_scheme,
    with_fallback,
)

_WEIGHTS = "artifacts/weights"
_PARAMETERS = frozenset({"fallback", "scheme", "smoothquant"})


@register_trial_type("quantization")
class QuantizationTrial(TrialType):
    """Parameters a strategy may vary: ``fallback`` (layer names kept in float), ``scheme``,
    ``smoothquant``. Metrics: ``<dataset>/<metric>`` and ``weight_bytes``."""

    Options = QuantizationOptions
    SearchOptions = QuantizationSearch
    options: QuantizationOptions
    search: QuantizationSearch

    def prepare(self, trial: TrialRun) -> Generator[Progress, None, None]:
        yield from self._model(trial)
        try:
            describe_model(self._folder())
        except ModelError as error:
            raise StageError("input", f"trial.model: {error}") from error

    def identity(self, kind: str) -> Json:
        options = self.options
        document: dict[str, Json] = {"model": model_fingerprint(self._folder())}
        if kind != "analysis":
            document["evaluation"] = self._evaluator().identity(options.evaluation.datasets)
        if kind != "baseline":
            document["practice"] = self._base_practice({}).digest()
        if kind == "analysis":
            analysis = self._analysis()
            document["analysis"] = analysis.model_dump(mode="json", exclude={"calibration"})
            document["calibration"] = _content(analysis.calibration)
        elif kind != "baseline":
            document["rollback_path"] = self._rollback_path({})
            document["quantizer"] = self._quantizer().identity()
            document["calibration"] = _content(options.calibration.model_dump())
        return document

    def problems(self) -> list[tuple[str, str]]:
        problems = [*self._model_problems(), *self._practice_problems()]
        if missing := missing_modules("quantize"):
            said = f"needs {', '.join(missing)}; {how_to_install('quantize')}"
            problems.append(("trial.type", said))
        for path, make in (
            ("trial.quantizer", self._quantizer),
            ("trial.evaluation", self._evaluator),
        ):
            try:
                made = make()
            except (ValidationError, KeyError, ImportError, ValueError) as error:
                problems.append((path, _plain(error)))
                continue
            if isinstance(made, Evaluator):
                found = made.problems(self.options.evaluation.datasets)
                problems += [(f"trial.evaluation.datasets.{at}", said) for at, said in found]
        try:
            calibration_digest(self.options.calibration.dataset)
        except (OSError, ValueError) as error:
            problems.append(("trial.calibration.dataset", str(error)))
        return problems

    def parameter_names(self) -> frozenset[str]:
        return _PARAMETERS

    def datasets(self) -> Mapping[str, frozenset[str]]:
        datasets = self.options.evaluation.datasets
        return {name: frozenset(dataset.metrics) for name, dataset in datasets.items()}

    def metric_names(self) -> frozenset[str]:
        named = {f"{name}/{metric}" for name, own in self.datasets().items() for metric in own}
        return frozenset({*named, *(f"{name}{SE_SUFFIX}" for name in named), "weight_bytes"})

    def stage_names(self, kind: str) -> tuple[str, ...]:
        return {
            "baseline": ("evaluate",),
            "analysis": ("analyze",),
            "candidate": ("quantize", "evaluate"),
            "verification": ("deliver", "evaluate"),
        }[kind]

    def fallback_groups(self) -> int | None:
        """Linear layers of the checkpoint, fused ones as one, by the shapes of its weights."""
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
        return len({fused_with(name) for name in names}) or None

    def verifies(self) -> bool:
        return True

    def run(self, trial: TrialRun) -> Steps:
        yield from self._model(trial)
        kind, parameters = trial.spec.kind, trial.spec.parameters
        if kind == "baseline":
            return (yield from self._evaluated(trial, self._folder(), {}, {}))
        if kind == "analysis":
            return (yield from self._analyzed(trial))
        if kind == "verification":
            weights, quantized = yield from self._delivered(trial)
        else:
            weights, quantized = yield from self._quantized(trial)
        artifact = {
            "path": str(weights),
            "files": quantized["files"],
            "practice": self.practice(parameters).document(),
        }
        metrics = {"weight_bytes": float(quantized["bytes"])}
        return (yield from self._evaluated(trial, weights, metrics, {"weights": artifact}))

    def practice(self, parameters: Mapping[str, Json]) -> Practice:
        """The practice that a proposal's parameters stand for."""
        practice = self._base_practice(parameters)
        fallback = parameters.get("fallback")
        if not fallback:
            return practice
        return with_fallback(practice, self._rollback_path(parameters), fallback)

    def deliver(self, verified: Measurement, folder: Path) -> None:
        weights = Path(verified.artifacts["weights"]["path"])
        weights.rename(folder / "weights")

    def holds(self, verified: Measurement, folder: Path) -> bool:
        weights, files = folder / "weights", verified.artifacts["weights"]["files"]
        return weights.is_dir() and not verify_digest(weights, files)

    def deliverables(self, parameters: Mapping[str, Json]) -> Mapping[str, str]:
        return {"practice.yaml": self.practice(parameters).yaml()}

    def show_analysis(self, data: Mapping[str, Json], folder: Path) -> list[str]:
        write_table(data, folder / "sensitivity.yaml")
        lines = [*table(data).splitlines(), f"table:   {folder / 'sensitivity.yaml'}"]
        if missing_modules("picture"):
            return [*lines, f"no picture: needs matplotlib; {how_to_install('quantize')}"]
        write_picture(data, folder / "sensitivity.png")
        return [*lines, f"picture: {folder / 'sensitivity.png'}"]

    def _model(self, trial: TrialRun) -> Generator[Progress, None, None]:
        """Have the built-in model converted, once for each node's cache."""
        if is_builtin(self.options.model) and not is_complete(self._folder()):
            request = {"model": self.options.model}
            yield from trial.program("convert", "trainables.models.convert", request, timeout=1800)

    def _folder(self) -> Path:
        model = self.options.model
        return builtin_folder(model) if is_builtin(model) else Path(model)

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
                "practice": self.practice(trial.spec.parameters).document(),
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

    def _delivered(
        self, trial: TrialRun
    ) -> Generator[Progress, None, tuple[Path, dict[str, Json]]]:
        """The winner's own weights, moved here; made again where they no longer exist."""
        weights, source = trial.folder / _WEIGHTS, trial.spec.context.get("source")
        winner = None if source is None else Measurement.read(Path(source))
        if winner is None:
            return (yield from self._quantized(trial))
        assert source is not None
        files = winner.artifacts["weights"]["files"]
        yield Progress("deliver")
        if not weights.exists() and (kept := Path(source) / _WEIGHTS).is_dir():
            weights.parent.mkdir(parents=True, exist_ok=True)
            kept.rename(weights)
        if not weights.is_dir():
            return (yield from self._quantized(trial))
        request = {"folder": str(weights), "files": files}
        result = yield from trial.program(
            "deliver",
            "trainables.models.verify",
            request,
            timeout=self.options.timeouts.quantize,
            valid=lambda result: False,
        )
        if result["faults"]:
            shutil.rmtree(weights)
            return (yield from self._quantized(trial))
        return weights, {"files": files, "bytes": winner.metrics["weight_bytes"]}

    def _evaluated(
        self,
        trial: TrialRun,
        model: Path,
        metrics: Mapping[str, float],
        artifacts: Mapping[str, Json],
    ) -> Steps:
        options = self.options
        datasets = options.evaluation.datasets
        result = yield from trial.program(
            "evaluate",
            "trainables.evaluation.evaluate",
            {
                "model": str(model),
                "evaluator": options.evaluation.evaluator,
                "datasets": {name: one.model_dump(mode="json") for name, one in datasets.items()},
                "device": options.device,
                "threads": options.threads,
                "trust_remote_code": options.trust_remote_code,
            },
            timeout=options.timeouts.evaluate,
        )
        data = {"per_item": result["per_item"], "datasets": result["datasets"]}
        return Result({**metrics, **result["metrics"]}, data, artifacts, result["environment"])

    def _analyzed(self, trial: TrialRun) -> Steps:
        options = self.options
        result = yield from trial.program(
            "analyze",
            "trainables.analysis.analyze",
            {
                "model": str(self._folder()),
                "practice": self._base_practice({}).document(),
                "device": options.device,
                "threads": options.threads,
                "trust_remote_code": options.trust_remote_code,
                **self._analysis().model_dump(mode="json"),
            },
            timeout=options.timeouts.analyze,
        )
        return Result({"groups": float(len(result["ranking"]))}, data=result)

    def _base_practice(self, parameters: Mapping[str, Json]) -> Practice:
        """The practice before any fallback; parameters may override the shorthand."""
        given = self.options.practice
        if given.template is not None:
            return parse_practice(given.template)
        if given.file is not None:
            return parse_practice(yaml.safe_load(Path(given.file).read_text(encoding="utf-8")))
        assert given.scheme is not None
        return practice_from_scheme(
            parameters.get("scheme", given.scheme),
            parameters.get("smoothquant", given.smoothquant),
            dataset=self.options.calibration.dataset,
        )

    def _rollback_path(self, parameters: Mapping[str, Json]) -> str:
        given = self.search.rollback_path
        return default_rollback_path(self._base_practice(parameters)) if given is None else given

    def _quantizer(self) -> Quantizer:
        return make_quantizer(self.options.quantizer)

    def _evaluator(self) -> Evaluator:
        return make_evaluator(self.options.evaluation.evaluator)

    def _analysis(self) -> AnalysisOptions:
        """The analysis' options, with the trial's calibration where it names none."""
        given = self.search.analysis
        calibration = self.options.calibration.model_dump() | given.calibration
        return given.model_copy(update={"calibration": calibration})

    def _model_problems(self) -> list[tuple[str, str]]:
        model = self.options.model
        try:
            if is_builtin(model):
                builtin_source(model)
            else:
                describe_model(Path(model))
        except ModelError as error:
            return [("trial.model", str(error))]
        return []

    def _practice_problems(self) -> list[tuple[str, str]]:
        try:
            practice = self._base_practice({})
        except (OSError, ValueError, yaml.YAMLError) as error:
            return [("trial.practice", str(error))]
        try:
            check_rollback_path(practice, self._rollback_path({}))
            found = self._quantizer().problems(practice)
        except PracticeError as error:
            return [("search.rollback_path", str(error))]
        except (ValidationError, KeyError, ImportError):
            return []  # said by the check of the quantizer itself
        return [("trial.practice", said) for said in found]


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


def _plain(error: Exception) -> str:
    if isinstance(error, ValidationError):
        faults = error.errors()
        return "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in faults)
    return str(error.args[0]) if error.args else str(error)

"""Stage program: rank the layers of a model by their sensitivity to quantization.

Request: see :class:`AnalysisRequest`. Result::

    {"ranking": [{"layers": [names], "score": float, "detail": {...}}, ...], worst first,
     "source", "metric", "on", "unit", "scheme", "calibration": {...}, "groups": int,
     "tokens": int, or null where the tool does not count them,
     "not_applied": [processors of the practice that the analysis leaves out],
     "seconds": {phase: float}, "tools": {name: version}}

``layers`` are linear layers, or decoder blocks (``model.layers.N``) where those are the unit.
Candidates are the layers the practice quantizes. The output head and the embeddings are none:
no scheme here quantizes them, so there is nothing to take back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from trainables._program import StageError, run_program
from trainables.analysis._groups import block_name, groups_of
from trainables.analysis._options import AnalysisRequest
from trainables.analysis._ranking import Scored, ranking
from trainables.quantization import Calibration, Practice, is_excluded
from trainables.quantization._phases import Phases

if TYPE_CHECKING:
    from trainables.analysis._measure import Subject


def analyze(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out a request document. Raises ``StageError``."""
    try:
        asked = AnalysisRequest.model_validate(request)
        practice = asked.resolved_practice()
    except (ValidationError, ValueError) as error:
        raise StageError("input", f"the analysis request is wrong: {error}") from error
    rank = _analyze_builtin if asked.source == "builtin" else _analyze_msmodelslim
    scored, facts = rank(asked, practice)
    try:
        steps = ranking(scored)
    except ValueError as error:
        raise StageError("input", f"the layers cannot be ranked: {error}") from error
    return {
        "ranking": steps,
        "source": asked.source,
        "metric": asked.metric,
        "on": asked.on,
        "unit": asked.unit,
        "scheme": asked.scheme or practice.metadata.config_id,
        "calibration": _calibration(asked, practice).model_dump(mode="json"),
        "groups": len(scored),
        "not_applied": _not_applied(practice),
        **facts,
    }


def _analyze_builtin(
    asked: AnalysisRequest, practice: Practice
) -> tuple[list[Scored], dict[str, Any]]:
    phases = Phases()
    with phases("load"):
        subject = _load(asked, practice)
    with phases("analyze"):
        scored = _scores(asked, subject)
    if asked.unit == "block":
        scored = [
            Scored((block_name(one.layers[0]) or one.layers[0],), one.score, one.detail)
            for one in scored
        ]
    return scored, {
        "tokens": sum(batch.numel() for batch in subject.batches),
        "seconds": phases.seconds,
        "tools": {name: version(name) for name in ("torch", "transformers")},
    }


def _analyze_msmodelslim(
    asked: AnalysisRequest, practice: Practice
) -> tuple[list[Scored], dict[str, Any]]:
    from trainables.analysis._msmodelslim import describes, msmodelslim_scores

    phases = Phases()
    with phases("analyze"):
        scored = msmodelslim_scores(asked, practice, _calibration(asked, practice))
    return scored, {
        "scheme": describes(asked, practice),
        "tokens": None,
        "seconds": phases.seconds,
        "tools": asked.tools(),
    }


def _calibration(asked: AnalysisRequest, practice: Practice) -> Calibration:
    try:
        return Calibration.model_validate({"dataset": practice.spec.dataset, **asked.calibration})
    except ValidationError as error:
        raise StageError("input", f"calibration: {error}") from error


def _load(asked: AnalysisRequest, practice: Practice) -> Subject:
    from trainables.analysis._measure import Subject
    from trainables.quantization._float_model import calibration_batches, load_float_model
    from trainables.quantization._quantizers import QuantizeJob

    calibration = _calibration(asked, practice)
    loaded = load_float_model(
        QuantizeJob(
            asked.model,
            practice,
            calibration,
            asked.device,
            asked.trust_remote_code,
            asked.threads,
        )
    )
    quantized = {name: scheme for name, scheme in loaded.layers.items() if scheme is not None}
    groups = _candidates(list(quantized), asked)
    return Subject(
        model=loaded.model,
        schemes={name: quantized[name] for group in groups for name in group},
        groups=groups,
        batches=calibration_batches(loaded, calibration),
    )


def _candidates(layers: Sequence[str], asked: AnalysisRequest) -> list[tuple[str, ...]]:
    groups = groups_of(layers, asked.unit)
    chosen = [group for group in groups if any(is_excluded(name, asked.include) for name in group)]
    if not chosen:
        raise StageError(
            "input",
            f"no quantized layer matches include {', '.join(asked.include)}; "
            f"there are {', '.join(layers[:3])}, ...",
        )
    return chosen


def _scores(asked: AnalysisRequest, subject: Subject) -> list[Scored]:
    from trainables.analysis._blocks import block_mse_scores
    from trainables.analysis._measure import distribution_scores, fisher_scores, mse_scores

    if asked.metric == "mse":
        return block_mse_scores(subject) if asked.unit == "block" else mse_scores(subject)
    if asked.metric == "fisher":
        return fisher_scores(subject, asked.seed)
    return distribution_scores(subject, asked.metric, asked.on)


def _not_applied(practice: Practice) -> list[str]:
    """Outlier suppressions, whose effect on the weights a ranking of the float model leaves out."""
    return [process.type for process in practice.spec.process if process.type != "linear_quant"]


if __name__ == "__main__":
    run_program(analyze)

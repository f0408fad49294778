"""The evaluator ``transformers``: log-likelihoods in its own process, without a serving engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainables._extras import how_to_install, missing_modules
from trainables._program import StageError
from trainables._trial import Json
from trainables.evaluation._data import DatasetError, dataset_digest, read_choices, read_text
from trainables.evaluation._evaluator import EvaluationResult, register_evaluator
from trainables.evaluation._in_process import EvaluationRequest, InProcessEvaluator
from trainables.evaluation._options import Dataset, TextDataset, TransformersOptions
from trainables.evaluation._statistics import metrics
from trainables.models import ModelError, describe_model

if TYPE_CHECKING:
    from trainables.evaluation._score import LanguageModel, Scored

_NEEDED = ("torch", "transformers", "compressed_tensors")


@register_evaluator("transformers")
class TransformersEvaluator(InProcessEvaluator):
    """Perplexity of texts and accuracy of multiple choice, by log-likelihood.

    Takes any causal model transformers can load. Of a checkpoint in compressed-tensors format the
    declared quantization, that of activations included, is applied and verified.
    """

    Options = TransformersOptions
    options: TransformersOptions

    def problems(self) -> list[tuple[str, str]]:
        found = []
        missing = [name for name in missing_modules("quantize") if name in _NEEDED]
        if missing:
            found.append(("type", f"{', '.join(missing)} missing: {how_to_install('quantize')}"))
        for name, dataset in self.options.datasets.items():
            try:
                _read(dataset)
            except DatasetError as error:
                found += [(f"datasets.{name}.path", problem) for problem in error.problems]
        return found

    def identity(self) -> Json:
        options = self.options
        return {
            "type": options.type,
            "dtype": options.dtype,
            "datasets": {
                name: {
                    **dataset.model_dump(mode="json", exclude={"path"}),
                    "digest": dataset_digest(dataset.path),
                }
                for name, dataset in options.datasets.items()
            },
        }

    def evaluate(self, request: EvaluationRequest) -> EvaluationResult:
        clock = _Clock()
        try:
            describe_model(Path(request.model))
        except ModelError as error:
            raise StageError("input", str(error)) from error
        import torch
        import transformers

        from trainables.evaluation._checkpoint import context_length, load_model, verify_scheme
        from trainables.evaluation._score import LanguageModel

        clock.lap("import")
        options = self.options
        if request.threads:
            torch.set_num_threads(request.threads)
        model, tokenizer = load_model(
            request.model,
            dtype=options.dtype,
            device=request.device,
            trust_remote_code=request.trust_remote_code,
        )
        clock.lap("load")
        scheme = verify_scheme(model, Path(request.model))
        clock.lap("verify")
        with torch.inference_mode():
            language_model = LanguageModel(
                model, tokenizer, context_length(model), options.batch_tokens
            )
            result = _evaluate_all(language_model, request)
        clock.lap("evaluate")
        environment = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "dtype": str(model.dtype).removeprefix("torch."),
            "scheme": scheme,
        }
        return EvaluationResult(
            **{**vars(result), "seconds": clock.laps, "environment": environment}
        )


def _evaluate_all(language_model: LanguageModel, request: EvaluationRequest) -> EvaluationResult:
    found: dict[str, float] = {}
    records: dict[str, Json] = {}
    facts: dict[str, Json] = {}
    for name, dataset in request.datasets.items():
        started = time.monotonic()
        try:
            scored = _score(language_model, dataset)
        except DatasetError as error:
            raise StageError("input", f"dataset {name}: {error}") from error
        values = metrics(scored.record)
        found |= {f"{name}/{metric}": value for metric, value in values.items()}
        records[name] = scored.record
        facts[name] = {
            "seconds": round(time.monotonic() - started, 3),
            "tokens": scored.tokens,
            "items": scored.items,
            "truncated": scored.truncated,
        }
        print(name, *(f"{metric} {value:.4g}" for metric, value in values.items()), flush=True)
        if any(
            rule.dataset == name and rule.broken_by(values[rule.metric])
            for rule in request.stop_when
        ):
            break
    return EvaluationResult(
        found,
        records,
        facts,
        skipped=tuple(name for name in request.datasets if name not in records),
        tokens=sum(int(fact["tokens"]) for fact in facts.values()),
    )


def _score(language_model: LanguageModel, dataset: Dataset) -> Scored:
    from trainables.evaluation._score import score_choices, score_text

    if isinstance(dataset, TextDataset):
        return score_text(
            language_model, read_text(dataset), tokens=dataset.tokens, window=dataset.window
        )
    return score_choices(language_model, read_choices(dataset), dataset.prompt)


def _read(dataset: Dataset) -> object:
    return read_text(dataset) if isinstance(dataset, TextDataset) else read_choices(dataset)


class _Clock:
    """Names the time that passes; ``laps`` has the seconds of each phase."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self._last = now

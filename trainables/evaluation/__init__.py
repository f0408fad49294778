"""Evaluation: what a model can still do, as metrics with standard errors. No torch here.

The stage program is ``python -m trainables.evaluation.evaluate``.
"""

from trainables.evaluation._data import (
    BUILTIN_DATASETS,
    ChoiceItem,
    DatasetError,
    dataset_digest,
    dataset_file,
    read_choices,
    read_text,
)
from trainables.evaluation._options import (
    CHOICE_METRICS,
    SE_SUFFIX,
    TEXT_METRICS,
    ChoiceDataset,
    Dataset,
    StopRule,
    TextDataset,
    TransformersOptions,
)
from trainables.evaluation._registry import (
    EvaluationRequest,
    EvaluationResult,
    Evaluator,
    evaluator_type,
    evaluator_types,
    make_evaluator,
    register_evaluator,
)
from trainables.evaluation._statistics import Difference, metrics, paired_difference
from trainables.evaluation._transformers import TransformersEvaluator

__all__ = [
    "BUILTIN_DATASETS",
    "CHOICE_METRICS",
    "SE_SUFFIX",
    "TEXT_METRICS",
    "ChoiceDataset",
    "ChoiceItem",
    "Dataset",
    "DatasetError",
    "Difference",
    "EvaluationRequest",
    "EvaluationResult",
    "Evaluator",
    "StopRule",
    "TextDataset",
    "TransformersEvaluator",
    "TransformersOptions",
    "dataset_digest",
    "dataset_file",
    "evaluator_type",
    "evaluator_types",
    "make_evaluator",
    "metrics",
    "paired_difference",
    "read_choices",
    "read_text",
    "register_evaluator",
]

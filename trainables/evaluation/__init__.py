"""Evaluation: what a model can still do, as metrics. No torch here.

``transformers`` and its like run in the stage program ``trainables.evaluation.evaluate``;
``aisbench`` serves the model and runs ``trainables.evaluation.precheck``, then
``trainables.evaluation.run_aisbench`` for each dataset. What an evaluator has to keep is checked
by :mod:`trainables.evaluation.testing`.
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
from trainables.evaluation._evaluator import (
    EvaluationResult,
    Evaluator,
    Subject,
    evaluation_schema,
    evaluator_type,
    evaluator_types,
    make_evaluator,
    register_evaluator,
    resolved_block,
)
from trainables.evaluation._in_process import EvaluationRequest, InProcessEvaluator
from trainables.evaluation._options import (
    CHOICE_METRICS,
    SE_SUFFIX,
    TEXT_METRICS,
    ChoiceDataset,
    Dataset,
    EvaluationOptions,
    PathText,
    StopRule,
    TextDataset,
    TransformersOptions,
)
from trainables.evaluation._prechecks import (
    Fault,
    Precheck,
    PrecheckOptions,
    make_precheck,
    precheck_types,
    register_precheck,
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
    "EvaluationOptions",
    "EvaluationRequest",
    "EvaluationResult",
    "Evaluator",
    "Fault",
    "InProcessEvaluator",
    "PathText",
    "Precheck",
    "PrecheckOptions",
    "StopRule",
    "Subject",
    "TextDataset",
    "TransformersEvaluator",
    "TransformersOptions",
    "dataset_digest",
    "dataset_file",
    "evaluation_schema",
    "evaluator_type",
    "evaluator_types",
    "make_evaluator",
    "make_precheck",
    "metrics",
    "paired_difference",
    "precheck_types",
    "read_choices",
    "read_text",
    "register_evaluator",
    "register_precheck",
    "resolved_block",
]

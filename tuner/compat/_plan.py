"""The plan file of ``msmodelslim tune``: its blocks, fields, defaults and ranges.

The engine's block is that of our own engines, whose names are the same; the practice in a strategy
is our :class:`trainables.quantization.Practice`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
)

from trainables.quantization import Practice


def _no_truth(value: Any) -> Any:
    """Python takes ``true`` for 1; who writes it for a number made a mistake."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


def _exact(value: Any) -> Any:
    """Lets ``0.83`` in YAML become the decimal 0.83 and not its nearest binary neighbour."""
    return str(value) if isinstance(value, (int, float)) else value


def _said(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


Text = Annotated[str, Field(max_length=4096)]
Name = Annotated[Text, AfterValidator(_said)]
Whole = Annotated[int, BeforeValidator(_no_truth)]
Real = Annotated[float, BeforeValidator(_no_truth), Field(allow_inf_nan=False)]
Exact = Annotated[
    Decimal, BeforeValidator(_exact), BeforeValidator(_no_truth), Field(allow_inf_nan=False)
]
Port = Annotated[Whole, Field(ge=1, le=65535)]


class PlanBlock(BaseModel):
    """Base of all blocks: unknown keys are refused, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StandingHighPlan(PlanBlock):
    """``strategy: {type: standing_high}``.

    Attributes:
        anti_outlier_strategies: Lists of processors to try in front of the template's; an empty
            list stands for none.
        template: The ``spec`` of a practice; by default static W8A8.
        metadata: The ``metadata`` of a practice.
    """

    type: Literal["standing_high"]
    anti_outlier_strategies: Annotated[list[list[dict[str, Any]]], Field(min_length=1)]
    template: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class StructurePlan(PlanBlock):
    """One sort of module, by its names, for which experience knows a quantization."""

    type: Name
    include: Annotated[list[Name], Field(min_length=1)]
    exclude: list[Text] | None = None


class ExperiencePlan(PlanBlock):
    """``strategy: {type: standing_high_with_experience}``."""

    type: Literal["standing_high_with_experience"]
    quant_type: Literal["w8a8", "w4a8"] = "w8a8"
    structure_configs: Annotated[list[StructurePlan], Field(min_length=1)]


class BinaryFallbackPlan(PlanBlock):
    """``strategy: {type: binary_fallback}``.

    Attributes:
        template: The complete practice.
        rollback_path: Dot path of the list in it that takes the fallback layers.
        rollback_candidates: Layers from the most to the least sensitive; without, they are ranked.
        analysis_dataset: Calibration data of that ranking; by default the template's.
    """

    type: Literal["binary_fallback"]
    template: Practice
    rollback_path: Name
    rollback_candidates: list[Name] | None = None
    analysis_dataset: Name | None = None

    @field_validator("rollback_candidates")
    @classmethod
    def _distinct(cls, names: list[str] | None) -> list[str] | None:
        twice = sorted({name for name in names or () if (names or []).count(name) > 1})
        if twice:
            raise ValueError(f"every candidate may stand only once; repeated: {', '.join(twice)}")
        return names


STRATEGIES: dict[str, type[StandingHighPlan | ExperiencePlan | BinaryFallbackPlan]] = {
    "standing_high": StandingHighPlan,
    "standing_high_with_experience": ExperiencePlan,
    "binary_fallback": BinaryFallbackPlan,
}


class ExpectationPlan(PlanBlock):
    """One demand: the dataset's accuracy is at least target minus tolerance."""

    dataset: Annotated[Name, Field(max_length=200)]
    target: Annotated[Exact, Field(gt=0)]
    tolerance: Annotated[Exact, Field(ge=0)]


class DemandPlan(PlanBlock):
    """``evaluation.demand``."""

    expectations: Annotated[list[ExpectationPlan], Field(min_length=1)]


class ModelMetaPlan(PlanBlock):
    """Where AISBench keeps configurations of models, and what the temporary one is called."""

    directory: Text = ""
    subdir: Text = "vllm_api"
    base_name: Text = "vllm_api_general_chat"
    name_suffix: Text = "auto"
    abbr: Text = "vllm-api-general-chat"
    attr: Text = "service"


class AisbenchPlan(PlanBlock):
    """``evaluation.evaluation.aisbench``: what holds for all datasets."""

    binary: Literal["ais_bench"] = "ais_bench"
    mode: Text = "all"
    timeout: Annotated[Whole, Field(gt=0)] = 7200
    cleanup_model_config: bool = True
    model_meta: ModelMetaPlan = ModelMetaPlan()
    request_rate: Annotated[Real, Field(gt=0)] = 1.0
    pred_postprocessor: Text = "extract_non_reasoning_content"
    retry: Annotated[Whole, Field(ge=0)] = 2
    batch_size: Annotated[Whole, Field(gt=0)] = 1
    max_out_len: Annotated[Whole, Field(gt=0)] = 512
    trust_remote_code: bool = False
    generation_kwargs: dict[str, Any] = {}
    extra_args: list[str] = []
    log_dir: Text = ""
    default_metric_keys: Annotated[list[Name], Field(min_length=1)] | None = None


class DatasetPlan(PlanBlock):
    """One dataset, and what differs for it."""

    config_name: Name
    mode: Text = ""
    request_rate: Annotated[Real, Field(ge=0)] = 0.0
    max_out_len: Annotated[Whole, Field(gt=0)] | None = None
    returns_tool_calls: bool | None = None
    api_chat_type: Name = "VLLMCustomAPIChat"
    chat_template_kwargs: dict[str, Any] = {}
    extra_args: list[str] = []


def _question(case: Any) -> Any:
    """``{question: answer}`` or ``{message: question, expected_answer: answer}``, as the latter."""
    if not isinstance(case, dict) or "message" in case:
        return case
    if len(case) != 1:
        raise ValueError("must be one question and its answer, as {What is 2+2?: '4'}")
    message, answer = next(iter(case.items()))
    return {"message": message, "expected_answer": answer}


class QuestionPlan(PlanBlock):
    """A question, and what its answer must contain; of several, any."""

    message: Name
    expected_answer: Text | list[Text] | None = None


GarbledItem = Literal[
    "empty_text", "repeated_char", "normal_char_ratio", "control_char", "repeated_pattern"
]
_ITEMS: list[GarbledItem] = list(get_args(GarbledItem))


def _items(value: Any) -> Any:
    if value is None:
        return _ITEMS
    return [value] if isinstance(value, str) else value


class GarbledCasePlan(PlanBlock):
    """A message whose answer must not look garbled."""

    message: Name
    items: Annotated[list[GarbledItem], BeforeValidator(_items)] = _ITEMS


class _PrecheckPlan(PlanBlock):
    max_tokens: Annotated[Whole, Field(gt=0)] = 512
    timeout: Annotated[Real, Field(gt=0)] = 60.0


class ExpectedAnswerPlan(_PrecheckPlan):
    """``precheck: [{type: expected_answer}]``."""

    type: Literal["expected_answer"]
    test_cases: Annotated[
        list[Annotated[QuestionPlan, BeforeValidator(_question)]], Field(min_length=1)
    ] = [QuestionPlan(message="What is 2+2?", expected_answer="4")]


_GREETING = [GarbledCasePlan(message="How are you?")]


def _cases(value: Any) -> Any:
    if value is None:
        return _GREETING
    return [value] if isinstance(value, dict) else value


class GarbledTextPlan(_PrecheckPlan):
    """``precheck: [{type: garbled_text}]``."""

    type: Literal["garbled_text"]
    test_cases: Annotated[list[GarbledCasePlan], BeforeValidator(_cases), Field(min_length=1)] = (
        _GREETING
    )


class OtherPrecheckPlan(BaseModel):
    """A rule of a plug-in."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: Name


def _precheck_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("expected_answer", "garbled_text") else "other"


Precheck = Annotated[
    Annotated[ExpectedAnswerPlan, Tag("expected_answer")]
    | Annotated[GarbledTextPlan, Tag("garbled_text")]
    | Annotated[OtherPrecheckPlan, Tag("other")],
    Discriminator(_precheck_kind),
]


def _several(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, dict) else value


class BenchmarkPlan(PlanBlock):
    """``evaluation.evaluation`` with ``type: aisbench``."""

    type: Literal["aisbench"]
    precheck: Annotated[list[Precheck], BeforeValidator(_several)] = []
    aisbench: AisbenchPlan = AisbenchPlan()
    datasets: dict[str, DatasetPlan] = {}
    host: Name = "localhost"
    port: Port = 1234
    served_model_name: Name = "served_model_name"

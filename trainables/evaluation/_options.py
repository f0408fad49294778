"""What an experiment may say about evaluation in a process of its own: datasets, stop rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

TEXT_METRICS = ("perplexity", "nll", "next_token_accuracy")
CHOICE_METRICS = ("accuracy", "accuracy_normalized")
SE_SUFFIX = "_se"
"""Every metric ``m`` comes with its standard error ``m_se``, unless there is only one item."""


def _absolute(path: str) -> str:
    """Nodes and later sessions have other working folders."""
    return path if path.startswith("builtin:") else str(Path(path).expanduser().absolute())


PathText = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]
"""A path, made absolute, or ``builtin:<name>``."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextDataset(_Strict):
    """Text whose next tokens are predicted.

    Attributes:
        path: ``builtin:prose``, a ``.txt`` file (one text), or a ``.jsonl`` file of objects with
            the key ``text`` (joined by blank lines).
        tokens: How many tokens are used at most, in windows spread evenly over the text.
        window: Tokens of one window; each is predicted from those before it in its window.
    """

    kind: Literal["text"] = "text"
    path: PathText
    tokens: PositiveInt = 4096
    window: int = Field(default=512, ge=2)

    @model_validator(mode="after")
    def _one_window(self) -> TextDataset:
        if self.tokens < self.window:
            raise ValueError(f"{self.tokens} tokens do not fill one window of {self.window}")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        return TEXT_METRICS


class ChoiceDataset(_Strict):
    """Questions with several answers to choose from, one of them right.

    Attributes:
        path: ``builtin:choice``, or a ``.jsonl`` file of objects ``{"question": text, "choices":
            [text, ...], "answer": index from 0, "subject": text (optional)}``; other keys are
            ignored.
        items: How many items are used at most, spread evenly over the file; all by default.
        prompt: What the model reads before an answer; ``{question}`` stands for the question.
            The answer follows after a space.
    """

    kind: Literal["multiple_choice"]
    path: PathText
    items: PositiveInt | None = None
    prompt: str = "Question: {question}\nAnswer:"

    @field_validator("prompt")
    @classmethod
    def _has_place(cls, value: str) -> str:
        if "{question}" not in value:
            raise ValueError("the prompt must contain {question}")
        return value

    @property
    def metrics(self) -> tuple[str, ...]:
        return CHOICE_METRICS


Dataset: TypeAlias = Annotated[TextDataset | ChoiceDataset, Field(discriminator="kind")]


class StopRule(_Strict):
    """Ends an evaluation early: no further dataset once this metric is worse than its limit.

    Attributes:
        dataset: The dataset whose metric is looked at, as soon as it is evaluated.
        metric: Its metric, such as ``accuracy``.
        limit: The worst value with which the evaluation goes on.
        direction: Which way is better.
    """

    dataset: str
    metric: str
    limit: float
    direction: Literal["higher", "lower"]

    def broken_by(self, value: float) -> bool:
        """Whether ``value`` is worse than the limit."""
        return value < self.limit if self.direction == "higher" else value > self.limit


class EvaluationOptions(_Strict):
    """The ``evaluation`` block of an evaluator that reads these datasets.

    Attributes:
        type: The evaluator.
        datasets: By the names that demands use, in the order of evaluation.
    """

    type: str
    datasets: Annotated[dict[str, Dataset], Field(min_length=1)]


class TransformersOptions(EvaluationOptions):
    """Options of the evaluator ``transformers``.

    Attributes:
        dtype: Type of weights and activations while evaluating. In ``float32`` a quantized model
            shows the damage of its quantization alone; ``auto`` is the checkpoint's own type.
        batch_tokens: Tokens of one forward pass, more or less; decides memory and speed only.
    """

    type: Literal["transformers"] = "transformers"
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    batch_tokens: PositiveInt = 1024

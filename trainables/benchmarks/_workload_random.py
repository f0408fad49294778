"""The workload ``random``: meaningless prompts of given lengths."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from trainables.benchmarks._workload import Ask, Workload, WorkloadOptions, register_workload
from trainables.benchmarks._workload_vocabulary import Form, Vocabulary


class _Length(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Uniform(_Length):
    """Every whole number from ``low`` to ``high``, equally likely."""

    type: Literal["uniform"] = "uniform"
    low: PositiveInt
    high: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is greater than high {self.high}")
        return self

    def draw(self, source: random.Random) -> int:
        return source.randint(self.low, self.high)


class Normal(_Length):
    """A normal distribution, rounded and cut off at ``low`` and ``high``."""

    type: Literal["normal"]
    mean: Annotated[float, Field(gt=0)]
    std: Annotated[float, Field(ge=0)]
    low: PositiveInt = 1
    high: PositiveInt | None = None

    def draw(self, source: random.Random) -> int:
        return _within(source.gauss(self.mean, self.std), self.low, self.high)


class LogNormal(_Length):
    """A log-normal distribution, as lengths of real conversations resemble: half of them are
    below ``median``, and ``sigma`` is the deviation of their natural logarithm."""

    type: Literal["lognormal"]
    median: Annotated[float, Field(gt=0)]
    sigma: Annotated[float, Field(ge=0)]
    low: PositiveInt = 1
    high: PositiveInt | None = None

    def draw(self, source: random.Random) -> int:
        value = source.lognormvariate(math.log(self.median), self.sigma)
        return _within(value, self.low, self.high)


Length: TypeAlias = (
    PositiveInt | Annotated[Uniform | Normal | LogNormal, Field(discriminator="type")]
)
"""A number of tokens, or how it is distributed."""


class RandomOptions(WorkloadOptions):
    """The block of random prompts.

    Attributes:
        input_tokens: Tokens of a prompt, its shared part included; at least one more than that.
        output_tokens: Tokens of an answer.
        prefix_tokens: Tokens at the beginning of a prompt that it shares with others.
        prefixes: How many different beginnings there are.
        form: ``text``, or ``token_ids`` (exact; only for engines whose completions take ids).
    """

    type: Literal["random"] = "random"
    input_tokens: Length = 512
    output_tokens: Length = 128
    prefix_tokens: NonNegativeInt = 0
    prefixes: PositiveInt = 1
    form: Form = "text"


@register_workload("random")
class RandomWorkload(Workload):
    """Prompts without meaning, each other than all others but for the beginning it shares."""

    Options = RandomOptions
    options: RandomOptions

    def asks(self, count: int, seed: int, vocabulary: Vocabulary) -> Sequence[Ask]:
        options = self.options
        found = []
        for number in range(count):
            source = random.Random(f"{seed}/random/{number}")
            tokens = max(drawn(options.input_tokens, source), options.prefix_tokens + 1)
            answer = drawn(options.output_tokens, source)
            prefix = source.randrange(options.prefixes)
            prompt = vocabulary.prompt(
                options.form,
                (options.prefix_tokens, f"{seed}/prefix/{prefix}"),
                (tokens - options.prefix_tokens, f"{seed}/prompt/{number}"),
            )
            found.append(Ask(prompt, tokens, answer))
        return found


def drawn(length: Length, source: random.Random) -> int:
    """One number of tokens."""
    return length if isinstance(length, int) else length.draw(source)


def _within(value: float, low: int, high: int | None) -> int:
    return max(low, round(value) if high is None else min(round(value), high))

"""The rules ``expected_answer`` and ``garbled_text``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainables.evaluation._garbled import SYMPTOMS, Symptom
from trainables.evaluation._prechecks import (
    Ask,
    Fault,
    Precheck,
    PrecheckOptions,
    register_precheck,
)

_Message = Annotated[str, Field(min_length=1, max_length=4096)]


class _Case(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExpectedAnswerCase(_Case):
    """A question and what its reply has to contain, in any case of letters.

    Written ``{question: answer}``, ``{question: [answer, ...]}`` or with these names. One of
    several answers is enough; none at all means that any reply will do.
    """

    message: _Message
    expected_answer: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = dict(value)
        if len(given) == 1 and not {"message", "expected_answer"} & set(given):
            ((question, answer),) = given.items()
            given = {"message": question, "expected_answer": answer}
        answers = given.get("expected_answer")
        if not isinstance(answers, list):
            answers = [] if answers is None else [answers]
        texts = [str(each) if isinstance(each, int | float) else each for each in answers]
        return {**given, "expected_answer": [text for text in texts if text not in ("", None)]}


class ExpectedAnswerOptions(PrecheckOptions):
    """Options of the rule ``expected_answer``."""

    type: Literal["expected_answer"] = "expected_answer"
    test_cases: list[ExpectedAnswerCase] = Field(
        default_factory=lambda: [ExpectedAnswerCase(message="What is 2+2?", expected_answer=["4"])],
        min_length=1,
    )


class GarbledTextCase(_Case):
    """A message and the symptoms its reply must not show; all by default."""

    message: _Message = "How are you?"
    items: Annotated[list[Symptom], Field(min_length=1)] = list(SYMPTOMS)


class GarbledTextOptions(PrecheckOptions):
    """Options of the rule ``garbled_text``."""

    type: Literal["garbled_text"] = "garbled_text"
    test_cases: list[GarbledTextCase] = Field(
        default_factory=lambda: [GarbledTextCase()], min_length=1
    )


@register_precheck("expected_answer")
class ExpectedAnswer(Precheck):
    """Questions whose answers everybody knows."""

    Options = ExpectedAnswerOptions
    options: ExpectedAnswerOptions

    def find_fault(self, ask: Ask) -> Fault | None:
        for case in self.options.test_cases:
            reply = ask(case.message)
            said, answers = reply.casefold(), case.expected_answer
            if answers and not any(answer.casefold() in said for answer in answers):
                expected = " or ".join(map(repr, answers))
                return Fault(case.message, reply, f"the reply does not contain {expected}")
        return None

    def questions(self) -> int:
        return len(self.options.test_cases)


@register_precheck("garbled_text")
class GarbledText(Precheck):
    """Replies that are no text in any language."""

    Options = GarbledTextOptions
    options: GarbledTextOptions

    def find_fault(self, ask: Ask) -> Fault | None:
        for case in self.options.test_cases:
            reply = ask(case.message)
            for reason in _reasons(case, reply):
                return Fault(case.message, reply, reason)
        return None

    def questions(self) -> int:
        return len(self.options.test_cases)


def _reasons(case: GarbledTextCase, reply: str) -> Iterator[str]:
    for symptom in case.items:
        if reason := SYMPTOMS[symptom](reply):
            yield f"{symptom}: {reason}"

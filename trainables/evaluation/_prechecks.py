"""Prechecks by the name that a rule's ``type`` gives them: cheap questions before an evaluation.

A model that fails a rule is broken, so its evaluation is not worth the time. That is a finding
about the model; a question that cannot be asked is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from trainables._registry import Registry

Ask: TypeAlias = Callable[[str], str]
"""Message to the model's reply. Raises ``StageError`` when there is none."""


class PrecheckOptions(BaseModel):
    """What all rules share.

    Attributes:
        type: The rule.
        max_tokens: Longest reply.
        timeout: Seconds that one reply may take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    max_tokens: PositiveInt = 512
    timeout: PositiveFloat = 60.0


@dataclass(frozen=True)
class Fault:
    """Why a model fails a rule.

    Attributes:
        message: What it was asked.
        reply: What it replied, whole.
        reason: What is wrong with that.
    """

    message: str
    reply: str
    reason: str


class Precheck(ABC):
    """One rule.

    Attributes:
        Options: Model of the rule's block, ``type`` included.
    """

    Options: ClassVar[type[PrecheckOptions]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def find_fault(self, ask: Ask) -> Fault | None:
        """The first fault; None when the model keeps the rule."""

    @abstractmethod
    def questions(self) -> int:
        """How many times it asks at most."""


_PRECHECKS: Registry[Precheck] = Registry(
    "precheck",
    "npu_tuner.prechecks",
    {
        "expected_answer": "trainables.evaluation._precheck_rules",
        "garbled_text": "trainables.evaluation._precheck_rules",
    },
)
register_precheck = _PRECHECKS.register
precheck_types = _PRECHECKS.names
precheck_type = _PRECHECKS.find
make_precheck = _PRECHECKS.make

"""What the user knows about the logs of a trial: words after which it is given up."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from trainables._program import FailureClass
from trainables._trial import TrialFailure

ErrorKind: TypeAlias = Literal[
    "out_of_memory", "device_error", "network_error", "io_error", "unknown"
]
_CLASSES: dict[ErrorKind, FailureClass] = {
    "out_of_memory": "out_of_memory",
    "device_error": "device",
    "network_error": "network",
    "io_error": "tool",
    "unknown": "tool",
}
_LINE_CHARS = 400

Patterns: TypeAlias = dict[
    ErrorKind, list[Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S")]]
]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorPatterns(_Block):
    """Substrings of a line of a log, in any case, by what they tell.

    Attributes:
        fatal_patterns: The trial fails and is not repeated.
        retryable_patterns: The trial fails and is repeated as often as the budget says.
    """

    fatal_patterns: Patterns = {}
    retryable_patterns: Patterns = {}

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return any(map(any, (self.fatal_patterns.values(), self.retryable_patterns.values())))

    def found_in(self, lines: list[str]) -> Finding | None:
        """The first line of a log that one of the words is in; fatal ones are looked for first."""
        for line in lines:
            lowered = line.lower()
            for fatal in (True, False):
                patterns = self.fatal_patterns if fatal else self.retryable_patterns
                for kind, words in patterns.items():
                    if word := next((word for word in words if word.lower() in lowered), ""):
                        return Finding(kind, fatal, word, line.strip()[:_LINE_CHARS])
        return None


class HealthCheck(_Block):
    """Words in logs after which a trial is given up.

    Attributes:
        service_errors: Of an engine that starts or serves.
        benchmark_errors: Of the tool that measures it.
        log_snippet_length: Last lines of the log that are kept with the failure.
    """

    service_errors: ErrorPatterns = ErrorPatterns()
    benchmark_errors: ErrorPatterns = ErrorPatterns()
    log_snippet_length: int = Field(default=200, ge=1, le=1000)


class Finding:
    """A line of a log that says what was looked for.

    Attributes:
        failure: Class of failure that its kind of error is.
        fatal: Whether a repetition is useless.
    """

    def __init__(self, kind: ErrorKind, fatal: bool, word: str, line: str) -> None:
        self.failure, self.fatal = _CLASSES[kind], fatal
        self._kind, self._word, self._line = kind, word, line

    def __str__(self) -> str:
        return f"its log has {self._word!r} ({self._kind}): {self._line}"


class ForeseenFailure(TrialFailure):
    """A failure of which the user has said whether a repetition may help.

    Its document has an entry ``retry``: ``never`` or ``may``, which goes before what the class of
    failure usually means.
    """

    def __init__(self, finding: Finding, stage: str, message: str, *, excerpt: str) -> None:
        suggestion = "engine.health_check names these words; change it if they are harmless"
        super().__init__(finding.failure, stage, message, excerpt=excerpt, suggestion=suggestion)
        self.fatal = finding.fatal

    def to_json(self) -> dict[str, str]:
        return {**super().to_json(), "retry": "never" if self.fatal else "may"}

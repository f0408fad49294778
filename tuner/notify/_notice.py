"""What there is to tell, before anybody has put it into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from searchers import Json
from tuner.experiment import Kind


@dataclass(frozen=True)
class Under:
    """A trial under way.

    Attributes:
        stage_s: Seconds in this stage so far.
    """

    number: int
    kind: str
    stage: str
    stage_s: float


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        measured: Candidates measured by the run itself, all its sessions together.
        most: Candidates of the budget; None where only the search knows.
        elapsed_s: Seconds of all sessions together; of ``time_s``, the budget's.
        remaining_s: Estimate of what is left; None when unknown.
        best: Parameters that would be delivered now.
    """

    measured: int = 0
    most: int | None = None
    failed: int = 0
    reused: int = 0
    elapsed_s: float = 0.0
    time_s: float | None = None
    remaining_s: float | None = None
    running: tuple[Under, ...] = ()
    best: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class Subject:
    """The trial that a notice is about.

    Attributes:
        broken: Demands that are not met, in words.
        satisfied: None where nothing was to be held against a demand.
        failure: Class of failure.
    """

    number: int
    kind: str
    identity: str
    parameters: Mapping[str, Json]
    attempt: int = 1
    broken: tuple[str, ...] = ()
    satisfied: bool | None = None
    stage: str = ""
    failure: str | None = None


@dataclass(frozen=True)
class Score:
    """The best value of what is optimised.

    Attributes:
        value: In the metric's own unit and direction.
        before: What was the best until now; None if nothing was.
    """

    metric: str
    value: float
    before: float | None = None


@dataclass(frozen=True)
class Notice:
    """One thing to tell.

    Attributes:
        at: UTC, ISO 8601.
        subject: None where it is about the run.
        metrics: Of the trial, or of the winner; those that the objective names, in its order.
        score: Of a ``best`` notice the new one, otherwise the best so far.
        message: What was said about it, in English.
        verdict: Once there is one.
        where: Folder of what was delivered, or of the records.
        known: Measurements that were there when the run began.
        resumed: The run continues an earlier session.
        died: That session was killed before it could say anything.
    """

    kind: Kind
    experiment: str
    at: str
    progress: Progress
    subject: Subject | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    score: Score | None = None
    message: str = ""
    verdict: str | None = None
    where: str | None = None
    known: int = 0
    resumed: bool = False
    died: bool = False

    def to_json(self) -> dict[str, Any]:
        """The facts as plain values."""
        return asdict(self)

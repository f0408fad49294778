"""What a view is told, and what it has to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel

from searchers import Json
from trainables import Measurement

if TYPE_CHECKING:
    from tuner._judge import Check
    from tuner._store import RunStore
    from tuner.experiment import Experiment

Status = Literal["measured", "reused", "failed", "cancelled"]
Pedigree: TypeAlias = Callable[[], str]
"""Names the model family under which a repository of practices files the tuned model; may take
seconds, and may raise."""


@dataclass(frozen=True)
class Finished:
    """One trial that the search was told of.

    Attributes:
        number: Of the proposal; grows with every attempt.
        kind: ``candidate``, ``baseline``, ``analysis``, ``verification``.
        repeat: 0, or the number of an independent repetition.
        measurement: None unless the status is ``measured`` or ``reused``.
        checks: Each demand held against the measurement; none before a baseline they need.
        satisfied: All demands are met; None where that is not known.
        failure: ``{class, stage, message, ...}`` of a failed trial.
        at: When the search was told, UTC, ISO 8601.
        identity: Names the trial's folder.
        labels: What the strategy says of the proposal.
    """

    number: int
    kind: str
    repeat: int
    parameters: Mapping[str, Json]
    status: Status
    measurement: Measurement | None = None
    checks: tuple[Check, ...] = ()
    satisfied: bool | None = None
    failure: Mapping[str, Json] | None = None
    at: str = ""
    identity: str = ""
    labels: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Begun:
    """A trial that this session handed out and that has not ended; attributes as of
    :class:`Finished`."""

    number: int
    kind: str
    parameters: Mapping[str, Json]
    identity: str
    labels: Mapping[str, Json]


@dataclass(frozen=True)
class Story:
    """Everything a view may show; enough to write all of it anew.

    Attributes:
        finished: In the order of telling. A resumed run tells all of it once more.
        verdict: None while the run is under way.
        best: Parameters of the best so far, of the winner once there is a verdict.
        verified: The measurement of what was delivered.
        begun: In the order of handing out.
    """

    experiment: Experiment
    store: RunStore
    finished: tuple[Finished, ...]
    verdict: str | None = None
    message: str = ""
    best: Mapping[str, Json] | None = None
    verified: Measurement | None = None
    begun: tuple[Begun, ...] = ()

    @property
    def delivered(self) -> bool:
        """Whether ``best/`` of the run's folder is the answer of this story."""
        return self.best is not None and self.verdict in ("satisfied", "budget")


class View(ABC):
    """One output of a run, kept up to date beside it.

    Attributes:
        Options: Model of the view's block in the experiment, ``type`` included.
    """

    Options: ClassVar[type[BaseModel]]

    def __init__(self, options: Any, *, pedigree: Pedigree | None = None) -> None:
        self.options = options
        self.pedigree = pedigree

    @abstractmethod
    def update(self, story: Story) -> tuple[str, ...]:
        """Make the output tell ``story``; what the user should know of it, said only once.

        Called at the beginning and the end of every trial, and after a verdict once ``best/`` is
        filled and weights that are not needed are gone. The same story twice changes nothing. A
        kill at any point leaves every file readable. What this raises, the caller says; the run
        goes on.
        """

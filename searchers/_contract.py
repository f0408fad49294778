"""The contract between a strategy and whoever carries its proposals out.

A strategy decides where to look next and nothing else. It is pure: no clock, no I/O, no Ray, no
global random state. Given the same seed and the same sequence of calls it answers the same, so a
run can be replayed from its measurements, and a day of trials can be simulated in milliseconds.

The life of a proposal::

    ask() -> Proposal --> carried out somewhere, for minutes --> tell(proposal, outcome)

Every proposal that was handed out is told exactly once, in any order, whatever became of it.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any
"""A value that survives ``json.loads(json.dumps(value))`` unchanged."""

Verdict: TypeAlias = Literal["satisfied", "exhausted", "budget", "interrupted", "failed"]
"""How a search ended. A strategy itself only ends ``satisfied``, ``exhausted`` or ``failed``."""


class Wait(enum.Enum):
    """The type of :data:`WAIT`."""

    WAIT = "wait"


WAIT = Wait.WAIT
"""Nothing to propose until one of the proposals in flight has been told."""


@dataclass(frozen=True)
class Proposal:
    """Parameters a strategy wants measured.

    Attributes:
        number: Position in the order of asking, from 0; unique within a strategy.
        parameters: What to measure; JSON values only.
        kind: What sort of trial this is. ``candidate`` is a point of the search; other kinds
            are auxiliary (``analysis``, ``baseline``, ``verification``) and never win.
        repeat: 0 for the first measurement of these parameters; a strategy that wants an
            independent second opinion, or lost the first to a cancellation, proposes the same
            parameters with 1, 2, ...
        why: One line for a person: the reason this point is worth a trial.
        labels: Details for tables, for example ``{"round": 3, "probe": 1}``.
    """

    number: int
    parameters: Mapping[str, Json]
    kind: str = "candidate"
    repeat: int = 0
    why: str = ""
    labels: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        return {
            "number": self.number,
            "parameters": dict(self.parameters),
            "kind": self.kind,
            "repeat": self.repeat,
            "why": self.why,
            "labels": dict(self.labels),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Proposal:
        return cls(**document)


@dataclass(frozen=True)
class Outcome:
    """What a strategy learns about one of its proposals.

    Attributes:
        status: ``measured``: the numbers are facts. ``failed``: infrastructure or tool failure
            after all retries; says nothing about how good the parameters are. ``cancelled``:
            stopped because :meth:`Strategy.obsolete` named it, or the run is ending.
        metrics: Named numbers of a measured outcome.
        data: Structured results that are not numbers, such as a layer ranking.
        satisfied: Whether a measured candidate meets the demand or SLO; ``None`` when the
            proposal's kind is not judged.
        objective: The value to maximise; ``None`` where the question has only a demand.
        error: Why it failed, for people.
    """

    status: Literal["measured", "failed", "cancelled"]
    metrics: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Json] = field(default_factory=dict)
    satisfied: bool | None = None
    objective: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Bound:
    """A limit that a metric has to keep; at least one of ``max`` and ``min`` is given."""

    metric: str
    max: float | None = None
    min: float | None = None

    def excess(self, metrics: Mapping[str, float]) -> float | None:
        """How far the metric is beyond its bound, relative to the bound; at most 0 when it is
        kept, None when it was not measured. A bound of 0 is exceeded in absolute terms."""
        value = metrics.get(self.metric)
        if value is None:
            return None
        excess = [(value - self.max) / (abs(self.max) or 1.0)] if self.max is not None else []
        if self.min is not None:
            excess.append((self.min - value) / (abs(self.min) or 1.0))
        return max(excess)


@dataclass(frozen=True)
class Goal:
    """What a search is after, told to strategies that can use more than a verdict.

    The verdict itself is in each outcome: ``satisfied`` holds every demand, ``objective`` is the
    value to maximise. The goal names the metrics behind them, so that a strategy can model each.

    Attributes:
        maximize: Metrics to make large; several make a search for a Pareto front.
        minimize: Metrics to make small.
        bounds: Limits (the SLO) that a point must keep to satisfy.
    """

    maximize: tuple[str, ...] = ()
    minimize: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()

    @property
    def objectives(self) -> tuple[tuple[str, int], ...]:
        """Each objective's metric with its sign: 1 where large is good, -1 where small is."""
        return (*((name, 1) for name in self.maximize), *((name, -1) for name in self.minimize))


@dataclass(frozen=True)
class Done:
    """The search is over.

    Attributes:
        verdict: ``satisfied``, ``exhausted`` (nothing in the space satisfies) or ``failed``.
        best: The proposal to deliver, always one that was really measured; ``None`` if none.
        message: One or two sentences for a person.
    """

    verdict: Verdict
    best: Proposal | None = None
    message: str = ""


class Strategy(ABC):
    """Base of all strategies.

    Contract, checked for every strategy by :mod:`searchers.testing`:

    * ``ask`` returns a new :class:`Proposal`, :data:`WAIT`, or :class:`Done`. It returns ``WAIT``
      only while at least one proposal is in flight, is cheap when it does, and does not change
      state when it returns ``WAIT`` or ``Done``.
    * ``ask`` may be called whenever fewer than ``width`` proposals are in flight. How many really
      run at once changes the time a search takes, never whether its answer is right.
    * No two proposals agree in kind, parameters and repeat; all lie in the space.
    * ``tell`` accepts outcomes in any order. One for a proposal that is not in flight, such as a
      second outcome of the same proposal, changes nothing.
    * A failed outcome is not a bad one: it is never treated as a measurement, and a search whose
      every proposal fails still ends.
    * ``Done`` is only returned with nothing in flight that could change the answer, and is
      returned for ever after.
    * ``restore(state())`` on a freshly constructed twin, at any point and with proposals in
      flight, continues exactly like the original. ``state()`` is JSON.
    """

    width: int = 1
    """How many proposals may be in flight; set by the runner before the first ``ask`` and
    changed when nodes come or go."""

    goal: Goal = Goal()
    """What the search is after; set by the runner before anything else."""

    @abstractmethod
    def ask(self) -> Proposal | Wait | Done: ...

    @abstractmethod
    def tell(self, proposal: Proposal, outcome: Outcome) -> None: ...

    def learn(self, parameters: Mapping[str, Json], outcome: Outcome) -> None:  # noqa: B027
        """A measurement that this search did not ask for: of an earlier run, of another tool.

        Called before the first ``ask``, any number of times. It may guide the search, and is no
        result of it: what is good has to be proposed, and measured, to be delivered. Parameters
        outside the space, or incomplete ones, are ignored. By default nothing is learned.
        """

    def believe(  # noqa: B027
        self, points: Sequence[tuple[Mapping[str, Json], Mapping[str, float]]]
    ) -> None:
        """What a simulator says of some points: parameters, and the metrics that it expects.

        Called once at most, before the first ``ask``. Empty metrics say that the point would not
        run. None of it is a measurement: how far it is to be relied on is for the strategy to find
        out from those. Points outside the space are ignored. By default nothing is believed.
        """

    def trust(self) -> float | None:
        """How much the search goes by what it was told to believe, from 0 (not at all) to 1;
        None: it was told nothing, or believes nothing."""
        return None

    def account(self) -> dict[str, Json]:
        """What a report may show of the search beside its measurements; empty: nothing."""
        return {}

    @abstractmethod
    def state(self) -> dict[str, Json]: ...

    @abstractmethod
    def restore(self, state: Mapping[str, Json]) -> None: ...

    @abstractmethod
    def best(self) -> Proposal | None:
        """The best measured candidate so far, delivered when the budget ends the search."""

    def obsolete(self) -> frozenset[int]:
        """Numbers of the proposals in flight whose answer can no longer change anything."""
        return frozenset()

    def remaining(self) -> int | None:
        """An estimate of the proposals still to come, those in flight included; None: unknown."""
        return None

    def most(self) -> int | None:
        """Upper bound of proposals over the whole search, for a dry run; None: unbounded.

        It holds for the present width. Repeats, what contradictory measurements make necessary,
        and stand-ins for failed trials come on top.
        """
        return None

"""What a serving trial knows of the objective. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainables._trial import Json
from trainables.serving._slo import Limit

THROUGHPUTS = ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_per_s")
_LOADS = ("concurrency", "request_rate")


@dataclass(frozen=True)
class Goal:
    """The objective's part that decides how a trial looks for its load.

    Attributes:
        throughput: The metric that load is raised for.
        limits: Bounds on what a benchmark measures.
    """

    throughput: str
    limits: tuple[Limit, ...]

    @classmethod
    def of(cls, document: Mapping[str, Json]) -> Goal:
        """From ``TrialType.goal``."""
        wanted = [name for name in document.get("maximize", ()) if name in THROUGHPUTS]
        limits = tuple(Limit(**one) for one in document.get("limits", ()))
        return cls(
            wanted[0] if wanted else THROUGHPUTS[0],
            tuple(limit for limit in limits if limit.metric not in _LOADS),
        )

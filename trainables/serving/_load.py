"""How hard a trial loads its engine: the ``load`` block of a serving trial."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator


class _Load(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FixedLoad(_Load):
    """The same load for every configuration, or one that the search varies.

    Parameters of the space whose position is ``concurrency`` or ``request_rate`` take the place
    of the values here.

    Attributes:
        concurrency: Requests under way at once at most; None: no limit.
        request_rate: Requests sent per second; None: as fast as the concurrency allows.
        requests: How many a candidate's run sends; None: as many as the benchmark says. Baseline
            and winner are always measured with all of them.
    """

    type: Literal["fixed"]
    concurrency: PositiveInt | None = None
    request_rate: PositiveFloat | None = None
    requests: PositiveInt | None = None


class CalibratedLoad(_Load):
    """Two runs on one engine: the first as fast as the concurrency allows, the second at
    ``factor`` times the request throughput that the first reached. The second counts.

    A baseline that names its own request rate has one run, at that.

    Attributes:
        concurrency, requests: As in a fixed load.
        request_rate: Highest rate, that of the first run; None: as fast as possible.
        factor: Rate of the second run relative to the throughput of the first.
    """

    type: Literal["calibrated"]
    concurrency: PositiveInt | None = None
    request_rate: PositiveFloat | None = None
    factor: PositiveFloat = 1.05
    requests: PositiveInt | None = None


class OperatingPoint(_Load):
    """The highest load that keeps the SLO is searched on the running engine.

    Attributes:
        by: What is varied: ``concurrency`` (closed loop) or ``request_rate`` (open loop).
        low, high: Range of the search, in requests or requests per second.
        start: First load tried; by default the geometric middle of the range.
        precision: The search ends when the highest load known to keep the SLO and the lowest
            known to break it differ by less than this share.
        probes: Short runs at most.
        probe_requests: Requests of a short run; ``auto``: four for each that is under way at
            once (or arrives in ten seconds), 16 at least, and never more than a full run.
        full_runs: Full runs at most; each one that breaks the SLO lowers the load.
        concurrency: Limit of requests under way at once while the rate is varied.
    """

    type: Literal["operating_point"] = "operating_point"
    by: Literal["concurrency", "request_rate"] = "concurrency"
    low: PositiveFloat = 1
    high: PositiveFloat = 256
    start: PositiveFloat | None = None
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.1
    probes: PositiveInt = 8
    probe_requests: Literal["auto"] | PositiveInt = "auto"
    full_runs: PositiveInt = 3
    concurrency: PositiveInt | None = None

    @model_validator(mode="after")
    def _ordered(self) -> OperatingPoint:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is greater than high {self.high}")
        if self.start is not None and not self.low <= self.start <= self.high:
            raise ValueError(f"start {self.start} does not lie between low and high")
        if self.by == "concurrency" and (self.low % 1 or self.high % 1 or (self.start or 1) % 1):
            raise ValueError("a concurrency is a whole number")
        if self.by == "concurrency" and self.concurrency is not None:
            raise ValueError("concurrency is what is searched; leave it out, or search by rate")
        return self


Load: TypeAlias = Annotated[
    FixedLoad | CalibratedLoad | OperatingPoint, Field(discriminator="type")
]

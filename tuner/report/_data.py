"""What a report is made from: one run, as its folder tells it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tuner.experiment import Objective, format_duration

Json: TypeAlias = Any


@dataclass(frozen=True)
class Attempt:
    """One time that a trial was carried out, for the Gantt chart.

    Attributes:
        begun, ended: Seconds since the epoch, from being handed out to being told.
        status: ``measured``, ``failed``, ``retry`` (failed, and was repeated), ``cancelled``,
            ``lost`` (its driver died) or ``running``.
        node: Host of its supervisor.
        started: When a node took it, seconds since the epoch; None: not known, or never.
        address: Of that node in the cluster.
        devices: That it held on all its nodes together; None: not known.
        places: Devices that it held, by address of their node; empty: not known one by one.
        failure: As of :class:`Trial`.
    """

    number: int
    kind: str
    identity: str
    begun: float
    ended: float
    status: str
    node: str = ""
    started: float | None = None
    address: str = ""
    devices: float | None = None
    places: Mapping[str, float] = field(default_factory=dict)
    failure: Mapping[str, Json] | None = None

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended - self.begun)

    @property
    def carried(self) -> float:
        """Seconds on a node, as far as it is known when they began."""
        return max(0.0, self.ended - (self.started or self.begun))


@dataclass(frozen=True)
class Trial:
    """One question of the search and what came of it.

    Attributes:
        identity: First 16 characters; names the trial's folder.
        number: Of the proposal.
        status: ``measured``, ``reused``, ``failed``, ``cancelled`` or ``running``.
        said: The result in a few words.
        value: What is maximised or minimised, as measured; None where it has none.
        satisfied: All demands are met and the trial went to its end; None: not judged.
        failure: ``{class, stage, message, excerpt, suggestion}`` of a failed one.
        ended: When the search was told, seconds since the epoch.
        stages: ``{name, seconds, resumed}`` in order of execution.
    """

    identity: str
    number: int
    kind: str
    status: str
    repeat: int = 0
    parameters: Mapping[str, Json] = field(default_factory=dict)
    why: str = ""
    said: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, Json] = field(default_factory=dict)
    value: float | None = None
    satisfied: bool | None = None
    failure: Mapping[str, Json] | None = None
    ended: float | None = None
    seconds: float | None = None
    stages: tuple[Mapping[str, Json], ...] = ()
    node: str = ""
    devices: float = 1.0

    @property
    def stopped(self) -> Mapping[str, Json] | None:
        """``{by, reason, ...}`` of a trial that was given up early; None: it went to its end."""
        found = self.data.get("stopped")
        return found if isinstance(found, dict) else None

    @property
    def instances(self) -> dict[str, Mapping[str, Json]]:
        """``{shape, devices, node}`` of its engines by name, those that are on a node."""
        found = self.data.get("instances")
        items = found.items() if isinstance(found, dict) else ()
        return {name: one for name, one in items if isinstance(one, dict) and one.get("node")}

    @property
    def simulated(self) -> bool:
        """Its numbers come from a model, not from a measurement."""
        return "simulation" in self.data or self.data.get("real_evaluation") is False

    @property
    def outcome(self) -> str:
        """What the charts colour by."""
        if self.status in ("failed", "cancelled", "running"):
            return self.status
        if self.stopped is not None:
            return "given up"
        if self.satisfied is None:
            return "not judged"
        return "satisfied" if self.satisfied else "not satisfied"


@dataclass(frozen=True)
class RunData:
    """One run.

    Attributes:
        state: As ``status``: ``running``, ``died``, or the verdict.
        result: The object of ``--json``; empty until there is a verdict.
        document: The experiment as the user wrote it, secrets masked.
        objective: What good means; None where the experiment cannot be read any more.
        trials: In the order they ended; those running come last.
        best: Parameters of the best so far, of the winner once there is a verdict.
        baseline: Metrics of the baseline; None where none was measured.
        resource: What counts as a device: ``NPU``, ``GPU`` or ``CPU``.
        account: What the strategy tells of itself; empty: nothing.
        files: Those in ``best/``, by name, with their size in bytes.
        commands: Text files of ``best/`` that are worth showing, by name.
        node_events: What was said of nodes, and when, in seconds since the epoch.
        notes: What could not be read.
    """

    name: str
    folder: str
    state: str
    document: Mapping[str, Json]
    objective: Objective | None = None
    result: Mapping[str, Json] = field(default_factory=dict)
    status: Mapping[str, Json] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    best: Mapping[str, Json] | None = None
    baseline: Mapping[str, float] | None = None
    resource: str = "CPU"
    account: Mapping[str, Json] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    node_events: tuple[tuple[float, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def trial_type(self) -> str:
        return str(_block(self.document, "trial").get("type", ""))

    @property
    def strategy(self) -> str:
        return str(_block(self.document, "search").get("type", ""))

    @property
    def candidates(self) -> tuple[Trial, ...]:
        """Measured points of the search, in the order they ended."""
        return tuple(trial for trial in self.measured if trial.kind == "candidate")

    @property
    def measured(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.status in ("measured", "reused"))

    @property
    def failed(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.status == "failed")

    @property
    def ranking(self) -> tuple[str, int] | None:
        return None if self.objective is None else self.objective.ranking

    @property
    def begun(self) -> float | None:
        """Seconds since the epoch; None before the first trial."""
        return min((attempt.begun for attempt in self.attempts), default=None)

    @property
    def span(self) -> float:
        """Seconds from the first trial's begin to the last one's end."""
        ended = max((attempt.ended for attempt in self.attempts), default=0.0)
        return ended - (self.begun or ended)

    def of_kind(self, kind: str) -> Trial | None:
        """The last measured trial of a kind."""
        return next((one for one in reversed(self.measured) if one.kind == kind), None)

    def winner(self) -> Trial | None:
        """The measurement that stands for the best: its verification, else its own."""
        if self.best is None:
            return None
        mine = [one for one in self.measured if dict(one.parameters) == dict(self.best)]
        verified = [one for one in mine if one.kind == "verification"]
        if "result" in self.status and verified:
            return verified[-1]
        return next(iter([one for one in mine if one.kind == "candidate"] or mine), None)


def _block(document: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def repeats(trial: Trial) -> int | None:
    """How many full measurements the trial's numbers are the mean of; None: not known.

    Those at other loads, and those that were ended early, were on the way to them.
    """
    runs = trial.data.get("runs")
    if isinstance(runs, list):
        whole = [one for one in runs if isinstance(one, dict) and one.get("full", True)]
        loads = [_load_of(one) for one in whole if not one.get("ended")]
        return loads.count(loads[-1]) if loads else None
    runs = trial.data.get("eval_runs")
    return len(runs) if isinstance(runs, list) and runs else None


def _load_of(run: Mapping[str, Json]) -> tuple[Json, Json]:
    return run.get("concurrency"), run.get("request_rate")


def shown(value: Json, digits: int = 4) -> str:
    """A value of a table: numbers to a few digits, long lists as their length."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int | float):
        # Adding nothing makes a negative zero a zero.
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value + 0:.{digits}g}"
    if isinstance(value, list):
        return f"{len(value)} items" if len(value) > 4 else ", ".join(map(str, value))
    return str(value)


def shortened(text: str, most: int) -> str:
    """The beginning of a text that would make its place too big."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def exact(value: Json) -> str:
    """A value that somebody may want to type again."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.10g}"
    return shown(value)


def parameters_text(parameters: Mapping[str, Json], names: Sequence[str] | None = None) -> str:
    """Parameters in a line; only those named, where names are given."""
    chosen: Iterable[str] = parameters if names is None else names
    parts = [f"{name} {exact(parameters[name])}" for name in chosen if name in parameters]
    return ", ".join(parts) or "defaults"


def took(seconds: float | None) -> str:
    """A duration, short ones with their tenths."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)


def device_unit(hours: float, resource: str) -> tuple[float, str]:
    """A unit in which so many device-hours read well: how many of it an hour has, and its name."""
    return (3600.0, f"{resource}-seconds") if hours < 0.1 else (1.0, f"{resource}-hours")


def time_unit(seconds: float) -> tuple[float, str]:
    """A unit in which a span of time reads well: its length in seconds, and its name."""
    if seconds < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")

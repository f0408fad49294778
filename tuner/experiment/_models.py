"""The parts of an experiment file that belong to no plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    WithJsonSchema,
    model_validator,
)

from cluster import Bundle, parse_bundle
from searchers import Bound, Goal
from trainables import FailureClass
from tuner._fitness import Fitness
from tuner.experiment._duration import Duration


class Block(BaseModel):
    """Base of all blocks: unknown keys are refused, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _number_as_text(value: object) -> object:
    """Lets ``0.05`` in YAML become the decimal 0.05 and not its nearest binary neighbour."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Exact = Annotated[Decimal, BeforeValidator(_number_as_text)]


def _tolerance(value: object) -> object:
    if isinstance(value, Tolerance):
        return value
    if not (isinstance(value, str) and value.endswith("%")):
        return {"relative": False, "amount": value}
    try:
        return {"relative": True, "amount": Decimal(value[:-1].strip()) / 100}
    except ArithmeticError as error:
        raise ValueError(f"{value!r} is neither a number nor a percentage") from error


class Tolerance(Block):
    """How far a metric may fall short: an amount in the metric's unit, or a share of the target."""

    amount: Exact = Field(ge=0)
    relative: bool = False


ToleranceText = Annotated[
    Tolerance,
    BeforeValidator(_tolerance),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)?%?$"},
            ]
        }
    ),
]


class Expectation(Block):
    """One accuracy demand.

    Attributes:
        dataset: Dataset as named in ``trial.evaluation.datasets``; None where trials have none.
        metric: Metric of that dataset.
        target: The value to reach, or ``baseline``: what the unquantized model reaches.
        tolerance: Amount, or share of the target as ``5%``, by which the value may be worse.
        direction: Which way is better; by default known from the metric's name.
    """

    dataset: str | None = None
    metric: str = "accuracy"
    target: Literal["baseline"] | Exact
    tolerance: ToleranceText = Tolerance(amount=Decimal(0))
    direction: Literal["higher", "lower"] | None = None

    @property
    def key(self) -> str:
        return self.metric if self.dataset is None else f"{self.dataset}/{self.metric}"

    @property
    def lower_is_better(self) -> bool:
        if self.direction is not None:
            return self.direction == "lower"
        return self.metric in LOWER_IS_BETTER


LOWER_IS_BETTER = frozenset({"perplexity", "nll", "word_perplexity", "bits_per_byte"})


class Limit(Block):
    """A bound a metric has to keep."""

    metric: str
    max: float | None = None
    min: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Limit:
        if self.max is None and self.min is None:
            raise ValueError("needs max or min")
        return self


FITNESS = "fitness"
"""What strategies are told of the original optimizer's cost; no trial reports it."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Metrics = Annotated[
    tuple[str, ...],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One metric, or several."""


class Objective(Block):
    """What good means.

    Attributes:
        expectations: Accuracy demands; all have to be met.
        maximize: Metric, or metrics, to make as large as possible among what satisfies.
        minimize: Metric, or metrics, to make as small as possible among what satisfies.
        fitness: The cost of the original optimizer, to be minimised, in the place of maximize and
            minimize.
        limits: Bounds on other metrics; all have to be kept.

    With several metrics to optimise the search looks for their Pareto front; what is delivered is
    the best by the first one named, those to maximise first.
    """

    expectations: list[Expectation] = []
    maximize: Metrics = ()
    minimize: Metrics = ()
    fitness: Fitness | None = None
    limits: list[Limit] = []

    @model_validator(mode="after")
    def _means_something(self) -> Objective:
        wanted = [*self.maximize, *self.minimize]
        if not (self.expectations or wanted or self.fitness or self.limits):
            raise ValueError("needs expectations, maximize, minimize, fitness or limits")
        if self.fitness and wanted:
            raise ValueError("fitness takes the place of maximize and minimize; give one of them")
        keys = [expectation.key for expectation in self.expectations]
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"{key} has two expectations")
        for key in sorted({key for key in wanted if wanted.count(key) > 1}):
            raise ValueError(f"{key} stands twice among maximize and minimize")
        return self

    @property
    def needs_baseline(self) -> bool:
        relative = any(expectation.target == "baseline" for expectation in self.expectations)
        return relative or (self.fitness is not None and self.fitness.needs_baseline)

    @property
    def ranking(self) -> tuple[str, int] | None:
        """The metric that decides between what satisfies, with 1 where large is good, -1 where
        small is; None where there is only a demand."""
        return next(iter(self.goal().objectives), None)

    def goal(self) -> Goal:
        """What a strategy is told of it."""
        bounds = tuple(Bound(one.metric, one.max, one.min) for one in self.limits)
        return Goal(self.maximize, self.minimize if self.fitness is None else (FITNESS,), bounds)


Repetitions = Annotated[int, Field(ge=0, le=10)]
Retries = Annotated[
    Annotated[Repetitions, Tag("all")]
    | Annotated[dict[FailureClass, Repetitions], Tag("by class")],
    Discriminator(lambda value: "by class" if isinstance(value, dict) else "all"),
]


class Budget(Block):
    """What may be spent.

    Attributes:
        trials: Candidates measured at most; reused measurements are free.
        time: Seconds after which no search trial runs any more; the best so far is then still
            verified and delivered.
        concurrent: Trials at once at most; ``auto``: as many as the nodes have room for.
        retries: Repetitions after an infrastructure failure, for all classes or per class.
    """

    trials: PositiveInt | None = None
    time: Duration | None = None
    concurrent: Literal["auto"] | PositiveInt = "auto"
    retries: Retries = 1

    def retries_of(self, failure: Mapping[str, object]) -> int:
        """Repetitions allowed after a failure: ``{class, retry?, ...}``.

        Who raised it may know better than its class: ``retry`` is ``never`` or ``may``. Without
        it ``input`` is never repeated, and ``out_of_memory`` only when named: it would run out
        again.
        """
        kind, known = failure.get("class", "tool"), failure.get("retry")
        if known == "never":
            return 0
        if isinstance(self.retries, dict):
            return next((n for name, n in self.retries.items() if name == kind), 0)
        return 0 if kind in ("input", "out_of_memory") and known != "may" else self.retries


Amount = Annotated[
    Annotated[Literal["auto"], Tag("auto")] | Annotated[float, Tag("number")],
    Discriminator(lambda value: "auto" if value == "auto" else "number"),
]


def _folder_alone(value: object) -> object:
    return {"folder": value} if isinstance(value, str) else value


class LocalWeights(Block):
    """Copies of models on the nodes' own disks; see :mod:`trainables._staging`.

    Attributes:
        folder: On every node, absolute; ours is a folder inside it.
        copies: How many models are kept on a node; those not in use go first, the longest unused
            first.
        space: How much all copies on a node may take together, such as ``500GB``.
        timeout: How long a trial may copy, or wait for another one that copies.
    """

    folder: Annotated[str, Field(pattern=r"^/.+")]
    copies: PositiveInt = 3
    space: ByteSize | None = None
    timeout: Duration = 3600.0


LocalFolder = Annotated[
    LocalWeights,
    BeforeValidator(_folder_alone),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]}),
]


class Cluster(Block):
    """Where trials run.

    Attributes:
        address: ``local``: a private Ray, started and stopped with the run. ``auto``,
            ``host:port``, ``ray://host:port``: a running cluster.
        resources: What one trial occupies: CPU, NPU, GPU, memory, custom tags. ``NPU: auto`` or
            ``GPU: auto``: as many as the trial's parameters mean.
        labels: Node labels a trial asks for, as ``{chip: npu_910b}``.
        wait: How long a trial waits that no node can hold any more, because nodes have left;
            then it counts as lost, and is repeated like one.
        exclude_after: Device errors in a row after which a node gets no more trials of this run;
            null: never.
        local_weights: Folder on the nodes' own disks where the model is copied to before it is
            served, once for each node; by default it is read from where it lies.
        dashboard: Ray's dashboard for a local Ray; needs the ``dashboard`` extra.
        temp_dir: Folder of Ray's own logs and sockets for a local Ray.
    """

    address: str = "local"
    resources: dict[str, Amount] = {"CPU": 1}
    labels: dict[str, str] = {}
    wait: Duration = 600.0
    exclude_after: PositiveInt | None = 2
    local_weights: LocalFolder | None = None
    dashboard: bool = True
    temp_dir: str | None = None

    @model_validator(mode="after")
    def _understandable(self) -> Cluster:
        automatic = [name for name, amount in self.resources.items() if amount == "auto"]
        if wrong := [name for name in automatic if name.upper() not in ("NPU", "GPU")]:
            raise ValueError(f"resources.{wrong[0]}: only NPU or GPU may be auto; give a number")
        if len(automatic) > 1:
            raise ValueError("resources: a trial has NPUs or GPUs; only one of them may be auto")
        self.bundle(1)
        return self

    @property
    def automatic(self) -> str | None:
        """The resource whose amount each trial decides; None where all are given."""
        return next((name for name, amount in self.resources.items() if amount == "auto"), None)

    def bundle(self, devices: int = 0) -> Bundle:
        """What one trial asks of its node, with ``devices`` where it is left to the trial."""
        amounts = {
            name: devices if amount == "auto" else amount for name, amount in self.resources.items()
        }
        return parse_bundle(amounts, self.labels)

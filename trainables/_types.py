"""Trial types: what ``trial: {type: ...}`` of an experiment may name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter

from cluster import Bundle, Placement
from trainables._measurement import Measurement
from trainables._registry import Registry
from trainables._trial import Json, Progress, Steps, TrialRun


@dataclass(frozen=True)
class VerificationPolicy:
    """How the best of a search becomes its answer.

    Attributes:
        most: How many winners may fail their verification before the search has failed. More
            than one where numbers are noisy, for then the best of many is often only lucky: the
            highest objective wins, whoever it is, and the next best takes a failed one's place.
        finalists: How many winners are verified, of whom the best is delivered.
        refines: Whether a verification improves on what it verifies, so that also what does not
            satisfy yet may win by it.
    """

    most: int = 1
    finalists: int = 1
    refines: bool = False


class TrialType(ABC):
    """One sort of trial: its settings, what decides its results, and how it is carried out.

    Attributes:
        Options: Model of the experiment's ``trial`` block, ``type`` included.
        SearchOptions: Keys of the ``search`` block that belong to the trial, such as
            ``rollback_path``; None when there are none.
        goal: What the numbers are wanted for, set by who reads the experiment:
            ``{"maximize": [metric], "minimize": [metric], "limits": [{metric, max, min}]}``, or
            empty. For types whose trials depend on it, such as one that looks for the load at
            which the limits are just kept.
    """

    Options: ClassVar[type[BaseModel]]
    SearchOptions: ClassVar[type[BaseModel] | None] = None

    def __init__(self, options: Any, search: Any = None) -> None:
        self.options = options
        self.search = search
        self.goal: Mapping[str, Json] = {}

    @classmethod
    def schema(cls) -> dict[str, Json]:
        """JSON schema of the ``trial`` block, definitions under ``$defs``."""
        return TypeAdapter(cls.Options).json_schema()

    @abstractmethod
    def run(self, trial: TrialRun) -> Steps:
        """Carry the trial out. Everything here runs on the node, in the trial's actor."""

    @abstractmethod
    def identity(self, kind: str) -> Json:
        """What, besides parameters and repeat, decides the numbers of such a trial.

        Model and dataset fingerprints and tool versions belong here; ports, timeouts, batch
        sizes and paths do not. Called on the driver after :meth:`prepare`.
        """

    def prepare(self, trial: TrialRun) -> Generator[Progress, None, None]:
        """Get ready what all trials need, once, on the driver: convert a built-in model, say.

        Runs stage programs like a trial. Raises ``StageError`` or ``TrialFailure`` when it
        cannot be had. Nothing to do by default.
        """
        yield from ()

    def settings(self) -> dict[str, Json]:
        """Options as JSON for :class:`TrialSpec`: ``{"options", "search", "goal"}``, resolved."""
        return {
            "options": self.options.model_dump(mode="json"),
            "search": None if self.search is None else self.search.model_dump(mode="json"),
            "goal": dict(self.goal),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Json]) -> TrialType:
        """The twin of the driver's trial type on a node."""
        search = settings["search"]
        twin = cls(
            cls.Options.model_validate(settings["options"]),
            None if cls.SearchOptions is None else cls.SearchOptions.model_validate(search),
        )
        twin.goal = settings.get("goal", {})
        return twin

    def problems(self) -> list[tuple[str, str]]:
        """Faults that only this type can see, as (dotted path in the experiment, message).

        Called before anything starts; checks files, missing packages, references between the
        ``trial`` and ``search`` blocks.
        """
        return []

    def placement(self, parameters: Mapping[str, Json], kind: str, one: Bundle) -> Placement:
        """What such a trial occupies.

        Args:
            parameters: Of the proposal.
            kind: Of the trial.
            one: What the experiment's ``cluster`` block asks for one trial, or for one of the
                places of a trial that occupies several.
        """
        return Placement((one,))

    def devices(self, parameters: Mapping[str, Json], kind: str) -> int | None:
        """Accelerators that such a trial needs, for a ``cluster`` block that leaves their number
        to the trial (``NPU: auto``); None where the type cannot tell."""
        return None

    def datasets(self) -> Mapping[str, frozenset[str]] | None:
        """Dataset names an accuracy demand may name, with the metrics each yields; None: none."""
        return None

    def metric_names(self) -> frozenset[str] | None:
        """The metrics a candidate will have; None when that is only known afterwards."""
        return None

    def headlines(self) -> tuple[str, ...] | None:
        """The metrics a person wants to see side by side; None: all there are."""
        return None

    def stage_names(self, kind: str) -> tuple[str, ...]:
        """The stages such a trial goes through, for the dry run."""
        return ()

    def fallback_groups(self) -> int | None:
        """How many groups of layers an analysis will rank, for the dry run; None: unknown."""
        return None

    def verifies(self) -> bool:
        """Whether a winner is measured once more, from what is delivered."""
        return False

    def verification_policy(self) -> VerificationPolicy:
        """How winners are verified, for types that do."""
        return VerificationPolicy()

    def answers(self, measurement: Measurement) -> bool:
        """Whether a measurement of this identity that ended early would end so today; asked only
        where its ``data`` has an entry ``stopped``."""
        return True

    def baseline(self) -> Mapping[str, Json] | None:
        """Parameters of the present state of things, measured first in any case and delivered
        when nothing beats it; None: a baseline is measured only where a demand needs it."""
        return None

    def parameter_names(self) -> frozenset[str] | None:
        """Names a search space may use; None: any."""
        return None

    def parameter_problems(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """Parameters of a search space that would not do what they seem to, as (name, message)."""
        return []

    def search_options(self) -> Mapping[str, Json]:
        """Options of a search strategy that the trial knows, so that the user need not repeat
        them: each is given to a strategy that has an option of that name, where the user did not
        write it."""
        return {}

    def practice_document(self, parameters: Mapping[str, Json]) -> dict[str, Json] | None:
        """The quantization configuration that parameters stand for; None where there is none."""
        return None

    def pedigree(self) -> str:
        """The model's family, under which repositories of practices file what was found.

        May ask a tool and take seconds. Raises ``ValueError`` when it cannot be known.
        """
        raise ValueError("this sort of trial knows no family of models")

    def deliver(self, verified: Measurement, folder: Path) -> None:
        """Move what a verification measured from its trial's folder into ``folder``.

        Only called for types that verify, which have to define it.
        """
        raise TypeError(f"{type(self).__name__} verifies, but does not say how to deliver")

    def holds(self, verified: Measurement, folder: Path) -> bool:
        """Whether ``folder`` holds, byte for byte, what the verification measured."""
        return False

    def show_analysis(self, data: Mapping[str, Json], folder: Path) -> list[str]:
        """Save an analysis as table and picture in ``folder``; the lines to print."""
        return []

    def deliverables(self, parameters: Mapping[str, Json]) -> Mapping[str, str]:
        """Small text files for ``best/``: file name to content."""
        return {}


_TYPES: Registry[TrialType] = Registry(
    "trial type",
    "npu_tuner.trial_types",
    {
        "disaggregated": "trainables.disaggregated._trial",
        "quantization": "trainables._quantization",
        "rehearsal": "trainables._rehearsal",
        "script": "trainables.script._trial",
        "serving": "trainables.serving._trial",
    },
)
register_trial_type = _TYPES.register
trial_types = _TYPES.names
trial_type = _TYPES.find

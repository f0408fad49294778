"""The ``trial`` block of a serving experiment."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt

from trainables._blocks import PathText
from trainables._sizes import size
from trainables._trial import Json
from trainables.serving._load import Load, OperatingPoint


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServingTimeouts(_Block):
    """Seconds that one run of the benchmark may take."""

    benchmark: PositiveFloat = 3600


def _bytes(value: object) -> object:
    return size(value) if isinstance(value, str) else value


class EarlyRejection(_Block):
    """Which candidates are given up before their last run, each for its own reason.

    Attributes:
        memory: Before the start: by arithmetic the KV cache cannot hold one sequence of the
            longest permitted length, without which vLLM refuses to start.
        windows: While a run goes on: its windows so far show, with a stated probability of being
            wrong, that it breaks the SLO.
        incumbent: Between runs: no load that keeps the SLO can beat the best known candidate.
        allowance: Share by which a throughput may be wrong because of noise.
        device_memory: Memory of one device, such as ``64GiB``; by default that of the node's
            smallest NPU for ``vllm-ascend``. Where it is not known, the arithmetic only judges
            engines whose KV cache is given in bytes.
    """

    memory: bool = True
    windows: bool = True
    incumbent: bool = True
    allowance: float = Field(default=0.1, ge=0, lt=1)
    device_memory: Annotated[int, BeforeValidator(_bytes)] | None = None


class ServedOptions(_Block):
    """What all trials share that measure a served model. See the attributes' own models.

    Attributes:
        model: Folder of the checkpoint, or ``builtin:<name>``.
        engine: The engine's block: ``type`` and its options.
        benchmark: The benchmark's block: ``type`` and its options.
        load: How hard the engine is loaded.
        positions: Parameter to where it goes: ``argument`` of the engine (the default), ``env``
            (a variable of that name in capitals, and ``$NAME`` in the engine's arguments), a
            dotted path of the engine's configuration file, ``concurrency``, ``request_rate``, or
            ``none`` for a parameter that only others are derived from.
        baseline: Parameters of the configuration in use today; by default what the engine's block
            says without any. None: no baseline is measured.
        repeats: Full runs of a candidate, whose mean counts.
        final_repeats: Full runs of the baseline and of the winner.
        finalists: How many of the best are verified, of whom the best is delivered.
        refine: Where candidates are measured at a fixed or calibrated load: the load of those that
            are verified is searched, on one engine each.
        early_rejection: Which hopeless candidates are given up early.
        seed: Decides the requests and their arrivals; the same for all candidates.
    """

    type: str
    model: PathText
    engine: dict[str, Any]
    benchmark: dict[str, Any] = {"type": "builtin"}
    load: Load = Field(default=OperatingPoint())
    positions: dict[str, str] = {}
    baseline: dict[str, Json] | None = {}
    repeats: PositiveInt = 1
    final_repeats: PositiveInt = 2
    finalists: PositiveInt = 1
    refine: OperatingPoint | None = None
    seed: int = Field(default=0, ge=0)
    early_rejection: EarlyRejection = EarlyRejection()
    timeouts: ServingTimeouts = ServingTimeouts()


class ServingOptions(ServedOptions):
    """One engine, see :class:`ServedOptions`."""

    type: Literal["serving"] = "serving"

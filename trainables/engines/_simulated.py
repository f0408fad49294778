"""The engine ``simulated``: another engine's settings, served on a virtual clock.

It starts nothing. Its parameters are placed as the engine it stands for would have them placed, and
what is delivered is that engine's own command line or configuration file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from trainables._program import StageError
from trainables._sizes import size
from trainables._trial import Json
from trainables.engines._engine import Deployment, Engine, Launch, make_engine, register_engine
from trainables.engines._health_check import HealthCheck

if TYPE_CHECKING:
    from trainables.latency import LatencySource

METHOD = 1
"""Grows when the same settings would get other numbers than before."""
TYPE = "simulated"
_KNOWN = ("vllm", "vllm-ascend", "mindie")
_ABSENT_HERE = ("command", "entrypoint", "config_path")
"""Faults of an engine that only matter where it runs."""
_UNMEASURED = "# Chosen by simulation; measure it before you rely on it."


class HostOptions(BaseModel):
    """Seconds that the host needs; what is None is taken from the latency model.

    Attributes:
        admission: From a client's request to the waiting queue.
        spacing: Between two requests reaching the queue at least.
        iteration: Between two iterations, as far as no asynchronous scheduling hides it.
        delivery: From the end of an iteration to the client.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    admission: NonNegativeFloat | None = None
    spacing: NonNegativeFloat | None = None
    iteration: NonNegativeFloat | None = None
    delivery: NonNegativeFloat | None = None


class LinkOptions(BaseModel):
    """How KV caches get from prefill to decode instances, in disaggregated trials.

    The defaults are a network of 100 Gbit/s, and a guess of what handshakes take.

    Attributes:
        bytes_per_s: Of one instance in each direction, all of its devices together; of each of its
            data-parallel ranks, where there are several.
        latency_s: Seconds of a transfer beside those of its bytes.
        layerwise: Whether each layer is pushed as soon as it is computed; None: where the trial's
            ``transfer`` does so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes_per_s: PositiveFloat = 12.5e9
    latency_s: NonNegativeFloat = 0.002
    layerwise: bool | None = None


def _bytes(value: object) -> object:
    return size(value) if isinstance(value, str) else value


def _typed(block: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(block.get("type"), str):
        raise ValueError("needs a type")
    return block


def _known(block: dict[str, Any]) -> dict[str, Any]:
    if _typed(block)["type"] not in _KNOWN:
        said = f"{block['type']!r} cannot be simulated; there are {', '.join(_KNOWN)}"
        raise ValueError(f"the engine {said}")
    return block


class SimulatedOptions(BaseModel):
    """Options of ``simulated``.

    Attributes:
        of: The block of the engine that is simulated: vllm, vllm-ascend or mindie.
        latency: How long its iterations take: ``type`` and the options of the latency model.
        device_memory: Memory of one device, such as ``64GiB``; by default what the latency model
            knows of its device.
        kv_cache_tokens: Tokens that the KV cache of one instance holds, instead of an estimate.
        num_blocks: The same in blocks.
        platform: Whose defaults count: ``gpu``, ``npu`` or ``cpu``; ``auto`` tells by the engine.
        host: Time of the host, over what the latency model knows.
        route: How requests are shared out among data-parallel ranks, and among the instances of a
            disaggregated trial.
        link: How KV caches travel in a disaggregated trial.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["simulated"] = "simulated"
    of: Annotated[dict[str, Any], AfterValidator(_known)]
    latency: Annotated[dict[str, Any], AfterValidator(_typed)]
    device_memory: Annotated[PositiveInt, BeforeValidator(_bytes)] | None = None
    kv_cache_tokens: PositiveInt | None = None
    num_blocks: PositiveInt | None = None
    platform: Literal["auto", "gpu", "npu", "cpu"] = "auto"
    host: HostOptions = HostOptions()
    route: Literal["least_loaded", "round_robin"] = "least_loaded"
    link: LinkOptions = LinkOptions()

    @model_validator(mode="after")
    def _one_size(self) -> SimulatedOptions:
        if self.kv_cache_tokens is not None and self.num_blocks is not None:
            raise ValueError("kv_cache_tokens and num_blocks say the same; give one of them")
        return self

    @property
    def served_model_name(self) -> str | None:
        """Name that clients of the engine use."""
        name = self.of.get("served_model_name")
        return name if isinstance(name, str) else None

    @property
    def health_check(self) -> HealthCheck:
        """Nothing in a log ends a trial: there is none."""
        return HealthCheck()


@dataclass(frozen=True)
class SimulatedSize:
    """What is said outright about the size of the KV cache; None: it is computed."""

    device_memory: int | None
    kv_cache_tokens: int | None
    num_blocks: int | None


@register_engine(TYPE)
class SimulatedEngine(Engine):
    """Stands for another engine; trials that know it play their load instead of sending it."""

    Options = SimulatedOptions  # type: ignore[assignment]
    options: SimulatedOptions
    models_path: str | None = None
    completions_path: str | None = None

    @cached_property
    def of(self) -> Engine:
        """The engine it stands for.

        Raises as :func:`trainables.engines.make_engine`.
        """
        return make_engine(self.options.of)

    @cached_property
    def latency(self) -> LatencySource:
        """How long iterations take. Raises as :func:`trainables.latency.make_latency_model`."""
        from trainables.latency import make_latency_model

        return make_latency_model(self.options.latency)

    @property
    def host(self) -> str:
        return self.of.host

    @property
    def port(self) -> int | None:
        return self.of.port

    @property
    def size(self) -> SimulatedSize:
        options = self.options
        memory = options.device_memory or self.latency.memory_bytes()
        return SimulatedSize(memory, options.kv_cache_tokens, options.num_blocks)

    def launch(self, deployment: Deployment) -> Launch:
        return self.of.launch(deployment)

    def prepared(self, deployment: Deployment) -> NoReturn:
        """Whoever starts engines cannot start this one."""
        said = "a simulated engine starts nothing; serving and disaggregated trials play on it"
        raise StageError("input", said, f"name the engine itself: type: {self.options.of['type']}")

    def configuration(self, deployment: Deployment) -> str:
        return self.of.configuration(deployment)

    def configured(self, paths: Iterable[str]) -> dict[str, Json]:
        return self.of.configured(paths)

    def deliverables(self, deployment: Deployment) -> Mapping[str, str]:
        return marked(self.of.deliverables(deployment))

    def identity(self) -> Json:
        """Never that of a real engine, so that no measurement is taken for another."""
        options = self.options
        return {
            "type": TYPE,
            "method": METHOD,
            "of": self.of.identity(),
            "latency": self.latency.identity(),
            "size": asdict(self.size),
            "platform": options.platform,
            "host": options.host.model_dump(),
            "route": options.route,
            "link": options.link.model_dump(),
        }

    def problems(self) -> list[tuple[str, str]]:
        """Those of the engine it stands for, where they do not ask for it to be here."""
        found = [
            (f"of.{path}", said)
            for path, said in _checked(lambda: self.of.problems())
            if path.partition(".")[0] not in _ABSENT_HERE
        ]
        return found + [
            (f"latency.{path}" if path else "latency", said)
            for path, said in _checked(lambda: self.latency.problems())
        ]

    def versions(self) -> Mapping[str, str]:
        """None: nothing of it runs here."""
        return {}


def marked(texts: Mapping[str, str]) -> dict[str, str]:
    """Scripts that say that nothing was measured."""
    return {
        name: text.replace("\n", f"\n{_UNMEASURED}\n", 1) if text.startswith("#!") else text
        for name, text in texts.items()
    }


def _checked(check: Any) -> list[tuple[str, str]]:
    """What ``check`` finds, or why what it asks cannot be made."""
    try:
        problems: list[tuple[str, str]] = check()
    except ValidationError as error:
        return [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()]
    except KeyError as error:
        return [("type", str(error.args[0]))]
    except ImportError as error:
        return [("type", str(error))]
    return problems

"""What stands for running engines: pools of simulated instances that a load can be played on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeAlias

from trainables._trial import Json
from trainables.engines._simulated import METHOD
from trainables.serving._simulated_settings import Understood
from trainables.simulation import (
    FirstToken,
    HostCosts,
    Instance,
    LatencyModel,
    Load,
    Route,
    Simulated,
    Transfer,
    instant_prefill,
    simulate,
    simulate_disaggregated,
)

Wrap: TypeAlias = Callable[[LatencyModel], LatencyModel]
"""Puts something between the simulator and a latency model."""


@dataclass(frozen=True)
class Played:
    """One run, for pictures.

    Attributes:
        seconds: Wall time of the simulation.
    """

    stage: str
    load: Load
    simulated: Simulated
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class SimulatedPool:
    """Instances that are all alike.

    Attributes:
        understood: Their engine's settings.
        names: Of every one, data-parallel ranks counted.
        role: ``prefill``, ``decode`` or ``mixed``; empty where nothing has roles.
    """

    understood: Understood
    latency: LatencyModel
    host: HostCosts
    names: Sequence[str]
    role: str = ""

    @property
    def refusal(self) -> str | None:
        """Why the real engine would not start; None when it would."""
        settings = self.understood.settings
        if self.understood.fits:
            return None
        said = (
            f"the KV cache has room for {settings.num_blocks * settings.block_size} tokens, one "
            f"sequence of the longest permitted length takes {settings.max_model_len}"
        )
        return f"{self.role} instances: {said}" if self.role else said

    def instances(self, wrap: Wrap) -> list[Instance]:
        latency, settings = wrap(self.latency), self.understood.settings
        return [Instance(name, settings, latency, self.host) for name in self.names]

    def to_json(self) -> dict[str, Json]:
        return {
            "settings": asdict(self.understood.settings),
            "instances": len(self.names),
            "kv_blocks_from": self.understood.blocks_from,
            "host": asdict(self.host),
        }


@dataclass
class SimulatedService:
    """What a trial has in the place of running engines.

    Attributes:
        served_name: Name that clients would use.
        pools: One of mixed instances; or prefill and decode; or one of these two, of which the
            other part is neither needed nor waited for.
        route: How requests are shared out in each pool.
        notes: What readers of the result should know.
        transfer: How KV caches get from prefill to decode; None: in no time.
        first_token: Which of the two computes the first token that clients see.
        full, last: Full runs, and the last one of any sort.
        played_s, wall_s, iterations: Virtual and wall time, and iterations, of all runs.
    """

    served_name: str
    pools: Sequence[SimulatedPool]
    route: Route
    notes: list[str]
    transfer: Transfer | None = None
    first_token: FirstToken = "decode"
    base_url: str = "http://simulated"
    full: list[Played] = field(default_factory=list)
    last: Played | None = None
    played_s: float = 0.0
    wall_s: float = 0.0
    iterations: int = 0

    @property
    def refusal(self) -> str | None:
        """Why a real engine would not start; None when all would."""
        return next((said for pool in self.pools if (said := pool.refusal) is not None), None)

    @property
    def most_output(self) -> int | None:
        """Tokens after which engines end an answer; None: as many as are asked for."""
        given = [pool.understood.most_output for pool in self.pools]
        return min((most for most in given if most is not None), default=None)

    def simulate(self, load: Load, wrap: Wrap) -> Simulated:
        """Play a load."""
        pools = {pool.role: pool.instances(wrap) for pool in self.pools}
        decode = pools.get("decode")
        if decode is None:
            return simulate(
                [one for pool in pools.values() for one in pool], load, route=self.route
            )
        prefill = pools.get("prefill") or [instant_prefill(decode[0], load.requests)]
        found = simulate_disaggregated(
            prefill,
            decode,
            load,
            transfer=self.transfer,
            first_token=self.first_token,
            route=self.route,
        )
        mine = {one.name for pool in pools.values() for one in pool}
        return replace(
            found,
            instances={name: one for name, one in found.instances.items() if name in mine},
            capacity={name: blocks for name, blocks in found.capacity.items() if name in mine},
        )

    def account(self, played: Played) -> None:
        """Keep full runs and the last one, and what all of them took."""
        self.last = played
        if played.stage.startswith("benchmark"):
            self.full.append(played)
        self.played_s += played.metrics["duration_s"]
        self.wall_s += played.seconds
        self.iterations += sum(len(one.start) for one in played.simulated.instances.values())

    def run_of(self, metrics: Mapping[str, float]) -> Played | None:
        """The full run that these metrics are of; of several that were averaged, the last; the
        last short one where there is no full one."""
        alike = [one for one in self.full if one.metrics["duration_s"] == metrics.get("duration_s")]
        return next(iter([*alike, *reversed(self.full)]), self.last)

    def note(self, said: str) -> None:
        """Tell readers something, once."""
        if said and said not in self.notes:
            self.notes.append(said)

    def to_json(self) -> dict[str, Json]:
        """How it was simulated, for the measurement: settings at once where nothing has roles,
        else of each pool under ``pools``."""
        roles = {pool.role: pool.to_json() for pool in self.pools}
        document: dict[str, Json] = roles.get("", {"pools": roles})
        if self.transfer is not None:
            document = {**document, "transfer": asdict(self.transfer)}
        return {
            "method": METHOD,
            **document,
            "iterations": self.iterations,
            "virtual_s": round(self.played_s, 6),
            "wall_s": round(self.wall_s, 6),
            "extrapolated": extrapolated([pool.latency for pool in self.pools]),
        }


def extrapolated(models: Sequence[LatencyModel]) -> float | None:
    """Share of the iterations that latency models were asked for and that are outside of what they
    were made from; None: they do not tell."""
    outside = [getattr(model, "extrapolated", None) for model in models]
    asked = [getattr(model, "iterations", None) for model in models]
    if not all(isinstance(count, int) for count in (*outside, *asked)) or not sum(asked):  # type: ignore[arg-type]
        return None
    return round(sum(outside) / sum(asked), 4)  # type: ignore[arg-type]

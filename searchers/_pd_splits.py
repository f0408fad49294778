"""Ways to share devices out between prefill, decode and mixed instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["prefill", "decode", "mixed"]
ROLES: tuple[Role, ...] = ("prefill", "decode", "mixed")


@dataclass(frozen=True)
class Shape:
    """One sort of instance, simulated or real.

    Attributes:
        name: Unlike that of every other shape.
        devices: Of one instance: tensor parallel x pipeline parallel x data parallel.
        roles: What an instance of it may be used for.
    """

    name: str
    devices: int
    roles: frozenset[Role] = frozenset(ROLES)

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ValueError(f"shape {self.name} has {self.devices} devices, 1 is the least")


@dataclass(frozen=True)
class Pool:
    """So many instances of one shape."""

    shape: Shape
    count: int

    @property
    def devices(self) -> int:
        return self.count * self.shape.devices

    def __str__(self) -> str:
        return f"{self.count} x {self.shape.name}"


@dataclass(frozen=True)
class Split:
    """A prefill and a decode pool, or one pool of instances that do both."""

    prefill: Pool | None = None
    decode: Pool | None = None
    mixed: Pool | None = None

    def __post_init__(self) -> None:
        if set(self.pools) not in ({"prefill", "decode"}, {"mixed"}):
            raise ValueError(f"a split is prefill and decode, or mixed, not {sorted(self.pools)}")

    @property
    def pools(self) -> dict[Role, Pool]:
        """Those there are."""
        pools: dict[Role, Pool | None] = {
            "prefill": self.prefill,
            "decode": self.decode,
            "mixed": self.mixed,
        }
        return {role: pool for role, pool in pools.items() if pool is not None}

    @property
    def devices(self) -> int:
        return sum(pool.devices for pool in self.pools.values())

    @property
    def disaggregated(self) -> bool:
        return self.mixed is None

    def __str__(self) -> str:
        return " + ".join(f"{pool} {role}" for role, pool in self.pools.items())


def all_splits(shapes: Iterable[Shape], devices: int) -> list[Split]:
    """All splits within a number of devices, one shape for each role, mixed ones first.

    Of splits that differ only in the number of decode instances, the one with the most: more
    instances are never worse. Mixed ones likewise.

    Raises:
        ValueError: Two shapes have one name.
    """
    shapes = list(shapes)
    names = [shape.name for shape in shapes]
    if len(set(names)) < len(names):
        raise ValueError(f"shapes need names of their own, there are {', '.join(names)}")
    found = [
        Split(mixed=Pool(shape, devices // shape.devices))
        for shape in shapes
        if "mixed" in shape.roles and shape.devices <= devices
    ]
    for first in (shape for shape in shapes if "prefill" in shape.roles):
        for second in (shape for shape in shapes if "decode" in shape.roles):
            for count in range(1, devices // first.devices + 1):
                rest = (devices - count * first.devices) // second.devices
                if rest > 0:
                    found.append(Split(Pool(first, count), Pool(second, rest)))
    return found


def prefill_rate(concurrency: float, ttft: float) -> float:
    """Requests per second that one prefill instance completes: Little's law.

    Args:
        concurrency: Prompts under way in it.
        ttft: Mean seconds to the first token at that concurrency.
    """
    return concurrency / ttft


def decode_rate(concurrency: float, tpot: float, output_tokens: float) -> float:
    """Requests per second that one decode instance completes: Little's law.

    Args:
        concurrency: Requests that decode in it.
        tpot: Mean seconds per output token at that concurrency.
        output_tokens: Mean tokens of an answer; the first is not decoded.
    """
    return concurrency / (tpot * max(output_tokens - 1, 1.0))


Rates: TypeAlias = Mapping[tuple[str, Role], float]
"""Requests per second of one instance, by the name of its shape and its role."""


def matched_rate(split: Split, rates: Rates) -> float:
    """Requests per second of a split whose pools are as fast as their instances alone: of the
    slower pool, ``min(P x prefill rate, D x decode rate)``."""
    return min(pool.count * rates[pool.shape.name, role] for role, pool in split.pools.items())

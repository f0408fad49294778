"""Which instance gets the next request, and what became of those it got. Without I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Policy: TypeAlias = Literal["least_loaded", "round_robin"]
LEAST_LOADED: Final = "least_loaded"
ROUND_ROBIN: Final = "round_robin"

_REST_S = 5.0
"""How long an instance that accepts no connection is passed over where there are others: it
fails at once, and would otherwise be the least loaded one."""


@dataclass
class Upstream:
    """One instance as the router sees it.

    Attributes:
        name: ``prefill-1``.
        role: ``prefill``, ``decode`` or ``mixed``.
        url: ``http://host:port``.
        in_flight: Requests under way at it.
        bytes_in_flight: Sizes of their bodies.
        requests: Requests it was given.
        errors: How many of them failed, by reason.
        rests_until: Time until which it is passed over.
    """

    name: str
    role: str
    url: str
    in_flight: int = 0
    bytes_in_flight: int = 0
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    rests_until: float = 0.0

    def rest(self, now: float) -> None:
        self.rests_until = now + _REST_S

    @contextmanager
    def busy(self, size: int) -> Iterator[Upstream]:
        """With one request more under way, whose body has ``size`` bytes."""
        self.requests += 1
        self.in_flight += 1
        self.bytes_in_flight += size
        try:
            yield self
        finally:
            self.in_flight -= 1
            self.bytes_in_flight -= size


class Pool:
    """The instances of one role."""

    def __init__(self, role: str, urls: Sequence[str], policy: Policy) -> None:
        self.role = role
        self.upstreams = [Upstream(f"{role}-{n}", role, url) for n, url in enumerate(urls, 1)]
        self._policy = policy
        self._turn = 0

    def __bool__(self) -> bool:
        return bool(self.upstreams)

    def choose(self, now: float) -> Upstream:
        """The instance that gets the next request; equally loaded ones have it in turn."""
        count = len(self.upstreams)
        turns = [self.upstreams[(self._turn + n) % count] for n in range(count)]
        awake = [one for one in turns if one.rests_until <= now] or turns
        chosen = awake[0] if self._policy == ROUND_ROBIN else min(awake, key=self._load)
        self._turn = self.upstreams.index(chosen) + 1
        return chosen

    def _load(self, upstream: Upstream) -> int:
        """Prefill works through prompts one after the other, decode through all at once."""
        if self.role == "prefill":
            return upstream.bytes_in_flight
        return upstream.in_flight


class Counts:
    """What the router has answered.

    Attributes:
        answers: Finished answers by status.
        broken: Streams that ended with an error after their beginning.
        disconnects: Clients that went away before their answer was complete.
    """

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.broken = 0
        self.disconnects = 0


def metrics_text(pools: Mapping[str, Pool], counts: Counts) -> str:
    """All counters in Prometheus' text format."""
    upstreams = [one for pool in pools.values() for one in pool.upstreams]
    labels = [f'instance="{one.name}",role="{one.role}",url="{one.url}"' for one in upstreams]
    named = list(zip(labels, upstreams, strict=True))
    errors = [
        (f'{label},reason="{reason}"', count)
        for label, one in named
        for reason, count in sorted(one.errors.items())
    ]
    statuses = [(f'status="{status}"', n) for status, n in sorted(counts.answers.items())]
    families = [
        ("requests_total", "counter", [(label, one.requests) for label, one in named]),
        ("requests_in_flight", "gauge", [(label, one.in_flight) for label, one in named]),
        ("errors_total", "counter", errors),
        ("answers_total", "counter", statuses),
        ("broken_streams_total", "counter", [("", counts.broken)]),
        ("client_disconnects_total", "counter", [("", counts.disconnects)]),
    ]
    lines = []
    for name, kind, samples in families:
        lines.append(f"# TYPE router_{name} {kind}")
        for label, value in samples:
            lines.append(f"router_{name}{f'{{{label}}}' if label else ''} {value}")
    return "\n".join(lines) + "\n"

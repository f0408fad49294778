"""KV caches on their way from prefill to decode instances.

A transfer flows over one link of its source and one of its destination. Transfers that share a
link share its bandwidth equally, as connections of one network card do; what one of them cannot
use because its other end is the bottleneck is not given to the others.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Transfer:
    """How KV caches get from a prefill instance to a decode instance.

    Attributes:
        bytes_per_token: Of the whole model: 2 x layers x KV heads x head size x bytes of a number;
            0: transfers take their latency only.
        gb_per_s: Bandwidth of one link, 1e9 bytes per second.
        latency_s: From the end of the flow, or its start if there are no bytes, to the moment at
            which the decode instance knows: handshakes, notifications.
        links: Of each instance. Fewer transfers than links do not disturb each other.
        layerwise: Whether the prefill instance pushes each layer as soon as it is computed
            (vllm-ascend's ``MooncakeLayerwiseConnector``); then the decode instance reserves
            blocks before the prefill starts. Otherwise it pulls the whole once the prompt is
            computed (vLLM's ``NixlConnector``, vllm-ascend's ``MooncakeConnectorV1``).
        layers: With ``layerwise``, layers of the model: the last of them is sent after the
            prefill.
    """

    bytes_per_token: float = 0.0
    gb_per_s: float = math.inf
    latency_s: float = 0.0
    links: int = 1
    layerwise: bool = False
    layers: int = 1

    def __post_init__(self) -> None:
        for name, least in (("bytes_per_token", 0), ("latency_s", 0), ("links", 1), ("layers", 1)):
            if not least <= getattr(self, name) < math.inf:
                said = f"{name} of a transfer has to be finite and {least} at least"
                raise ValueError(f"{said}, it is {getattr(self, name)}")
        if not self.gb_per_s > 0:
            raise ValueError(f"gb_per_s of a transfer has to be above 0, it is {self.gb_per_s}")

    @property
    def link_bytes_per_s(self) -> float:
        return self.gb_per_s * 1e9

    def left(self, tokens: int, prefill_seconds: float, share: float) -> float:
        """Bytes of a prompt that still have to be sent when it has been computed.

        Args:
            tokens: Of the prompt, that are transferred.
            prefill_seconds: From the start of its first chunk to the end of its last one.
            share: Of the links in that time that is this prompt's.
        """
        whole = tokens * self.bytes_per_token
        if not self.layerwise or not whole:
            return whole
        sent = self.link_bytes_per_s * min(1.0, self.links * share) * prefill_seconds
        return max(whole - sent, whole / self.layers)


@dataclass(slots=True)
class _Flow:
    """Bytes under way; ``end`` holds as long as nothing starts or ends at its two instances."""

    source: int
    destination: int
    left: float
    since: float
    rate: float = math.inf
    end: float = math.inf


class Network:
    """All transfers under way, on the clock of the simulation."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._flows: dict[int, _Flow] = {}
        self._arriving: list[tuple[float, int, int]] = []
        self._started = 0
        self._order: dict[int, int] = {}

    def start(self, key: int, source: int, destination: int, size: float, at: float) -> None:
        """Send ``size`` bytes between two instances from now on."""
        self._order[key] = self._started
        self._started += 1
        if size <= 0 or self._transfer.gb_per_s == math.inf:
            self._arrive(key, at)
            return
        self._flows[key] = _Flow(source, destination, size, at)
        self._share(source, destination, at)

    def next_time(self) -> float:
        """When something ends next unless something is started; inf: never."""
        arrival = self._arriving[0][0] if self._arriving else math.inf
        return min(arrival, min((flow.end for flow in self._flows.values()), default=math.inf))

    def step(self) -> list[int]:
        """Go on to :meth:`next_time`. Returns the keys of the transfers that are complete then, in
        the order in which they were started."""
        now = self.next_time()
        for key in [key for key, flow in self._flows.items() if flow.end <= now]:
            flow = self._flows.pop(key)
            self._share(flow.source, flow.destination, now)
            self._arrive(key, now)
        complete: list[int] = []
        while self._arriving and self._arriving[0][0] <= now:
            complete.append(heapq.heappop(self._arriving)[2])
        return sorted(complete, key=self._order.pop)

    def _arrive(self, key: int, at: float) -> None:
        heapq.heappush(self._arriving, (at + self._transfer.latency_s, self._order[key], key))

    def _share(self, source: int, destination: int, now: float) -> None:
        """Something started or ended at two instances: what flows there changes its pace."""
        out: dict[int, int] = {}
        into: dict[int, int] = {}
        for flow in self._flows.values():
            out[flow.source] = out.get(flow.source, 0) + 1
            into[flow.destination] = into.get(flow.destination, 0) + 1
        links, bandwidth = self._transfer.links, self._transfer.link_bytes_per_s
        for flow in self._flows.values():
            if flow.source != source and flow.destination != destination:
                continue
            if flow.rate < math.inf:
                flow.left = max(0.0, flow.left - flow.rate * (now - flow.since))
            busiest = max(out[flow.source], into[flow.destination])
            flow.since, flow.rate = now, bandwidth * min(1.0, links / busiest)
            flow.end = now + flow.left / flow.rate

"""Communication between the ranks of an instance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """What connects the devices of an instance.

    Times are of the alpha-beta model: a latency and the bytes that one rank has to send. An
    all-reduce sends ``2 (p - 1) / p`` of its bytes, an all-gather and an all-to-all half of that
    (Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations,
    2009; nccl-tests calls the quotient bus bandwidth).

    Attributes:
        gb_per_s: Bandwidth of one device in one direction, in 1e9 bytes per second.
        latency_us: Time of a collective of a few bytes, in microseconds.
    """

    gb_per_s: float
    latency_us: float

    def all_reduce(self, size: float, ranks: int) -> float:
        """Microseconds, for ``size`` bytes on each rank."""
        return 2.0 * self.gather(size, ranks) - self.latency_us if ranks > 1 else 0.0

    def gather(self, size: float, ranks: int) -> float:
        """Microseconds of an all-gather to, or an all-to-all of, ``size`` bytes on each rank."""
        if ranks < 2:
            return 0.0
        return self.latency_us + (ranks - 1) / ranks * size / (self.gb_per_s * 1e3)

    def send(self, size: float) -> float:
        """Microseconds from one rank to another."""
        return self.latency_us + size / (self.gb_per_s * 1e3)

"""Ports of a split that are none of those its transport takes at random; neighbours, for a
transfer."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

from cluster import PortLease, PortUnavailableError, lease_ports

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _BEYOND = 20000, 65536


def lease_transfer_ports(count: int, reserved: range = range(0)) -> PortLease:
    """Lease ``count`` neighbouring free ports of this host outside ``reserved``.

    Ports outside the kernel's ephemeral range go first; those inside are taken where reserved
    ports leave no others.

    Raises ``cluster.PortUnavailableError`` when there are none.
    """
    if not reserved:
        return lease_ports(count, consecutive=True)
    ephemeral = _ephemeral()
    starts = [
        start
        for start in range(_LOWEST, _BEYOND - count + 1)
        if not _overlap(range(start, start + count), reserved)
    ]
    random.shuffle(starts)
    starts.sort(key=lambda start: _overlap(range(start, start + count), ephemeral))
    for start in starts:
        with suppress(PortUnavailableError):
            return lease_ports(ports=range(start, start + count))
    raise PortUnavailableError(
        f"no {count} neighbouring ports are free on this host outside "
        f"{reserved.start} to {reserved.stop - 1}",
        (),
    )


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _ephemeral() -> range:
    try:
        low, high = map(int, _EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        low, high = 32768, 60999
    return range(low, high + 1)

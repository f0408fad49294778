"""TCP ports for servers of trials, such that no two trials and no foreign server share one.

A port is leased by locking a file of that port in the user's runtime folder; the kernel frees it
when the holder dies. The lease excludes other leases of this user in the same network (containers
may share the folder and have networks of their own); a bind test excludes whatever else listens.
Between lease and the server's own bind nothing of ours takes the port, and the kernel gives it to
no outgoing connection, because ports are chosen outside its ephemeral range.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from cluster._locks import FileLock, read_holder, runtime_folder

_PREFERRED = range(20000, 65536)
"""Above what Ray (6379 to 19999) and common servers use by default."""
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_NETWORK = Path("/proc/self/ns/net")
_CLOSING = {
    psutil.CONN_TIME_WAIT,
    psutil.CONN_FIN_WAIT1,
    psutil.CONN_FIN_WAIT2,
    psutil.CONN_CLOSING,
    psutil.CONN_LAST_ACK,
}


class PortUnavailableError(RuntimeError):
    """A port that was demanded is taken, or no ports are free.

    Attributes:
        ports: The ports in question.
        leased: Whether another trial holds it, and gives it back at its end.
    """

    def __init__(self, message: str, ports: Sequence[int], *, leased: bool = False) -> None:
        super().__init__(message)
        self.ports = tuple(ports)
        self.leased = leased


class PortLease:
    """Ports of ours until :meth:`release`, leaving the context, or death.

    Attributes:
        ports: The leased ports, in the order demanded, else ascending.
    """

    def __init__(self, ports: Sequence[int], locks: ExitStack) -> None:
        self.ports = tuple(ports)
        self._locks = locks

    def release(self) -> None:
        """Give the ports back. May be repeated."""
        self._locks.close()

    def __enter__(self) -> PortLease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lease_ports(
    count: int = 1, *, ports: Sequence[int] = (), consecutive: bool = False
) -> PortLease:
    """Lease ``count`` free ports of this host, or exactly ``ports`` when given.

    Args:
        count: How many to choose.
        ports: Ports that are demanded; ``count`` is then ignored.
        consecutive: Choose neighbours, for programs that count up from a first port.

    Raises:
        PortUnavailableError: A demanded port is taken (the message says by whom, as far as that
            can be seen), or not enough ports are free.
        PermissionError: The user's runtime folder belongs to somebody else.
    """
    folder = runtime_folder() / f"ports-{_network()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if ports:
        return _demand(folder, ports)
    candidates = _candidates()
    start = random.randrange(len(candidates))
    locks = ExitStack()
    chosen: list[int] = []
    for port in candidates[start:] + candidates[:start]:
        if consecutive and chosen and port != chosen[-1] + 1:
            locks.close()
            chosen.clear()
        if len(chosen) == count:
            break
        if _take(folder, port, locks):
            chosen.append(port)
    if len(chosen) < count:
        locks.close()
        raise PortUnavailableError(f"fewer than {count} ports are free on this host", ())
    return PortLease(sorted(chosen), locks)


def port_owners(port: int) -> set[int | None]:
    """Process ids that listen on TCP ``port`` of this host, on any address.

    ``None`` stands for a process that this user may not look into, or of another container that
    shares this network. A server is ours when the answer is not empty and every id is in its
    :meth:`cluster.ProcessTree.pids`.
    """
    return {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == port
    }


def _network() -> int:
    """The number of this process's network namespace; 0 where there are none."""
    try:
        return _NETWORK.stat().st_ino
    except OSError:
        return 0


def _demand(folder: Path, ports: Sequence[int]) -> PortLease:
    if len(set(ports)) != len(ports) or not all(0 < port < 65536 for port in ports):
        raise ValueError(f"ports must be distinct and between 1 and 65535: {list(ports)}")
    locks = ExitStack()
    for port in ports:
        if not _take(folder, port, locks, lingering=True):
            locks.close()
            holder = _leaser(folder, port)
            raise PortUnavailableError(
                f"port {port} is taken by {holder or _taker(port)}. "
                "Stop it, wait for it, or choose another port",
                [port],
                leased=holder is not None,
            )
    return PortLease(ports, locks)


def _candidates() -> list[int]:
    """Ports to choose from: outside the ephemeral range, unless that leaves too few."""
    try:
        low, high = map(int, _EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        low, high = 32768, 60999
    outside = [port for port in _PREFERRED if not low <= port <= high]
    return outside if len(outside) >= 1000 else list(_PREFERRED)


def _take(folder: Path, port: int, locks: ExitStack, *, lingering: bool = False) -> bool:
    """Lock ``port`` and test it; what was taken is put on ``locks``."""
    try:
        lock = FileLock(folder / f"{port}.lock")
    except BlockingIOError:
        return False
    if not (_bindable(port) or (lingering and _only_lingers(port))):
        lock.close()
        return False
    lock.write_holder()
    locks.callback(lock.close)
    return True


def _bindable(port: int, *, reuse: bool = False) -> bool:
    """Whether nothing is bound to ``port``, on IPv4 and on IPv6 where the host has it.

    The wildcard address conflicts with every other address. Without ``reuse`` (``SO_REUSEADDR``)
    a socket that is bound but does not listen yet counts too: engines bind early and load the
    model before they listen.
    """
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as test:
                if family == socket.AF_INET6:
                    test.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
                test.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
    return True


def _only_lingers(port: int) -> bool:
    """Whether all that blocks ``port`` are closed connections the kernel remembers for a minute.

    A server that sets ``SO_REUSEADDR``, as all engines do, can bind then.
    """
    states = {
        connection.status
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.laddr.port == port
    }
    return bool(states) and states <= _CLOSING and _bindable(port, reuse=True)


def _leaser(folder: Path, port: int) -> str | None:
    """In words, which trial has leased ``port``; None when none has."""
    path = folder / f"{port}.lock"
    try:
        FileLock(path).close()
    except BlockingIOError:
        holder = read_holder(path)
        if holder is not None and holder.alive:
            return f"another trial: {_command(holder.pid)} since {holder.started}"
    return None


def _taker(port: int) -> str:
    """In words, who is bound to ``port``."""
    owners = port_owners(port)
    if owners:
        return ", ".join("a process of another user" if p is None else _command(p) for p in owners)
    if port < 1024:
        return "the system: this user may not use ports below 1024"
    return "a process that has bound it and does not listen yet"


def _command(pid: int) -> str:
    try:
        return f"process {pid} ({' '.join(psutil.Process(pid).cmdline())[:200]})"
    except psutil.Error:
        return f"process {pid}"

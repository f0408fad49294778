"""Where trials run: nodes, NPUs, resource tags, placement, ports, processes."""

from cluster._connection import Connection, connect
from cluster._files import sync_folder, write_atomic, write_json
from cluster._locks import Holder
from cluster._orphans import FoundProcess, ProcessesRemainError, find_processes, sweep
from cluster._placement import infeasible, slots
from cluster._ports import PortLease, PortUnavailableError, lease_ports, port_owners
from cluster._private_cluster import ClusterError
from cluster._processes import ProcessTree, child_environment
from cluster._resources import (
    STRATEGIES,
    Bundle,
    Node,
    Placement,
    RequestError,
    Strategy,
    parse_bundle,
    selects,
)
from cluster._run_lock import RunLock, RunLockedError

__all__ = [
    "STRATEGIES",
    "Bundle",
    "ClusterError",
    "Connection",
    "FoundProcess",
    "Holder",
    "Node",
    "Placement",
    "PortLease",
    "PortUnavailableError",
    "ProcessTree",
    "ProcessesRemainError",
    "RequestError",
    "RunLock",
    "RunLockedError",
    "Strategy",
    "child_environment",
    "connect",
    "find_processes",
    "infeasible",
    "lease_ports",
    "parse_bundle",
    "port_owners",
    "selects",
    "slots",
    "sweep",
    "sync_folder",
    "write_atomic",
    "write_json",
]

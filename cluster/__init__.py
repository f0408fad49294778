"""Where trials run: nodes, NPUs, resource tags, placement, ports, processes."""

from cluster._connection import Connection, connect
from cluster._files import GrowingFile, sync_folder, write_atomic, write_json
from cluster._locks import Holder
from cluster._nodes import LocalNode, local_nodes, start_node, stop_nodes
from cluster._nodes_chips import (
    Chip,
    ascend_versions,
    chips,
    describe_chips,
    device_memory,
    hccn,
    visible_npus,
)
from cluster._nodes_hosts import (
    HostCommand,
    Hosts,
    run_commands,
    start_commands,
    stop_commands,
)
from cluster._nodes_options import NodeOptions, check_tags, start_command
from cluster._nodes_status import NodeUse, cluster_use
from cluster._nodes_token import accept_token, token_path
from cluster._orphans import FoundProcess, ProcessesRemainError, find_processes, sweep
from cluster._placement import infeasible, slots
from cluster._ports import PortLease, PortUnavailableError, lease_ports, port_owners
from cluster._private_cluster import ClusterError
from cluster._processes import ProcessTree, child_environment
from cluster._resources import (
    NODE_ID,
    STRATEGIES,
    Bundle,
    Node,
    Placement,
    RequestError,
    Strategy,
    parse_bundle,
    selects,
)
from cluster._room import Room
from cluster._run_lock import RunLock, RunLockedError
from cluster._storage import STORAGE_S, Storage, StorageError, is_full, is_gone, probe

__all__ = [
    "NODE_ID",
    "STORAGE_S",
    "STRATEGIES",
    "Bundle",
    "Chip",
    "ClusterError",
    "Connection",
    "FoundProcess",
    "GrowingFile",
    "Holder",
    "HostCommand",
    "Hosts",
    "LocalNode",
    "Node",
    "NodeOptions",
    "NodeUse",
    "Placement",
    "PortLease",
    "PortUnavailableError",
    "ProcessTree",
    "ProcessesRemainError",
    "RequestError",
    "Room",
    "RunLock",
    "RunLockedError",
    "Storage",
    "StorageError",
    "Strategy",
    "accept_token",
    "ascend_versions",
    "check_tags",
    "child_environment",
    "chips",
    "cluster_use",
    "connect",
    "describe_chips",
    "device_memory",
    "find_processes",
    "hccn",
    "infeasible",
    "is_full",
    "is_gone",
    "lease_ports",
    "local_nodes",
    "parse_bundle",
    "port_owners",
    "probe",
    "run_commands",
    "selects",
    "slots",
    "start_command",
    "start_commands",
    "start_node",
    "stop_commands",
    "stop_nodes",
    "sweep",
    "sync_folder",
    "token_path",
    "visible_npus",
    "write_atomic",
    "write_json",
]

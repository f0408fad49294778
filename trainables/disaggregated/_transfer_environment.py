"""What vLLM on Ascend needs in its environment on every node of a split. Pure.

Names and values are those of vLLM-Ascend's guide to prefill/decode disaggregation on several
nodes (``pd_disaggregation_mooncake_multi_node``, 2026-08). *Not run on NPU.*
"""

from __future__ import annotations

import socket

import psutil

from trainables.disaggregated._options import DECODE, Role
from trainables.disaggregated._plan import Plan
from trainables.disaggregated._transfer_sizes import engine_block

_COMMON = {
    "OMP_PROC_BIND": "false",
    "OMP_NUM_THREADS": "10",
    "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
    "TASK_QUEUE_ENABLE": "1",
    "HCCL_OP_EXPANSION_MODE": "AIV",
    "VLLM_USE_V1": "1",
}
_BUFFER_MB = {DECODE: "600"}
_OTHER_BUFFER_MB = "256"


def is_ascend(plan: Plan) -> bool:
    """Whether the instances are vLLM-Ascend's."""
    return engine_block(plan).get("type") == "vllm-ascend"


def ascend_environment(role: Role, host: str, interface: str = "") -> dict[str, str]:
    """The documented variables of an instance on one node; mixed ones get prefill's buffer.

    Args:
        role: What it does.
        host: The node's address: ``HCCL_IF_IP``, and ``VLLM_HOST_IP``, which connectors give to
            their peers and without which vLLM takes the address of the default route.
        interface: For Gloo, tensor parallel groups and HCCL; empty: they choose themselves.
    """
    names = ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME")
    return {
        "HCCL_IF_IP": host,
        "VLLM_HOST_IP": host,
        **(dict.fromkeys(names, interface) if interface else {}),
        **_COMMON,
        "HCCL_BUFFSIZE": _BUFFER_MB.get(role, _OTHER_BUFFER_MB),
    }


def interface_of(host: str) -> str:
    """The network interface of this node that has an address; empty when none has."""
    families = (socket.AF_INET, socket.AF_INET6)
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if address.family in families and address.address.partition("%")[0] == host:
                return name
    return ""

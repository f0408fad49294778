"""The disaggregated trial: prefill, decode and mixed instances on several nodes, and a router.

What moves KV caches (:class:`Transfer`) and what is in front of instances (:class:`Router`) can be
a third party's; what those have to keep is checked by :mod:`trainables.disaggregated.testing`.
"""

from trainables.disaggregated._options import Role
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._router import (
    Router,
    RouterOptions,
    make_router,
    register_router,
    router_type,
    router_types,
)
from trainables.disaggregated._transfer import (
    Addition,
    Flow,
    Transfer,
    TransferOptions,
    Where,
    make_transfer,
    register_transfer,
    transfer_type,
    transfer_types,
)

__all__ = [
    "Addition",
    "Flow",
    "Instance",
    "Plan",
    "Role",
    "Router",
    "RouterOptions",
    "Transfer",
    "TransferOptions",
    "Where",
    "make_router",
    "make_transfer",
    "register_router",
    "register_transfer",
    "router_type",
    "router_types",
    "transfer_type",
    "transfer_types",
]

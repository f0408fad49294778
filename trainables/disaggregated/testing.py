"""Conformance suites of transfers and routers, for our adapters and those of third parties.

One call from a test checks everything::

    def test_my_transfer_keeps_the_contract():
        check_transfer({"type": "mine"}, misfits=[{"engine": {"type": "mindie"}}])

    def test_my_router_keeps_the_contract(tmp_path):
        check_router({"type": "mine", ...}, serve, folder=tmp_path)

A transfer is only asked what it would do. A router is started, in front of what ``serve`` has stand
for instances, see :class:`Stand`: it answers, and spreads questions over all of them; instances are
gone, and end while they answer; it is ended, and killed. Whatever breaks the contract raises
:class:`ContractViolation`.
"""

from trainables._contract import ContractViolation
from trainables.disaggregated._conformance_router import ANSWER, Serve, Stand, check_router
from trainables.disaggregated._conformance_transfer import check_transfer

__all__ = ["ANSWER", "ContractViolation", "Serve", "Stand", "check_router", "check_transfer"]

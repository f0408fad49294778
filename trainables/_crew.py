"""What a trial holds on other nodes: one member for each further bundle of its placement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from trainables._trial import Json


class Member(Protocol):
    """A process of ours on a node, from the start of the trial to its end.

    Attributes:
        name: Of the node, for people.
        address: IP address of the node.
    """

    name: str
    address: str

    def call(self, method: str, /, *arguments: Json, timeout: float) -> Json:
        """Have a method of the member's agent called, and wait for what it returns.

        Raises:
            TrialFailure: The agent raised it, or (class ``lost``) the member or its node died, or
                it did not answer within ``timeout`` seconds.
        """


Crew: TypeAlias = Sequence[Member]
"""Members in the order of the bundles, the first bundle left out: the trial itself is there."""

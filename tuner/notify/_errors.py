"""What can go wrong with a send."""

from __future__ import annotations


class SendError(Exception):
    """A message was not delivered.

    Attributes:
        reason: The sort of failure in a word or two; each sort is told the user once.
        lasting: Another attempt would fail as well.
    """

    def __init__(self, reason: str, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.lasting = lasting

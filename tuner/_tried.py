"""What a trial is called and what it tries, in a few words."""

from __future__ import annotations

import re

from searchers import Json, Proposal

_MOST = 8
"""Parameters that are named in a line."""


def called(number: int, kind: str) -> str:
    """``#3``, or ``#0 baseline`` of what is no candidate of the search."""
    return f"#{number}" if kind == "candidate" else f"#{number} {kind}"


def tried(proposal: Proposal) -> str:
    """The parameters of a proposal and why it is made; only why, where that names them.

    Lists, such as the layers that fall back, are for the report.
    """
    parameters = proposal.parameters
    why = proposal.why.removeprefix(f"{proposal.kind}: ")
    if any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", why) for name in parameters):
        return why
    named = [
        f"{name} {_shown(value)}"
        for name, value in parameters.items()
        if isinstance(value, str | int | float)
    ]
    if not named:
        return why
    more = f" and {len(named) - _MOST} more" if len(named) > _MOST else ""
    said = ", ".join(named[:_MOST]) + more
    return f"{said} ({why})" if why else said


def _shown(value: Json) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)

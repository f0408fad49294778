"""What a trial tries, in a few words."""

from __future__ import annotations

from searchers import Json, Proposal

_MOST = 8
"""Parameters that are named in a line."""


def tried(proposal: Proposal) -> str:
    """The parameters of a proposal and why it is made; only why, where that names them.

    Lists, such as the layers that fall back, are for the report.
    """
    parameters, why = proposal.parameters, proposal.why
    if any(name in why for name in parameters):
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

"""When two trials ask the same question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from searchers import Proposal
from trainables import TrialType


def identity_of(trial: TrialType, type_name: str, proposal: Proposal) -> str:
    """Digest (32 hex digits) of all that decides the numbers a proposal will yield.

    That is the trial's type and kind, the parameters in canonical form, the repetition, and what
    the trial type names: fingerprints of model and data, settings of the evaluation, versions of
    the tools. Ports, timeouts, paths and log levels are no part of it.
    """
    return digest(
        {
            "schema": 1,
            "type": type_name,
            "kind": proposal.kind,
            "parameters": dict(proposal.parameters),
            "repeat": proposal.repeat,
            "decides": trial.identity(proposal.kind),
        }
    )


def digest(document: Mapping[str, Any]) -> str:
    """First 128 bits of the SHA-256 of the canonical JSON (sorted keys, no spaces), in hex."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]

"""When two trials ask the same question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from searchers import Proposal
from trainables import TrialType


class Identifier:
    """Digests proposals: equal digest, equal question.

    What counts is the trial's type and kind, the parameters in canonical form, the repetition, and
    what the trial type names: fingerprints of model and data, settings of the evaluation, versions
    of the tools. Ports, timeouts, paths and log levels are no part of it. What the trial type
    names is looked up once for each kind, so an instance serves one session.
    """

    def __init__(self, trial: TrialType, type_name: str) -> None:
        self._type = type_name
        self._decides = lru_cache(maxsize=None)(trial.identity)

    def __call__(self, proposal: Proposal) -> str:
        """The identity, 32 hex digits."""
        return digest(
            {
                "schema": 1,
                "type": self._type,
                "kind": proposal.kind,
                "parameters": dict(proposal.parameters),
                "repeat": proposal.repeat,
                "decides": self._decides(proposal.kind),
            }
        )


def digest(document: Mapping[str, Any]) -> str:
    """First 128 bits of the SHA-256 of the canonical JSON (sorted keys, no spaces), in hex."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]

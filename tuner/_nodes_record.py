"""What a run has learned about the nodes, kept over a resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster import write_json


@dataclass
class NodesRecord:
    """``nodes.json`` of a run. Nodes are named by Ray's ids.

    Attributes:
        run_id: Whose it is; another run has to learn anew.
        excluded: Why nodes get no more trials: ``{address, reason, at}``.
        errors: Device errors of each node since its last trial that was measured.
        avoided: Nodes where a trial was lost or had a device error, by its identity.
        weights: Nodes that have a copy of the model.
    """

    run_id: str
    excluded: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    avoided: dict[str, list[str]] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, file: Path, run_id: str) -> NodesRecord:
        """The record of this run; a fresh one where there is none, or it cannot be read."""
        try:
            found = cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls(run_id)
        return found if found.run_id == run_id else cls(run_id)

    def save(self, file: Path, write: Callable[[Path, Any], None] = write_json) -> None:
        """Keep it; ``write`` writes a document to a file."""
        write(file, asdict(self))

    def avoid(self, identity: str, nodes: Iterable[str]) -> None:
        """A trial that is repeated had better be elsewhere."""
        known = self.avoided.get(identity, [])
        self.avoided[identity] = list(dict.fromkeys([*known, *nodes]))

"""The Ray Tune trainable that carries every trial.

Its actor only supervises: what is heavy or may crash runs in child interpreters. That keeps the
actor's memory clean, so Ray may reuse it for the next trial (a new actor costs seconds, a reused
one hundredths), and it keeps ``step`` short, so that stop, cancel and clean-up are prompt.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ray
from ray import tune

from trainables._pump import TrialPump
from trainables._ray_crew import RayCrew
from trainables._trial import TrialSpec

STEP_SECONDS = 2.0


class Trial(tune.Trainable):
    """Pumps one :class:`~trainables.TrialSpec` (``config["spec"]``) to its end.

    Every step reports ``{status, stage, note, identity, node, addresses}``, where ``addresses`` are
    those of the nodes of all bundles but the first, once they are known; a failed one also
    ``failure``, the JSON text of ``{class, stage, message, excerpt, suggestion}``. Failures of
    infrastructure are results too, so that the driver can tell them by class; only the loss of this
    actor itself is left to Ray.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """``config["placement"]``, a :class:`cluster.Placement` as JSON; the actor is in its
        first bundle."""
        placement = config["placement"]
        bundles = placement["bundles"]
        labels = [bundle["labels"] for bundle in bundles]
        selectors = {"bundle_label_selector": labels} if any(labels) else {}
        resources = [bundle["resources"] for bundle in bundles]
        return tune.PlacementGroupFactory(resources, placement["strategy"], **selectors)

    def setup(self, config: dict[str, Any]) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._crew = RayCrew(config["placement"]["bundles"])
        spec = TrialSpec.from_json(config["spec"])
        self._pump = TrialPump(spec, self._crew, node=self._node)

    def step(self) -> dict[str, Any]:
        report = self._pump.advance(STEP_SECONDS)
        report |= {"node": self._node, "addresses": self._crew.addresses}
        if report["status"] != "running":
            self.cleanup()
            report["done"] = True
        if "failure" in report:
            report["failure"] = json.dumps(report["failure"])  # Ray flattens nested mappings
        return report

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        try:
            self._pump.close()
        finally:
            self._crew.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save here: finished stages are checkpoints in the trial's own folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See :meth:`save_checkpoint`."""

    def __repr__(self) -> str:
        spec = self._pump.spec
        return f"Trial({spec.kind} {Path(spec.folder).name})"

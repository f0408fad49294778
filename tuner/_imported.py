"""Results of other tools that the user vouches for, as measurements of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from searchers import Json, Proposal
from trainables import Measurement
from tuner._foreign import ForeignLedger
from tuner._ledger import Ledger
from tuner.experiment import Experiment
from tuner.views.msmodelslim import ImportedAccuracy


class ImportingLedger(ForeignLedger):
    """A ledger that also finds what an imported ``accuracy.yaml`` says of a candidate.

    What is found there joins the ledger, marked as imported. There are no weights to it, so a
    winner from it is quantized and measured before it is delivered.
    """

    def __init__(
        self,
        ledger: Ledger,
        imported: ImportedAccuracy,
        experiment: Experiment,
        identify: Callable[[Proposal], str],
    ) -> None:
        super().__init__(ledger, experiment, identify)
        self._imported = imported

    def _elsewhere(self, identity: str, proposal: Proposal) -> Measurement | None:
        practice = self._experiment.trial.practice_document(proposal.parameters)
        metrics = None if practice is None else self._metrics(practice)
        if metrics is None:
            return None
        weights = {"weights": {"practice": practice}}
        file = self._imported.file
        measurement = self._measurement(identity, proposal, file, metrics, artifacts=weights)
        self._ledger.append(measurement)
        return measurement

    def _metrics(self, practice: Mapping[str, Json]) -> Mapping[str, float] | None:
        """What the first plan among the experiment's views has on record for a practice."""
        for block in self._experiment.views:
            if block["type"] == "msmodelslim" and (plan := block.get("evaluation")):
                return self._imported.find(practice, plan, self._metric())
        return None

    def _metric(self) -> str:
        """The original knows one metric and calls it accuracy."""
        names = {each.metric for each in self._experiment.objective.expectations}
        return names.pop() if len(names) == 1 else "accuracy"

"""Results of other tools that the user vouches for, as measurements of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from searchers import Json, Proposal
from trainables import Measurement
from tuner._ledger import Ledger
from tuner._store import now
from tuner.experiment import Experiment
from tuner.views.msmodelslim import ImportedAccuracy


class ImportingLedger:
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
        self._ledger = ledger
        self._imported = imported
        self._experiment = experiment
        self._identify = identify
        self._asked: dict[str, Proposal] = {}

    def identify(self, proposal: Proposal) -> str:
        """The proposal's identity, under which :meth:`find` knows it from now on."""
        identity = self._identify(proposal)
        self._asked[identity] = proposal
        return identity

    def find(self, identity: str) -> Measurement | None:
        known = self._ledger.find(identity)
        proposal = self._asked.get(identity)
        if known is not None or proposal is None or proposal.kind != "candidate" or proposal.repeat:
            return known
        practice = self._experiment.trial.practice_document(proposal.parameters)
        metrics = None if practice is None else self._metrics(practice)
        if metrics is None:
            return None
        measurement = self._measurement(identity, proposal, metrics, practice)
        self._ledger.append(measurement)
        return measurement

    def forget(self, identity: str) -> None:
        self._ledger.forget(identity)

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

    def _measurement(
        self,
        identity: str,
        proposal: Proposal,
        metrics: Mapping[str, float],
        practice: Json,
    ) -> Measurement:
        return Measurement(
            identity=identity,
            type=self._experiment.trial_type,
            kind=proposal.kind,
            parameters=dict(proposal.parameters),
            repeat=0,
            metrics=dict(metrics),
            data={},
            artifacts={"weights": {"practice": practice}},
            environment={"imported": str(self._imported.file)},
            stages=(),
            attempt=1,
            run_id="imported",
            started=now(),
            seconds=0.0,
        )

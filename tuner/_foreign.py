"""Ledgers that also find what was measured elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from searchers import Json, Proposal
from trainables import Measurement
from tuner._ledger import IMPORTED, Ledger
from tuner._store import now
from tuner.experiment import Experiment


class ForeignLedger(ABC):
    """A ledger that asks elsewhere about candidates it does not know.

    Only a candidate's first measurement can be from elsewhere; repeats are second opinions.
    """

    def __init__(
        self, ledger: Ledger, experiment: Experiment, identify: Callable[[Proposal], str]
    ) -> None:
        self._ledger = ledger
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
        return self._elsewhere(identity, proposal)

    def forget(self, identity: str) -> None:
        self._ledger.forget(identity)

    @abstractmethod
    def _elsewhere(self, identity: str, proposal: Proposal) -> Measurement | None:
        """What is known elsewhere of a candidate; it is added to the ledger here, if at all."""

    def _measurement(
        self,
        identity: str,
        proposal: Proposal,
        file: Path,
        metrics: Mapping[str, float],
        *,
        data: Mapping[str, Json] | None = None,
        artifacts: Mapping[str, Json] | None = None,
        started: str | None = None,
    ) -> Measurement:
        """What ``file`` says of a candidate, in the form of a measurement."""
        return Measurement(
            identity=identity,
            type=self._experiment.trial_type,
            kind=proposal.kind,
            parameters=dict(proposal.parameters),
            repeat=0,
            metrics=dict(metrics),
            data=dict(data or {}),
            artifacts=dict(artifacts or {}),
            environment={"imported": str(file)},
            stages=(),
            attempt=1,
            run_id=IMPORTED,
            started=started or now(),
            seconds=0.0,
        )

"""Between the campaign's proposals and the trials that carry them out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cluster import Placement
from searchers import Outcome, Proposal
from trainables import CANCEL, LOCAL_WEIGHTS, Measurement, MeasurementError, TrialSpec
from tuner._campaign import Campaign
from tuner._judge import demands
from tuner._ledger import Ledger
from tuner._nodes import Nodes, NoPlace
from tuner._store import RunStore
from tuner.experiment import Experiment, SizeUnknown


class Carrier:
    """Turns proposals into trial specs and what came of them into outcomes.

    A measurement goes into the ledger before the outcome exists, so before any strategy hears it.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: RunStore,
        ledger: Ledger,
        campaign: Campaign,
        nodes: Nodes,
        run_id: str,
    ) -> None:
        self._experiment = experiment
        self._store = store
        self._ledger = ledger
        self._campaign = campaign
        self._nodes = nodes
        self._run_id = run_id
        self._settings = experiment.trial.settings()
        self._cancelling: set[int] = set()

    def config(self, proposal: Proposal) -> dict[str, Any] | Outcome:
        """The Ray trial's config of a proposal in flight; the outcome of one that no node can ever
        hold."""
        ticket = self._campaign.live()[proposal.number]
        try:
            wanted = self._experiment.placement(proposal.parameters, proposal.kind)
            placement = self._nodes.place(ticket.identity, wanted, proposal.kind)
        except (NoPlace, SizeUnknown) as error:
            return _failed("input", f"no node can hold this trial: {error}")
        folder = self._store.trial_folder(ticket.identity)
        known = self._ledger.find(ticket.identity) is not None
        self._store.storage.do(lambda: _make_ready(folder, known=known))
        spec = TrialSpec(
            run_id=self._run_id,
            identity=ticket.identity,
            folder=str(folder),
            type=self._experiment.trial_type,
            kind=proposal.kind,
            parameters=dict(proposal.parameters),
            repeat=proposal.repeat,
            settings=self._settings,
            attempt=ticket.attempt,
            context=self._context(proposal),
        )
        return {"spec": spec.to_json(), "placement": placement.to_json()}

    def on_trial(self, news: str, config: Mapping[str, Any]) -> None:
        """A Ray trial of this config was ``restored``, has ``begun``, or starts ``again``."""
        spec = config["spec"]
        if news == "again":
            self._nodes.begins_again(spec["identity"])
            return
        asked = Placement.from_json(config["placement"])
        try:
            plain = self._experiment.placement(spec["parameters"], spec["kind"])
        except SizeUnknown:
            plain = asked
        self._nodes.take_over(spec["identity"], plain, asked)
        if news == "begun":
            self._nodes.begun(spec["identity"])

    def _context(self, proposal: Proposal) -> dict[str, Any]:
        """What only the driver knows."""
        local = self._experiment.cluster.local_weights
        staged = {} if local is None else {LOCAL_WEIGHTS: local.model_dump(mode="json")}
        return {**staged, **self._about(proposal)}

    def _about(self, proposal: Proposal) -> dict[str, Any]:
        """A candidate is told the demands and what it has to beat, so that it may end early; a
        verification where the winner it verifies was measured."""
        if proposal.kind == "candidate":
            objective = self._experiment.objective
            context: dict[str, Any] = {"demands": demands(objective, self._campaign.baseline)}
            best = self._campaign.incumbent()
            if best is not None and len(objective.goal().objectives) == 1 and objective.maximize:
                context["incumbent"] = {"metric": objective.maximize[0], "value": best}
            return context
        if proposal.kind != "verification":
            return {}
        winner = self._campaign.identify(Proposal(0, proposal.parameters))
        return {"source": str(self._store.trial_folder(winner))}

    def outcome(
        self, proposal: Proposal, result: Mapping[str, Any] | None, errored: bool
    ) -> Outcome:
        """What the end of a Ray trial means. Never raises for what a trial left behind."""
        ticket = self._campaign.live().get(proposal.number)
        if ticket is None:
            return Outcome("cancelled")
        outcome = self._outcome(ticket.identity, result, errored)
        if outcome.status == "failed" and ticket.identity in self._unstarted():
            outcome = Outcome("cancelled")
        self._cancelling.discard(proposal.number)
        self._nodes.ended(ticket.identity, outcome)
        return outcome

    def _outcome(self, identity: str, result: Mapping[str, Any] | None, errored: bool) -> Outcome:
        folder = self._store.trial_folder(identity)
        try:
            measurement = self._store.storage.do(lambda: self._measurement(folder))
        except MeasurementError as error:
            return _failed("input", str(error))
        if measurement is not None:
            self._ledger.append(measurement)
            return Outcome("measured", dict(measurement.metrics), dict(measurement.data))
        status = None if result is None else result.get("status")
        if status == "cancelled":
            return Outcome("cancelled")
        if status == "failed" and result is not None:
            failure = json.loads(result["failure"])
            return Outcome("failed", data={"failure": failure}, error=_sentence(failure))
        said = "its worker or node died" if errored else "it ended without a result"
        return _failed("lost", self._nodes.given_up().get(identity, said))

    def _measurement(self, folder: Path) -> Measurement | None:
        """What a trial left; raises ``OSError`` where that cannot be seen."""
        measurement = Measurement.read(folder)
        if measurement is None:
            self._store.storage.check()
        return measurement

    def given_up(self) -> frozenset[str]:
        """Identities of trials in Ray's hands that are not to begin any more."""
        return frozenset(self._nodes.given_up()) | self._unstarted()

    def _unstarted(self) -> frozenset[str]:
        """What is cancelled before it has begun; nobody there reads that it is cancelled."""
        live = self._campaign.live()
        identities = (live[number].identity for number in self._cancelling if number in live)
        return frozenset(one for one in identities if not self._nodes.has_begun(one))

    def cancel_obsolete(self) -> None:
        """Ask trials whose answer no longer matters to end; they do within seconds."""
        for number in self._campaign.obsolete() - self._cancelling:
            folder = self._store.trial_folder(self._campaign.live()[number].identity)
            self._store.storage.do(partial(_cancel, folder))
            self._cancelling.add(number)


def _make_ready(folder: Path, *, known: bool) -> None:
    """Make a trial's folder such that a new attempt can begin in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CANCEL).unlink(missing_ok=True)
    if not known:
        _set_aside(Measurement.file(folder))


def _cancel(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CANCEL).touch()


def _failed(failure: str, message: str) -> Outcome:
    return Outcome(
        "failed", data={"failure": {"class": failure, "message": message}}, error=message
    )


def _sentence(failure: Mapping[str, Any]) -> str:
    """Where, what, and what to do."""
    stage, said = failure.get("stage", ""), str(failure.get("message"))
    if stage and stage not in said:
        said = f"{stage}: {said}"
    suggestion = failure.get("suggestion")
    return f"{said}; {suggestion}" if suggestion else said


def _set_aside(file: Path) -> None:
    """Keep, but do not find again, a measurement that is to be made once more."""
    if file.exists():
        number = sum(1 for _ in file.parent.glob("measurement.*.json"))
        file.rename(file.with_name(f"measurement.{number}.json"))

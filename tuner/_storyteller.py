"""Keeps the views of a run up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cluster import StorageError
from searchers import Proposal
from trainables import Measurement
from tuner._campaign import Event
from tuner._judge import BaselineMissing, judge
from tuner._ledger import Ledger
from tuner._report import RunResult
from tuner._store import RunStore, now
from tuner.experiment import Experiment
from tuner.views import Begun, Finished, Status, Story, View, make_view

_STATUS: Mapping[str, Status] = {
    "measured": "measured",
    "reused": "reused",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""Of the events, those that end a trial."""


class Storyteller:
    """Tells every view of the experiment what has happened so far.

    A view that fails is said so once and costs nothing else: measurements are safe without it.
    One that fails since the storage is gone is told again when it is back.
    """

    def __init__(self, experiment: Experiment, store: RunStore) -> None:
        self._experiment = experiment
        self._store = store
        self._finished: list[Finished] = []
        self._begun: dict[int, Begun] = {}
        pedigree = experiment.trial.pedigree
        self._views = [make_view(block, pedigree=pedigree) for block in experiment.views]
        self._said: set[str] = set()

    def on_event(self, event: Event, ledger: Ledger, baseline: Mapping[str, float] | None) -> None:
        """Take an event of the campaign in."""
        ticket, outcome = event.ticket, event.outcome
        status = _STATUS.get(event.kind)
        if ticket is not None and event.kind == "proposed":
            proposal = ticket.proposal
            self._begun[proposal.number] = Begun(
                number=proposal.number,
                kind=proposal.kind,
                parameters=dict(proposal.parameters),
                identity=ticket.identity,
                labels=dict(proposal.labels),
            )
        elif ticket is not None:
            self._begun.pop(ticket.proposal.number, None)
        if ticket is None or outcome is None or status is None:
            return
        measurement = ledger.find(ticket.identity) if outcome.status == "measured" else None
        judgement = None
        if measurement is not None and ticket.proposal.kind == "candidate":
            try:
                judgement = judge(self._experiment.objective, measurement.metrics, baseline)
            except BaselineMissing:
                judgement = None
        self._finished.append(
            Finished(
                number=ticket.proposal.number,
                kind=ticket.proposal.kind,
                repeat=ticket.proposal.repeat,
                parameters=dict(ticket.proposal.parameters),
                status=status,
                measurement=measurement,
                checks=() if judgement is None else judgement.checks,
                satisfied=None
                if judgement is None
                else judgement.satisfied and "stopped" not in outcome.data,
                failure=outcome.data.get("failure"),
                at=now() if measurement is None else measurement.ended,
                identity=ticket.identity,
                labels=dict(ticket.proposal.labels),
            )
        )

    def tell(
        self, best: Proposal | None, result: RunResult | None, verified: Measurement | None
    ) -> Iterator[str]:
        """Update all views; what the user should know of it. ``result`` once there is a verdict."""
        if not self._views:
            return
        story = Story(
            experiment=self._experiment,
            store=self._store,
            finished=tuple(self._finished),
            verdict=None if result is None else result.verdict,
            message="" if result is None else result.message,
            best=_parameters(best) if result is None else result.best,
            verified=verified,
            begun=tuple(self._begun.values()),
        )
        for block, view in zip(self._experiment.views, self._views, strict=True):
            try:
                yield from self._update(view, story)
            except StorageError:
                raise
            except Exception as error:
                said = f"the view {block['type']} is not up to date: {error}"
                if said not in self._said:
                    self._said.add(said)
                    yield said

    def _update(self, view: View, story: Story) -> tuple[str, ...]:
        try:
            return view.update(story)
        except OSError:
            if not self._store.storage.was_gone():
                raise
            return view.update(story)


def _parameters(best: Proposal | None) -> Mapping[str, object] | None:
    return None if best is None else dict(best.parameters)

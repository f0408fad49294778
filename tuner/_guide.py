"""What guides a search beside its own measurements, and whether it is right.

Earlier measurements are learned from; a simulator is believed until measurements say otherwise, and
how far it is from them is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from searchers import Strategy
from trainables import Measurement
from tuner._agreement import Agreement, agreement
from tuner._campaign import Campaign, Event
from tuner._forecast import Forecast
from tuner._judge import BaselineMissing, judge
from tuner._ledger import Ledger
from tuner._prior import Prior
from tuner._report import RunResult
from tuner.experiment import Objective

_PLAYED = ("candidate", "prefill", "decode")
"""Kinds of trials that a simulator plays before they are measured."""


class Guide:
    """Everything a search is told before it begins.

    Attributes:
        agreement: The simulator beside all that was measured so far; None: there is none.
    """

    def __init__(self, prior: Prior, forecast: Forecast, objective: Objective) -> None:
        self.agreement: Agreement | None = None
        self.notes = (*prior.notes, *forecast.notes)
        self._prior, self._forecast = prior, forecast
        self._objective = objective

    def tell(self, strategy: Strategy) -> Strategy:
        """The strategy, which has been told all."""
        return self._forecast.tell(self._prior.teach(strategy))

    def heard(self, event: Event, campaign: Campaign, ledger: Ledger) -> Iterator[str]:
        """Take an event of the campaign in; what the user should know of it."""
        if not self._forecast.points or event.kind != "measured":
            return
        before = self.agreement
        self.agreement = self._agreement(campaign, ledger)
        if self.agreement.dropped and not (before is not None and before.dropped):
            yield str(self.agreement)

    def closing(self, result: RunResult, campaign: Campaign, ledger: Ledger) -> RunResult:
        """The result with a note of how good the simulator was."""
        if not self._forecast.points:
            return result
        self.agreement = self._agreement(campaign, ledger)
        return replace(result, notes=(*result.notes, str(self.agreement)))

    def _agreement(self, campaign: Campaign, ledger: Ledger) -> Agreement:
        known = campaign.identities()
        found = [
            (item.kind, (said, {**item.metrics, **self._derived(item, campaign)}))
            for item in ledger
            if item.kind in _PLAYED and item.identity in known and "stopped" not in item.data
            if (said := self._forecast.of(item.parameters)) is not None
        ]
        alike = [pair for kind, pair in found if kind == "candidate"]
        pairs = [pair for _, pair in found]
        return agreement(self._objective.goal(), pairs, campaign.search.trust(), ranked=alike)

    def _derived(self, item: Measurement, campaign: Campaign) -> dict[str, float]:
        try:
            return dict(judge(self._objective, item.metrics, campaign.baseline).derived)
        except BaselineMissing:
            return {}

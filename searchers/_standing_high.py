"""Standing high: which outlier strategy gets by with the least fallback, and with how little?"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from searchers._candidates import FallbackOptions, NoRanking, grouped, ranked
from searchers._contract import WAIT, Done, Json, Outcome, Proposal, Strategy, Wait
from searchers._flight import Flight
from searchers._ladders import Ladders, Spot, Step, most_steps
from searchers._registry import register_strategy
from searchers._space import Space
from searchers._standing_high_account import Account, strategy_names


class StandingHighOptions(FallbackOptions):
    """Options of ``standing_high``.

    Attributes:
        anti_outlier_strategies: Outlier strategies to choose from, each a list of processors as a
            practice writes them, such as ``[{type: iter_smooth}]``; ``[]`` suppresses nothing.
            The first is the one whose fallback is bisected by a sequential search.
        candidates: As in ``binary_fallback``.
        max_failures: Failed trials after which an outlier strategy is left aside.
    """

    anti_outlier_strategies: list[list[dict[str, Json]]] = Field(min_length=1)

    @field_validator("anti_outlier_strategies")
    @classmethod
    def _usable(cls, strategies: list[list[dict[str, Json]]]) -> list[list[dict[str, Json]]]:
        faults = [
            f"{index}.{place}: a processor needs a type, such as {{type: iter_smooth}}"
            for index, processors in enumerate(strategies)
            for place, processor in enumerate(processors)
            if not (isinstance(processor.get("type"), str) and processor["type"])
        ]
        faults += [
            f"{index}: the same as {strategies.index(processors)}; leave one out"
            for index, processors in enumerate(strategies)
            if strategies.index(processors) < index
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return strategies


@register_strategy("standing_high", StandingHighOptions)
class StandingHigh(Strategy):
    """Finds the outlier strategy that needs the shortest prefix of the candidates in fallback.

    A candidate proposal has the parameters ``{"anti_outlier": [processor, ...], "fallback":
    [layer, ...]}``. With one probe at a time the order is that of msModelSlim's ``standing_high``,
    without its repeats; with more, see :mod:`searchers._ladders`. The end level is the same. What
    msModelSlim calls a success though nothing satisfied is ``exhausted`` here.

    The analysis is that of ``binary_fallback``. It is asked for when zero fallback with the first
    strategy has failed, or beside it when there is room for two; further slots meanwhile measure
    zero fallback with the other strategies, which needs no ranking.

    An outlier strategy whose trials keep failing, for instance because the model has no adapter
    for it, is left aside, and the search goes on with the others.
    """

    def __init__(
        self, options: StandingHighOptions, *, space: Space | None = None, seed: int = 0
    ) -> None:
        if space is not None:
            raise ValueError("standing_high searches the candidates; it takes no space")
        self._options = options
        self._groups = grouped(options.candidates)
        self._names = strategy_names(options.anti_outlier_strategies)
        self._ladders = Ladders(len(self._names), len(self._groups), options.max_failures)
        self._flight = Flight()
        self._satisfied: dict[Spot, Proposal] = {}
        self._trouble: str | None = None

    def ask(self) -> Proposal | Wait | Done:
        if self._flight and len(self._flight) >= self.width:
            return WAIT
        step = self._ladders.next(self.width, self._flying())
        opening = step is not None and step.spot == Spot(0, 0)
        if self._wants_analysis() and not opening:
            why = "sensitivity analysis: in which order should layers fall back?"
            return self._flight.launch({}, kind="analysis", why=why)
        if step is not None:
            return self._propose(step)
        return WAIT if self._flight else self._conclude()

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        landed = self._flight.land(proposal)
        if landed is None or outcome.status == "cancelled":
            return
        if landed.kind == "analysis":
            self._learn_ranking(outcome)
            return
        spot = _spot(landed)
        if outcome.status == "failed":
            self._ladders.record_failure(spot)
            return
        if outcome.satisfied is None:
            raise ValueError("standing_high needs to be told whether the demand is satisfied")
        self._ladders.record(spot, outcome.satisfied)
        if outcome.satisfied:
            self._satisfied.setdefault(spot, landed)

    def best(self) -> Proposal | None:
        spot = self._ladders.answer()
        return None if spot is None else self._satisfied[spot]

    def obsolete(self) -> frozenset[int]:
        useless = self._ladders.obsolete(self.width, self._flying())
        flying = self._flight.proposals.items()
        return frozenset(
            number
            for number, each in flying
            if (_spot(each) in useless if each.kind == "candidate" else not self._needs_analysis())
        )

    def remaining(self) -> int | None:
        if self._needs_analysis():
            return None
        return max(self._ladders.outstanding(self.width), len(self._flight))

    def most(self) -> int | None:
        """See the base; None as long as the number of candidates is unknown."""
        if not self._groups:
            return None
        analysed = not self._options.candidates
        strategies = len(self._names)
        steps = most_steps(len(self._groups), strategies, self.width, alone=analysed)
        return steps + analysed

    def state(self) -> dict[str, Json]:
        return {
            "flight": self._flight.state(),
            "groups": self._groups,
            "ladders": self._ladders.state(),
            "satisfied": [proposal.to_json() for proposal in self._satisfied.values()],
            "trouble": self._trouble,
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self._flight.restore(state["flight"])
        self._groups = [list(group) for group in state["groups"]]
        self._ladders.restore(state["ladders"])
        satisfied = [Proposal.from_json(document) for document in state["satisfied"]]
        self._satisfied = {_spot(proposal): proposal for proposal in satisfied}
        self._trouble = state["trouble"]

    def _parameters(self, strategy: int, fallback: list[str]) -> dict[str, Json]:
        """What is to be measured: one outlier strategy, and the layers in fallback."""
        processors = self._options.anti_outlier_strategies[strategy]
        return {"anti_outlier": processors, "fallback": fallback}

    def _flying(self) -> dict[Spot, int | None]:
        """Rounds by what is being measured."""
        flying = self._flight.proposals.values()
        candidates = (each for each in flying if each.kind == "candidate")
        return {_spot(each): each.labels.get("round") for each in candidates}

    def _needs_analysis(self) -> bool:
        known = self._groups or self._trouble
        return not known and self._ladders.answer() is None and bool(self._ladders.live)

    def _wants_analysis(self) -> bool:
        asked = any(each.kind == "analysis" for each in self._flight.proposals.values())
        return self._needs_analysis() and not asked

    def _learn_ranking(self, outcome: Outcome) -> None:
        try:
            self._groups = ranked(outcome)
        except NoRanking as error:
            self._trouble = str(error)
            return
        self._ladders.extend(len(self._groups))

    def _account(self) -> Account:
        return Account(self._names, self._groups, self._ladders)

    def _propose(self, step: Step) -> Proposal:
        self._ladders.launch(step, self.width, self._flying())
        prefix = self._groups[: step.spot.level]
        fallback = [name for group in prefix for name in group]
        account = self._account()
        return self._flight.launch(
            self._parameters(step.spot.strategy, fallback),
            why=account.why(step),
            labels=account.labels(step),
        )

    def _conclude(self) -> Done:
        spot = self._ladders.answer()
        account = self._account()
        if spot is not None:
            said = account.delivery(spot) + account.notes()
            return Done("satisfied", self._satisfied[spot], said)
        if self._trouble is not None:
            return Done("failed", None, self._trouble + account.notes())
        exhaustion = account.exhaustion()
        if exhaustion:
            return Done("exhausted", None, exhaustion + account.notes())
        return Done("failed", None, "no fallback was found that meets the demand" + account.notes())


def _spot(proposal: Proposal) -> Spot:
    return Spot(proposal.labels["strategy"], proposal.labels["level"])

"""Standing high: which outlier strategy gets by with the least fallback, and with how little?"""

from __future__ import annotations

from pydantic import Field, field_validator

from searchers._candidates import FallbackOptions
from searchers._contract import WAIT, Done, Json, Proposal, Wait
from searchers._fallback_search import FallbackSearch
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
class StandingHigh(FallbackSearch[Spot]):
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
        self._strategies = options.anti_outlier_strategies
        self._names = strategy_names(self._strategies)
        count = len(options.candidates)
        self._ladders = Ladders(len(self._names), count, options.max_failures)
        super().__init__(options, self._ladders, space)

    def ask(self) -> Proposal | Wait | Done:
        if self._full():
            return WAIT
        step = self._ladders.next(self.width, self._flying())
        opening = step is not None and step.spot == Spot(0, 0)
        if self._wants_analysis() and not opening:
            return self._analyse()
        if step is not None:
            return self._propose(step)
        return WAIT if self._flight else self._conclude()

    def obsolete(self) -> frozenset[int]:
        return self._useless(self._ladders.obsolete(self.width, self._flying()))

    def most(self) -> int | None:
        """See the base; None as long as the number of candidates is unknown."""
        if not self._groups:
            return None
        strategies = len(self._names)
        steps = most_steps(len(self._groups), strategies, self.width, alone=self._ranks)
        return steps + self._ranks

    def _parameters(self, strategy: int, fallback: list[str]) -> dict[str, Json]:
        """What is to be measured: one outlier strategy, and the layers in fallback."""
        return {"anti_outlier": self._strategies[strategy], "fallback": fallback}

    def _place(self, proposal: Proposal) -> Spot:
        return Spot(proposal.labels["strategy"], proposal.labels["level"])

    def _gave_up(self) -> bool:
        return not self._ladders.live

    def _flying(self) -> dict[Spot, int | None]:
        """Rounds by what is being measured."""
        candidates = self._candidates().values()
        return {self._place(each): each.labels.get("round") for each in candidates}

    def _account(self) -> Account:
        return Account(self._names, self._groups, self._ladders)

    def _propose(self, step: Step) -> Proposal:
        self._ladders.launch(step, self.width, self._flying())
        account = self._account()
        return self._flight.launch(
            self._parameters(step.spot.strategy, self._prefix(step.spot.level)),
            why=account.why(step),
            labels=account.labels(step),
        )

    def _delivery(self, place: Spot) -> str:
        return self._account().delivery(place)

    def _exhaustion(self) -> str:
        return self._account().exhaustion()

    def _notes(self) -> str:
        return self._account().notes()

"""Binary fallback: how few of the most sensitive layers must keep their precision?"""

from __future__ import annotations

from collections.abc import Mapping

from searchers._candidates import FallbackOptions, NoRanking, counted, grouped, ranked
from searchers._contract import WAIT, Done, Json, Outcome, Proposal, Strategy, Wait
from searchers._flight import Flight
from searchers._levels import LevelSearch, Probe, most_probes
from searchers._registry import register_strategy
from searchers._space import Space


class BinaryFallbackOptions(FallbackOptions):
    """Options of ``binary_fallback``."""


@register_strategy("binary_fallback", BinaryFallbackOptions)
class BinaryFallback(Strategy):
    """Finds the shortest prefix of the candidates whose fallback meets the demand.

    A candidate proposal has the parameters ``{"fallback": [layer, ...]}``. With one probe at a
    time the order is that of msModelSlim's ``binary_fallback``: no fallback, bisection, and full
    fallback only when nothing less was enough. See :mod:`searchers._levels` for more.

    The analysis (kind ``analysis``, see :func:`searchers._candidates.ranked`) is asked for when
    zero fallback has failed, or beside it when there is room for two.

    The end comes only when everything handed out has been told: a trial that outlives its
    usefulness may still contradict the answer, and then the answer is looked into.
    """

    def __init__(
        self, options: BinaryFallbackOptions, *, space: Space | None = None, seed: int = 0
    ) -> None:
        if space is not None:
            raise ValueError("binary_fallback searches the candidates; it takes no space")
        self._options = options
        self._groups = grouped(options.candidates)
        self._levels = LevelSearch(len(self._groups), options.max_failures)
        self._flight = Flight()
        self._satisfied: dict[int, Proposal] = {}
        self._trouble: str | None = None

    def ask(self) -> Proposal | Wait | Done:
        if self._flight and len(self._flight) >= self.width:
            return WAIT
        pending = self._pending()
        probe = None if self._trouble else self._levels.next(self.width, pending.values())
        if probe is not None:
            return self._propose(probe)
        if self._wants_analysis():
            why = "sensitivity analysis: in which order should layers fall back?"
            return self._flight.launch({}, kind="analysis", why=why)
        return WAIT if self._flight else self._conclude()

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        landed = self._flight.land(proposal)
        if landed is None or outcome.status == "cancelled":
            return
        if landed.kind == "analysis":
            self._learn_ranking(outcome)
            return
        level: int = landed.labels["level"]
        if outcome.status == "failed":
            self._levels.record_failure(level)
            return
        if outcome.satisfied is None:
            raise ValueError("binary_fallback needs to be told whether the demand is satisfied")
        self._levels.record(level, outcome.satisfied)
        if outcome.satisfied:
            self._satisfied.setdefault(level, landed)

    def best(self) -> Proposal | None:
        level = self._levels.answer()
        return None if level is None else self._satisfied[level]

    def obsolete(self) -> frozenset[int]:
        pending = self._pending()
        useless = self._levels.obsolete(pending.values())
        numbers = {number for number, level in pending.items() if level in useless}
        if not self._needs_analysis():
            numbers |= self._flight.proposals.keys() - pending.keys()
        return frozenset(numbers)

    def remaining(self) -> int | None:
        if self._needs_analysis():
            return None
        return max(self._levels.outstanding(self.width), len(self._flight))

    def most(self) -> int | None:
        """See the base; None as long as the number of candidates is unknown."""
        if not self._groups:
            return None
        analysed = not self._options.candidates
        return most_probes(len(self._groups), self.width, alone=analysed) + analysed

    def state(self) -> dict[str, Json]:
        return {
            "flight": self._flight.state(),
            "groups": self._groups,
            "levels": self._levels.state(),
            "satisfied": [proposal.to_json() for proposal in self._satisfied.values()],
            "trouble": self._trouble,
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self._flight.restore(state["flight"])
        self._groups = [list(group) for group in state["groups"]]
        self._levels.restore(state["levels"])
        satisfied = [Proposal.from_json(document) for document in state["satisfied"]]
        self._satisfied = {proposal.labels["level"]: proposal for proposal in satisfied}
        self._trouble = state["trouble"]

    def _pending(self) -> dict[int, int]:
        """Levels in flight by number of the proposal."""
        flying = self._flight.proposals.items()
        return {number: each.labels["level"] for number, each in flying if each.kind == "candidate"}

    def _needs_analysis(self) -> bool:
        known = self._groups or self._trouble
        return not known and self._levels.answer() is None and not self._levels.halted

    def _wants_analysis(self) -> bool:
        asked = len(self._flight) > len(self._pending())
        return self._needs_analysis() and not asked

    def _learn_ranking(self, outcome: Outcome) -> None:
        try:
            self._groups = ranked(outcome)
        except NoRanking as error:
            self._trouble = str(error)
            return
        self._levels.extend(len(self._groups))

    def _propose(self, probe: Probe) -> Proposal:
        self._levels.launch(probe)
        prefix = self._groups[: probe.level]
        labels: dict[str, Json] = {
            "level": probe.level,
            "of": len(self._groups),
            "role": probe.role,
        }
        if probe.round is not None:
            labels |= {
                "round": probe.round.number,
                "probe": probe.round.probes.index(probe.level) + 1,
            }
        if self._levels.contradictions:
            labels["contradictions"] = [list(pair) for pair in self._levels.contradictions]
        parameters = {"fallback": [name for group in prefix for name in group]}
        return self._flight.launch(parameters, why=self._why(probe), labels=labels)

    def _why(self, probe: Probe) -> str:
        said = f"{probe.level} of {self._total()}"
        if probe.role == "retest":
            return f"re-test: {said}; {self._conflict(*self._levels.contradictions[-1])}"
        if probe.role == "replay":
            return f"replay: {said}, where sequential bisection would have looked"
        if probe.level == 0:
            return "zero fallback: does plain quantization already meet the demand?"
        if probe.role == "ahead" and probe.round is not None:
            return f"ahead: {said} (if the answer {self._range(probe.round.low, probe.round.high)})"
        low, high = self._levels.bounds()
        if low + 1 == probe.level == self._levels.top:
            return f"full fallback: {said}, for nothing less was enough"
        return f"bisection: {said} (answer {self._range(low, high)})"

    def _range(self, low: int, high: int) -> str:
        if high > self._levels.top:
            return f"lies in {low + 1}..{self._levels.top}, or there is none"
        return f"lies in {low + 1}..{high}"

    def _total(self) -> str:
        return counted(self._groups)

    def _conflict(self, good: int, bad: int) -> str:
        return f"a fallback of {good} met the demand, the larger one of {bad} did not"

    def _conclude(self) -> Done:
        level = self._levels.answer()
        if level is not None:
            return Done("satisfied", self._satisfied[level], self._delivery(level) + self._notes())
        if self._trouble is not None:
            return Done("failed", None, self._trouble + self._notes())
        if self._groups and self._levels.value(self._levels.top) is False:
            said = (
                f"the demand is not met even with all {self._total()} in fallback: check that the "
                "unquantized model meets it, then allow more tolerance or quantize more gently "
                "(finer granularity, more bits, another outlier method)"
            )
            return Done("exhausted", None, said + self._notes())
        return Done("failed", None, "no fallback was found that meets the demand" + self._notes())

    def _delivery(self, level: int) -> str:
        if level == 0:
            return "plain quantization meets the demand, no layer falls back"
        low = self._levels.bounds()[0]
        less = f"; with {low} the demand is not met" if low >= 0 else ""
        return f"{level} of {self._total()} fall back{less}"

    def _notes(self) -> str:
        """What a person should know about the measurements the answer rests on."""
        notes = ""
        levels = self._levels
        if levels.halted:
            notes += f". The search was cut short: {levels.failures} trials failed"
        elif levels.barred:
            barred = ", ".join(str(level) for level in sorted(levels.barred))
            notes += f". Could not be measured: a fallback of {barred}"
        if levels.contradictions:
            said = "; ".join(self._conflict(*pair) for pair in levels.contradictions)
            stands = "which re-tests confirmed" if levels.contradicted else "settled by re-tests"
            notes += f". The measurements contradicted each other: {said}, {stands}"
        return notes

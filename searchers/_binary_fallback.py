"""Binary fallback: how few of the most sensitive layers must keep their precision?"""

from __future__ import annotations

from searchers._candidates import FallbackOptions, counted
from searchers._contract import WAIT, Done, Json, Proposal, Wait
from searchers._fallback_search import FallbackSearch
from searchers._levels import LevelSearch, Probe, most_probes
from searchers._registry import register_strategy
from searchers._space import Space


class BinaryFallbackOptions(FallbackOptions):
    """Options of ``binary_fallback``."""


@register_strategy("binary_fallback", BinaryFallbackOptions)
class BinaryFallback(FallbackSearch[int]):
    """Finds the shortest prefix of the candidates whose fallback meets the demand.

    A candidate proposal has the parameters ``{"fallback": [layer, ...]}``. With one probe at a
    time the order is that of msModelSlim's ``binary_fallback``: no fallback, bisection, and full
    fallback only when nothing less was enough. See :mod:`searchers._levels` for more.

    The analysis (kind ``analysis``, see :func:`searchers._candidates.ranked`) is asked for when
    zero fallback has failed, or beside it when there is room for two.

    A trial that outlives its usefulness may still contradict the answer, and then the answer is
    looked into.
    """

    def __init__(
        self, options: BinaryFallbackOptions, *, space: Space | None = None, seed: int = 0
    ) -> None:
        self._levels = LevelSearch(len(options.candidates), options.max_failures)
        super().__init__(options, self._levels, space)

    def ask(self) -> Proposal | Wait | Done:
        if self._full():
            return WAIT
        probe = None if self._trouble else self._levels.next(self.width, self._pending())
        if probe is not None:
            return self._propose(probe)
        if self._wants_analysis():
            return self._analyse()
        return WAIT if self._flight else self._conclude()

    def obsolete(self) -> frozenset[int]:
        return self._useless(self._levels.obsolete(self._pending()))

    def most(self) -> int | None:
        """See the base; None as long as the number of candidates is unknown."""
        if not self._groups:
            return None
        return most_probes(len(self._groups), self.width, alone=self._ranks) + self._ranks

    def _place(self, proposal: Proposal) -> int:
        level: int = proposal.labels["level"]
        return level

    def _gave_up(self) -> bool:
        return self._levels.halted

    def _pending(self) -> list[int]:
        return [self._place(each) for each in self._candidates().values()]

    def _propose(self, probe: Probe) -> Proposal:
        self._levels.launch(probe)
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
        parameters = {"fallback": self._prefix(probe.level)}
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

    def _delivery(self, place: int) -> str:
        if place == 0:
            return "plain quantization meets the demand, no layer falls back"
        low = self._levels.bounds()[0]
        less = f"; with {low} the demand is not met" if low >= 0 else ""
        return f"{place} of {self._total()} fall back{less}"

    def _exhaustion(self) -> str:
        if not self._groups or self._levels.value(self._levels.top) is not False:
            return ""
        return (
            f"the demand is not met even with all {self._total()} in fallback: check that the "
            "unquantized model meets it, then allow more tolerance or quantize more gently "
            "(finer granularity, more bits, another outlier method)"
        )

    def _notes(self) -> str:
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

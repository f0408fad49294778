"""What a person is told about a search over outlier strategies."""

from __future__ import annotations

from collections.abc import Sequence

from searchers._candidates import Groups, counted
from searchers._contract import Json
from searchers._ladder import Ladder
from searchers._ladders import Ladders, Spot, Step


class Account:
    """Words for one state of a search.

    Args:
        names: Of the outlier strategies.
        groups: Of layers that fall back together, the most sensitive first.
    """

    def __init__(self, names: Sequence[str], groups: Groups, ladders: Ladders) -> None:
        self._names = names
        self._groups = groups
        self._ladders = ladders

    def why(self, step: Step) -> str:
        """The reason for a step."""
        name = self._names[step.spot.strategy]
        said = f"{step.spot.level} of {self._total()} with {name}"
        ladder = self._ladders.ladders[step.spot.strategy]
        if step.role == "retest":
            return f"re-test: {said}; {_conflict(*ladder.contradictions[-1])}"
        if step.role == "replay":
            return f"replay: {said}, where the sequential search would have looked"
        if step.spot.level == 0:
            return f"zero fallback with {name}: does it already meet the demand?"
        if step.visit is None:
            low, high = ladder.bounds()
            role = "ahead" if step.role == "ahead" else "search"
            return f"{role}: {said}, for which {low + 1}..{high - 1} is open"
        if step.visit.phase == "climb":
            return f"climb: {said}, less than the best so far"
        if step.visit.phase == "end":
            return f"full fallback: {said}, for nothing less was enough"
        return f"bisection: {said}"

    def delivery(self, spot: Spot) -> str:
        """What is delivered, and that no less is enough."""
        name = self._names[spot.strategy]
        if spot.level == 0:
            return f"plain quantization with {name} meets the demand, no layer falls back"
        ladders = self._ladders
        ends = {spot.strategy, *ladders.live}
        low = min(ladders.ladders[index].bounds()[0] for index in ends)
        met = (
            "no outlier strategy meets the demand"
            if len(self._names) > 1
            else "the demand is not met"
        )
        less = f"; with {low} {met}" if low >= 0 else ""
        return f"{spot.level} of {self._total()} fall back with {name}{less}"

    def exhaustion(self) -> str:
        """That nothing is enough; empty if nobody knows, for full fallback was not measured."""
        ladders = self._ladders
        tops = [
            self._names[index] for index in range(len(self._names)) if self._fails_at_top(index)
        ]
        if not self._groups or not tops:
            return ""
        others = ", nor with fewer and any other outlier strategy" if len(self._names) > 1 else ""
        if len(ladders.live) < len(self._names):
            others += " that could be tried"
        return (
            f"the demand is not met with all {self._total()} in fallback and {tops[0]}{others}: "
            "check that the unquantized model meets it, then allow more tolerance or quantize more "
            "gently (finer granularity, more bits, another outlier method)"
        )

    def notes(self) -> str:
        """What should be known about the measurements the answer rests on."""
        told = list(zip(self._names, self._ladders.ladders, strict=True))
        aside = [
            f"{name} ({each.failures} {'trial' if each.failures == 1 else 'trials'} failed)"
            for name, each in told
            if each.halted
        ]
        barred = [
            f"a fallback of {', '.join(str(level) for level in sorted(each.barred))} with {name}"
            for name, each in told
            if each.barred and not each.halted
        ]
        conflicts = [
            f"with {name}, {'; '.join(_conflict(*pair) for pair in each.contradictions)}, "
            f"{_resolution(each)}"
            for name, each in told
            if each.contradictions
        ]
        notes = f". Left aside: {'; '.join(aside)}" if aside else ""
        notes += f". Could not be measured: {'; '.join(barred)}" if barred else ""
        contradicted = ". The measurements contradicted each other: "
        return notes + (contradicted + "; ".join(conflicts) if conflicts else "")

    def labels(self, step: Step) -> dict[str, Json]:
        """Details of a step for tables."""
        labels: dict[str, Json] = {
            "strategy": step.spot.strategy,
            "level": step.spot.level,
            "of": len(self._groups),
            "role": step.role,
        }
        if step.round is not None:
            labels["round"] = step.round
        if step.visit is not None:
            labels["phase"] = step.visit.phase
        ladder = self._ladders.ladders[step.spot.strategy]
        if ladder.contradictions:
            labels["contradictions"] = [list(pair) for pair in ladder.contradictions]
        return labels

    def _fails_at_top(self, strategy: int) -> bool:
        return self._ladders.value(strategy, self._ladders.top) is False

    def _total(self) -> str:
        return counted(self._groups)


def _conflict(good: int, bad: int) -> str:
    return f"a fallback of {good} met the demand, the larger one of {bad} did not"


def _resolution(ladder: Ladder) -> str:
    if ladder.contradicted:
        return "which re-tests confirmed"
    return "which was not looked into further" if ladder.at_odds else "settled by re-tests"


def strategy_names(strategies: Sequence[Sequence[dict[str, Json]]]) -> list[str]:
    """A short name for each outlier strategy; its position is added where types alone repeat."""
    types = [" + ".join(each["type"] for each in processors) for processors in strategies]
    plain = [name or "no outlier suppression" for name in types]
    return [
        f"{name} (strategy {index})" if plain.count(name) > 1 else name
        for index, name in enumerate(plain)
    ]

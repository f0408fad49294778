"""Search for the smallest level that satisfies on any of several ladders, several probes at a time.

Each outlier strategy has a ladder of its own, with a threshold of its own. What is wanted is the
smallest threshold, so the smallest satisfied level of all, the *ceiling*, bounds every ladder:
from there on a level is of no interest. The search is over when every ladder is known to be
unsatisfied right below the ceiling.

With one probe at a time it is the sequential search of :mod:`searchers._climb`, step by step. With
several, a round of probes cuts what is open on all ladders into parts, the largest of which is as
small as it can be, which spreads the probes over the ladders. The alternative is to concentrate
them: find the threshold of one strategy first, look which others are satisfied just below, and go
on with one of those. It learns of a better strategy late, while one satisfied probe of a spread
round drops every ladder that was not satisfied there. Simulated against independent thresholds and
against such as resemble each other, spreading took fewer rounds, on average and at worst, for
every number of strategies and probes (``python -m benchmarks.standing_high_rounds``).

Rounds are not waited for: once all probes of a round are measured or in flight, a free slot goes
to the largest part, within limits, as in :mod:`searchers._levels`.

Contradictions within a ladder are settled as :class:`searchers._ladder.Ladder` says, if they are
of interest. Where one stands, the sequential search is followed over what was measured, and what
it lacks is measured, so that it could not have ended lower.

The top level is looked at on the first ladder only, as the sequential search does: with everything
in fallback the strategies hardly differ. The next one takes over where that cannot be measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from searchers._climb import Visit, most_visits, visits
from searchers._contract import Json
from searchers._ladder import Ladder
from searchers._levels import Role

_AHEAD = 2
"""Rounds by whose number of probes the search may be ahead; more gains no time."""


class Spot(NamedTuple):
    """One level of one ladder."""

    strategy: int
    level: int


@dataclass(frozen=True)
class Step:
    """A spot worth measuring, and why.

    Attributes:
        role: As that of a :class:`searchers._levels.Probe`.
        round: Where a probe of a plan belongs; one ``ahead`` belongs to the next round.
        visit: What the sequential search wants the measurement for, if it does.
    """

    spot: Spot
    role: Role
    round: int | None = None
    visit: Visit | None = None


class _Part(NamedTuple):
    """Open levels of a ladder that no measurement or running trial divides."""

    strategy: int
    levels: list[int]
    whole: bool


class Ladders:
    """What is known of the levels ``0 .. top`` of each strategy, and what to measure next.

    Args:
        count: Number of strategies.
        top: The highest level.
        tolerated: Failed measurements after which a strategy is left aside.
    """

    def __init__(self, count: int, top: int, tolerated: int) -> None:
        self.top = top
        self.ladders = [Ladder(top, tolerated) for _ in range(count)]
        self._round = 0
        self._planned = 0
        self._launched = 0
        self._limit()

    @property
    def live(self) -> list[int]:
        """Strategies that are not left aside."""
        return [index for index, ladder in enumerate(self.ladders) if not ladder.halted]

    def extend(self, top: int) -> None:
        """Make all ladders longer; their levels were not known before."""
        self.top = top
        for ladder in self.ladders:
            ladder.top = top
        self._limit()

    def record(self, spot: Spot, satisfied: bool) -> None:
        """A measurement of a level."""
        self.ladders[spot.strategy].record(spot.level, satisfied)
        self._limit()

    def record_failure(self, spot: Spot) -> None:
        """A level could not be measured, which says nothing about its quality."""
        self.ladders[spot.strategy].record_failure(spot.level)
        self._limit()

    def value(self, strategy: int, level: int) -> bool | None:
        """Whether a level is satisfied, by majority; None as long as it is open."""
        return self.ladders[strategy].value(level)

    def answer(self) -> Spot | None:
        """The smallest level satisfied on any ladder, on the least contradictory and first one."""
        found = [(ladder.answer(), index) for index, ladder in enumerate(self.ladders)]
        spots = [
            (level, self.ladders[index].at_odds, index)
            for level, index in found
            if level is not None
        ]
        if not spots:
            return None
        level, _, index = min(spots)
        return Spot(index, level)

    def next(self, width: int, flying: Mapping[Spot, int | None]) -> Step | None:
        """The most useful measurement beside those ``flying``; None if there is none now.

        ``flying`` maps the spots in flight to the rounds of their steps.
        """
        doubts = self._doubts()
        if doubts:
            due = [spot for spot in doubts if spot not in flying]
            return Step(due[0], "retest") if due else None
        visit = self._followed(width)
        if visit is not None and Spot(visit.strategy, visit.level) not in flying:
            role: Role = "search" if width == 1 else "replay"
            return Step(Spot(visit.strategy, visit.level), role, visit=visit)
        return self._divide(width, flying)

    def launch(self, step: Step, width: int, flying: Mapping[Spot, int | None]) -> None:
        """Remember that a step from :meth:`next`, with the same arguments, is under way."""
        if step.round is None:
            return
        self._launched += 1
        if step.role == "search":
            self._planned = self._left(step.round, width, flying) - 1
            self._round = step.round

    def obsolete(self, width: int, flying: Collection[Spot]) -> set[Spot]:
        """Of the spots in flight, those whose measurement can no longer change the answer."""
        if self._doubts():
            return set()
        visit = self._followed(width)
        needed = visit and Spot(visit.strategy, visit.level)
        return {spot for spot in flying if not self._open(spot) and spot != needed}

    def outstanding(self, width: int) -> int:
        """How many levels have still to be measured if no more contradictions or failures come.

        Those in flight and the probes of rounds that get decided early are included; probes made
        ahead are not.
        """
        sizes = [size for size in (len(self._range(index)) for index in self.live) if size]
        probes = sum(rounds(max(sizes), len(sizes), width)) if sizes else 0
        visit = self._followed(width) is not None and (width > 1 or not probes)
        return probes + len(self._doubts()) + visit

    def state(self) -> dict[str, Json]:
        return {
            "top": self.top,
            "ladders": [ladder.state() for ladder in self.ladders],
            "round": self._round,
            "planned": self._planned,
            "launched": self._launched,
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self.top = state["top"]
        for ladder, document in zip(self.ladders, state["ladders"], strict=True):
            ladder.restore(document)
        self._round = state["round"]
        self._planned = state["planned"]
        self._launched = state["launched"]
        self._limit()

    # What measurements say

    def _limit(self) -> None:
        """Let every ladder know from where on its levels are of no interest."""
        found = self.answer()
        able = [index for index in range(len(self.ladders)) if self._can_reach_top(index)]
        for index, ladder in enumerate(self.ladders):
            reaches = not self.top or index in able[:1]
            end = self.top + 1 if reaches else self.top
            ladder.ceiling = end if found is None else min(end, found.level)
            ladder.note()

    def _can_reach_top(self, index: int) -> bool:
        ladder = self.ladders[index]
        known = ladder.value(self.top) is not None
        return known or not (ladder.halted or self.top in ladder.barred)

    def _doubts(self) -> list[Spot]:
        """Spots that have to be measured again before anything else is worth it."""
        doubts = [
            Spot(index, level) for index in self.live for level in self.ladders[index].disputed()
        ]
        found = self.answer()
        if doubts or found is None:
            return doubts
        ladder = self.ladders[found.strategy]
        if ladder.halted or ladder.settled(found.level) or not ladder.contradicted:
            return []
        finished = self._followed(1) is None and not any(map(self._range, self.live))
        return [found] if finished else []

    def _followed(self, width: int) -> Visit | None:
        """What the sequential search lacks to come to its end, if it is to be followed there.

        It is with one probe at a time, and where it may end lower because quality is not monotone.
        """
        stands = any(ladder.contradicted for ladder in self.ladders)
        if not self.live or not (width == 1 or stands):
            return None
        *_, last = visits(self.top, self.live, self.value)
        known = self.value(last.strategy, last.level) is not None
        barred = last.level in self.ladders[last.strategy].barred
        return None if known or barred else last

    def _range(self, index: int) -> list[int]:
        """Levels of a ladder that may lower the ceiling and can be measured."""
        ladder = self.ladders[index]
        return ladder.available(*ladder.bounds())

    def _open(self, spot: Spot) -> bool:
        low, high = self.ladders[spot.strategy].bounds()
        return low < spot.level < high

    # Where to probe

    def _divide(self, width: int, flying: Mapping[Spot, int | None]) -> Step | None:
        parts = self._parts(flying)
        if not parts:
            return None
        number = self._current(flying)
        left = self._left(number, width, flying)
        if left:
            first = Spot(self.live[0], 0)
            if first not in flying and first.level in self._range(first.strategy):
                return Step(first, "search", number)
            probes = _share(parts, left)
            return Step(_largest(parts, probes), "search", number)
        if self._launched >= width * (number + _AHEAD):
            return None
        each = max(width // len({part.strategy for part in parts}), 1)
        return Step(_largest(parts, [each] * len(parts)), "ahead", number + 1)

    def _current(self, flying: Mapping[Spot, int | None]) -> int:
        """The round under way, or the next one if all probes of that are decided."""
        rounds = [number for spot, number in flying.items() if self._open(spot)]
        running = any(number is not None and number <= self._round for number in rounds)
        return self._round if running else self._round + 1

    def _left(self, number: int, width: int, flying: Mapping[Spot, int | None]) -> int:
        """How many probes of a round have still to be launched."""
        if number == self._round:
            return self._planned
        return max(width - sum(map(self._open, flying)), 1)

    def _parts(self, flying: Collection[Spot]) -> list[_Part]:
        """Open parts, the largest first, undivided ladders before others of that size."""
        parts = []
        for index in self.live:
            levels = self._range(index)
            cuts = sorted({spot.level for spot in flying if spot.strategy == index} & set(levels))
            for low, high in pairwise([-1, *cuts, self.top + 1]):
                between = [level for level in levels if low < level < high]
                if between:
                    parts.append(_Part(index, between, not cuts))
        return sorted(parts, key=lambda part: (-len(part.levels), not part.whole))


def _share(parts: Sequence[_Part], slots: int) -> list[int]:
    """Probes for each part, so that the largest remaining part is as small as it can be."""
    probes = [0] * len(parts)
    for _ in range(slots):
        sizes = [
            (len(part.levels) + 1) / (count + 1) for part, count in zip(parts, probes, strict=True)
        ]
        largest = max(sizes)
        if largest > 1:
            probes[sizes.index(largest)] += 1
    return probes


def _largest(parts: Sequence[_Part], probes: Sequence[int]) -> Spot:
    """The probe nearest to the middle of those that divide the first part evenly."""
    levels, count = parts[0].levels, min(probes[0], len(parts[0].levels))
    size = len(levels) + 1
    cuts = [-(-index * size // (count + 1)) - 1 for index in range(1, count + 1)]
    return Spot(parts[0].strategy, levels[min(cuts, key=lambda cut: abs(2 * cut + 2 - size))])


def rounds(levels: int, ladders: int, width: int) -> list[int]:
    """The number of probes in each round, at worst, over ``levels`` open levels of each ladder.

    With fewer probes than ladders, halving all ladders takes several rounds.
    """
    probes = []
    while levels > 0:
        each = max(width // ladders, 1)
        wanted = ladders if width < ladders else width
        while wanted > 0:
            probes.append(min(wanted, width, ladders * levels))
            wanted -= width
        levels = -(-(levels + 1) // (each + 1)) - 1
    return probes


def most_steps(levels: int, ladders: int, width: int, *, alone: bool) -> int:
    """Upper bound of measurements for ``levels`` levels above zero, none repeated, none failing.

    ``alone``: level zero of every ladder comes first, for the others are not known yet.
    """
    if width == 1:
        return most_visits(levels, ladders)
    zeros = -(-ladders // width) if alone else 1
    planned = zeros + len(rounds(levels, ladders, width)) + _AHEAD
    return min(ladders * levels + 1, width * planned)

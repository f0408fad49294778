"""Search for the smallest satisfied level of an ordered ladder, several probes at a time.

With ``p`` probes at a time a round of equally spaced probes divides what is still possible by
``p + 1``; with one it is plain bisection.

Rounds are not waited for. Once every probe of a round is measured or in flight, free slots go to
the next round of the largest part the answer may turn out to lie in. Such a probe is one that
would be made anyway if the answer does lie there, and cannot change anything otherwise; so working
ahead never adds a round. It is limited to as many probes as two more rounds would have.

What measurements say, and how contradictions are settled, is :class:`searchers._ladder.Ladder`'s.
Where a contradiction stands, the search goes on below the smallest satisfied level, and the
bisection of a sequential run is followed over what was measured, measuring what it lacks as long
as it could end lower.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from searchers._contract import Json
from searchers._ladder import Ladder

_AHEAD = 2
"""Rounds by whose number of probes the search may be ahead; more gains no time."""

Role: TypeAlias = Literal["search", "ahead", "retest", "replay"]


@dataclass(frozen=True)
class Round:
    """Probes that divide the levels ``low + 1 .. high``, one of which is the answer.

    ``high`` is ``top + 1`` as long as it is possible that no level satisfies.
    """

    number: int
    low: int
    high: int
    probes: tuple[int, ...]


@dataclass(frozen=True)
class Probe:
    """A level worth measuring, and why.

    Attributes:
        role: ``search``: of the current round. ``ahead``: of a later round. ``retest``: again,
            because measurements contradict each other. ``replay``: sequential bisection needs it.
        round: Where a ``search`` or ``ahead`` probe belongs.
    """

    level: int
    role: Role
    round: Round | None = None


class LevelSearch(Ladder):
    """What is known of the levels ``0 .. top``, and what should be measured next.

    Args:
        top: The highest level.
        tolerated: Failed measurements after which the search makes do with what it knows.
    """

    def __init__(self, top: int, tolerated: int) -> None:
        super().__init__(top, tolerated)
        self._rounds: list[Round] = []
        self._launched = 0

    def extend(self, top: int) -> None:
        """Make the ladder longer; its levels were not known before."""
        alone = Round(1, -1, top + 1, (0,))
        self.top = top
        self._rounds = [alone] if self.value(0) is None else []

    def next(self, width: int, pending: Collection[int]) -> Probe | None:
        """The most useful probe beside the levels ``pending``; None if there is none now."""
        if self.halted:
            return None
        doubts = self._doubts()
        if doubts:
            due = [level for level in doubts if level not in pending]
            return Probe(due[0], "retest") if due else None
        need = self._replay()
        if need is not None and need not in pending:
            return Probe(need, "replay")
        return self._divide(width, pending)

    def launch(self, probe: Probe) -> None:
        """Remember that a probe from :meth:`next` is under way."""
        if probe.round is None:
            return
        self._launched += 1
        if probe.round not in self._rounds:
            low, high = self.bounds()
            alive = [known for known in self._rounds if known.low < high and known.high > low]
            self._rounds = [*alive, probe.round]

    def obsolete(self, pending: Collection[int]) -> set[int]:
        """Of the levels ``pending``, those whose measurement can no longer change the answer."""
        if self._doubts() and not self.halted:
            return set()
        low, high = self.bounds()
        need = self._replay()
        return {level for level in pending if not low < level < high and level != need}

    def outstanding(self, width: int) -> int:
        """How many levels have still to be measured if no more contradictions or failures come.

        Those in flight and the probes of rounds that get decided early are included; probes made
        ahead are not.
        """
        if self.halted:
            return 0
        levels = self.available(*self.bounds())
        zero = 0 in levels
        probes = rounds(len(levels) - zero, width, with_zero=zero)
        return sum(probes) + len(self._doubts()) + (self._replay() is not None)

    def state(self) -> dict[str, Json]:
        planned = [[each.number, each.low, each.high, list(each.probes)] for each in self._rounds]
        return super().state() | {"rounds": planned, "launched": self._launched}

    def restore(self, state: Mapping[str, Json]) -> None:
        super().restore(state)
        self._rounds = [
            Round(number, low, high, tuple(probes)) for number, low, high, probes in state["rounds"]
        ]
        self._launched = state["launched"]

    def _doubts(self) -> list[int]:
        """Levels that have to be measured again before anything else is worth it."""
        disputed = self.disputed()
        if disputed or not self.contradicted:
            return disputed
        low, high = self.bounds()
        finished = not self.available(low, high) and self._replay() is None
        return [high] if finished and not self.settled(high) else []

    def _replay(self) -> int | None:
        """The level sequential bisection lacks, if it may still end below the answer."""
        if not self.contradicted:
            return None
        answer = self.bounds()[1]
        low, high = 1, self.top
        level, value = 0, self.value(0)
        while value is not None and low < min(high, answer):
            level = (low + high) // 2
            value = self.value(level)
            if value:
                high = level
            elif value is False:
                low = level + 1
        if value is not None:
            level, value = low, self.value(low)
        lacking = value is None and level not in self._barred
        return level if lacking and low < answer else None

    # Where to probe

    def _divide(self, width: int, pending: Collection[int]) -> Probe | None:
        low, high = self.bounds()
        if not self.available(low, high):
            return None
        current = self._round(low, high, width)
        probes = self._undecided(current, low, high)
        for level in probes:
            if level not in pending:
                return Probe(level, "search", current)
        if self._launched >= width * (current.number + _AHEAD):
            return None
        edges = pairwise([low, *sorted(probes), high])
        parts = [(len(self.available(*part)), part) for part in edges]
        for count, part in sorted(parts, key=lambda item: (-item[0], item[1])):
            later = self._round(*part, width) if count else None
            for level in self._undecided(later, *part) if later else ():
                if level not in pending:
                    return Probe(level, "ahead", later)
        return None

    def _undecided(self, round_: Round, low: int, high: int) -> list[int]:
        """Probes of a round that tell something about the levels ``low + 1 .. high``.

        Zero first, which is the cheapest answer; then from the middle outwards, so that it is
        bisection when fewer run at once than were planned for.
        """
        levels = [level for level in round_.probes if low < level < high]
        levels = [level for level in levels if level not in self._barred]
        middle = round_.low + round_.high
        return sorted(levels, key=lambda level: (level != 0, abs(2 * level - middle), level))

    def _round(self, low: int, high: int, width: int) -> Round:
        """The round that is to divide ``low + 1 .. high``: the one under way, or a new one."""
        around = [known for known in self._rounds if known.low <= low and high <= known.high]
        for known in sorted(around, key=lambda known: known.high - known.low):
            if self._undecided(known, low, high):
                return known
        number = 1 + max((known.number for known in around), default=0)
        return Round(number, low, high, self._spread(low, high, width))

    def _spread(self, low: int, high: int, width: int) -> tuple[int, ...]:
        """At most ``width`` levels that cut ``low + 1 .. high`` into equal parts.

        The round that contains level zero measures it; that is what most runs ask first.
        """
        levels = self.available(low, high)
        first = (0,) if levels[0] == 0 else ()
        rest = levels[len(first) :]
        count = max(width, 1) - len(first)
        if count == 1 and not first and high > self.top and len(rest) > 1:
            rest = rest[:-1]  # sequential bisection looks at the top only when all else failed
        if len(rest) <= count:
            return (*first, *rest)
        parts = len(rest) + 1
        cuts = (-(-index * parts // (count + 1)) - 1 for index in range(1, count + 1))
        return (*first, *(rest[cut] for cut in cuts))


def rounds(levels: int, width: int, *, with_zero: bool) -> list[int]:
    """The number of probes in each round over ``levels`` open levels above zero, at worst.

    ``with_zero``: level zero is open too, and measured in the first round.
    """
    probes = []
    if with_zero:
        spare = min(levels, max(width, 1) - 1)
        probes.append(1 + spare)
        levels = -(-(levels + 1) // (spare + 1)) - 1
    while levels > 0:
        probes.append(min(levels, max(width, 1)))
        levels = -(-(levels + 1) // (probes[-1] + 1)) - 1
    return probes


def most_probes(levels: int, width: int, *, alone: bool) -> int:
    """Upper bound of probes for ``levels`` levels above zero, none repeated and none failing.

    ``alone``: the first round is level zero only, for the others are not known yet.
    """
    later = rounds(levels, width, with_zero=not alone)
    if width == 1:
        return len(later) + alone
    return min(levels + 1, width * (len(later) + alone + _AHEAD))

"""What is known of an ordered ladder of levels, each measured once or more.

Levels are 0..top. Quality is expected to rise with the level, so one satisfied level implies all
above it, and one unsatisfied level all below it.

Measurements may contradict that: a level is satisfied and a higher one is not. Then both are to be
measured again, up to three times, and the majority counts. If they stand, quality is not monotone.
No level is measured more than three times, so every search ends.
"""

from __future__ import annotations

from collections.abc import Mapping

from searchers._contract import Json


class Ladder:
    """The levels ``0 .. top`` of one search.

    Args:
        top: The highest level.
        tolerated: Failed measurements after which the search makes do with what it knows.

    Attributes:
        ceiling: Levels from here on are of no interest, whatever they are; None: all are. It
            follows from what else is known, so it is no part of the state.
    """

    def __init__(self, top: int, tolerated: int) -> None:
        self.top = top
        self.ceiling: int | None = None
        self.failures = 0
        self.contradictions: list[tuple[int, int]] = []
        self._tolerated = tolerated
        self._votes: dict[int, list[bool]] = {}
        self._barred: set[int] = set()
        self._final: set[int] = set()

    @property
    def halted(self) -> bool:
        """Whether too many measurements failed to go on."""
        return self.failures > self._tolerated

    @property
    def barred(self) -> frozenset[int]:
        """Levels that were tried and could not be measured."""
        return frozenset(self._barred)

    @property
    def at_odds(self) -> bool:
        """Whether measurements contradict each other, wherever on the ladder."""
        return self._conflict() is not None

    @property
    def contradicted(self) -> bool:
        """Whether a contradiction has outlived its re-tests."""
        settled = {level: self.value(level) for level in self._votes if self.settled(level)}
        satisfied = [level for level, value in settled.items() if value]
        unsatisfied = [level for level, value in settled.items() if value is False]
        return bool(satisfied and unsatisfied) and min(satisfied) < max(unsatisfied)

    def record(self, level: int, satisfied: bool) -> None:
        """A measurement of a level."""
        self._votes.setdefault(level, []).append(satisfied)
        self.note()

    def record_failure(self, level: int) -> None:
        """A level could not be measured, which says nothing about its quality."""
        self.failures += 1
        (self._final if level in self._votes else self._barred).add(level)

    def note(self) -> None:
        """Remember the contradiction that stands in the way now, if there is one."""
        contested = self.contested()
        if contested is not None and contested not in self.contradictions:
            self.contradictions.append(contested)

    def value(self, level: int) -> bool | None:
        """Whether a level is satisfied, by majority; None as long as it is open."""
        balance = self._balance(level)
        if balance == 0:
            return False if level in self._final else None
        return balance > 0

    def settled(self, level: int) -> bool:
        """Whether no further measurement of a measured level is wanted."""
        votes = len(self._votes[level])
        return abs(self._balance(level)) >= 2 or votes >= 3 or level in self._final

    def answer(self) -> int | None:
        """The smallest level that is satisfied by its measurements."""
        return min((level for level in self._votes if self.value(level)), default=None)

    def bounds(self) -> tuple[int, int]:
        """(unsatisfied, satisfied): the smallest satisfied level, the highest other one below it.

        ``top + 1`` and -1 when there is none. No level between them has been measured. Where the
        ceiling is lower than the satisfied one it takes its place; it may then be the lower of the
        two, which leaves nothing between them.
        """
        answer = self.answer()
        high = self.top + 1 if answer is None else answer
        lower = (level for level in self._votes if level < high and self.value(level) is False)
        low = max(lower, default=-1)
        return low, high if self.ceiling is None else min(high, self.ceiling)

    def available(self, low: int, high: int) -> list[int]:
        """Levels strictly between that can be measured."""
        return [level for level in range(low + 1, high) if level not in self._barred]

    def contested(self) -> tuple[int, int] | None:
        """The smallest satisfied level and the smallest unsatisfied one above it.

        None if there is no such pair, or neither level is of interest.
        """
        conflict = self._conflict()
        below = conflict is None or self.ceiling is None or conflict[0] <= self.ceiling
        return conflict if below else None

    def disputed(self) -> list[int]:
        """Levels that have to be measured again before anything else is worth it."""
        undecided = [level for level in self._votes if self.value(level) is None]
        if self.ceiling is not None:
            undecided = [level for level in undecided if level < self.ceiling]
        contested = self.contested()
        if undecided or contested is None or self.contradicted:
            return undecided
        return [level for level in contested if not self.settled(level)]

    def state(self) -> dict[str, Json]:
        return {
            "top": self.top,
            "failures": self.failures,
            "contradictions": [list(pair) for pair in self.contradictions],
            "votes": [[level, list(votes)] for level, votes in self._votes.items()],
            "barred": sorted(self._barred),
            "final": sorted(self._final),
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self.top = state["top"]
        self.failures = state["failures"]
        self.contradictions = [(low, high) for low, high in state["contradictions"]]
        self._votes = {level: list(votes) for level, votes in state["votes"]}
        self._barred = set(state["barred"])
        self._final = set(state["final"])

    def _conflict(self) -> tuple[int, int] | None:
        answer = self.answer()
        if answer is None:
            return None
        above = [level for level in self._votes if level > answer and self.value(level) is False]
        return (answer, min(above)) if above else None

    def _balance(self, level: int) -> int:
        votes = self._votes.get(level, ())
        return 2 * sum(votes) - len(votes)

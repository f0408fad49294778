"""Which batch a recorded forward belongs to."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainables.latency._records import IterationRecord
from trainables.latency.imports._members import Content
from trainables.latency.imports._notes import Notes

_SLACK = 1e-6
"""Seconds by which a forward may seem to begin before its batch was made: clocks are rounded."""


@dataclass(frozen=True)
class Forward:
    """Attributes:
    start: When it began, in seconds.
    seconds: How long it took; not the difference of two large times, which is less exact.
    rank: Process that computed it; every rank of an instance computes the same batch.
    replica: Data-parallel rank it belongs to; empty: not told.
    size: Sequences in it; None: not told.
    """

    start: float
    seconds: float
    rank: str = ""
    replica: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Scheduled:
    """A batch when it was made; ``end`` in seconds."""

    end: float
    replica: str = ""
    size: int | None = None


def pair(
    forwards: Sequence[Forward], batches: Sequence[Scheduled], notes: Notes
) -> dict[int, list[Forward]]:
    """Index of a batch to the forwards of it.

    A forward computes the batch that was made last before it began, by its own replica. A second
    one of the same rank has no batch of its own: its batch was not recorded.
    """
    replicas: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(batches)), key=lambda number: batches[number].end):
        replicas[batches[index].replica].append(index)
        if batches[index].replica:
            replicas[""].append(index)
    ends = {name: [batches[index].end for index in mine] for name, mine in replicas.items()}
    found: dict[int, list[Forward]] = defaultdict(list)
    taken = set()
    for forward in sorted(forwards, key=lambda one: one.start):
        replica = forward.replica if forward.replica in replicas else ""
        place = bisect_right(ends.get(replica, []), forward.start + _SLACK) - 1
        index = replicas[replica][place] if place >= 0 else -1
        if place < 0 or (index, forward.rank) in taken:
            notes.drop("a forward whose batch was not recorded")
            continue
        taken.add((index, forward.rank))
        size = batches[index].size
        if None not in (size, forward.size) and size != forward.size:
            notes.drop("a forward of another size than the batch that was made before it")
            continue
        found[index].append(forward)
    notes.drop("a batch without a recorded forward", len(batches) - len(found))
    return found


def records_of(
    paired: dict[int, list[Forward]], contents: Sequence[Content | None], notes: Notes
) -> Iterator[IterationRecord]:
    """Records of the batches whose content is known; a batch takes as long as its slowest rank."""
    for index, forwards in sorted(paired.items(), key=lambda item: item[1][0].start):
        content = contents[index]
        if content is not None:
            seconds = max(forward.seconds for forward in forwards)
            yield from record(content, seconds, forwards[0].start, notes)


def record(content: Content, seconds: float, at: float, notes: Notes) -> Iterator[IterationRecord]:
    """The record, unless its duration is impossible."""
    if seconds > 0:
        yield IterationRecord(content.prefills, content.decodes, seconds, at)
    else:
        notes.drop("a duration that is not positive")

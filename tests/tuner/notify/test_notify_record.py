"""A best is announced only if nothing measured is as good, whatever a restart does."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tuner.experiment import Expectation, Heartbeat, Limit, Objective, WebhookOptions
from tuner.notify._pulse import Pulse
from tuner.notify._record import Entry, Lead, Record

FASTER = Objective(maximize=("speed",), limits=[Limit(metric="latency", max=1.0)])


def entry(speed: float, *, latency: float = 0.5, fresh: bool = True, kind: str = "candidate",
          **data: object) -> Entry:  # fmt: skip
    return Entry(kind, {}, {"speed": speed, "latency": latency}, data, fresh)


def announced(record: Record, *entries: Entry) -> list[tuple[float, float | None]]:
    leads: list[Lead | None] = [record.enter(one) for one in entries]
    return [(lead.score.value, lead.score.before) for lead in leads if lead is not None]


def test_each_announcement_beats_the_one_before() -> None:
    record = Record(FASTER)
    speeds = [5.0, 4.0, 5.0, 6.0, 6.0, 9.0]
    assert announced(record, *map(entry, speeds)) == [(5.0, None), (6.0, 5.0), (9.0, 6.0)]


def test_after_a_restart_a_worse_one_is_no_best() -> None:
    """The original begins again at minus infinity and announces 4 as the new best."""
    known = [entry(3.0, fresh=False), entry(7.0, fresh=False)]
    record = Record(FASTER, lambda: known)
    assert announced(record, entry(4.0), entry(6.9), entry(7.0)) == []
    assert announced(record, entry(7.1)) == [(7.1, 7.0)]


def test_what_is_known_but_told_late_counts_too() -> None:
    record = Record(FASTER)
    assert announced(record, entry(7.0, fresh=False), entry(4.0)) == []


def test_what_does_not_satisfy_ended_early_or_was_only_predicted_is_no_best() -> None:
    record = Record(FASTER)
    nothing = [
        entry(9.0, latency=2.0),
        entry(9.0, stopped={"metric": "latency"}),
        entry(9.0, real_evaluation=False),
        entry(9.0, kind="verification"),
        entry(math.nan),
        entry(math.inf),
    ]
    assert announced(record, *nothing) == []
    assert announced(record, entry(1.0)) == [(1.0, None)]


def test_the_baseline_has_to_be_beaten_and_is_never_announced() -> None:
    record = Record(FASTER)
    assert announced(record, entry(5.0, kind="baseline"), entry(4.0)) == []
    assert announced(record, entry(5.5)) == [(5.5, 5.0)]


def test_what_is_to_be_minimised_gets_smaller() -> None:
    record = Record(Objective(minimize=("speed",)))
    assert announced(record, entry(5.0), entry(6.0), entry(4.0)) == [(5.0, None), (4.0, 5.0)]


def test_candidates_wait_for_the_baseline_their_demand_is_relative_to() -> None:
    objective = Objective(
        maximize=("speed",), expectations=[Expectation(metric="accuracy", target="baseline")]
    )

    def one(speed: float, accuracy: float, kind: str = "candidate") -> Entry:
        return Entry(kind, {"x": speed}, {"speed": speed, "accuracy": accuracy}, {}, True)

    record = Record(objective)
    assert announced(record, one(9.0, 0.5), one(8.0, 0.9), one(7.0, 0.9)) == []
    lead = record.enter(one(1.0, 0.8, "baseline"))
    assert lead is not None
    assert (lead.score.value, lead.entry.parameters) == (8.0, {"x": 8.0})


SPEEDS = st.lists(st.integers(0, 20).map(float), max_size=20)


@given(known=SPEEDS, told=st.lists(st.tuples(st.integers(0, 20).map(float), st.booleans())))
def test_announcements_are_the_records_of_everything_measured(
    known: list[float], told: list[tuple[float, bool]]
) -> None:
    record = Record(FASTER, lambda: [entry(speed, fresh=False) for speed in known])
    found = announced(record, *(entry(speed, fresh=fresh) for speed, fresh in told))
    expected, best = [], max(known, default=None)
    for speed, fresh in told:
        if best is None or speed > best:
            expected += [(speed, best)] if fresh else []
            best = speed
    assert found == expected
    assert all(one < other for (one, _), (other, _) in pairwise(found))


def options(**heartbeat: float) -> WebhookOptions:
    return WebhookOptions(heartbeat=Heartbeat.model_validate(heartbeat))


def test_heartbeats_by_trials() -> None:
    pulse = Pulse(options(trials=3), 0.0)
    assert [pulse.finished(0.0) for _ in range(7)] == [False, False, True] * 2 + [False]
    assert pulse.next is None and not pulse.due(1e9)


def test_heartbeats_by_time_need_no_trial() -> None:
    pulse = Pulse(options(time=10), 100.0)
    assert [pulse.due(at) for at in (109.9, 110.0, 110.1, 119.9, 120.0)] == [
        False, True, False, False, True,
    ]  # fmt: skip
    assert pulse.next == 130.0


def test_each_heartbeat_restarts_the_other() -> None:
    pulse = Pulse(options(time=10, trials=2), 0.0)
    assert not pulse.finished(8.0) and pulse.finished(9.0)
    assert not pulse.due(18.9) and pulse.due(19.0)
    assert not pulse.finished(19.5)


def test_no_heartbeats_unless_asked_for() -> None:
    pulse = Pulse(options(), 0.0)
    assert not any(pulse.finished(0.0) for _ in range(100))
    assert pulse.next is None

"""The load search against simulated engines: what it finds, how much it spends, how it fails."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.serving._load import OperatingPoint
from trainables.serving._operating_point import Found, OperatingPointSearch, Probe
from trainables.serving._slo import Limit

TPOT = Limit("tpot_mean_s", max=0.05)


@dataclass
class Engine:
    """TPOT is constant until the engine is full, then grows with the load; noise multiplies."""

    tpot: float = 0.01
    full_at: float = 16
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.runs: list[Probe] = []

    def run(self, probe: Probe) -> dict[str, float]:
        self.runs.append(probe)
        noise = math.exp(self._random.gauss(0, self.noise * (0.3 if probe.full else 1)))
        tpot = self.tpot * max(1.0, probe.level / self.full_at) * noise
        return {
            "tpot_mean_s": tpot,
            "output_tokens_per_s": probe.level / tpot,
            "requests_per_s": probe.level / tpot / 100,
        }

    def limit(self, limit: float) -> float:
        """The highest load at which TPOT keeps a limit."""
        return self.full_at * limit / self.tpot if self.tpot <= limit else 0.0


def search(engine: Engine, options: OperatingPoint, **more: object) -> Found:
    finder = OperatingPointSearch(options, (TPOT,), **more)  # type: ignore[arg-type]
    for _ in range(40):
        step = finder.next()
        if isinstance(step, Found):
            return step
        finder.tell(step, engine.run(step))
    raise AssertionError("does not end")


@settings(max_examples=300, deadline=None)
@given(
    tpot=st.floats(0.0005, 0.2),
    full_at=st.floats(1, 300),
    high=st.integers(1, 1024),
    precision=st.sampled_from([0.05, 0.1, 0.2]),
)
def test_without_noise_the_point_is_the_highest_load_within_precision(
    tpot: float, full_at: float, high: int, precision: float
) -> None:
    engine = Engine(tpot, full_at)
    options = OperatingPoint(high=high, precision=precision, probes=40)
    found = search(engine, options)
    true = min(engine.limit(0.05), high)
    if true < 1:
        assert found.reason == "broken"
        assert found.level == 1
        return
    assert found.reason == "found"
    assert found.level <= true * (1 + 1e-9)
    assert found.level * (1 + precision) >= math.floor(true) or found.level + 1 > true
    assert engine.runs[-1] == Probe(found.level, full=True)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    noise=st.floats(0.0, 0.2),
    tpot=st.floats(0.001, 0.049),
    full_at=st.floats(1, 300),
    by=st.sampled_from(["concurrency", "request_rate"]),
)
def test_noise_costs_no_more_runs_than_allowed_and_what_is_found_kept_the_slo(
    seed: int, noise: float, tpot: float, full_at: float, by: str
) -> None:
    engine = Engine(tpot, full_at, noise, seed)
    options = OperatingPoint.model_validate({"by": by, "high": 512})
    found = search(engine, options)
    assert sum(not probe.full for probe in engine.runs) <= options.probes
    assert sum(probe.full for probe in engine.runs) <= options.full_runs
    assert all(options.low <= probe.level <= options.high for probe in engine.runs)
    if found.reason == "found":
        assert engine.runs[-1] == Probe(found.level, full=True)


def test_with_noise_of_a_tenth_most_of_the_possible_load_is_found() -> None:
    shares, spent = [], []
    for seed in range(200):
        rng = random.Random(seed)
        engine = Engine(rng.uniform(0.002, 0.04), rng.uniform(2, 60), 0.1, seed)
        found = search(engine, OperatingPoint(high=512))
        true = min(engine.limit(0.05), 512)
        shares.append(found.level / true if found.reason == "found" else 0.0)
        spent.append(len(engine.runs))
    assert sorted(shares)[len(shares) // 2] > 0.85
    assert sum(share == 0.0 for share in shares) <= 10
    assert sorted(spent)[len(spent) // 2] <= 8


def test_a_configuration_that_keeps_the_slo_at_the_highest_load_needs_few_runs() -> None:
    engine = Engine(0.001, 1000)
    assert search(engine, OperatingPoint(high=256)) == Found(256, "found")
    assert len(engine.runs) <= 4


def test_a_hopeless_configuration_ends_before_its_full_run() -> None:
    engine = Engine(0.01, 4)  # 20 requests at most, 400 tokens/s
    found = search(engine, OperatingPoint(high=256), incumbent=1000.0)
    assert found.reason == "beaten"
    assert found.bound is not None
    assert 400 <= found.bound < 1000
    assert not any(probe.full for probe in engine.runs)


def test_a_configuration_that_could_win_is_not_given_up() -> None:
    engine = Engine(0.01, 4)
    assert search(engine, OperatingPoint(high=256), incumbent=390.0).reason == "found"


def test_a_full_run_that_breaks_the_slo_lowers_the_load() -> None:
    class Optimist(Engine):
        def run(self, probe: Probe) -> dict[str, float]:
            metrics = super().run(probe)
            return (
                metrics if probe.full else metrics | {"tpot_mean_s": 0.9 * metrics["tpot_mean_s"]}
            )

    engine = Optimist(0.01, 4)
    found = search(engine, OperatingPoint(high=256, precision=0.05, probes=20))
    assert found.reason == "found"
    assert 15 <= found.level <= 20
    assert [probe.full for probe in engine.runs[-2:]] == [True, True]


def test_a_queue_that_grows_breaks_a_rate_although_tpot_is_kept() -> None:
    class Slow(Engine):
        def run(self, probe: Probe) -> dict[str, float]:
            self.runs.append(probe)
            done = min(probe.level, 7.0)
            return {"tpot_mean_s": 0.01, "output_tokens_per_s": 100 * done, "requests_per_s": done}

    engine = Slow()
    found = search(engine, OperatingPoint(by="request_rate", high=100, probes=20))
    assert found.reason == "found"
    assert 6.5 <= found.level <= 7.0 / 0.9


def test_a_missing_metric_is_no_load_that_keeps_the_slo() -> None:
    class Mute(Engine):
        def run(self, probe: Probe) -> dict[str, float]:
            self.runs.append(probe)
            return {"output_tokens_per_s": 1.0}

    assert search(Mute(), OperatingPoint(high=64)).reason == "broken"


def test_what_is_known_already_is_measured_in_full_at_once() -> None:
    engine = Engine(0.01, 4)
    found = search(engine, OperatingPoint(high=256), known=18)
    assert found == Found(18, "found")
    assert engine.runs == [Probe(18, full=True)]


def test_what_was_known_and_does_not_hold_is_lowered() -> None:
    engine = Engine(0.01, 4)
    found = search(engine, OperatingPoint(high=256), known=24)
    assert found.reason == "found"
    assert 15 <= found.level <= 20


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"low": 5, "high": 4}, "greater than high"),
        ({"low": 1.5}, "whole number"),
        ({"start": 300}, "between low and high"),
        ({"concurrency": 4}, "what is searched"),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused(block: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OperatingPoint.model_validate(block)


@dataclass
class Server:
    """So many requests per second at most; each takes some seconds beside its wait."""

    capacity: float
    seconds: float
    spread: float = 0.0

    def run(self, probe: Probe) -> dict[str, float]:
        count = 256 if probe.full else 32
        random_ = random.Random(count)
        came = [number / probe.level for number in range(count)]
        took = [self.seconds * random_.uniform(1 - self.spread, 1 + self.spread) for _ in came]
        begun = [max(at, number / self.capacity) for number, at in enumerate(came)]
        ends = [at + seconds for at, seconds in zip(begun, took, strict=True)]
        waits = [end - at for end, at in zip(ends, came, strict=True)]
        return {
            "duration_s": max(ends),
            "requests_per_s": count / max(ends),
            "e2el_mean_s": sum(waits) / count,
            "tpot_mean_s": 0.01,
        }


def rate_found(server: Server, high: float) -> Found:
    options = OperatingPoint(by="request_rate", low=0.5, high=high, precision=0.05, probes=30)
    finder = OperatingPointSearch(options, (TPOT,))
    while isinstance(step := finder.next(), Probe):
        finder.tell(step, server.run(step))
    return step


@pytest.mark.parametrize(("seconds", "spread"), [(0.1, 0.0), (8.0, 0.0), (30.0, 0.0), (4.0, 0.2)])
def test_the_answers_of_the_last_requests_are_not_taken_for_a_queue(
    seconds: float, spread: float
) -> None:
    assert rate_found(Server(1000, seconds, spread), high=8) == Found(8, "found")


@pytest.mark.parametrize("seconds", [0.1, 2.0, 8.0])
def test_a_queue_that_grows_ends_the_search_for_a_rate(seconds: float) -> None:
    found = rate_found(Server(4, seconds), high=64)
    assert found.reason == "found"
    assert 4 / 1.05 <= found.level <= 4 / 0.8


def test_a_benchmark_that_does_not_tell_how_long_answers_take_is_taken_by_the_whole_run() -> None:
    options = OperatingPoint(by="request_rate", low=1, high=8, start=4)
    finder = OperatingPointSearch(options, (TPOT,))
    step = finder.next()
    assert isinstance(step, Probe)
    finder.tell(step, {"requests_per_s": 3.0, "duration_s": 10.0, "tpot_mean_s": 0.01})
    following = finder.next()
    assert isinstance(following, Probe)
    assert following.level < 4

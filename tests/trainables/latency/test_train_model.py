"""What a trained latency model predicts: known engines, new loads, and far outside of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.trainables.latency.cost_engine import Cost, additive, device, serve
from trainables.latency import IterationRecord
from trainables.latency._features import FEATURES, feature_table
from trainables.latency._xgboost_model import LearnedLatency
from trainables.latency._xgboost_rows import rows_of
from trainables.latency._xgboost_training import Trained, train
from trainables.simulation import Batch, Chunk

pytest.importorskip("xgboost")

LOADS: Sequence[dict[str, float]] = (
    {"seed": 1, "sequences": 8, "budget": 256},
    {"seed": 2, "sequences": 64, "budget": 1024},
)


def trained_on(cost: Cost, noise: float = 0.01, iterations: int = 500) -> Trained:
    sources = [serve(cost, iterations, noise=noise, **load) for load in LOADS]  # type: ignore[arg-type]
    return train(rows_of(sources, 10_000), seed=0)


@pytest.fixture(scope="module")
def learned() -> Trained:
    return trained_on(device)


@pytest.fixture(scope="module")
def fresh(learned: Trained) -> Callable[[], LearnedLatency]:
    return lambda: LearnedLatency(learned.fit)


def errors(model: LearnedLatency, records: Sequence[IterationRecord]) -> np.ndarray:
    predicted = np.array([model.seconds(one.batch) for one in records])
    return predicted / np.array([one.seconds for one in records]) - 1


chunks = some.builds(Chunk, some.integers(1, 20_000), some.integers(0, 100_000))


@some.composite
def batches(draw: some.DrawFn) -> Batch:
    decodes = draw(some.lists(some.integers(1, 100_000), max_size=6))
    prefills = draw(some.lists(chunks, max_size=3, min_size=0 if decodes else 1))
    return IterationRecord(tuple(prefills), tuple(decodes), 1.0).batch


def test_the_costs_of_an_additive_engine_are_found() -> None:
    model = LearnedLatency(trained_on(additive, noise=0.02).fit)
    new = serve(additive, 400, seed=9, sequences=32, budget=512)
    assert np.abs(errors(model, new)).max() < 0.03
    assert np.median(np.abs(errors(model, new))) < 0.01


def test_a_load_that_was_not_seen_is_predicted(learned: Trained) -> None:
    """Half as many sequences as the larger training load, another budget, other requests."""
    off = errors(LearnedLatency(learned.fit), serve(device, 600, seed=9, sequences=32, budget=512))
    assert np.median(np.abs(off)) < 0.02
    assert np.quantile(np.abs(off), 0.9) < 0.05
    assert abs(off.mean()) < 0.02


def test_four_times_the_sequences_and_longer_prompts_stay_near(learned: Trained) -> None:
    model = LearnedLatency(learned.fit)
    far = serve(device, 600, seed=9, sequences=256, budget=4096, prompt=1000)
    off = errors(model, far)
    assert np.median(np.abs(off)) < 0.10
    assert np.abs(off).max() < 0.5
    assert model.iterations == 600
    assert model.extrapolated > 300


def test_it_says_which_batches_it_knows(learned: Trained) -> None:
    model = LearnedLatency(learned.fit)
    seen = serve(device, 200, seed=1, sequences=8, budget=256)
    assert all(model.trusted(one.batch) for one in seen)
    assert not model.trusted(Batch((Chunk(100_000),)))
    assert not model.trusted(Batch((), 1000, 1000 * 500, 500, 500))
    new = serve(device, 200, seed=9, sequences=32, budget=512)
    assert sum(model.trusted(one.batch) for one in new) > 150


def test_what_was_only_seen_apart_is_not_known_together() -> None:
    """Each number is within its range; long prompts beside many decodes were never seen."""
    prompts = [
        IterationRecord((Chunk(tokens),), (), device(Batch((Chunk(tokens),))), tokens / 10)
        for tokens in range(1000, 2000, 10)
    ]
    decodes = [
        IterationRecord((), (500,) * count, device(Batch((), count, 500 * count, 500, 500)))
        for count in range(1, 101)
    ]
    model = LearnedLatency(train(rows_of([prompts, decodes], 1000), seed=0).fit)
    assert model.trusted(Batch((Chunk(1500),)))
    assert model.trusted(Batch((), 60, 60 * 500, 500, 500))
    both = Batch((Chunk(1500),), 60, 60 * 500, 500, 500)
    assert not model.trusted(both)
    assert model.seconds(both) == pytest.approx(device(both), rel=0.25)


@settings(deadline=None)
@given(batch=batches(), more=batches(), by=some.integers(1, 5000))
def test_more_work_never_takes_less_time(
    fresh: Callable[[], LearnedLatency], batch: Batch, more: Batch, by: int
) -> None:
    model = fresh()
    seconds = model.seconds(batch)
    assert 0 < seconds < math.inf
    decodes = batch.decodes + more.decodes
    joined = Batch(
        batch.prefills + more.prefills,
        decodes,
        batch.context + more.context,
        max(batch.context_max, more.context_max),
        min(batch.context_min, more.context_min),
    )
    longer = Batch(
        tuple(Chunk(tokens + by, context) for tokens, context in batch.prefills),
        batch.decodes,
        batch.context,
        batch.context_max,
        batch.context_min,
    )
    later = Batch(
        tuple(Chunk(tokens, context + by) for tokens, context in batch.prefills),
        batch.decodes,
        batch.context + by * batch.decodes,
        batch.context_max + by if batch.decodes else 0,
        batch.context_min + by if batch.decodes else 0,
    )
    for grown in (joined, longer, later):
        assert model.seconds(grown) >= seconds * (1 - 1e-9)


@settings(deadline=None)
@given(
    contexts=some.lists(some.integers(1, 20_000), min_size=1, max_size=80),
    iterations=some.integers(0, 120),
)
def test_a_run_of_decodes_is_its_iterations_one_by_one(
    fresh: Callable[[], LearnedLatency], contexts: list[int], iterations: int
) -> None:
    first = IterationRecord((), tuple(contexts), 1.0).batch
    whole, single = fresh(), fresh()
    expected = [single.seconds(first.after(number)) for number in range(iterations)]
    assert whole.decode_seconds(first, iterations) == pytest.approx(expected, rel=1e-12)
    assert whole.iterations == single.iterations
    assert whole.extrapolated == single.extrapolated


def test_the_trees_are_those_of_xgboost(learned: Trained) -> None:
    """XGBoost adds up in single precision, so its own sums are exact to a few millionths only."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(learned.booster))
    records = serve(device, 300, seed=9, sequences=100, budget=2048, prompt=2000)
    records += serve(device, 300, seed=1, sequences=8, budget=256)
    table = feature_table([one.batch for one in records])
    matrix = xgboost.DMatrix(table, feature_names=list(FEATURES), base_margin=np.zeros(len(table)))
    assert learned.rounds > 10
    assert learned.fit.forest.of(table) == pytest.approx(booster.predict(matrix), abs=1e-5)


def test_delays_by_others_are_in_the_mean_and_not_in_the_shape() -> None:
    """One iteration in five takes three times as long; sums of predictions are still right."""
    draw = np.random.default_rng(0)
    slowed = [
        IterationRecord(one.prefills, one.decodes, one.seconds * float(draw.choice((1, 3))), one.at)
        if draw.random() < 0.4
        else one
        for one in serve(device, 1500, seed=1, noise=0.01)
    ]
    trained = train(rows_of([slowed], 10_000), seed=0)
    model = LearnedLatency(trained.fit)
    assert trained.delay == pytest.approx(1.4, abs=0.1)
    off = errors(model, serve(device, 500, seed=9)) + 1
    assert np.median(off) == pytest.approx(1.4, abs=0.1)
    assert np.quantile(off, 0.9) / np.quantile(off, 0.1) < 1.25


@pytest.mark.parametrize(
    "sources",
    [
        [[IterationRecord((), (9, 9), 0.02)] * 50],
        [[IterationRecord((), (count,), 0.02)] for count in range(1, 51)],
        [[IterationRecord((Chunk(100),), (), 0.02), IterationRecord((), (5,), 0.02)] * 25],
    ],
    ids=["all equal", "a recording each", "two sorts"],
)
def test_little_data_gives_a_plain_model(sources: list[list[IterationRecord]]) -> None:
    """With nothing that explains a difference, every iteration takes what they all took."""
    trained = train(rows_of(sources, 100), seed=0)
    assert trained.held_out["all"].median < 0.02
    model = LearnedLatency(trained.fit)
    assert model.seconds(sources[0][0].batch) == pytest.approx(0.02, rel=0.02)
    assert model.seconds(Batch((), 2, 40, 20, 20)) == pytest.approx(0.02, rel=0.02)


def test_iterations_that_compiled_something_are_set_aside() -> None:
    records = serve(device, 600, seed=1, noise=0.01)
    late = [
        IterationRecord(one.prefills, one.decodes, one.seconds * 200, one.at) for one in records[:4]
    ]
    trained = train(rows_of([late + records[4:]], 10_000), seed=0)
    assert trained.set_aside == 4
    off = errors(LearnedLatency(trained.fit), serve(device, 300, seed=9))
    assert np.median(np.abs(off)) < 0.02

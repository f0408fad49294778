"""What holds for any operator tables, also noisy ones with gaps, and for any batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.latency._model import Served
from trainables.latency._operators_attention import AttentionGrid, as_one_chunk, work
from trainables.latency._operators_curve import Curve, measured_curve, weighted_sum
from trainables.latency._operators_flash import Spread
from trainables.latency._operators_graphs import captured_sizes, padded
from trainables.latency._operators_model import Composition, OperatorLatency
from trainables.latency._operators_moe import ExpertTable
from trainables.latency._operators_skew import Skew, SkewRow
from trainables.simulation import Batch, Chunk

times = st.floats(0.1, 1e5)
AXES = ((0, 16, 512), (0, 16, 512), (0, 1, 32), (0, 16, 4096))
POINTS = [
    (c, b, n, k)
    for c in AXES[0]
    for b in AXES[1]
    for n in AXES[2]
    for k in AXES[3]
    if (c or n) and (c or not b) and bool(n) == bool(k)
]


@st.composite
def noisy_grids(draw: st.DrawFn) -> dict[tuple[int, int, int, int], float]:
    """Any times, with any points missing."""
    kept = draw(st.sets(st.sampled_from(POINTS), min_size=1))
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).uniform(0.1, 1e4, len(kept))
    return dict(zip(sorted(kept), values.tolist(), strict=True))


def lawful(point: tuple[float, float, float, float], launch: float = 3.0) -> float:
    chunk, before, decodes, context = point
    return launch + 1e-4 * work(chunk, before) + 1e-3 * decodes * context


@st.composite
def lawful_grids(draw: st.DrawFn) -> dict[tuple[int, int, int, int], float]:
    """Times that never fall along an axis, without the large batches that did not fit."""
    chunk, decodes = draw(st.sampled_from([16, 512, 999])), draw(st.sampled_from([32, 999]))
    context = draw(st.sampled_from([16, 4096, 9999]))
    return {
        point: lawful(point)
        for point in POINTS
        if point[0] < chunk or point[2] < decodes or point[3] < context
    }


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    chunks = draw(st.lists(st.tuples(st.integers(1, 20000), st.integers(0, 200000)), max_size=4))
    prefills = tuple(Chunk(*chunk) for chunk in chunks)
    lengths = draw(st.lists(st.integers(1, 200000), min_size=0 if chunks else 1, max_size=8))
    if not lengths:
        return Batch(prefills)
    return Batch(prefills, len(lengths), sum(lengths), max(lengths), min(lengths))


@st.composite
def skews(draw: st.DrawFn) -> Skew:
    """Buckets as fits have them, with any alpha."""
    rows = draw(
        st.lists(
            st.builds(
                SkewRow,
                st.sampled_from([0, 16, 512]),
                st.tuples(
                    st.sampled_from(["n<=2", "n<=32", "n>32"]),
                    st.sampled_from(["sr<=5%", "sr<=40%", "sr>40%"]),
                    st.sampled_from(["kvB<=1k", "kvB<=16k", "kvB>16k"]),
                    st.sampled_from(["kp=0", "kp<=512", "kp>512"]),
                ),
                st.floats(-800, 20),
            ),
            min_size=1,
            max_size=20,
        )
    )
    return Skew(rows, draw(st.none() | st.floats(-1, 2)))


@st.composite
def spreads(draw: st.DrawFn) -> Spread:
    """GPUs and models on which some of these batches are split and some are not."""
    multiprocessors = draw(st.integers(1, 200))
    kv_heads = draw(st.sampled_from([1.0, 4.0, 8.0]))
    heads = kv_heads * draw(st.sampled_from([1, 4]))
    slots = multiprocessors * draw(st.integers(1, 2))
    return Spread(multiprocessors, slots, heads, kv_heads, draw(st.floats(0, 10)))


def latency(
    points: dict[tuple[int, int, int, int], float],
    skew: Skew | None,
    spread: Spread | None = None,
) -> OperatorLatency:
    dense = measured_curve({1.0: 10.0, 64.0: 11.0, 1024.0: 90.0})
    rows = measured_curve({1.0: 4.0, 64.0: 9.0})
    sizes = captured_sizes(Served({}))
    grid = AttentionGrid(points)
    return OperatorLatency(Composition(dense, rows, grid, 4, skew, sizes, spread))


@settings(max_examples=25, deadline=None)
@given(noisy_grids(), skews(), st.none() | spreads(), st.lists(batches(), min_size=1, max_size=4))
def test_every_batch_takes_a_positive_finite_time(
    points: dict[tuple[int, int, int, int], float],
    skew: Skew,
    spread: Spread | None,
    some: list[Batch],
) -> None:
    model = latency(points, skew, spread)
    for batch in some:
        assert 0 < model.seconds(batch) < math.inf


@settings(max_examples=25, deadline=None)
@given(
    noisy_grids(),
    st.none() | skews(),
    st.none() | spreads(),
    batches(),
    st.integers(1, 60),
)
def test_decode_iterations_at_once_are_those_one_by_one(
    points: dict[tuple[int, int, int, int], float],
    skew: Skew | None,
    spread: Spread | None,
    batch: Batch,
    steps: int,
) -> None:
    batch = Batch((), batch.decodes, batch.context, batch.context_max, batch.context_min)
    if not batch.decodes:
        batch = Batch((), 3, 3000, 1500, 200)
    model = latency(points, skew, spread)
    one_by_one = [model.seconds(batch.after(step)) for step in range(steps)]
    np.testing.assert_allclose(model.decode_seconds(batch, steps), one_by_one, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(lawful_grids(), batches(), st.integers(1, 5000), st.integers(1, 20000))
def test_more_tokens_or_longer_contexts_never_take_less(
    points: dict[tuple[int, int, int, int], float], batch: Batch, tokens: int, context: int
) -> None:
    """But for graphs: the largest of them may be slower than the next batch, which has none. A
    prompt that joins others may be computed as a rounder batch: within the grid's own steps."""
    model = latency(points, None)
    base = model.seconds(batch)
    if batch.decodes:
        longer = Batch(
            batch.prefills,
            batch.decodes,
            batch.context + context * batch.decodes,
            batch.context_max + context,
            batch.context_min + context,
        )
        assert model.seconds(longer) >= base * (1 - 1e-9)
    if len(batch.prefills) == 1:
        (chunk,) = batch.prefills
        rest = batch.decodes, batch.context, batch.context_max, batch.context_min
        more = Batch((Chunk(chunk.tokens + tokens, chunk.context),), *rest)
        assert model.seconds(more) >= base * (1 - 1e-9)
        later = Batch((Chunk(chunk.tokens, chunk.context + context),), *rest)
        assert model.seconds(later) >= base * (1 - 1e-9)


@settings(max_examples=25, deadline=None)
@given(lawful_grids(), st.none() | spreads(), batches())
def test_unequal_contexts_take_between_the_mean_and_the_longest(
    points: dict[tuple[int, int, int, int], float], spread: Spread | None, batch: Batch
) -> None:
    if not batch.decodes:
        return
    rows = [SkewRow(0, ("n>0", "sr>0%", "kvB>0", "kp>0"), 0.3)]
    skewed = latency(points, Skew(rows, 0.3), spread).seconds(batch)
    plain = latency(points, None)
    longest = Batch(
        batch.prefills,
        batch.decodes,
        batch.context_max * batch.decodes,
        batch.context_max,
        batch.context_max,
    )
    assert plain.seconds(batch) * (1 - 1e-9) <= skewed
    assert skewed <= plain.seconds(longest) * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 9000)), min_size=1, max_size=6))
def test_one_chunk_does_the_work_of_several(chunks: list[tuple[int, int]]) -> None:
    tokens, context = as_one_chunk([Chunk(*chunk) for chunk in chunks])
    pairs = sum(new * (had + new / 2) for new, had in chunks)
    assert tokens * (context + tokens / 2) == pytest.approx(pairs, rel=1e-9)
    assert 0 <= context <= max(had for _, had in chunks) + max(new for new, _ in chunks)
    assert 0 < tokens <= sum(new for new, _ in chunks) * (1 + 1e-12)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.integers(1, 4096).map(float), times, min_size=1, max_size=30),
    st.floats(0, 1e6),
    st.booleans(),
)
def test_a_curve_stays_positive_and_meets_its_points(
    points: dict[float, float], x: float, stepped: bool
) -> None:
    curve = Curve(points, stepped=stepped)
    assert 0 < curve(x) < math.inf
    last = max(points)
    assert curve(x + last) >= curve(last) * (1 - 1e-9)
    for at, time in points.items():
        assert curve(at) == pytest.approx(time)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.integers(1, 999).map(float), times, min_size=2, max_size=12),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=5,
    ),
    st.floats(1, 200),
)
def test_a_sum_of_curves_is_the_sum_of_their_values(
    parts: list[tuple[dict[float, float], int]], x: float
) -> None:
    curves = [(Curve(points), float(runs)) for points, runs in parts]
    end = min(max(points) for points, _ in parts)
    total = sum(curve(min(x, end)) * runs for curve, runs in curves)
    assert weighted_sum(curves)(min(x, end)) == pytest.approx(total, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from([1, 2, 16, 256, 2048]), st.sampled_from([2, 4, 8, 64])),
        times,
        min_size=1,
    ),
    st.floats(0.25, 1e5),
    st.floats(0.25, 256),
)
def test_experts_take_a_positive_finite_time(
    points: dict[tuple[int, int], float], tokens: float, experts: float
) -> None:
    assert 0 < ExpertTable(points)(tokens, experts) < math.inf


@given(st.integers(1, 1024), st.integers(1, 2000))
def test_padding_is_to_the_next_captured_size(max_num_seqs: int, tokens: int) -> None:
    sizes = captured_sizes(Served({}, max_num_seqs=max_num_seqs))
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] <= min(2 * max_num_seqs, 512)
    size = padded(tokens, sizes)
    assert size >= tokens
    assert size in sizes or (tokens > sizes[-1] and size == tokens)
    assert not any(tokens <= other < size for other in sizes)


def test_default_captured_sizes_are_those_of_the_engine() -> None:
    """vLLM's for 256 sequences: 51 up to 512."""
    sizes = captured_sizes(Served({}, max_num_seqs=256))
    assert sizes[:5] == (1, 2, 4, 8, 16)
    assert sizes[33:36] == (248, 256, 272)
    assert sizes[-1] == 512
    assert len(sizes) == 51
    assert captured_sizes(Served({}, eager=True)) == ()

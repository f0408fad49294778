"""Rules of the simulated scheduler, each on the smallest load that shows it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tests.trainables.simulation.cases import Recorded, one_by_one
from trainables.simulation import (
    Batch,
    Chunk,
    HostCosts,
    Instance,
    Load,
    Request,
    SchedulerSettings,
    Simulated,
    simulate,
)

SMALL = SchedulerSettings(
    max_num_seqs=4, max_num_batched_tokens=32, num_blocks=10, block_size=4, async_scheduling=False
)


def run(requests: list[Request], **changes: Any) -> tuple[Simulated, list[Batch]]:
    model = Recorded(1000, 10, 5)
    with one_by_one():
        instance = Instance("only", replace(SMALL, **changes), model)
        return simulate([instance], Load(requests)), model.batches


def test_decodes_come_before_the_rest_of_a_prompt() -> None:
    _, batches = run([Request(0, 4, 8), Request(1, 30, 1)], num_blocks=100)
    assert batches[:3] == [
        Batch((Chunk(4, 0), Chunk(28, 0))),
        Batch((Chunk(2, 28),), 1, 4, 4, 4),
        Batch((), 1, 5, 5, 5),
    ]


def test_the_last_one_admitted_is_preempted_and_finishes() -> None:
    found, _ = run([Request(0, 8, 24), Request(1, 8, 24)])
    assert [one.preemptions for one in found.served] == [0, 1]
    assert [len(one.gaps) for one in found.served] == [23, 23]
    assert found.served[0].end < found.served[1].end


def test_nobody_is_admitted_when_somebody_was_preempted() -> None:
    requests = [Request(0, 8, 24), Request(1, 8, 24), Request(2, 1, 1, 0.005)]
    found, batches = run(requests, max_num_seqs=2)
    before = next(
        place for place, (a, b) in enumerate(pairwise(batches)) if a.decodes == 2 and b.decodes == 1
    )
    assert not batches[before + 1].prefills
    assert found.served[1].preemptions == 1


@pytest.mark.parametrize(("asynchronous", "between"), [(False, 0), (True, 1)])
def test_a_place_is_free_an_iteration_later_with_asynchronous_scheduling(
    asynchronous: bool, between: int
) -> None:
    requests = [Request(0, 4, 6), Request(1, 4, 3), Request(2, 4, 1)]
    _, batches = run(requests, max_num_seqs=2, async_scheduling=asynchronous)
    left = next(place for place, batch in enumerate(batches) if batch.decodes == 1)
    admitted = next(place for place, batch in enumerate(batches) if place and batch.prefills)
    assert admitted - left == between


def test_an_equal_prompt_is_found_but_for_its_last_block() -> None:
    prefix = (5, 6, 7)
    pair = [Request(0, 12, 2, 0.0, prefix, 4), Request(1, 12, 2, 1.0, prefix, 4)]
    found, batches = run(pair)
    assert [one.cached_tokens for one in found.served] == [0, 8]
    assert batches[2].prefills == (Chunk(4, 8),)
    found, _ = run(pair, prefix_caching=False)
    assert [one.cached_tokens for one in found.served] == [0, 0]


def test_answers_are_not_part_of_a_shared_prefix() -> None:
    prefix = (5, 6, 7)
    pair = [Request(0, 10, 4, 0.0, prefix, 4), Request(1, 13, 2, 1.0, (*prefix, 8), 4)]
    found, _ = run(pair)
    assert found.served[1].cached_tokens == 8


@pytest.mark.parametrize(("reserve", "first"), [(True, 1), (False, 2)])
def test_a_prompt_is_admitted_when_all_of_it_or_its_first_chunk_fits(
    reserve: bool, first: int
) -> None:
    requests = [Request(0, 20, 9), Request(1, 24, 1)]
    found, batches = run(requests, reserve_full_prompt=reserve)
    assert len(batches[0].prefills) == first
    assert len(found.served) == 2


def test_a_watermark_is_left_free_while_others_run() -> None:
    requests = [Request(0, 20, 9), Request(1, 16, 1)]
    _, batches = run(requests, max_num_batched_tokens=64)
    assert len(batches[0].prefills) == 2
    _, batches = run(requests, max_num_batched_tokens=64, watermark=0.2)
    assert len(batches[0].prefills) == 1


def test_a_long_prompt_is_limited_unless_it_is_alone() -> None:
    limit = {"long_prefill_token_threshold": 5, "num_blocks": 100}
    _, batches = run([Request(0, 20, 1), Request(1, 20, 1)], **limit)
    assert batches[0].prefills == (Chunk(5, 0), Chunk(5, 0))
    _, batches = run([Request(0, 20, 1)], **limit)
    assert batches[0].prefills == (Chunk(20, 0),)


def test_separate_prefill_computes_prompts_first() -> None:
    requests = [Request(0, 4, 5), Request(1, 4, 5, 0.0015), Request(2, 4, 5, 0.0015)]
    _, batches = run(requests, separate_prefill=True)
    shapes = [(len(batch.prefills), batch.decodes) for batch in batches[:4]]
    assert shapes == [(1, 0), (0, 1), (2, 0), (0, 3)]
    _, batches = run(requests, separate_prefill=True, max_prefill_seqs=1)
    shapes = [(len(batch.prefills), batch.decodes) for batch in batches[:5]]
    assert shapes == [(1, 0), (0, 1), (1, 0), (1, 0), (0, 3)]


@pytest.mark.parametrize(
    ("changes", "request_", "reason"),
    [
        ({}, Request(0, 30, 11), "41 tokens of prompt and answer are more than the longest"),
        ({"max_model_len": 20}, Request(0, 15, 6), "21 tokens"),
        (
            {"chunked_prefill": False},
            Request(0, 32, 2),
            "34 tokens are more than an iteration's 32",
        ),
    ],
)
def test_what_can_never_be_served_is_refused(
    changes: dict[str, Any], request_: Request, reason: str
) -> None:
    found, batches = run([request_], **changes)
    assert not batches
    assert [reason in one.reason for one in found.refused] == [True]


@pytest.mark.parametrize("blocks", [12, 13, 15, 20])
def test_unfinished_prompts_that_hold_all_blocks_stop_nobody(blocks: int) -> None:
    requests = [Request(0, 100, 64), Request(1, 100, 30), Request(2, 1, 40), Request(3, 90, 43)]
    found, _ = run(
        requests,
        max_num_batched_tokens=100,
        num_blocks=blocks,
        block_size=16,
        long_prefill_token_threshold=20,
        reserve_full_prompt=False,
        separate_prefill=True,
    )
    assert len(found.served) == 4
    assert blocks == 20 or sum(one.preemptions for one in found.served) > 0


def test_requests_that_are_sent_at_once_are_queued_one_by_one() -> None:
    """An idle engine begins with the first of them alone."""
    model = Recorded(1000, 10, 5)
    instance = Instance("only", SMALL, model, HostCosts(spacing=0.0001))
    simulate([instance], Load([Request(number, 8, 2) for number in range(3)]))
    assert [len(batch.prefills) for batch in model.batches[:2]] == [1, 2]

"""What holds for every load and every setting of the simulated scheduler."""

from __future__ import annotations

import heapq
from dataclasses import fields, replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.simulation.cases import one_by_one
from trainables.simulation import (
    Batch,
    HostCosts,
    Instance,
    LatencyModel,
    Load,
    Request,
    SchedulerSettings,
    Served,
    Simulated,
    simulate,
)
from trainables.simulation._machine import Machine

FEW = settings(max_examples=60, deadline=None)
ROUTES: tuple[Literal["least_loaded", "round_robin"], ...] = ("least_loaded", "round_robin")


class Linear(LatencyModel):
    """Durations that no binary fraction is equal to; keeps every batch."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def seconds(self, batch: Batch) -> float:
        self.batches.append(batch)
        context = batch.context + sum(chunk.context for chunk in batch.prefills)
        return 0.0103 + 0.0007 * batch.tokens + 1.3e-6 * context


@st.composite
def settings_of_schedulers(draw: st.DrawFn) -> SchedulerSettings:
    return SchedulerSettings(
        max_num_seqs=draw(st.sampled_from([1, 2, 5, 32])),
        max_num_batched_tokens=draw(st.sampled_from([7, 32, 100, 512])),
        num_blocks=draw(st.sampled_from([12, 20, 50, 400])),
        block_size=draw(st.sampled_from([1, 4, 16])),
        prefix_caching=draw(st.booleans()),
        chunked_prefill=draw(st.booleans()),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 3, 20])),
        async_scheduling=draw(st.booleans()),
        reserve_full_prompt=draw(st.booleans()),
        watermark=draw(st.sampled_from([0.0, 0.0, 0.1])),
        separate_prefill=draw(st.booleans()),
        max_prefill_seqs=draw(st.sampled_from([None, 1, 3])),
    )


@st.composite
def loads(draw: st.DrawFn, *, closed: bool | None = None) -> Load:
    """Up to 25 requests; half of those with a prefix share it with others."""
    arrival, requests = 0.0, []
    for number in range(draw(st.integers(1, 25))):
        arrival += draw(st.sampled_from([0.0, 0.0, 0.013, 0.4]))
        tokens = draw(st.integers(1, 120))
        family = draw(st.integers(-1, 2))
        blocks = range(tokens // 8) if family >= 0 else range(0)
        answer = draw(st.integers(1, 70))
        prefix = tuple(1000 * family + block for block in blocks)
        requests.append(Request(number, tokens, answer, arrival, prefix, 8))
    waits = draw(st.booleans()) if closed is None else closed
    return Load(requests, draw(st.integers(1, 6)) if waits else None)


NO_HOST = HostCosts()
HOSTS = st.sampled_from([NO_HOST, HostCosts(0.004, 0.0003, 0.0011, 0.002)])


def run(
    setting: SchedulerSettings, load: Load, host: HostCosts = NO_HOST
) -> tuple[Simulated, list[Batch]]:
    """One instance, every iteration on its own."""
    model = Linear()
    with one_by_one():
        return simulate([Instance("a", setting, model, host)], load), model.batches


@FEW
@given(settings_of_schedulers(), loads())
def test_every_request_is_served_with_all_its_tokens_or_refused(
    setting: SchedulerSettings, load: Load
) -> None:
    found, _ = run(setting, load)
    numbers = [one.request.number for one in found.served]
    refused = [one.request.number for one in found.refused]
    assert sorted(numbers + refused) == list(range(len(load.requests)))
    assert all(len(one.gaps) == one.request.output_tokens - 1 for one in found.served)
    for one in found.refused:
        whole = one.request.input_tokens + one.request.output_tokens
        unparted = not setting.chunked_prefill and whole > setting.max_num_batched_tokens
        assert whole > setting.longest or unparted
        assert str(whole) in one.reason


@FEW
@given(settings_of_schedulers(), loads())
def test_tokens_are_computed_once_but_for_preemption(
    setting: SchedulerSettings, load: Load
) -> None:
    found, batches = run(setting, load)
    prompts = sum(one.request.input_tokens - one.cached_tokens for one in found.served)
    answers = sum(one.request.output_tokens for one in found.served)
    preemptions = sum(one.preemptions for one in found.served)
    prefilled = sum(batch.prefill_tokens for batch in batches)
    decoded = sum(batch.decodes for batch in batches)
    again = sum(
        one.preemptions * (one.request.input_tokens + one.request.output_tokens)
        for one in found.served
    )
    assert answers - len(found.served) - preemptions <= decoded <= answers - len(found.served)
    if not preemptions:
        assert (prefilled, decoded) == (prompts, answers - len(found.served))
    anew = prefilled + decoded - prompts - (answers - len(found.served))
    assert 0 <= anew <= again


@FEW
@given(settings_of_schedulers(), loads())
def test_no_limit_is_exceeded(setting: SchedulerSettings, load: Load) -> None:
    found, batches = run(setting, load)
    log = found.instances["a"]
    separate = setting.separate_prefill
    tokens = max(setting.max_num_batched_tokens, setting.max_num_seqs if separate else 0)
    for batch, used, running in zip(batches, log.kv_blocks, log.running, strict=True):
        assert 1 <= batch.tokens <= tokens
        assert batch.sequences <= running <= setting.max_num_seqs
        assert used <= setting.num_blocks
        if not setting.prefix_caching:
            kept = batch.context + sum(chunk.context for chunk in batch.prefills)
            assert kept + batch.tokens <= used * setting.block_size
        if separate:
            assert not (batch.prefills and batch.decodes)
            assert len(batch.prefills) <= (setting.max_prefill_seqs or len(batch.prefills))


@FEW
@given(settings_of_schedulers(), loads(closed=False))
def test_a_long_prompt_leaves_room_for_others(setting: SchedulerSettings, load: Load) -> None:
    limited = replace(setting, long_prefill_token_threshold=9)
    found, batches = run(limited, load)
    log = found.instances["a"]
    for batch, running, waiting in zip(batches, log.running, log.waiting, strict=True):
        if running + waiting > 1 and len(batch.prefills) > 1:
            assert all(chunk.tokens <= 9 for chunk in batch.prefills)


@FEW
@given(settings_of_schedulers(), loads())
def test_prompts_are_not_parted_without_chunks(setting: SchedulerSettings, load: Load) -> None:
    whole = replace(setting, chunked_prefill=False, long_prefill_token_threshold=0)
    found, batches = run(whole, load)
    preemptions = sum(one.preemptions for one in found.served)
    admissions = sum(len(batch.prefills) for batch in batches)
    assert len(found.served) <= admissions <= len(found.served) + preemptions


@FEW
@given(settings_of_schedulers(), loads(), HOSTS)
def test_time_never_goes_backwards(setting: SchedulerSettings, load: Load, host: HostCosts) -> None:
    found, _ = run(setting, load, host)
    log = found.instances["a"]
    assert (log.end > log.start).all()
    assert (log.start[1:] >= log.end[:-1] + host.iteration - 1e-12).all()
    for one in found.served:
        assert (one.request.arrival or 0.0) <= one.sent
        assert one.sent + host.admission <= one.scheduled < one.first <= one.end
        assert (one.gaps > 0).all()
        assert one.end == pytest.approx(one.first + one.gaps.sum())


@FEW
@given(settings_of_schedulers(), loads())
def test_first_come_first_served(setting: SchedulerSettings, load: Load) -> None:
    found, _ = run(setting, load)
    in_order = sorted(found.served, key=lambda one: (one.sent, one.request.number))
    scheduled = [one.scheduled for one in in_order]
    assert scheduled == sorted(scheduled)


@FEW
@given(settings_of_schedulers(), loads())
def test_only_whole_blocks_of_others_prompts_are_found_again(
    setting: SchedulerSettings, load: Load
) -> None:
    found, _ = run(setting, load)
    for one in found.served:
        others = [other for other in load.requests if other is not one.request]
        common = max((8 * _common(one.request, other) for other in others), default=0)
        assert one.cached_tokens % setting.block_size == 0
        assert one.cached_tokens <= min(common, one.request.input_tokens - 1)
        assert setting.prefix_caching or one.cached_tokens == 0


def _common(one: Request, other: Request) -> int:
    pairs = zip(one.prefix, other.prefix, strict=False)
    return next(
        (place for place, (a, b) in enumerate(pairs) if a != b),
        min(map(len, (one.prefix, other.prefix))),
    )


@FEW
@given(settings_of_schedulers(), loads(closed=False))
def test_all_blocks_are_free_in_the_end(setting: SchedulerSettings, load: Load) -> None:
    machine = Machine(Instance("a", setting, Linear()))
    for request in load.requests:
        if machine.refusal(request) is None:
            while machine.next_time() < (request.arrival or 0.0):
                machine.step(request.arrival or 0.0)
            machine.submit(request, request.arrival or 0.0)
    while machine.next_time() < float("inf"):
        machine.step(float("inf"))
    assert machine.scheduler.pool.used == 0
    assert machine.scheduler.pool.free == setting.num_blocks
    assert machine.load == 0


@FEW
@given(
    st.lists(settings_of_schedulers(), min_size=1, max_size=3),
    loads(),
    HOSTS,
    st.sampled_from(ROUTES),
)
def test_fast_forwarding_changes_nothing(
    several: list[SchedulerSettings],
    load: Load,
    host: HostCosts,
    route: Literal["least_loaded", "round_robin"],
) -> None:
    instances = [Instance(str(number), one, Linear(), host) for number, one in enumerate(several)]
    fast = simulate(instances, load, route=route)
    with one_by_one():
        slow = simulate(instances, load, route=route)
    again = simulate(instances, load, route=route)
    _same(fast, slow)
    _same(fast, again)


def _same(one: Simulated, other: Simulated) -> None:
    assert one.refused == other.refused
    for a, b in zip(one.served, other.served, strict=True):
        assert _facts(a) == _facts(b)
        assert (a.gaps == b.gaps).all()
    for name, log in one.instances.items():
        for column in fields(log):
            theirs = getattr(other.instances[name], column.name)
            assert (getattr(log, column.name) == theirs).all(), column.name


def _facts(one: Served) -> tuple[object, ...]:
    times = (one.sent, one.scheduled, one.first, one.end)
    return (one.request, *times, one.cached_tokens, one.preemptions, one.instances)


@FEW
@given(
    st.lists(settings_of_schedulers(), min_size=1, max_size=3),
    loads(closed=True),
    st.sampled_from(ROUTES),
)
def test_a_closed_loop_sends_when_a_place_is_free(
    several: list[SchedulerSettings], load: Load, route: Literal["least_loaded", "round_robin"]
) -> None:
    instances = [Instance(str(number), one, Linear()) for number, one in enumerate(several)]
    found = simulate(instances, load, route=route)
    ends = {one.request.number: one.end for one in found.served}
    sent = {one.request.number: one.sent for one in found.served}
    sent |= {one.request.number: one.sent for one in found.refused}
    under_way: list[float] = []
    assert load.concurrency is not None
    for request in load.requests:
        free = heapq.heappop(under_way) if len(under_way) == load.concurrency else 0.0
        assert sent[request.number] == max(free, request.arrival or 0.0)
        heapq.heappush(under_way, ends.get(request.number, sent[request.number]))


@FEW
@given(loads(closed=False), st.integers(1, 4))
def test_round_robin_takes_turns(load: Load, count: int) -> None:
    instances = [Instance(str(number), SchedulerSettings(), Linear()) for number in range(count)]
    found = simulate(instances, load, route="round_robin")
    assert [one.instances for one in found.served] == [
        (str(number % count),) for number in range(len(load.requests))
    ]

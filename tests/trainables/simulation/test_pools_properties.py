"""Disaggregated serving: what holds for any small workload."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.simulation.pools import GB, Steps, instance
from trainables.simulation import (
    Instance,
    Load,
    Request,
    Transfer,
    simulate_disaggregated,
)
from trainables.simulation._pools import FirstToken, _Run
from trainables.simulation._transfer import Network


@st.composite
def pools(draw: st.DrawFn, names: str) -> list[Instance]:
    count = draw(st.integers(1, 2))
    latency = Steps(draw(st.sampled_from([1e-4, 1e-2])), draw(st.sampled_from([1e-3, 0.1])))
    return [
        instance(
            names[number],
            latency,
            num_blocks=draw(st.integers(8, 24)),
            block_size=draw(st.sampled_from([4, 8])),
            max_num_seqs=draw(st.integers(1, 4)),
            max_num_batched_tokens=draw(st.sampled_from([8, 40])),
            async_scheduling=draw(st.booleans()),
            prefix_caching=draw(st.booleans()),
            reserve_full_prompt=draw(st.booleans()),
            separate_prefill=draw(st.booleans()),
        )
        for number in range(count)
    ]


@st.composite
def loads(draw: st.DrawFn) -> Load:
    sizes = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), min_size=1))
    apart = draw(st.sampled_from([0.0, 0.01, 0.3]))
    prefix = st.lists(st.integers(0, 1), max_size=3).map(tuple)
    return Load(
        [
            Request(number, prompt, answer, number * apart, draw(prefix), 8)
            for number, (prompt, answer) in enumerate(sizes)
        ],
        draw(st.none() | st.integers(1, 5)),
    )


transfers = st.builds(
    Transfer,
    bytes_per_token=st.sampled_from([0.0, 1e6]),
    gb_per_s=st.sampled_from([0.01, 1.0, math.inf]),
    latency_s=st.sampled_from([0.0, 0.02]),
    links=st.integers(1, 2),
    layerwise=st.booleans(),
    layers=st.sampled_from([1, 4]),
)
first_tokens = st.sampled_from(["prefill", "decode"])


class Observed(_Run):
    """A run that notes when KV caches arrived."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.arrived: dict[int, float] = {}

    def _deliver(self, now: float) -> None:
        under_way = {number: way for number, way in self._ways.items() if number in self._sent}
        super()._deliver(now)
        for number in under_way.keys() - self._sent:
            self.arrived[number] = now

    @property
    def _sent(self) -> set[int]:
        return set(self._network._order)


@settings(max_examples=200, deadline=None)
@given(pools("pq"), pools("de"), loads(), transfers, first_tokens)
def test_any_workload(
    prefill: list[Instance],
    decode: list[Instance],
    load: Load,
    transfer: Transfer,
    first_token: FirstToken,
) -> None:
    run = Observed(prefill, decode, load, transfer, first_token, "least_loaded")
    run.until(None)
    early = first_token == "prefill"
    numbers = [one.request.number for one in run.served]
    numbers += [one.request.number for one in run.refused]
    assert sorted(numbers) == list(range(len(load.requests)))
    for one in run.served:
        request = one.request
        assert len(one.gaps) == request.output_tokens - 1
        assert one.end == pytest.approx(one.first + one.gaps.sum())
        assert one.sent <= one.scheduled < one.first
        assert (one.gaps >= 0).all()
        if len(one.instances) == 2:
            beginning = one.first if not early else one.first + one.gaps[0]
            assert beginning > run.arrived[request.number]
        else:
            assert early and request.output_tokens == 1
    _conserved(run, early)
    for machine in [*run.prefill, *run.decode]:
        scheduler, log = machine.scheduler, machine.iterations()
        assert scheduler.pool.used == 0
        assert not scheduler.running and not scheduler.queued
        assert (log.kv_blocks <= machine.instance.settings.num_blocks).all()
        assert (log.running <= machine.instance.settings.max_num_seqs).all()
        assert (log.end > log.start).all()
        assert (log.start[1:] > log.end[:-1] - 1e-9).all()


def _conserved(run: Observed, early: bool) -> None:
    """Each token is computed once; more than once only after a preemption."""
    prompts = sum(one.request.input_tokens - one.cached_tokens for one in run.served)
    computed = sum(int(machine.iterations().prefill_tokens.sum()) for machine in run.prefill)
    decoded = sum(int(machine.iterations().decodes.sum()) for machine in run.decode)
    again = sum(int(machine.iterations().prefill_tokens.sum()) for machine in run.decode)
    wanted = sum(one.request.output_tokens - early for one in run.served)
    preempted = sum(one.preemptions for one in run.served)
    if not preempted:
        assert (computed, decoded, again) == (prompts, wanted, 0)
    else:
        assert computed >= prompts
        assert wanted - preempted <= decoded <= wanted
        assert decoded + again >= wanted


class Careful(_Run):
    """A run in which an instance never computes more than one iteration at once."""

    def _horizon(self, chosen: int, due: float, flow: float) -> float:
        return 0.0


@settings(max_examples=100, deadline=None)
@given(pools("pq"), pools("de"), loads(), transfers, first_tokens)
def test_iterations_that_are_computed_together_are_those_computed_alone(
    prefill: list[Instance],
    decode: list[Instance],
    load: Load,
    transfer: Transfer,
    first_token: FirstToken,
) -> None:
    odd = [replace(one, latency=Steps(0.00103, 0.00317)) for one in decode]
    ends = []
    for sort in (_Run, Careful):
        run = sort(prefill, odd, load, transfer, first_token, "least_loaded")
        run.until(None)
        served = sorted(run.served, key=lambda one: one.request.number)
        ends.append([at for one in served for at in (one.first, one.end, one.preemptions)])
    assert ends[0] == pytest.approx(ends[1], abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(pools("pq"), pools("de"), loads(), transfers, first_tokens)
def test_equal_arguments_give_equal_results(
    prefill: list[Instance],
    decode: list[Instance],
    load: Load,
    transfer: Transfer,
    first_token: FirstToken,
) -> None:
    first, second = (
        simulate_disaggregated(prefill, decode, load, transfer=transfer, first_token=first_token)
        for _ in range(2)
    )
    assert [(one.first, one.end, one.instances) for one in first.served] == [
        (one.first, one.end, one.instances) for one in second.served
    ]


flows = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(3, 5), st.floats(1e6, 1e9), st.sampled_from([0.0, 0.1, 1.0])
    ),
    min_size=1,
    max_size=8,
)


@given(flows, st.integers(1, 3))
def test_no_link_carries_more_than_it_can(
    flows: list[tuple[int, int, float, float]], links: int
) -> None:
    network = Network(Transfer(1.0, 1.0, links=links))
    ended: dict[int, float] = {}
    began: dict[int, float] = {}
    now = 0.0
    for number, (source, destination, size, pause) in enumerate(flows):
        now += pause
        while network.next_time() <= now:
            at = network.next_time()
            ended |= dict.fromkeys(network.step(), at)
        network.start(number, source, destination, size, now)
        began[number] = now
    while (at := network.next_time()) < math.inf:
        ended |= dict.fromkeys(network.step(), at)
    assert ended.keys() == began.keys()
    for number, flow in enumerate(flows):
        assert ended[number] - began[number] >= flow[2] / GB * (1 - 1e-9)
    for end in range(6):
        mine = [number for number, flow in enumerate(flows) if end in flow[:2]]
        if mine:
            busy = max(ended[one] for one in mine) - min(began[one] for one in mine)
            assert busy * links * GB >= sum(flows[one][2] for one in mine) * (1 - 1e-9)

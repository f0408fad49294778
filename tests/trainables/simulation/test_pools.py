"""Disaggregated serving: what users rely on, by exact traces and by any small workload."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.simulation import (
    Batch,
    HostCosts,
    Instance,
    LatencyModel,
    Load,
    Request,
    SchedulerSettings,
    Simulated,
    Transfer,
    simulate,
    simulate_disaggregated,
)
from trainables.simulation._pools import FirstToken, _Run
from trainables.simulation._pools_scheduler import DecodeScheduler
from trainables.simulation._sequence import Sequence
from trainables.simulation._transfer import Network

GB = 1e9


class Steps(LatencyModel):
    """Seconds of an iteration: for each prompt token, and one sum for decoding."""

    def __init__(self, token: float = 0.01, decode: float = 0.1) -> None:
        self._token, self._decode = token, decode

    def seconds(self, batch: Batch) -> float:
        return self._token * batch.prefill_tokens + self._decode * (batch.decodes > 0) + 1e-9


def instance(
    name: str, latency: LatencyModel | None = None, host: HostCosts | None = None, **options: object
) -> Instance:
    chosen: dict[str, object] = {"async_scheduling": False, "prefix_caching": False, **options}
    return Instance(
        name,
        SchedulerSettings(**chosen),  # type: ignore[arg-type]
        latency or Steps(),
        host or HostCosts(),
    )


def requests(*sizes: tuple[int, int], apart: float = 0.0) -> Load:
    return Load(
        [
            Request(number, prompt, answer, number * apart)
            for number, (prompt, answer) in enumerate(sizes)
        ]
    )


def by_second(transfer_s: float, *, tokens: int = 100, **options: object) -> Transfer:
    """A transfer that takes so long for a prompt of that length."""
    return Transfer(tokens and GB / tokens, 1 / transfer_s, **options)  # type: ignore[arg-type]


def times(result: Simulated, number: int = 0) -> list[float]:
    served = result.served[number]
    return [round(at, 6) for at in served.first + np.concatenate(([0.0], np.cumsum(served.gaps)))]


class TestOneRequest:
    def test_the_decode_instance_computes_the_first_token_again(self) -> None:
        result = simulate_disaggregated(
            [instance("p")], [instance("d")], requests((100, 3)), transfer=by_second(0.5)
        )
        assert times(result) == [1.6, 1.7, 1.8]
        assert result.served[0].instances == ("p", "d")

    def test_or_the_client_gets_that_of_the_prefill_instance(self) -> None:
        result = simulate_disaggregated(
            [instance("p")],
            [instance("d")],
            requests((100, 3)),
            transfer=by_second(0.5),
            first_token="prefill",
        )
        assert times(result) == [1.0, 1.6, 1.7]

    @pytest.mark.parametrize("layers", [1, 4, 100])
    def test_layer_by_layer_only_the_last_one_is_sent_after_the_prefill(self, layers: int) -> None:
        result = simulate_disaggregated(
            [instance("p")],
            [instance("d")],
            requests((100, 2)),
            transfer=by_second(0.8, layerwise=True, layers=layers),
        )
        assert times(result)[0] == pytest.approx(1.0 + 0.8 / layers + 0.1, abs=1e-6)

    def test_a_slow_link_keeps_sending_after_the_prefill(self) -> None:
        result = simulate_disaggregated(
            [instance("p")],
            [instance("d")],
            requests((100, 2)),
            transfer=by_second(3.0, layerwise=True, layers=100),
        )
        assert times(result)[0] == pytest.approx(3.0 + 0.1, abs=1e-6)

    def test_costs_of_both_hosts_are_on_the_way(self) -> None:
        host = HostCosts(admission=0.01, delivery=0.002)
        result = simulate_disaggregated(
            [instance("p", host=host)],
            [instance("d", host=host)],
            requests((100, 1)),
            transfer=Transfer(latency_s=0.3),
        )
        assert times(result) == pytest.approx([0.01 + 1.0 + 0.002 + 0.01 + 0.3 + 0.1 + 0.002])

    def test_an_answer_of_the_prefill_instance_alone_needs_no_other(self) -> None:
        result = simulate_disaggregated(
            [instance("p")], [instance("d")], requests((100, 1)), first_token="prefill"
        )
        assert times(result) == [1.0]
        assert result.served[0].instances == ("p",)

    def test_without_a_transfer_it_is_as_fast_as_alone_on_one_instance(self) -> None:
        load = requests((100, 20))
        apart = simulate_disaggregated(
            [instance("p")], [instance("d")], load, first_token="prefill"
        )
        together = simulate([instance("m")], load)
        assert times(apart) == pytest.approx(times(together), abs=1e-6)


class TestSharing:
    def test_the_prefill_instance_keeps_blocks_until_they_have_been_fetched(self) -> None:
        result = simulate_disaggregated(
            [instance("p", num_blocks=8)],
            [instance("d")],
            requests((100, 2), (100, 2)),
            transfer=by_second(0.5),
            first_token="prefill",
        )
        assert [times(result, number)[0] for number in (0, 1)] == [1.0, 2.5]

    def test_a_request_without_room_on_the_decode_instance_waits_there(self) -> None:
        result = simulate_disaggregated(
            [instance("p")],
            [instance("d", num_blocks=8)],
            requests((100, 20), (100, 2)),
            transfer=by_second(0.5),
        )
        first, second = times(result, 0), times(result, 1)
        assert second[0] == pytest.approx(first[-1] + 0.5 + 0.1, abs=1e-6)

    @pytest.mark.parametrize(("links", "seconds"), [(1, 1.0), (2, 0.5)])
    def test_transfers_share_a_link(self, links: int, seconds: float) -> None:
        result = simulate_disaggregated(
            [instance("p")],
            [instance("d"), instance("e")],
            requests((100, 1), (100, 1)),
            transfer=by_second(0.5, links=links),
        )
        assert times(result, 0)[0] == pytest.approx(2.0 + seconds + 0.1, abs=1e-6)
        assert times(result, 1)[0] == pytest.approx(2.0 + seconds + 0.1, abs=1e-6)

    def test_blocks_that_the_decode_instance_has_are_not_sent_again(self) -> None:
        prompts = [Request(number, 1025, 1, 20.0 * number, (7, 8)) for number in (0, 1)]
        result = simulate_disaggregated(
            [instance("p", prefix_caching=True)],
            [instance("d", prefix_caching=True)],
            Load(prompts),
            transfer=by_second(1.025, tokens=1025),
        )
        assert result.served[1].cached_tokens == 1024
        assert result.served[1].ttft == pytest.approx(0.01 + 0.001 + 0.1, abs=1e-6)

    def test_a_decode_instance_at_work_takes_a_new_request_between_two_iterations(self) -> None:
        prompts = [Request(0, 100, 50, 0.0), Request(1, 100, 2, 3.05)]
        result = simulate_disaggregated([instance("p")], [instance("d")], Load(prompts))
        assert times(result, 1) == pytest.approx([4.3, 4.4], abs=1e-5)

    def test_one_decode_instance_without_room_holds_up_the_prompts_of_the_other(self) -> None:
        result = simulate_disaggregated(
            [instance("p", num_blocks=8)],
            [instance("d", num_blocks=8), instance("e")],
            requests((100, 28), (100, 200), (100, 2), (100, 2)),
            route="round_robin",
        )
        ends = times(result, 0)[-1]
        assert times(result, 2)[0] == pytest.approx(ends + 0.1, abs=1e-5)
        assert ends + 1.0 < times(result, 3)[0] < ends + 1.0 + 0.4

    def test_blocks_that_a_running_prompt_still_needs_are_not_given_away(self) -> None:
        limits = SchedulerSettings(
            num_blocks=10,
            block_size=4,
            max_num_batched_tokens=32,
            long_prefill_token_threshold=8,
        )
        scheduler = DecodeScheduler(limits)
        scheduler.waiting += [
            Sequence(Request(number, size, 2), 0.0, number) for number, size in ((0, 32), (1, 4))
        ]
        scheduler.add(Sequence(Request(2, 9, 2), 0.0, 2))
        scheduler.schedule(0, 0.0)
        assert scheduler.pool.free == 7
        assert not scheduler.reserved

    def test_one_that_is_preempted_is_computed_again_by_the_decode_instance(self) -> None:
        result = simulate_disaggregated(
            [instance("p")], [instance("d", num_blocks=8)], requests((32, 80), (33, 80))
        )
        assert result.served[1].preemptions == 1
        assert result.instances["d"].prefill_tokens.sum() > 33
        assert len(result.served[1].gaps) == 79


class TestPools:
    def test_requests_are_dealt_in_turn(self) -> None:
        result = simulate_disaggregated(
            [instance("p"), instance("q")],
            [instance("d"), instance("e"), instance("f")],
            requests(*[(10, 3)] * 6, apart=5.0),
            route="round_robin",
        )
        assert [one.instances for one in result.served] == [
            ("p", "d"),
            ("q", "e"),
            ("p", "f"),
            ("q", "d"),
            ("p", "e"),
            ("q", "f"),
        ]

    def test_an_instance_that_is_too_small_is_passed_over(self) -> None:
        result = simulate_disaggregated(
            [instance("p")],
            [instance("small", num_blocks=4), instance("d")],
            requests((100, 3), (100, 3)),
        )
        assert [one.instances[1] for one in result.served] == ["d", "d"]

    def test_what_no_instance_can_decode_is_refused_before_it_is_computed(self) -> None:
        result = simulate_disaggregated(
            [instance("p")], [instance("d", num_blocks=4)], requests((60, 10), (20, 3))
        )
        assert [one.request.number for one in result.refused] == [0]
        assert "70 tokens" in result.refused[0].reason
        assert result.instances["p"].prefill_tokens.sum() == 20

    def test_it_ends_where_it_is_told_to(self) -> None:
        result = simulate_disaggregated(
            [instance("p")],
            [instance("d")],
            requests(*[(10, 3)] * 9, apart=5.0),
            stop=lambda served: served.request.number == 4,
        )
        assert [one.request.number for one in result.served] == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("prefill", "decode", "said"),
        [([], ["d"], "no prefill"), (["p"], [], "no decode"), (["p"], ["p"], "names")],
    )
    def test_pools_that_cannot_be(self, prefill: list[str], decode: list[str], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            simulate_disaggregated(
                [instance(name) for name in prefill],
                [instance(name) for name in decode],
                requests((10, 3)),
            )


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

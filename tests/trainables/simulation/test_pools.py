"""Disaggregated serving: what users rely on, by exact traces."""

from __future__ import annotations

import pytest

from tests.trainables.simulation.pools import by_second, instance, requests, times
from trainables.simulation import (
    HostCosts,
    Load,
    Request,
    SchedulerSettings,
    Transfer,
    simulate,
    simulate_disaggregated,
)
from trainables.simulation._pools_scheduler import DecodeScheduler
from trainables.simulation._sequence import Sequence


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

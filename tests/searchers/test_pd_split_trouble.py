"""The search for a split: failures, limits, and options that cannot be."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from searchers import Bound, Goal, Outcome, Proposal, Role, Space
from searchers._pd_split_wholes import Tried
from tests.searchers.pd_split import RATES, SEVERAL, TOKENS, World, one_shape, run, search, wholes


class TestFailures:
    def test_a_shape_that_does_not_fit_is_left_out(self) -> None:
        world = World(RATES, failing=frozenset({("tp2", "prefill"), ("tp4", "mixed")}))
        journey = run(world, shapes=SEVERAL)
        assert journey.done.verdict == "satisfied"
        assert not any("tp2 prefill" in split for split in wholes(journey))
        assert "tp2 is not used for prefill: out of memory" in journey.done.message

    def test_a_role_that_no_shape_can_have_leaves_mixed_instances(self) -> None:
        world = World(one_shape(1, 1, 1), failing=frozenset({("one", "decode")}))
        assert wholes(run(world)) == ["8 x one mixed"]

    def test_nothing_that_fits_is_exhaustion(self) -> None:
        full: frozenset[tuple[str, Role]] = frozenset({("one", "prefill"), ("one", "decode")})
        journey = run(World(one_shape(1, 1, 1), failing=full), mixed=False)
        assert journey.done.verdict == "exhausted"
        assert "one is not used for prefill: out of memory" in journey.done.message

    def test_failed_splits_cost_no_place_but_not_for_ever(self) -> None:
        world = World(one_shape(1.0, 1.0, 0.1))
        failures = iter([True, True] + [False] * 9)

        def answer(proposal: Proposal) -> Outcome:
            if "split" in proposal.labels and next(failures):
                return Outcome("failed", error="the router did not start")
            return world(proposal)

        journey = run(answer, top=2)
        assert len(wholes(journey)) == 4
        assert journey.done.verdict == "satisfied"
        assert "8 x one mixed failed: the router did not start" in journey.done.message
        failures = iter([True] * 9)
        journey = run(answer, top=2, max_failures=2)
        assert len(wholes(journey)) == 3
        assert journey.done.verdict == "failed"

    def test_a_trial_without_a_rate_is_a_failure(self) -> None:
        journey = run(lambda proposal: Outcome("measured", {"success_rate": 1.0}), mixed=False)
        assert journey.done.verdict == "failed"
        assert "the prefill trial reported no throughput" in journey.done.message

    def test_whole_splits_that_break_the_limits_are_exhaustion(self) -> None:
        world = World(one_shape(1.0, 1.0, 0.5))

        def answer(proposal: Proposal) -> Outcome:
            outcome = world(proposal)
            if proposal.kind != "candidate":
                return outcome
            return Outcome("measured", outcome.metrics, satisfied=False, objective=1.0)

        journey = run(answer)
        assert journey.done.verdict == "exhausted"
        assert len(wholes(journey)) == 5
        assert "(4 requests/s, matched 4, breaks the limits)" in journey.done.message


class TestMisfits:
    """tp1 prefill cannot be read by tp4 decode instances, and no mixed ones can be routed to."""

    PAIR: ClassVar = {"prefill": "tp1", "decode": "tp4", "why": "transfer x: 1 is no multiple of 4"}
    MIXED: ClassVar = [{"mixed": shape, "why": "router y: no"} for shape in ("tp1", "tp4")]

    def test_shapes_that_are_of_no_use_together_are_never_proposed_together(self) -> None:
        journey = run(World(RATES), shapes=SEVERAL, misfits=[self.PAIR], top=60, gain=0.0)
        used = [
            (one.parameters.get("prefill_shape"), one.parameters.get("decode_shape"))
            for one in journey.asked
        ]
        assert ("tp1", "tp2") in used or ("tp2", "tp4") in used
        assert ("tp1", "tp4") not in used
        assert journey.done.verdict == "satisfied"
        told = "no split has tp1 prefill with tp4 decode: transfer x: 1 is no multiple of 4"
        assert journey.done.message.count(told) == 1

    def test_a_shape_without_any_use_is_not_rated_alone(self) -> None:
        journey = run(World(RATES), shapes=SEVERAL, misfits=self.MIXED)
        assert {one.kind for one in journey.asked if "split" not in one.labels} == {
            *("prefill", "decode")
        }
        assert not any("mixed" in name for one in journey.asked for name in one.parameters)
        assert "no split has tp1 mixed or tp4 mixed: router y: no" in journey.done.message

    def test_a_person_sees_them_while_it_runs(self) -> None:
        left_out = search(shapes=SEVERAL, misfits=self.MIXED).account()["left_out"]
        assert left_out == {"tp1 mixed": "router y: no", "tp4 mixed": "router y: no"}

    def test_those_of_other_shapes_or_too_many_devices_say_nothing(self) -> None:
        other = {**self.PAIR, "decode": "elsewhere"}
        strategy = search(shapes=SEVERAL, devices=3, misfits=[self.PAIR, other])
        assert strategy.account()["left_out"] == {}

    def test_nothing_that_is_left_is_said_at_once(self) -> None:
        pair = {**self.PAIR, "prefill": "one", "decode": "one"}
        with pytest.raises(ValueError, match=r"no split can work; .* transfer x: 1 is no multiple"):
            search(misfits=[pair], mixed=False)

    def test_parameters_of_a_role_that_is_left_out_are_refused_with_the_reason(self) -> None:
        space = Space.model_validate({"mixed.x": {"type": "bool"}})
        misfits = [{"mixed": "one", "why": "router y: no"}]
        with pytest.raises(ValueError, match=r"not mixed\.x; no split has one mixed: router y: no"):
            search(space, misfits=misfits)

    @pytest.mark.parametrize("names", [{}, {"prefill": "a"}, {"decode": "a", "mixed": "a"}])
    def test_they_are_of_whole_splits(self, names: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="name shapes for prefill and decode"):
            search(misfits=[{**names, "why": "no"}])


class TestLimits:
    GOAL = Goal(
        maximize=("requests_per_s",),
        bounds=(Bound("ttft_p90_s", max=2.0), Bound("tpot_mean_s", max=0.05)),
    )

    @pytest.mark.parametrize(
        ("ttft", "tpot", "more"), [(8.0, 0.01, "prefill"), (0.5, 0.2, "decode")]
    )
    def test_the_pool_that_breaks_a_limit_gets_more_instances(
        self, ttft: float, tpot: float, more: Role
    ) -> None:
        world = World(one_shape(1.0, 1.0, 0.1))

        def answer(proposal: Proposal) -> Outcome:
            outcome = world(proposal)
            if proposal.kind != "candidate":
                return outcome
            metrics = {**outcome.metrics, "ttft_p90_s": ttft, "tpot_mean_s": tpot}
            return Outcome("measured", metrics, satisfied=False, objective=1.0)

        journey = run(answer, goal=self.GOAL, mixed=False, top=3)
        counts = [
            one.parameters[f"{more}_instances"] for one in journey.asked if one.kind == "candidate"
        ]
        assert counts[0] == 4
        assert counts == sorted(set(counts))

    def test_instances_that_break_limits_alone_are_the_last_resort(self) -> None:
        world = World({**RATES, ("tp2", "prefill"): 50.0})
        breaking = {"tp2"}

        def answer(proposal: Proposal) -> Outcome:
            outcome = world(proposal)
            if proposal.kind != "prefill":
                return outcome
            slow = proposal.parameters["prefill_shape"] in breaking
            return Outcome("measured", {**outcome.metrics, "ttft_p90_s": 3.0 if slow else 1.0})

        journey = run(answer, goal=self.GOAL, shapes=SEVERAL)
        assert wholes(journey)
        assert not any("tp2 prefill" in split for split in wholes(journey))
        breaking |= {"tp1"}
        assert any(
            "tp2 prefill" in split for split in wholes(run(answer, goal=self.GOAL, shapes=SEVERAL))
        )

    def test_tuning_alone_goes_by_the_limits_of_the_role(self) -> None:
        """x = 4 would be faster, but its TTFT is too high; TPOT is nothing to prefill."""
        space = Space.model_validate({"prefill.x": {"type": "enum", "values": [2, 3]}})
        world = World(one_shape(1.0, 1.0, 0.5))

        def answer(proposal: Proposal) -> Outcome:
            outcome = world(proposal)
            slow = proposal.parameters.get("prefill.x") == 3
            late = {"ttft_p90_s": 3.0 if slow else 1.0, "tpot_mean_s": 0.9}
            metrics = {**outcome.metrics, **late} if proposal.kind == "prefill" else outcome.metrics
            return Outcome("measured", metrics, {}, outcome.satisfied, outcome.objective)

        journey = run(answer, goal=self.GOAL, space=space, inner={"type": "grid"}, mixed=False)
        assert journey.done.best is not None
        assert journey.done.best.parameters["prefill.x"] == 2


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "space", "said"),
        [
            ({"shapes": {}}, None, "pd_split needs shapes"),
            ({"devices": 1, "mixed": False}, None, "no split fits 1 devices"),
            ({}, {"x": {"type": "bool"}}, "called prefill.NAME, decode.NAME, mixed.NAME; not x"),
            ({"mixed": False}, {"mixed.x": {"type": "bool"}}, "not mixed.x"),
            (
                {},
                {
                    "prefill.x": {"type": "int", "low": 1, "high": 4},
                    "decode.x": {"type": "times", "of": "prefill.x", "product": 2},
                },
                "of decode may only be derived from each other",
            ),
            ({"inner": {"type": "annealing"}}, {"prefill.x": {"type": "bool"}}, "inner.type: unkn"),
            ({"inner": {}}, {"prefill.x": {"type": "bool"}}, "inner.type is required"),
            ({"inner": {"type": "grid", "a": 1}}, {"prefill.x": {"type": "bool"}}, "inner: "),
            ({"top": 0}, None, "top"),
            ({"shapes": {"one": {"devices": 1, "args": {}}}}, None, "args"),
        ],
    )
    def test_what_cannot_be_is_said(
        self, options: dict[str, Any], space: dict[str, Any] | None, said: str
    ) -> None:
        with pytest.raises(ValueError, match=said):
            search(None if space is None else Space.model_validate(space), **options)

    def test_without_output_tokens_those_that_were_measured_count(self) -> None:
        world = World(one_shape(1.0, 1.0, 0.5))

        def answer(proposal: Proposal) -> Outcome:
            outcome = world(proposal)
            metrics = {**outcome.metrics, "output_tokens_mean": TOKENS}
            return Outcome("measured", metrics, {}, outcome.satisfied, outcome.objective)

        journey = run(answer, output_tokens=None)
        assert wholes(journey)[0] == "4 x one prefill + 4 x one decode"


def test_a_split_given_up_because_it_is_beaten_is_taken_by_what_it_can_reach() -> None:
    given_up = {"stopped": {"by": "incumbent", "metric": "output_tokens_per_s", "bound": 900.0}}
    probe = {"requests_per_s": 4.0, "output_tokens_per_s": 400.0, "ttft_p90_s": 0.1}
    outcome = Outcome("measured", probe, given_up, satisfied=False)
    goal = Goal(maximize=("output_tokens_per_s",), bounds=(Bound("ttft_p90_s", max=1.0),))
    tried = Tried.of(outcome, goal)
    assert tried.beaten and not tried.satisfied
    assert (tried.held, tried.side) == (9.0, None)

"""Standing high with experience: the expert table, what is proposed, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from searchers import Outcome, Proposal, Strategy, make_strategy
from searchers._expert_table import QCONFIGS
from searchers.testing import Weather, check_strategy, travel
from tests.searchers.standing_high import names

MODEL = [
    {"type": "GQA", "include": ["*self_attn*"], "exclude": ["*kv_b_proj"]},
    {"type": "MoE", "include": ["*mlp.experts*"]},
    {"type": "GatedDeltaNet", "include": ["*linear_attn*"]},
]


def tensor(scope: str, dtype: str = "int8", method: str = "minmax") -> dict[str, Any]:
    return {"scope": scope, "dtype": dtype, "symmetric": True, "method": method}


STATIC = {"act": tensor("per_tensor"), "weight": tensor("per_channel")}
DYNAMIC = {"act": tensor("per_token"), "weight": tensor("per_channel")}
W4A8 = {"act": tensor("per_token"), "weight": tensor("per_channel", "int4", "ssz")}


def experience(
    structures: list[dict[str, Any]] = MODEL, candidates: int = 8, **options: Any
) -> Strategy:
    options |= {"structure_configs": structures, "candidates": names(candidates)}
    return make_strategy("standing_high_with_experience", options, space=None, seed=0)


def first(strategy: Strategy) -> dict[str, Any]:
    step = strategy.ask()
    assert isinstance(step, Proposal)
    return dict(step.parameters)


def quantized(process: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in process if each["type"] == "linear_quant"]


def test_w8a8_puts_an_outlier_strategy_before_one_linear_quant_for_each_structure() -> None:
    assert first(experience(quant_type="w8a8")) == {
        "process": [
            {"type": "flex_smooth_quant"},
            {
                "type": "linear_quant",
                "qconfig": STATIC,
                "include": ["*self_attn*"],
                "exclude": ["*kv_b_proj", "*linear_attn*"],
            },
            {
                "type": "linear_quant",
                "qconfig": DYNAMIC,
                "include": ["*mlp.experts*"],
                "exclude": ["*linear_attn*"],
            },
        ],
        "fallback": [],
    }


def test_w4a8_quantizes_attention_to_eight_bits_and_experts_to_four() -> None:
    process = first(experience(quant_type="w4a8"))["process"]
    assert [each["qconfig"] for each in quantized(process)] == [STATIC, W4A8]
    smooth = process[0]
    assert smooth["type"] == "flex_awq_ssz"
    assert smooth["qconfig"]["weight"] == W4A8["weight"] | {"ext": {"step": 10}}


@pytest.mark.parametrize(
    ("quant_type", "structure", "expected"),
    [
        *(("w8a8", each, STATIC) for each in ("MHA", "GQA", "MLA")),
        *(("w8a8", each, DYNAMIC) for each in ("FFN", "MoE")),
        *(("w4a8", each, STATIC) for each in ("MHA", "GQA", "MLA")),
        ("w4a8", "MoE", W4A8),
        *((kind, each, None) for kind in QCONFIGS for each in ("DSA", "SWA", "GatedDeltaNet")),
    ],
)
def test_the_table_is_that_of_the_reference(
    quant_type: str, structure: str, expected: dict[str, Any] | None
) -> None:
    beside = {"type": "MoE" if structure != "MoE" else "GQA", "include": ["*other*"]}
    structures = [{"type": structure, "include": ["*this*"]}, beside]
    process = first(experience(structures, quant_type=quant_type))["process"]
    this = [each["qconfig"] for each in quantized(process) if each["include"] == ["*this*"]]
    assert this == ([] if expected is None else [expected])
    other = next(each for each in quantized(process) if each["include"] == ["*other*"])
    assert other["exclude"] == (["*this*"] if expected is None else [])


def test_the_outlier_strategies_are_searched_like_those_of_standing_high() -> None:
    def answer(proposal: Proposal) -> Outcome:
        smooth = proposal.parameters["process"][0]["type"]
        needed = {"flex_smooth_quant": 6, "iter_smooth": 3}[smooth]
        return Outcome("measured", satisfied=len(proposal.parameters["fallback"]) >= needed)

    done = travel(experience, answer, Weather()).done
    assert done.best is not None
    assert done.best.parameters["process"][0] == {"type": "iter_smooth"}
    assert done.best.parameters["fallback"] == names(3)
    assert done.message == (
        "3 of 8 layers fall back with iter_smooth; with 2 no outlier strategy meets the demand"
    )
    check_strategy(experience, answer, seeds=range(2))


def test_candidates_are_ranked_by_an_analysis_where_none_are_named() -> None:
    strategy = experience(candidates=0)
    zero = strategy.ask()
    assert isinstance(zero, Proposal)
    strategy.tell(zero, Outcome("measured", satisfied=False))
    analysis = strategy.ask()
    assert isinstance(analysis, Proposal) and analysis.kind == "analysis"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "structure_configs\n"),
        ({"structure_configs": []}, "at least 1 item"),
        ({"structure_configs": [{"type": "GQA", "include": []}]}, "at least 1 item"),
        ({"structure_configs": [{"type": "GQA", "include": [""]}]}, "at least 1 character"),
        ({"structure_configs": [{"type": "GQA"}]}, "include"),
        ({"structure_configs": [{"type": "LSTM", "include": ["*"]}]}, "'MHA', 'GQA', 'MLA'"),
        ({"structure_configs": MODEL, "quant_type": "w4a4"}, "'w8a8' or 'w4a8'"),
        (
            {
                "structure_configs": [*MODEL, {"type": "FFN", "include": ["*mlp*"]}],
                "quant_type": "w4a8",
            },
            r"structure_configs\.3\.type: w4a8 is not supported for FFN, only for MHA, GQA, MLA",
        ),
        (
            {"structure_configs": [*MODEL, {"type": "FFN", "include": ["*a*", "*self_attn*"]}]},
            r"structure_configs\.0\.include and structure_configs\.3\.include: '\*self_attn\*'",
        ),
        (
            {"structure_configs": [{"type": "SWA", "include": ["*"]}]},
            "nothing would be quantized",
        ),
    ],
)
def test_what_cannot_be_carried_out_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make_strategy("standing_high_with_experience", options, space=None, seed=0)


def test_all_faults_are_named_at_once() -> None:
    twice = [{"type": "FFN", "include": ["*mlp*"]}, {"type": "FFN", "include": ["*mlp*"]}]
    with pytest.raises(ValidationError) as caught:
        experience(twice, quant_type="w4a8")
    said = str(caught.value)
    assert all(f"structure_configs.{index}.type: w4a8" in said for index in (0, 1))
    assert "'*mlp*' stands there more than once" in said


def test_w8a8_is_the_default_and_a_restored_twin_goes_on() -> None:
    strategy = experience()
    assert first(strategy) == first(experience(quant_type="w8a8"))
    twin = experience()
    twin.restore(strategy.state())
    assert twin.state() == strategy.state()


def test_proposals_do_not_share_the_table() -> None:
    process = first(experience(quant_type="w4a8"))["process"]
    process[0]["qconfig"]["weight"]["dtype"] = "float"
    process[1]["qconfig"]["act"]["dtype"] = "float"
    assert first(experience(quant_type="w4a8"))["process"] != process

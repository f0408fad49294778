"""What becomes of a plan: compared with experiments that were read by a person."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from searchers import Strategy, _registry, register_strategy
from tests.tuner.compat.tune import PLANS, plan_text
from trainables.quantization import Device
from tuner.compat import (
    Plan,
    Tools,
    Translation,
    TuneRequest,
    load_plan,
    machine_cpus,
    place_in_plan,
    translate,
)
from tuner.views.msmodelslim import evaluation_md5

GOLDENS = Path(__file__).parent / "goldens"
REQUEST = TuneRequest(
    Path("/models/qwen"),
    Path("/out"),
    model_type="Qwen3-32B",
    timeout="1D2H",
    tools=Tools(msmodelslim=["/nowhere/msmodelslim"]),
)
KINDS = ("binary_fallback", "standing_high", "standing_high_with_experience")


def loaded(text: str, folder: Path) -> Plan:
    file = folder / "plan.yaml"
    file.write_text(text)
    return load_plan(file)


def translated(text: str, folder: Path, request: TuneRequest = REQUEST) -> Translation:
    return translate(loaded(text, folder), request)


def engine_of(translation: Translation) -> dict[str, Any]:
    engine: dict[str, Any] = translation.data["trial"]["evaluation"]["engine"]
    return engine


@pytest.mark.parametrize("kind", KINDS)
def test_translations_are_as_they_were(kind: str) -> None:
    golden = yaml.safe_load((GOLDENS / f"{kind}.yaml").read_text())
    translation = translate(load_plan(PLANS / f"{kind}.yaml"), REQUEST)
    assert translation.data == golden
    assert list(translation.data) == list(golden)
    assert not translation.problems


@pytest.mark.parametrize(
    ("kind", "md5"),
    [
        ("binary_fallback", "a2bfc80df4a908dd0b4facc03200adc1"),
        ("standing_high", "ce933e8bb16bb9af079243640fb22ada"),
    ],
)
def test_the_evaluation_has_the_key_that_msmodelslim_26_1_gives_it(kind: str, md5: str) -> None:
    translation = translate(load_plan(PLANS / f"{kind}.yaml"), REQUEST)
    assert evaluation_md5(translation.data["views"][0]["evaluation"]) == md5


def test_decimals_stay_exact_text(tmp_path: Path) -> None:
    text = plan_text("binary_fallback").replace('"83"', "0.1").replace('"2"', "1e-7")
    (expectation,) = translated(text, tmp_path).data["objective"]["expectations"]
    assert (expectation["target"], expectation["tolerance"]) == ("0.1", "0.0000001")


def test_only_datasets_with_a_demand_are_measured_in_the_order_of_the_demands(
    tmp_path: Path,
) -> None:
    text = plan_text("standing_high").replace(
        "      - dataset: gsm8k",
        "      - {dataset: aime25, target: 50, tolerance: 5}\n      - dataset: gsm8k",
    )
    translation = translated(text, tmp_path)
    assert list(translation.data["trial"]["evaluation"]["datasets"]) == ["aime25", "gsm8k"]
    assert any("bfcl-simple" in note and "not measured" in note for note in translation.notes)


def test_candidates_replace_the_ranking(tmp_path: Path) -> None:
    text = plan_text("binary_fallback").replace("candidates: []", "candidates: ['*a*', b]")
    search = translated(text, tmp_path).data["search"]
    assert search["candidates"] == ["*a*", "b"]
    assert "analysis" not in search


def test_excludes_at_the_rollback_path_go_with_zero_fallback_too(tmp_path: Path) -> None:
    text = plan_text("binary_fallback").replace("exclude: []", 'exclude: ["*down_proj*"]')
    translation = translated(text, tmp_path)
    spec = translation.data["trial"]["practice"]["template"]["spec"]
    assert spec["process"][1]["exclude"] == []
    assert any("rollback_path" in note for note in translation.notes)


def test_the_data_of_the_ranking_is_found_by_path_or_beside_msmodelslim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "msmodelslim"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)
    lab = tmp_path / "packages" / "msmodelslim" / "lab_calib"
    lab.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    for name in ("mix_calib.jsonl", "boolq.jsonl"):
        (lab / name).write_text('{"text": "a"}\n')
    text = plan_text("binary_fallback").replace(
        "  rollback_path", "  analysis_dataset: boolq.jsonl\n  rollback_path"
    )
    with_tool = replace(REQUEST, tools=Tools(msmodelslim=[str(program)]))
    for plan, name in ((plan_text("standing_high"), "mix_calib.jsonl"), (text, "boolq.jsonl")):
        analysis = translated(plan, tmp_path, with_tool).data["search"]["analysis"]
        assert analysis["calibration"] == {"dataset": str(lab / name)}
    without = translated(text, tmp_path)
    assert [place for place, _ in without.problems] == ["strategy.analysis_dataset"]
    own = text.replace("boolq.jsonl", str(lab / "boolq.jsonl"))
    assert not translated(own, tmp_path).problems


@pytest.mark.parametrize(
    ("words", "command", "entrypoint"),
    [
        (["/opt/vllm/bin/python"], ["/opt/vllm/bin/python"], True),
        (["/opt/vllm/bin/vllm", "serve"], ["/opt/vllm/bin/vllm", "serve"], False),
    ],
)
def test_the_engine_s_command(words: list[str], command: list[str], entrypoint: bool) -> None:
    request = replace(REQUEST, tools=Tools(vllm=words, ais_bench=["/opt/ais/bin/ais_bench"]))
    translation = translate(load_plan(PLANS / "binary_fallback.yaml"), request)
    assert engine_of(translation)["command"] == command
    assert ("entrypoint" in engine_of(translation)) == entrypoint
    assert translation.data["trial"]["evaluation"]["command"] == ["/opt/ais/bin/ais_bench"]


def test_the_port_is_leased_and_that_is_said(tmp_path: Path) -> None:
    text = plan_text("binary_fallback")
    translation = translated(text.replace("enforce-eager: true", "port: 1234"), tmp_path)
    assert "port" not in engine_of(translation)
    assert "port" not in engine_of(translation)["args"]
    assert any("1234 is not used" in note for note in translation.notes)


def test_ambiguous_variables_are_said(tmp_path: Path) -> None:
    text = plan_text("standing_high").replace("HCCL_BUFFSIZE: 1024", "VLLM_VERSION: 0.10")
    notes = translated(text, tmp_path).notes
    assert any("VLLM_VERSION" in note and "0.1" in note for note in notes)


CARDS = "ASCEND_RT_VISIBLE_DEVICES: 0"


def npus(
    folder: Path, *, device: Device, engine: str | None, tensor: int, visible: str | None = None
) -> Translation:
    text = plan_text("standing_high").replace(
        "tensor-parallel-size: 1", f"tensor-parallel-size: {tensor}"
    )
    text = text.replace(CARDS, "X: 1" if engine is None else f"{CARDS[:-1]}'{engine}'")
    return translated(text, folder, replace(REQUEST, device=device, visible=visible))


def test_a_trial_gets_as_many_npus_as_quantization_or_the_engine_needs(tmp_path: Path) -> None:
    one, two = Device("npu"), Device("npu", (0, 1))
    for device, tensor, needed in ((one, 1, 1), (one, 4, 4), (two, 1, 2), (two, 4, 4)):
        translation = npus(tmp_path, device=device, engine=None, tensor=tensor)
        assert translation.data["cluster"]["resources"] == {"NPU": needed}


def test_cards_are_those_named_for_quantization_or_the_engine(tmp_path: Path) -> None:
    engine_alone = npus(tmp_path, device=Device("npu"), engine="4,5", tensor=2)
    assert engine_alone.cards == ("4", "5")
    assert "ASCEND_RT_VISIBLE_DEVICES" not in engine_of(engine_alone)["env_vars"]
    both = npus(tmp_path, device=Device("npu", (7, 4)), engine="4,5", tensor=2)
    assert both.cards == ("4", "5", "7")
    assert both.data["trial"]["device"] == "npu:0,1"
    device_alone = npus(tmp_path, device=Device("npu", (2, 3)), engine=None, tensor=1)
    assert device_alone.cards == ("2", "3")
    too_few = npus(tmp_path, device=Device("npu", (2,)), engine=None, tensor=4)
    assert too_few.cards == ()
    assert any("needs 4 cards" in note for note in too_few.notes)


def test_indices_count_among_the_cards_that_the_caller_sees(tmp_path: Path) -> None:
    seen = npus(tmp_path, device=Device("npu", (1,)), engine=None, tensor=1, visible="4,5")
    assert seen.cards == ("5",)
    beyond = npus(tmp_path, device=Device("npu", (2,)), engine=None, tensor=1, visible="4,5")
    assert beyond.problems == [
        ("--device", "there is no card 2: ASCEND_RT_VISIBLE_DEVICES shows 2")
    ]


def test_an_engine_wider_than_its_cards_is_refused(tmp_path: Path) -> None:
    translation = npus(tmp_path, device=Device("npu"), engine="0,1", tensor=4)
    assert [place for place, _ in translation.problems] == [
        "evaluation.inference_engine.env_vars.ASCEND_RT_VISIBLE_DEVICES"
    ]


def test_on_cpu_a_trial_has_the_machine_and_variables_stay(tmp_path: Path) -> None:
    request = replace(REQUEST, device=Device("cpu"))
    translation = translated(plan_text("standing_high"), tmp_path, request)
    assert translation.data["cluster"]["resources"] == {"CPU": machine_cpus()}
    assert engine_of(translation)["env_vars"]["ASCEND_RT_VISIBLE_DEVICES"] == 0
    assert translation.data["trial"]["device"] == "cpu"


def test_a_practice_repository_goes_to_the_view() -> None:
    request = replace(REQUEST, practice_repo="/repo")
    (view,) = translate(load_plan(PLANS / "standing_high.yaml"), request).data["views"]
    assert (view["practice_repo"], view["folder"], view["model_type"]) == (
        "/repo",
        "/out",
        "Qwen3-32B",
    )


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int


@pytest.fixture
def plug_in() -> Iterator[str]:
    """A strategy of a third party, as its entry point would register it."""
    register_strategy("sideways", _Options)(type("Sideways", (Strategy,), {}))
    yield "sideways"
    del _registry._REGISTRY["sideways"]


def test_the_block_of_a_strategy_that_only_we_know_passes_through(
    plug_in: str, tmp_path: Path
) -> None:
    text = plan_text("standing_high")
    start, end = text.index("  anti_outlier_strategies"), text.index("  template:")
    text = (text[:start] + "  depth: 3\n" + text[end:]).replace(
        "type: standing_high", f"type: {plug_in}"
    )
    data = translated(text, tmp_path).data
    assert data["search"] == {"type": plug_in, "depth": 3}
    template = data["trial"]["practice"]["template"]
    assert template["spec"]["process"][0]["type"] == "linear_quant"


def test_so_does_the_block_of_an_evaluator_that_only_we_know(tmp_path: Path) -> None:
    plan = yaml.safe_load(plan_text("binary_fallback"))
    block = {"type": "transformers", "datasets": {"gsm8k": {"kind": "text", "path": "a.txt"}}}
    plan["evaluation"]["evaluation"] = block
    data = translated(yaml.safe_dump(plan), tmp_path).data
    assert data["trial"]["evaluation"] == block
    assert data["objective"]["expectations"][0]["metric"] == "accuracy"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("trial.model", "--model_path"),
        ("trial.evaluation.engine.args.max-len", "evaluation.inference_engine.args.max-len"),
        ("trial.evaluation.engine.command", "--vllm"),
        ("trial.evaluation.command", "--ais_bench"),
        ("trial.evaluation.settings.mode", "evaluation.evaluation.aisbench.mode"),
        ("trial.evaluation.datasets.a.mode", "evaluation.evaluation.datasets.a.mode"),
        ("trial.evaluation.precheck.0", "evaluation.evaluation.precheck.0"),
        ("trial.practice.template.spec", "strategy.template.spec"),
        ("trial.quantizer.command", "--msmodelslim"),
        ("search.candidates", "strategy.rollback_candidates"),
        ("search.structure_configs", "strategy.structure_configs"),
        ("objective.expectations.0.dataset", "evaluation.demand.expectations.0.dataset"),
        ("budget.time", "--timeout"),
        ("storage", "--save_path"),
    ],
)
def test_faults_of_the_experiment_are_placed_in_the_plan(ours: str, theirs: str) -> None:
    assert place_in_plan(ours) == theirs

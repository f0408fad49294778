"""The real AISBench in its own environment, ``.tools/aisbench``, asking a stub engine."""

from pathlib import Path

import pytest

from trainables import TrialFailure
from trainables.engines.testing import drive, trial_in
from trainables.evaluation import Subject, make_evaluator

REAL = Path(__file__).parents[3] / ".tools" / "aisbench" / "bin" / "ais_bench"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not installed"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def evaluate(aisbench, tmp_path, run_id):
    def run(name, model, *, command, **keys):
        datasets = {
            "add": {"config_name": "add_gen", "chat_template_kwargs": {"enable_thinking": False}},
            "two": {"config_name": "two_gen"},
        }
        settings = {"request_rate": 100, "timeout": 300, "batch_size": 4}
        block = aisbench(
            command=command, datasets=datasets, settings=settings, precheck=RULES, **keys
        )
        evaluator = make_evaluator(block)
        assert evaluator.problems() == []
        trial = trial_in(tmp_path / name, run_id)
        steps = evaluator.carry_out(trial, Subject(model), timeout=400)
        return drive(steps, within_s=400)

    return run


RULES = [{"type": "expected_answer"}]
ANSWERS = {"What is 2+2?": "4"}


def test_real_and_stub_find_the_same_numbers(evaluate, aisbench, model):
    folder = model(correct=0.7, answers=ANSWERS)
    real = evaluate("real", folder, command=[str(REAL)])
    stub = evaluate("stub", folder, command=aisbench()["command"])
    assert real.metrics == stub.metrics
    assert 0 < real.metrics["add/accuracy"] < 100
    assert real.datasets["two"]["items"] == stub.datasets["two"]["items"] == 20
    assert real.environment["ais_bench"]


def test_an_engine_that_dies_half_way_is_no_number(evaluate, model):
    with pytest.raises(TrialFailure, match="the engine vllm") as caught:
        evaluate("dies", model(answers=ANSWERS, die_after=12), command=[str(REAL)])
    assert caught.value.stage == "evaluate-add"

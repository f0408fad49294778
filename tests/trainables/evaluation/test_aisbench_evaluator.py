"""Whole evaluations with real processes: a stub engine that serves, a stub of AISBench that asks it
over HTTP, and everything that can go wrong between them."""

import math
from contextlib import suppress

import psutil
import pytest

from cluster import find_processes
from trainables import TrialFailure, TrialRun
from trainables.engines.testing import drive
from trainables.evaluation import StopRule, Subject, make_evaluator
from trainables.evaluation._aisbench_course import _accuracy_error
from trainables.evaluation.testing import check_evaluator

RULES = [{"type": "expected_answer"}, {"type": "garbled_text"}]
SOUND = {"answers": {"How are you?": "I am fine, thank you."}}


def evaluate(block, trial, model, *, timeout=250.0, **subject):
    evaluator = make_evaluator(block)
    return drive(evaluator.carry_out(trial, Subject(model, **subject), timeout=timeout))


def names(trial):
    return [stage["name"] for stage in trial.stages]


def rule(dataset, limit, metric="accuracy"):
    return StopRule(dataset=dataset, metric=metric, limit=limit, direction="higher")


@pytest.fixture
def fails(trial, model, aisbench):
    """Evaluate and return the failure."""

    def run(*, behaviour=None, timeout=250.0, **keys):
        with pytest.raises(TrialFailure) as caught:
            evaluate(aisbench(**keys), trial, model(**(behaviour or {})), timeout=timeout)
        return caught.value

    return run


def test_the_contract_of_an_evaluator_is_kept(aisbench, model, tmp_path):
    check_evaluator(
        aisbench(precheck=RULES),
        better=model("better", **SOUND),
        worse=model("worse", correct=0.5, answers={**SOUND["answers"], "What is 2+2?": "4"}),
        folder=tmp_path / "trials",
        breaks=[
            {"command": ["/bin/false"]},
            {"command": ["/nowhere/ais_bench"]},
            {"engine": {**aisbench()["engine"], "entrypoint": "no_such_module"}},
        ],
    )


def test_all_of_it_is_found_and_kept(aisbench, model, trial):
    block = aisbench(
        precheck=RULES,
        datasets={
            "add": {"config_name": "add_gen"},
            "two subjects": {"config_name": "two_gen", "chat_template_kwargs": {"x": 1}},
        },
    )
    evaluator = make_evaluator(block)
    found = evaluate(block, trial, model(**SOUND))
    assert found.metrics == {
        "precheck/passed": 1.0,
        "add/accuracy": 100.0,
        "add/accuracy_se": 0.0,
        "two subjects/accuracy": 100.0,
        "two subjects/accuracy_se": 0.0,
    }
    assert found.datasets["add"]["values"] == {"accuracy": "100.0"}
    assert found.datasets["two subjects"]["items"] == 20
    assert set(found.datasets["two subjects"]["results"]) == {"first", "second"}
    assert found.environment["engine"] == "vllm"
    assert set(found.seconds) == {"deploy", "health", "precheck", "add", "two subjects"}
    assert names(trial) == list(evaluator.stage_names())
    assert names(trial)[-1].startswith("evaluate-two_subjects-")
    log = trial.folder / "aisbench_logs" / f"add_trial{trial.spec.identity[:8]}.log"
    sections = [line for line in log.read_text().splitlines() if line.startswith("[")]
    assert [line for line in sections if line.isupper()] == ["[COMMAND]", "[STDOUT]", "[STDERR]"]
    assert "Current exp folder" in log.read_text()
    assert not list(trial.folder.rglob("vllm_api_general_chat*"))


@pytest.mark.parametrize(
    ("rules", "skipped"),
    [
        ([rule("add", 100.0), rule("more", 100.1)], ()),
        ([rule("add", 100.1)], ("more",)),
        ([rule("add", 50.0, "score")], ("more",)),
    ],
)
def test_a_demand_that_fails_ends_it(aisbench, model, trial, rules, skipped):
    found = evaluate(aisbench(), trial, model(), stop_when=tuple(rules))
    assert found.skipped == skipped
    assert set(found.datasets) == {"add", "more"} - set(skipped)


def test_what_is_known_needs_no_engine(aisbench, model, trial):
    block, folder = aisbench(precheck=RULES), model(**SOUND)
    first = evaluate(block, trial, folder)
    again = TrialRun(trial.spec)
    dead = {**block, "engine": {**block["engine"], "command": ["/nowhere/python"]}}
    assert evaluate(dead, again, folder).metrics == first.metrics
    assert names(again) == ["precheck", "evaluate-add", "evaluate-more"]
    assert all(stage["resumed"] for stage in again.stages)


def test_only_what_is_not_known_is_asked(aisbench, model, trial):
    block, folder = aisbench(precheck=RULES), model(**SOUND)
    evaluate(block, trial, folder)
    (trial.folder / "stages" / "evaluate-more.json").unlink()
    again = TrialRun(trial.spec)
    found = evaluate(block, again, folder)
    assert found.metrics["more/accuracy"] == 100.0
    assert [(stage["name"], stage["resumed"]) for stage in again.stages] == [
        ("precheck", True),
        ("evaluate-add", True),
        ("deploy", False),
        ("health", False),
        ("evaluate-more", False),
    ]


def test_new_weights_are_evaluated_anew(aisbench, model, trial):
    block = aisbench()
    evaluate(block, trial, model(correct=0.0))
    again = TrialRun(trial.spec)
    again.stages.append({"name": "quantize", "seconds": 1.0, "resumed": False})
    assert evaluate(block, again, model()).metrics["add/accuracy"] == 100.0


def test_a_model_that_fails_a_precheck_is_measured_and_bad(aisbench, model, trial):
    found = evaluate(aisbench(precheck=RULES), trial, model(garbage=True))
    assert found.metrics == {"precheck/passed": 0.0}
    assert found.skipped == ("add", "more")
    (failed,) = found.datasets["precheck"]["rules"]
    assert (failed["type"], failed["message"]) == ("expected_answer", "What is 2+2?")
    assert failed["reply"].startswith("@#@#")
    assert names(trial) == ["deploy", "health", "precheck"]
    again = TrialRun(trial.spec)
    assert evaluate(aisbench(precheck=RULES), again, model()).metrics == found.metrics


def test_the_float_model_is_the_measure_of_the_prechecks(aisbench, model, trial):
    with pytest.raises(TrialFailure, match="the float model itself fails the precheck") as caught:
        evaluate(aisbench(precheck=RULES), trial, model(garbage=True), quantized=False)
    assert (caught.value.failure, caught.value.stage) == ("input", "precheck")


@pytest.mark.parametrize("quantized", [True, False])
def test_the_float_model_is_served_as_such(aisbench, model, trial, quantized):
    engine = {"args": {"quantization": "ascend", "max-model-len": 64}}
    evaluate(aisbench(engine=engine), trial, model(), quantized=quantized)
    command = (trial.folder / "engine.log").read_text().splitlines()[0]
    assert ("--quantization ascend" in command) is quantized
    assert "--max-model-len 64" in command


def test_a_tool_that_fails_is_no_number_and_loses_none(fails, trial):
    found = fails(mishap="bad-json")
    assert "cannot be read" in str(found)
    assert (found.failure, found.stage) == ("tool", "evaluate-more")
    assert names(trial)[-1] == "evaluate-add"


def test_the_whole_evaluation_is_bounded(fails):
    found = fails(timeout=3.0, mishap="hang")
    assert found.failure == "timeout"


def test_an_engine_that_dies_while_it_is_asked_is_the_reason(fails):
    found = fails(behaviour={"die_after": 8, "die_message": "RuntimeError: NPU out of memory"})
    assert found.failure == "out_of_memory"
    assert "the engine vllm" in str(found)
    assert found.stage == "evaluate-add"


def test_an_accuracy_has_the_standard_error_of_a_share_of_its_questions(aisbench, model, trial):
    block = aisbench(datasets={"add": {"config_name": "add_gen"}})
    metrics = evaluate(block, trial, model(correct=0.7)).metrics
    share = metrics["add/accuracy"] / 100
    assert 0 < share < 1
    error = 100 * math.sqrt(share * (1 - share) / (20 - 1))
    assert metrics["add/accuracy_se"] == pytest.approx(error)


@pytest.mark.parametrize(
    ("percent", "items", "known"),
    [
        (33.33, 3, True),  # one of three, as it is printed
        (33.4, 3, False),
        (62.5, 4, False),  # marks, or the mean of several attempts
        (100.0, 1, False),
        (50.0, None, False),
        (150.0, 2, False),
    ],
)
def test_what_is_no_share_of_questions_has_no_standard_error(percent, items, known):
    assert (_accuracy_error(percent, items) is not None) == known


def kill_when(trial, stage, wanted, steps):
    """Run ``steps``, and kill the first process of ``stage`` that ``wanted`` accepts."""
    killed = False
    for progress in steps:
        for found in find_processes(trial.spec.run_id) if progress.stage == stage else ():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(found.pid)
                if not killed and wanted(process.cmdline()):
                    process.kill()
                    killed = True
    assert killed


@pytest.mark.parametrize(
    ("program", "failure", "said"),
    [
        ("openai_engine", "out_of_memory", "the engine vllm"),
        ("ais_bench.py", "out_of_memory", "ais_bench was killed by SIGKILL"),
    ],
)
def test_whatever_is_killed_is_named(aisbench, model, trial, program, failure, said):
    evaluator = make_evaluator(aisbench())
    steps = evaluator.carry_out(trial, Subject(model(latency=1.0)), timeout=250)
    with pytest.raises(TrialFailure, match=said) as caught:
        kill_when(trial, "evaluate-add", lambda line: any(program in a for a in line[1:3]), steps)
    assert caught.value.failure == failure

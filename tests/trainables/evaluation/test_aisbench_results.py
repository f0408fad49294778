"""Numbers and failures of runs that the real AISBench 3.1 left behind, recorded in
``aisbench_runs``: what it printed, and the files of its experiment's folder."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from trainables import StageError
from trainables._aisbench import failure_class, plain
from trainables.evaluation._aisbench_results import read_numbers

RECORDED = Path(__file__).parent / "aisbench_runs"
ABBR = "vllm-api-general-chat"
RESULT = f"results/{ABBR}/arith.json"


@pytest.fixture
def recorded(tmp_path):
    """Unpack a run, with ``changes`` (file to new text, None for none); what it printed."""

    def unpack(case, changes=None):
        run = json.loads((RECORDED / f"{case}.json").read_text(encoding="utf-8"))
        folder = tmp_path / "run"
        for name, text in {**run["files"], **(changes or {})}.items():
            if text is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
        return (run["stdout"] + run["stderr"]).replace("/recorded/run", str(folder))

    return unpack


def numbers(output, *keys):
    return read_numbers(output, ABBR, keys or ("accuracy",))


def test_a_sound_run_gives_its_numbers_as_they_were_printed(recorded):
    found = numbers(recorded("sound"))
    assert found.document() == {
        "values": {"accuracy": "100.0"},
        "items": 8,
        "results": {"arith": {"values": {"accuracy": "100.0"}, "items": 8}},
    }


@pytest.mark.parametrize("text", ["62.50", "33.333333333333336", "0.1", "70", "1e1"])
def test_numbers_are_exact(recorded, text):
    found = numbers(recorded("sound", {RESULT: f'{{"accuracy": {text}}}'}))
    assert found.values["accuracy"] == Decimal(text)
    assert found.document()["values"]["accuracy"] == str(Decimal(text))


def test_a_model_that_says_nothing_is_measured_and_bad(recorded):
    assert numbers(recorded("empty_replies")).values == {"accuracy": Decimal(0)}


def test_several_result_files_are_averaged_by_their_questions(recorded):
    changes = {f"results/{ABBR}/subject_b.json": '{"accuracy": 100.0}'}
    found = numbers(recorded("two_subjects", changes))
    assert found.items == 10
    assert {name: part.items for name, part in found.parts.items()} == {
        "subject_a": 4,
        "subject_b": 6,
    }
    assert found.values["accuracy"] == (4 * 50 + 6 * 100) / Decimal(10)


def test_without_the_number_of_questions_the_mean_is_plain(recorded):
    changes = {
        f"results/{ABBR}/subject_a.json": '{"accuracy": 50.0}',
        f"results/{ABBR}/subject_b.json": '{"accuracy": 100.0}',
        f"predictions/{ABBR}/subject_a.jsonl": None,
    }
    found = numbers(recorded("two_subjects", changes))
    assert (found.values["accuracy"], found.items) == (75, None)


def test_what_counts_as_metric_is_chosen_by_key(recorded):
    text = '{"score": 7, "pass@1": "12.5", "type": "GEN", "flag": true}'
    output = recorded("sound", {RESULT: text})
    assert numbers(output, "accuracy", "pass@1", "score").values == {
        "pass@1": Decimal("12.5"),
        "score": Decimal(7),
    }
    with pytest.raises(StageError, match="no accuracy, but pass@1, score") as caught:
        numbers(output)
    assert caught.value.failure == "input"
    assert "default_metric_keys" in caught.value.suggestion


def test_notes_of_evaluators_are_no_results(recorded):
    notes = {f"results/{ABBR}/judged.json": '{"judge": "m", "votes": 3}'}
    assert set(numbers(recorded("sound", notes)).parts) == {"arith"}


@pytest.mark.parametrize(
    ("case", "failure", "said"),
    [
        ("half_refused", "network", "4 requests of AISBench failed: Internal Server Error"),
        ("server_died", "network", "5 requests of AISBench failed: .*Cannot connect to host"),
        ("server_down", "network", "no result of arith: .*warmup.*Cannot connect to host"),
        ("data_missing", "input", "no result of gsm8k: FileExistsError: Dataset path: .*gsm8k"),
        ("unknown_key", "input", "unexpected keyword argument 'chat_template_kwargs'"),
        ("worker_killed", "tool", "no result of arith: its inference left no answers"),
    ],
)
def test_failures_that_the_tool_ends_well_with(recorded, case, failure, said):
    with pytest.raises(StageError, match=said) as caught:
        numbers(recorded(case))
    assert caught.value.failure == failure
    assert caught.value.suggestion


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({RESULT: '{"accuracy": 10'}, "cannot be read"),
        ({RESULT: '{"accuracy": NaN}'}, "cannot be read: NaN is no number"),
        ({RESULT: "[1]"}, "is no object"),
        ({RESULT: "{}"}, "holds no number: it is empty"),
        ({RESULT: '{"error": "No space left", "accuracy": 0}'}, "No space left"),
        ({RESULT: None}, "left no result"),
        ({"summary/summary_20261124_160833.csv": None}, "wrote no summary"),
        (
            {
                f"logs/eval/{ABBR}/arith.out": "Total 3 data are not in the predictions. These "
                "data may failed in inference stage."
            },
            "lost the answers to 3 of its questions",
        ),
    ],
)
def test_what_is_left_of_a_run_is_no_number(recorded, changes, said):
    with pytest.raises(StageError, match=said) as caught:
        numbers(recorded("sound", changes))
    assert caught.value.failure == "tool"


def test_a_result_without_a_place_is_none():
    with pytest.raises(StageError, match="where its results are: RuntimeError: no") as caught:
        numbers("Traceback\nRuntimeError: no\n")
    assert caught.value.failure == "tool"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("asyncio.exceptions.TimeoutError", "timeout"),
        ("torch.OutOfMemoryError: NPU out of memory", "out_of_memory"),
        ("ServerDisconnectedError: Server disconnected", "network"),
        ("Bad Request", "input"),
        ("ZeroDivisionError: division by zero", "tool"),
    ],
)
def test_reasons_have_a_class(reason, expected):
    assert failure_class(reason) == expected


def test_output_is_read_without_its_decoration():
    assert plain("\x1b[?1049h\x1b(B\x1b[m[\x1b[32mINFO\x1b[0m] done\r\n") == "[INFO] done\n\n"

"""Plan files of ``msmodelslim tune``: those that are right, and every way to get them wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.compat.plan_faults import BENCH, BF, CASES, ENGINE, EXPECT, SE, SH, changed
from tests.tuner.compat.tune import CPU, PLANS, plan_text, tune
from tuner.compat import load_plan
from tuner.experiment import ExperimentError


@pytest.mark.parametrize("name", [BF, SH, SE])
def test_the_shapes_of_msmodelslim_s_own_examples_are_right(name: str) -> None:
    plan = load_plan(PLANS / f"{name}.yaml")
    assert plan.demand.expectations[0].dataset == "gsm8k"
    assert str(plan.demand.expectations[0].target) == "83"


@pytest.mark.parametrize("case", CASES)
def test_one_error_with_its_path_in_the_plan(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, path = CASES[case]
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    assert tune(tmp_path, file, *CPU, "--print-experiment") == 2
    said = capsys.readouterr()
    assert not said.out
    assert "Traceback" not in said.err
    *lines, last = said.err.splitlines()
    assert last.endswith("nothing was started")
    places = [line.removeprefix(str(file)).split(": ")[1] for line in lines if path]
    assert places == path.split("|") or not path, said.err
    whole = path in ("strategy", "evaluation") and "is required" in said.err
    assert all(line.split(":")[1].isdigit() for line in lines if path and not whole), said.err


def test_all_faults_are_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    text = changed(BF, "process.1.exclude", "process.9").replace("retry: 2", "retry: -2")
    text = text.replace('"83"', "-83").replace("startup_timeout: 600", "startup_timeout: soon")
    file.write_text(text)
    with pytest.raises(ExperimentError) as caught:
        load_plan(file)
    problems = caught.value.problems
    assert [problem.path for problem in problems] == [
        "strategy.rollback_path",
        f"{EXPECT}.0.target",
        f"{BENCH}.aisbench.retry",
        f"{ENGINE}.startup_timeout",
    ]
    for problem in problems:
        assert problem.line is not None
        assert problem.path.rpartition(".")[2] in text.splitlines()[problem.line - 1]


def test_an_unknown_key_is_told_the_known_ones_of_its_own_block(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    for old, new, known in (
        ("subdir", "sub_dir", "subdir"),
        ("      retry", "      retries", "pred_postprocessor"),
        ("startup_timeout", "startup", "health_check_endpoint"),
        ("      process:", "      proces:", "process"),
    ):
        file.write_text(changed(BF, old, new))
        with pytest.raises(ExperimentError) as caught:
            load_plan(file)
        assert known in str(caught.value).partition("known keys:")[2]


def test_what_msmodelslim_documents_and_refuses_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(changed(BF, "      retry: 2", "      retry: 2\n      default_metric_keys: [a]"))
    assert load_plan(file).benchmark


def test_a_template_left_out_is_static_w8a8(tmp_path: Path) -> None:
    text = plan_text(SH)
    start, end = text.index("  template:"), text.index("  metadata:")
    file = tmp_path / "plan.yaml"
    file.write_text(text[:start] + text[end:])
    assert load_plan(file).practice == load_plan(PLANS / "standing_high.yaml").practice

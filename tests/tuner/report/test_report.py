"""What a reader of a report relies on."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.report.folders import (
    BEGUN,
    Folder,
    exhausted_run,
    failed_run,
    hostile_run,
    quantization_run,
    rates,
    serving,
    serving_run,
    simulated_run,
    splits_run,
)
from tuner.report import (
    comparison_page,
    export_charts,
    headline,
    read_run,
    report_page,
    write_page,
    write_report,
)
from tuner.report._answer import with_error
from tuner.report._data import repeats
from tuner.report._page import render
from tuner.report._parts import Code, Page, Table


class Markup(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data


def names(page: Page) -> list[str]:
    return [section.name for section in page.sections]


def section_text(page: Page, name: str) -> str:
    """All that a section says, charts aside."""
    (section,) = (one for one in page.sections if one.name == name)
    said = []
    for block in section.blocks:
        if isinstance(block, Table):
            said += [cell.text for row in block.rows for cell in row]
        elif isinstance(block, Code):
            said += [block.title, block.text]
        else:
            said.append(getattr(block, "text", ""))
    return "\n".join(said)


def test_the_verdict_says_what_won_by_how_much_and_how_sure(tmp_path: Path) -> None:
    said = headline(read_run(serving_run(tmp_path / "run")))
    assert said == (
        "Best: a 11, b y has output_tokens_per_s 150.0 ± 2.0, +50.0 % (±2.8 %) over the baseline "
        "(the best of all)."
    )


def test_a_gain_within_the_noise_is_called_none(tmp_path: Path) -> None:
    said = headline(read_run(serving_run(tmp_path / "run", winner=101.0)))
    assert said.startswith("No significant gain over the default: a 11, b y")
    assert "+1.0 % (±2.8 %), which is noise" in said


def test_numbers_without_repeats_say_so(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    folder.measured({}, rates(100.0, error=None), kind="baseline")
    folder.measured({"a": 1}, rates(120.0, error=None))
    path = folder.ends("satisfied", best={"a": 1}, baseline=rates(100.0, error=None))
    assert "+20.0 % over the baseline (single runs, so noise is not known)" in headline(
        read_run(path)
    )


def test_a_verification_counts_for_more_than_the_lucky_trial(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    folder.measured({"a": 1}, rates(200.0))
    folder.measured({"a": 1}, rates(180.0), kind="verification")
    run = read_run(folder.ends("satisfied", best={"a": 1}))
    winner = run.winner()
    assert winner is not None and winner.value == 180.0


def test_sections_are_there_when_they_have_something_to_say(tmp_path: Path) -> None:
    page = report_page(read_run(serving_run(tmp_path / "run")))
    assert names(page) == [
        "answer",
        "deploy",
        "progress",
        "tradeoffs",
        "importance",
        "failures",
        "rejections",
        "cost",
        "trials",
        "environment",
        "reproduce",
    ]


def test_failures_are_told_with_class_excerpt_and_advice(tmp_path: Path) -> None:
    said = section_text(report_page(read_run(serving_run(tmp_path / "run"))), "failures")
    for wanted in ("out_of_memory", "no room", "NPU out of memory", "ask less of it"):
        assert wanted in said


def test_what_was_given_up_early_is_told_with_its_reason(tmp_path: Path) -> None:
    said = section_text(report_page(read_run(serving_run(tmp_path / "run"))), "rejections")
    assert "1 trial given up before the end: 1 by incumbent" in said
    assert "at most 90 tokens/s" in said


def test_device_hours_are_split_by_phase(tmp_path: Path) -> None:
    """17 attempts of a minute on two NPUs: 16 measured, half starting, half measuring."""
    page = report_page(read_run(serving_run(tmp_path / "run")))
    (cost,) = (section for section in page.sections if section.name == "cost")
    table = next(block for block in cost.blocks if isinstance(block, Table))
    hours = {row[0].text: row[1].sort for row in table.rows}
    assert table.columns[1] == "NPU-hours"
    assert hours["measuring"] == pytest.approx(16 * 0.5 * 2 / 60)
    assert hours["starting"] == pytest.approx(16 * 0.5 * 2 / 60)
    assert hours["failed"] == pytest.approx(2 / 60)


def test_the_parameter_that_decides_is_the_most_important(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    for number in range(40):
        a, b = number % 10, (number * 7) % 10
        folder.measured({"a": a, "b": b, "same": 1}, rates(100.0 + 10 * a))
    page = report_page(read_run(folder.ends("satisfied", best={"a": 9, "b": 3, "same": 1})))
    (chart,) = (chart for chart in page.charts if chart.name == "importance")
    shares = {row["name"]: row["share"] for row in chart.spec["data"]["values"]}
    assert next(iter(shares)) == "a" and shares["a"] > 0.5 and "same" not in shares


def test_pareto_fronts_join_what_nothing_beats(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    for number, (tokens, ttft) in enumerate([(100, 0.1), (200, 0.2), (150, 0.3), (300, 0.9)]):
        folder.measured({"a": number}, rates(tokens, ttft))
    page = report_page(read_run(folder.ends("satisfied", best={"a": 1})))
    (chart,) = (one for one in page.charts if one.name == "pareto-output_tokens_per_s-ttft_p90_s")
    (line,) = (one for one in chart.spec["layer"] if one["mark"]["type"] == "line")
    assert line["data"]["values"] == [{"x": 200, "y": 0.2}, {"x": 100, "y": 0.1}]


def test_layers_that_fall_back_are_shown_with_what_one_step_less_costs(tmp_path: Path) -> None:
    page = report_page(read_run(quantization_run(tmp_path / "run")))
    (heat,) = (chart for chart in page.charts if chart.name == "layers")
    falls = [row["falls"] for row in heat.spec["data"]["values"]]
    assert falls == ["falls back"] * 2 + ["quantized"] * 14
    assert "accuracy 0.7 is too low" in section_text(page, "layers")
    assert page.headline == "2 of 16 steps fall back."


def test_splits_are_ranked_with_matched_and_measured_rates(tmp_path: Path) -> None:
    page = report_page(read_run(splits_run(tmp_path / "run")))
    said = section_text(page, "splits")
    assert "1P1D" in said and "keeps the limits" in said and "prefill tp2" in said
    (chart,) = (chart for chart in page.charts if chart.name == "splits")
    bars = {(row["split"], row["of"]): row["rate"] for row in chart.spec["data"]["values"]}
    assert bars == {("1P1D", "matched"): 3.5, ("1P1D", "measured"): 3.1, ("2P1D", "matched"): 3.6}


def test_a_run_under_way_can_be_read_also_while_a_line_is_being_written(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    folder.measured({"a": 1}, rates(1.0))
    path = folder.ends("running", best={"a": 1})
    for name in ("ledger.jsonl", "events.jsonl"):
        with (path / name).open("a") as stream:
            stream.write('{"torn": ')
    before = {file: file.read_bytes() for file in path.iterdir() if file.is_file()}
    run = read_run(path)
    assert [trial.value for trial in run.trials] == [1.0] and run.notes == ()
    render(report_page(run))
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("gone", ["events.jsonl", "status.json", "ledger.jsonl", "experiment.yaml"])
def test_a_missing_file_costs_only_what_stood_in_it(tmp_path: Path, gone: str) -> None:
    path = serving_run(tmp_path / "run")
    (path / gone).unlink()
    page = report_page(read_run(path))
    assert page.sections
    render(page)


def test_an_empty_folder_makes_a_page(tmp_path: Path) -> None:
    page = report_page(read_run(Folder(tmp_path / "run", serving()).path))
    assert "has not started" in page.headline
    render(page)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = read_run(hostile_run(tmp_path / "run"))
    for page in (report_page(run), comparison_page([run, run])):
        text = render(page)
        markup = Markup(text)
        assert not {"img", "iframe", "object"} & {tag for tag, _ in markup.elements}
        for _, attributes in markup.elements:
            assert not [name for name in attributes if name == "src" or name.startswith("on")]
        assert len(markup.scripts) == 3
        data = json.loads(markup.scripts[0])
        assert set(data) == {chart.name for chart in page.charts}
        assert all("alert(1)" not in script for script in markup.scripts[1:])


def test_no_script_but_its_own_may_run_and_nothing_may_be_fetched(tmp_path: Path) -> None:
    text = render(report_page(read_run(serving_run(tmp_path / "run"))))
    (found,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    policy = html.unescape(found)
    assert "default-src 'none'" in policy
    scripts = policy.split("script-src")[1].split(";")[0]
    assert "unsafe" not in scripts and scripts.count("sha256-") == 2
    assert "connect-src" not in policy


SECRET = "s3cr3t-t0ken-value"


def test_secrets_are_nowhere_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_WEBHOOK", f"https://hooks.test/{SECRET}")
    experiment = serving(
        trial={
            "type": "serving",
            "model": "m",
            "engine": {"type": "vllm", "env_vars": {"HF_TOKEN": SECRET, "PLAIN": "seen"}},
        },
        notify=[{"type": "feishu", "webhook": "${CHAT_WEBHOOK}"}],
    )
    folder = Folder(tmp_path / "run", experiment)
    folder.measured({"a": 1}, rates(1.0), environment={"note": f"token {SECRET}"})
    lines = [
        f"posting to https://hooks.test/{SECRET}",
        "Authorization: Bearer abcdef0123456789",
        "mysql://root:hunter22@db/x",
        "export API_KEY=zzz999yyy",
        "hf_AbCdEfGhIjKlMnOp",
    ]
    folder.failed({"class": "tool", "stage": "deploy", "message": "m", "excerpt": "\n".join(lines)})
    text = render(report_page(read_run(folder.ends("satisfied", best={"a": 1}))))
    for hidden in (SECRET, "abcdef0123456789", "hunter22", "zzz999yyy", "hf_AbCdEfGh"):
        assert hidden not in text
    assert "${CHAT_WEBHOOK}" in text and "PLAIN: seen" in text


def test_a_start_script_is_shown_as_it_is(tmp_path: Path) -> None:
    """What looks like the beginning of a token may be the name of a variable."""
    path = serving_run(tmp_path / "run")
    script = "#!/bin/sh\nexport HF_HUB_OFFLINE=1 HF_ENDPOINT_URL=x\nexec vllm serve m\n"
    (path / "best" / "serve.sh").write_text(script)
    assert script.strip() in section_text(report_page(read_run(path)), "deploy")


def test_the_page_shows_how_to_run_it_again(tmp_path: Path) -> None:
    path = serving_run(tmp_path / "a run")
    said = section_text(report_page(read_run(path)), "reproduce")
    assert f"python -m tuner run '{path}'/experiment.yaml" in said
    assert yaml.safe_load(said.split("experiment.yaml\n")[-1])["name"] == "a run"


def test_runs_side_by_side_name_the_best_and_where_they_differ(tmp_path: Path) -> None:
    runs = [
        read_run(serving_run(tmp_path / "one", winner=150.0)),
        read_run(serving_run(tmp_path / "two", winner=180.0)),
    ]
    page = comparison_page(runs)
    assert page.headline.startswith("Best: two, a 11, b y has output_tokens_per_s 180")
    assert "(+20.0 %)" in section_text(page, "metrics")
    assert {"progress-trials", "progress-time"} <= {chart.name for chart in page.charts}


def test_every_chart_is_exported_twice(tmp_path: Path) -> None:
    page = report_page(read_run(serving_run(tmp_path / "run")))
    files = export_charts(page, tmp_path / "pictures")
    assert {file.name for file in files} == {
        f"{chart.name}.{kind}" for chart in page.charts for kind in ("svg", "png")
    }
    for file in files:
        head = file.read_bytes()[:8]
        assert head.startswith(b"\x89PNG") if file.suffix == ".png" else head.startswith(b"<svg")


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = serving_run(tmp_path / "run")
    file = write_report(path)
    assert file.read_text().endswith("</html>")
    before = file.read_bytes()
    broken: Any = Page("t", "b", "", "h", "s", sections=[object()])  # type: ignore[list-item]
    with pytest.raises(AttributeError):
        write_page(broken, file)
    assert file.read_bytes() == before


def test_runs_that_differ_by_noise_are_not_ranked(tmp_path: Path) -> None:
    runs = [
        read_run(serving_run(tmp_path / "one", winner=150.0)),
        read_run(serving_run(tmp_path / "two", winner=151.0)),
    ]
    assert comparison_page(runs).headline.startswith("No significant difference: two, ")


def test_only_one_answer_is_not_called_the_best(tmp_path: Path) -> None:
    runs = [read_run(serving_run(tmp_path / "one")), read_run(exhausted_run(tmp_path / "two"))]
    assert comparison_page(runs).headline.startswith("Only one has an answer: a 11, b y has")


def test_a_failed_run_says_what_its_trials_failed_of(tmp_path: Path) -> None:
    page = report_page(read_run(failed_run(tmp_path / "run")))
    assert page.headline.endswith("3 trials failed. Failures: startup (2), out_of_memory (1).")
    assert "tokens" not in "".join(section_text(page, "trials").splitlines()[:6])


def test_what_was_given_up_far_off_does_not_hide_the_differences_of_the_others(
    tmp_path: Path,
) -> None:
    page = report_page(read_run(simulated_run(tmp_path / "run")))
    (chart,) = (chart for chart in page.charts if chart.name == "progress-trials")
    assert [row["value"] for row in chart.spec["data"]["values"]] == [1100, 1101, 1102, 1103, 1102]
    assert "1 that was given up early would be far off." in chart.note


def test_a_limit_far_from_all_points_is_said_rather_than_drawn(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    for number in range(3):
        folder.measured({"a": number}, rates(100.0 + number, ttft=0.01 + number / 1000))
    page = report_page(read_run(folder.ends("satisfied", best={"a": 2})))
    (chart,) = (one for one in page.charts if one.name == "pareto-output_tokens_per_s-ttft_p90_s")
    assert "The limit, ttft_p90_s ≤ 0.5, is far from all of them." in chart.note
    assert not [layer for layer in chart.spec["layer"] if layer["mark"]["type"] == "rule"]


def test_numbers_are_as_exact_as_they_are_known(tmp_path: Path) -> None:
    assert with_error({"x": 0.0178497, "x_se": 1e-9}, "x") == "0.01785"
    assert with_error({"x": 6797.12, "x_se": 2.5}, "x") == "6,797.1 ± 5.0"
    assert with_error({"x": 16280.4}, "x") == "16,280"
    assert with_error({"x": -0.0}, "x") == "0"
    folder = Folder(tmp_path / "run", serving())
    folder.measured({"share": 0.871364, "tokens": 131072}, rates(1.0))
    best = {"share": 0.871364, "tokens": 131072}
    page = report_page(read_run(folder.ends("satisfied", best=best)))
    assert "0.871364" in section_text(page, "answer") and "131072" in section_text(page, "answer")


def test_where_nothing_satisfies_the_nearest_is_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    for number, ttft in enumerate((0.9, 0.6, 0.6)):
        folder.measured({"a": number}, rates(100.0 + number, ttft=ttft))
    path = folder.ends("exhausted", message="nothing keeps the limit")
    said = [note.text for note in report_page(read_run(path)).notes]
    assert said == ["Nearest to the demand: a 2, with ttft_p90_s 0.6 (≤ 0.5)."]


def test_only_runs_at_the_load_that_counts_are_repeats(tmp_path: Path) -> None:
    """Full runs that broke a limit at higher loads were on the way to it."""
    trial = read_run(simulated_run(tmp_path / "run")).candidates[0]
    assert [run["full"] for run in trial.data["runs"]] == [False, True, True]
    assert repeats(trial) == 1
    more = replace(trial, data={"runs": [*trial.data["runs"], trial.data["runs"][-1]]})
    assert repeats(more) == 2


def test_runs_that_were_given_up_are_told_apart_from_those_that_were_measured(
    tmp_path: Path,
) -> None:
    page = report_page(read_run(simulated_run(tmp_path / "run")))
    (chart,) = (one for one in page.charts if one.name == "load-ttft")
    outcomes = {row["x"]: row["outcome"] for row in chart.spec["data"]["values"]}
    assert outcomes == {4: "measured", 8: "measured", 16: "given up"}
    assert "broke a limit before their end" in chart.note


def test_a_run_that_was_stopped_before_any_device_was_held_makes_a_page(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    event = {"ts": BEGUN.timestamp(), "event": "proposed", "trial": "f" * 16, "number": 0}
    event |= {"kind": "candidate", "message": "", "failure": None}
    folder.store.events_file.write_text(json.dumps(event) + "\n")
    page = report_page(read_run(folder.ends("interrupted")))
    assert "hours" not in [chart.name for chart in page.charts]
    render(page)

"""What is told of a run's events, and in which words."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from searchers import Outcome, Proposal
from tests.tuner.notify.sinks import HttpSink
from tuner._campaign import Event, EventKind, Ticket
from tuner._ledger import Ledger
from tuner._view import RunView
from tuner.experiment import KINDS, load_experiment
from tuner.notify import Notice, Notifier, Progress, Score, Subject, Under, write


class Told:
    """A notifier of an experiment that maximises ``score``, and what its channel got."""

    def __init__(self, folder: Path, sink: HttpSink, **channel: Any) -> None:
        file = folder / "experiment.yaml"
        document = {
            "name": "demo",
            "trial": {"type": "rehearsal", "layers": 8, "optimum": {"x": 3}},
            "search": {"type": "grid", "space": {"x": {"type": "int", "low": 0, "high": 9}}},
            "objective": {"maximize": "score"},
            "budget": {"trials": 9},
            "storage": str(folder),
            "notify": [{"type": "webhook", "url": "${SINK}", **channel}],
        }  # fmt: skip
        file.write_text(yaml.safe_dump(document))
        experiment = load_experiment(file)
        self.sink = sink
        self.view = RunView("demo", experiment.objective)
        self.said: list[str] = []
        self.notifier = Notifier(
            experiment,
            self.view,
            Ledger(folder / "ledger.jsonl"),
            self.said.append,
            spent=lambda: self.view.counts.measured,
            resumed=False,
        )

    def event(
        self, kind: EventKind, number: int, outcome: Outcome | None = None, **more: Any
    ) -> None:
        proposal = Proposal(number, {"x": number}, more.pop("of", "candidate"))
        event = Event(kind, Ticket(proposal, "search", number, f"id{number}", **more), outcome)
        self.view.on_event(event)
        self.notifier.on_event(event)

    def measured(self, number: int, score: float) -> None:
        self.event("measured", number, Outcome("measured", {"score": score}))

    def failed(self, number: int, sort: str, kind: EventKind = "failed") -> None:
        failure = {"class": sort, "message": "because", "stage": "deploy"}
        self.event(kind, number, Outcome("failed", data={"failure": failure}, error="x"))

    def kinds(self) -> list[str]:
        self.notifier.close()
        return self.sink.kinds


@pytest.fixture
def told(tmp_path: Path, sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setenv("SINK", sink.url)
    return Told(tmp_path, sink)


def test_a_measured_trial_and_a_new_best(told: Told) -> None:
    told.event("proposed", 1)
    told.measured(1, -2.0)
    told.measured(2, -5.0)
    told.event("reused", 3, Outcome("measured", {"score": -1.0}))
    told.measured(4, -1.5)
    told.measured(5, 0.0)
    assert told.kinds() == ["trial_done", "best", *["trial_done"] * 3, "best"]
    first, last = told.sink.received[1]["json"], told.sink.received[-1]["json"]
    assert first["title"] == "[demo] new best, score -2"
    assert last["score"] == {"metric": "score", "value": 0.0, "before": -1.0}
    assert last["subject"]["parameters"] == {"x": 5} == last["progress"]["best"]
    assert "trials: 4 of 9, 1 reused" in last["text"]


def test_every_nth_trial_and_all_that_is_more_than_a_trial(
    tmp_path: Path, sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINK", sink.url)
    told = Told(tmp_path, sink, trial_done_every=3)
    for number in range(1, 8):
        told.measured(number, -float(number))
    told.failed(8, "timeout")
    assert told.kinds() == ["best", "trial_done", "trial_done", "timeout"]
    trials = [each["json"] for each in sink.received if each["json"]["kind"] == "trial_done"]
    assert [trial["subject"]["number"] for trial in trials] == [3, 6]


@pytest.mark.parametrize(
    ("sort", "kind"),
    [("timeout", "timeout"), ("startup", "crashed"), ("out_of_memory", "crashed"),
     ("device", "crashed"), ("lost", "crashed"), ("tool", "failed"), ("network", "failed"),
     ("input", "failed"), ("something new", "failed")],
)  # fmt: skip
def test_each_class_of_failure_has_its_kind(told: Told, sort: str, kind: str) -> None:
    told.failed(1, sort)
    assert told.kinds() == [kind]
    assert f"deploy, {sort}: because" in told.sink.received[0]["json"]["text"]


def test_an_attempt_that_is_repeated_is_abnormal(told: Told) -> None:
    told.failed(1, "timeout", "retry")
    assert told.kinds() == ["abnormal"]
    assert "next: attempt 2" in told.sink.received[0]["json"]["text"]


def test_what_ends_without_a_verdict_is_told(told: Told) -> None:
    with pytest.raises(ValueError), told.notifier:
        raise ValueError("no node has an NPU")
    assert told.kinds() == ["start", "crashed"]
    message = told.sink.received[-1]["json"]
    assert message["title"] == "[demo] the run crashed"
    assert "no node has an NPU" in message["text"]
    assert "python -m tuner resume" in message["text"]


def test_an_interrupt_is_an_end_and_no_crash(told: Told) -> None:
    with pytest.raises(KeyboardInterrupt), told.notifier:
        raise KeyboardInterrupt
    assert told.kinds() == ["start", "done"]
    assert told.sink.received[-1]["json"]["verdict"] == "interrupted"


def test_heartbeats_by_trials(
    tmp_path: Path, sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINK", sink.url)
    told = Told(tmp_path, sink, kinds=["heartbeat"], heartbeat={"trials": 2})
    for number in range(1, 6):
        told.measured(number, 0.0)
        if number % 2 == 0:
            sink.wait_for(lambda sink, wanted=number // 2: len(sink.received) == wanted)
    assert told.kinds() == ["heartbeat"] * 2


def test_heartbeats_by_time_come_while_the_run_is_busy_with_one_trial(
    tmp_path: Path, sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINK", sink.url)
    told = Told(tmp_path, sink, kinds=["heartbeat"], heartbeat={"time": 0.05})
    with told.notifier:
        told.event("proposed", 1)
        sink.wait_for(lambda sink: len(sink.received) >= 3)
    told.kinds()
    assert "next: #1 candidate in stage" in sink.received[-1]["json"]["text"]


def test_a_fault_of_our_own_is_said_once_and_never_reaches_the_run(told: Told) -> None:
    told.notifier._spent = lambda: 1 // 0
    for number in range(3):
        told.measured(number, 1.0)
    with told.notifier:
        told.notifier.abnormal("still there")
    assert told.kinds() == ["abnormal"]
    assert len(told.said) == 1 and "ZeroDivisionError" in told.said[0]


def test_a_run_without_channels_has_no_threads(
    tmp_path: Path, sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINK", sink.url)
    told = Told(tmp_path, sink)
    told.notifier.close()
    before = threading.active_count()
    experiment = load_experiment(tmp_path / "experiment.yaml", ["notify=[]"])
    silent = Notifier(
        experiment, told.view, Ledger(tmp_path / "x"), print, spent=lambda: 0, resumed=False
    )
    with silent:
        silent.abnormal("nobody hears")
    assert silent.close() == {}
    assert threading.active_count() <= before


SUBJECT = Subject(7, "candidate", "id", {"max_num_seqs": 256, "fallback": ["a"] * 40}, attempt=1)
PROGRESS = Progress(
    measured=12, most=40, failed=1, reused=3, elapsed_s=11520, time_s=28800, remaining_s=7260,
    running=(Under(8, "candidate", "deploy", 65),), best={"max_num_seqs": 512},
)  # fmt: skip


def test_the_words_of_a_new_best_in_both_languages() -> None:
    notice = Notice(
        "best", "qwen3", "2026-11-28T00:00:00+00:00", PROGRESS, SUBJECT,
        {"output_tokens_per_s": 812.44, "ttft_p90_s": 0.41},
        Score("output_tokens_per_s", 812.44, 790),
    )  # fmt: skip
    english = write(notice, "en")
    assert english.title == "[qwen3] new best, output_tokens_per_s 812.44"
    assert english.lines == (
        "parameters: max_num_seqs 256, fallback 40 items",
        "measured: output_tokens_per_s 812.44, ttft_p90_s 0.41",
        "before: 790",
        "trials: 12 of 40, 1 failed, 3 reused",
        "elapsed: 3 h 12 min of 8 h 0 min",
        "next: #8 candidate in stage deploy for 1 min 5 s",
        "about 2 h 1 min to go",
    )
    chinese = write(notice, "zh")
    assert chinese.title == "[qwen3] 新的最优结果，output_tokens_per_s 812.44"
    assert chinese.lines == (
        "参数：max_num_seqs 256，fallback 共 40 项",
        "测得：output_tokens_per_s 812.44，ttft_p90_s 0.41",
        "此前最优：790",
        "试验数：12 / 40，失败 1，复用 3",
        "已用时间：3 小时 12 分，预算 8 小时 0 分",
        "下一步：试验 #8（候选）处于阶段 deploy，已 1 分 5 秒",
        "预计还需 2 小时 1 分",
    )


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subject", [None, SUBJECT])
def test_every_kind_has_words(kind: Any, language: Any, subject: Subject | None) -> None:
    nasty = "brace { } {0} %s\r\n<at id=all></at>\x00" + "x" * 5000
    notice = Notice(
        kind, "demo", "", PROGRESS, subject, {"m": 1e7}, message=nasty, verdict="budget"
    )
    text = write(notice, language)
    assert text.title.startswith("[demo] ")
    assert all("\n" not in line and len(line) <= 600 for line in (text.title, *text.lines))
    assert len(text.body) < 4000

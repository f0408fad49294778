"""Whole runs that tell people what goes on, over channels that work and channels that do not."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tuner.notify.sinks import HttpSink, SmtpSink
from tests.tuner.runs import Run, ledger, run, write_experiment

SECRETS = {
    "TOKEN": "hunter2-the-token",
    "SIGNING": "hunter2-the-signing-secret",
    "PASSWORD": "hunter2-the-password",
}


def at(sink: HttpSink, path: str) -> list[dict[str, Any]]:
    return [one["json"] for one in sink.received if one["path"].startswith(f"/{path}")]


def assert_no_secret(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for secret in SECRETS.values():
                assert secret.encode() not in content, file


def command_line(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


GRID: dict[str, Any] = {
    "trial": {"optimum": {"x": 3}, "seconds": 0.8, "stages": ["measure"]},
    "objective": {"expectations": [], "maximize": "score"},
    "search": {"type": "grid", "space": {"x": {"type": "int", "low": 0, "high": 5}}},
}


@pytest.mark.ray
def test_a_run_is_told_and_dead_channels_change_nothing(
    tmp_path: Path, sink: HttpSink, mail: SmtpSink
) -> None:
    def answer(message: Any) -> Any:
        if "card" in message:
            return {"code": 19021, "msg": f"sign match fail {SECRETS['SIGNING']}"}
        return {"code": 0} if message["text"].isascii() else "hang"

    sink.answer = answer
    environment = SECRETS | {"SINK": sink.url, "MAIL": f"127.0.0.1:{mail.port}"}
    channels = [
        {
            "type": "webhook",
            "url": "${SINK}/good/${TOKEN}",
            "headers": {"Authorization": "Bearer ${TOKEN}"},
            "heartbeat": {"time": 0.3, "trials": 2},
            "timeout": 60,
        },
        {"type": "feishu", "webhook": "${SINK}/feishu/${TOKEN}", "secret": "${SIGNING}"},
        {"type": "webhook", "url": "http://no-such-host.invalid/${TOKEN}", "timeout": 2},
        {"type": "webhook", "url": "${SINK}/hang/${TOKEN}", "language": "zh", "timeout": 1},
        {
            "type": "apprise",
            "url": "mailto://${MAIL}?from=t@here.test&to=p@there.test&mode=insecure&name=${PASSWORD}",
            "kinds": ["best", "done"],
        },
    ]
    file = write_experiment(tmp_path, **GRID, notify=channels)
    it = Run("run", file, "--json", storage=tmp_path, environment=environment)
    it.until(lambda it: it.measured())
    tree = [psutil.Process(it.process.pid), *psutil.Process(it.process.pid).children(True)]
    lines = "".join(map(command_line, tree))
    assert it.wait() == 0, it.said()
    assert it.result()["best"] == {"x": 3}
    assert it.result()["failed"] == 0 and len(ledger(it.folder)) == it.result()["trials_run"]

    told = at(sink, "good")
    kinds = [message["kind"] for message in told]
    assert kinds[0] == "start" and kinds[-1] == "done"
    assert kinds.count("trial_done") == it.result()["trials_run"]
    best = [message["score"]["value"] for message in told if message["kind"] == "best"]
    assert best == sorted(set(best)) and best[-1] == 0.0
    assert any(
        message["progress"]["running"][0]["stage"] == "measure"
        for message in told
        if message["kind"] == "heartbeat" and message["progress"]["running"]
    ), "no heartbeat in the middle of a trial"
    assert at(sink, "feishu")[0]["sign"]
    assert [mail["Subject"].split("] ")[1].split(",")[0] for mail in mail.received] == [
        *["new best"] * len(best), "over",
    ]  # fmt: skip

    for index in (1, 2, 3):
        said = re.findall(rf"notify\.{index} \(.*not delivered.*", it.said())
        assert 2 <= len(said) <= 3, it.said()
    assert "19021" in it.said() and "***" in it.said()
    for secret in SECRETS.values():
        assert secret not in it.said() + it.stdout + lines
    assert_no_secret(tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_killed_and_resumed_a_worse_one_is_never_a_new_best(tmp_path: Path, sink: HttpSink) -> None:
    channel = {"type": "webhook", "url": "${SINK}/${TOKEN}"}
    environment = SECRETS | {"SINK": sink.url}
    file = write_experiment(tmp_path, **GRID, notify=[channel])
    first = Run("run", file, storage=tmp_path, environment=environment)
    first.until(lambda it: len(it.measured()) >= 5 and it.hold())
    first.signal(signal.SIGKILL)
    first.wait()
    before = len(sink.received)

    resumed = Run("resume", first.folder, "--json", storage=tmp_path, environment=environment)
    assert resumed.wait() == 0, resumed.said()
    assert resumed.result()["best"] == {"x": 3}
    since = [one["json"] for one in sink.received[before:]]
    assert since[0]["title"] == "[demo] resumed"
    assert "the session before was killed" in since[0]["text"]
    assert since[0]["known"] >= 5
    assert since[-1]["kind"] == "done"
    values = [
        one["json"]["score"]["value"] for one in sink.received if one["json"]["kind"] == "best"
    ]
    assert values == sorted(set(values)), "a best that was none was announced"
    assert_no_secret(tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_cannot_start_says_so(tmp_path: Path, sink: HttpSink) -> None:
    channel = {"type": "webhook", "url": "${SINK}"}
    file = write_experiment(
        tmp_path, cluster={"resources": {"CPU": 0.5, "NPU_Z": 1}}, notify=[channel]
    )
    it = Run("run", file, storage=tmp_path, environment={"SINK": sink.url})
    assert it.wait() == 2
    assert sink.kinds == ["start", "crashed"]
    assert "NPU_Z" in sink.received[-1]["json"]["text"]


@pytest.mark.ray
@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, sink: HttpSink) -> None:
    file = write_experiment(
        tmp_path, **GRID, notify=[{"type": "webhook", "url": "${SINK}", "kinds": ["done"]}]
    )
    it = Run("run", file, storage=tmp_path, environment={"SINK": sink.url})
    it.until(lambda it: it.measured() and it.hold())
    it.signal(signal.SIGINT)
    assert it.wait() == 130
    (message,) = [one["json"] for one in sink.received]
    assert message["verdict"] == "interrupted"
    assert f"python -m tuner resume {it.folder}" in message["text"]


def test_without_its_secrets_nothing_starts(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, notify=[{"type": "webhook", "url": "${NO_SUCH_VARIABLE}"}])
    it = run("run", file, storage=tmp_path)
    assert it.process.returncode == 2
    assert "notify.0.url: environment variable NO_SUCH_VARIABLE is not set" in it.said()
    assert not it.folder.exists()


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    from tests.tuner.runs import ENVIRONMENT

    return subprocess.run(
        [sys.executable, "-m", "tuner", "notify", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | environment,
    )


def test_the_command_tries_every_channel_and_reports_each(
    tmp_path: Path, sink: HttpSink, mail: SmtpSink
) -> None:
    sink.answer = lambda message: {"code": 19021, "msg": "sign match fail"}
    channels = [
        {"type": "webhook", "url": "${SINK}/${TOKEN}", "kinds": ["best"]},
        {"type": "feishu", "webhook": "${SINK}/f/${TOKEN}"},
        {"type": "apprise", "url": "${MAIL}", "fallback": True, "language": "zh"},
    ]
    file = write_experiment(tmp_path, notify=channels)
    environment = SECRETS | {"SINK": sink.url, "MAIL": mail.url()}
    done = command(file, "--test", **environment)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "notify.0 (webhook): sent",
        "notify.1 (feishu): not sent: Feishu's code 19021: sign match fail; "
        "check the secret, and this machine's clock",
        "notify.2 (apprise): sent",
    ]
    assert SECRETS["TOKEN"] not in done.stdout + done.stderr
    assert mail.received[0]["Subject"] == "[demo] 测试消息，此通道可用"
    sink.answer = lambda message: {"code": 0}
    assert command(file, "--test", **environment).returncode == 0

    shown = command(file, **environment)
    assert shown.returncode == 0
    assert "notify.0 (webhook): best" in shown.stdout
    assert "only what no other channel delivered" in shown.stdout
    assert command(write_experiment(tmp_path), "--test").returncode == 2

"""The ``notify`` list: what is refused, and that no secret is ever quoted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuner.experiment import ExperimentError, experiment_schema, load_experiment

BASE: dict[str, Any] = {
    "name": "demo",
    "trial": {"type": "rehearsal", "layers": 8},
    "search": {"type": "binary_fallback"},
    "objective": {"expectations": [{"metric": "accuracy", "target": 0.9}]},
}
SECRET = "hunter2-the-secret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"https://example.test/{SECRET}")
    monkeypatch.setenv("WORD", SECRET)
    monkeypatch.setenv("EMPTY", "")


def write(folder: Path, *channels: Any) -> Path:
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(BASE | {"notify": list(channels)}))
    return file


def problems(folder: Path, *channels: Any) -> dict[str, str]:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(write(folder, *channels))
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems), "a path is named twice"
    assert SECRET not in str(caught.value)
    return found


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a literal address": ({"type": "webhook", "url": f"http://h/{SECRET}"}, "url", "${NAME}"),
    "a literal address of apprise": (
        {"type": "apprise", "url": f"mailto://u:{SECRET}@h"},
        "url",
        "url_file",
    ),
    "a literal webhook": ({"type": "feishu", "webhook": f"https://f/{SECRET}"}, "webhook", "NAME"),
    "a literal secret": (
        {"type": "feishu", "webhook": "${HOOK}", "secret": SECRET},
        "secret",
        "secret_file",
    ),
    "a secret as a number": (
        {"type": "feishu", "webhook": "${HOOK}", "secret": 123456},
        "secret",
        "${NAME}",
    ),
    "a secret as the default of a variable": (
        {"type": "webhook", "url": "${NONE:-https://h/" + SECRET + "}"},
        "url",
        "${NAME}",
    ),
    "a default beside a reference": (
        {"type": "webhook", "url": "${HOOK}${NONE:-" + SECRET + "}"},
        "url",
        "no default",
    ),
    "a literal password beside a reference": (
        {"type": "apprise", "url": "mailtos://me:" + SECRET + "@h/?to=${WORD}"},
        "url",
        "password",
    ),
    "a literal header that authenticates": (
        {"type": "webhook", "url": "${HOOK}", "headers": {"X-Api-Key": SECRET}},
        "headers.X-Api-Key",
        "${NAME}",
    ),
    "a header with a line break": (
        {"type": "webhook", "url": "${HOOK}", "headers": {"X-A": "a\nb"}},
        "headers.X-A",
        "one line",
    ),
    "a header that is none": (
        {"type": "webhook", "url": "${HOOK}", "headers": {"X A": "a"}},
        "headers.X A",
        "no name",
    ),
    "no address": ({"type": "webhook"}, "url", "is required, or url_file"),
    "an empty variable": ({"type": "webhook", "url": "${EMPTY}"}, "url", "is empty"),
    "an address of another protocol": (
        {"type": "webhook", "url": "ftp://${WORD}"},
        "url",
        "https://",
    ),
    "an address with a bad port": ({"type": "webhook", "url": "http://h:x${WORD}/"}, "url", "URL"),
    "nothing apprise knows": ({"type": "apprise", "url": "nowhere://${WORD}"}, "url", "apprise"),
    "no type": ({"url": "${HOOK}"}, "type", "apprise, feishu, webhook"),
    "an unknown type": ({"type": "pigeon"}, "type", "apprise, feishu, webhook"),
    "an unknown key": ({"type": "webhook", "url": "${HOOK}", "knids": []}, "knids", "kinds"),
    "an unknown kind": (
        {"type": "webhook", "url": "${HOOK}", "kinds": ["besst"]},
        "kinds.0",
        "'best'",
    ),
    "no kinds": ({"type": "webhook", "url": "${HOOK}", "kinds": []}, "kinds", "at least one"),
    "an unknown language": (
        {"type": "webhook", "url": "${HOOK}", "language": "de"},
        "language",
        "'zh'",
    ),
    "a timeout that is none": (
        {"type": "webhook", "url": "${HOOK}", "timeout": 3600},
        "timeout",
        "60",
    ),
    "heartbeats of a fallback": (
        {"type": "webhook", "url": "${HOOK}", "fallback": True, "heartbeat": {"trials": 1}},
        "heartbeat",
        "fallback",
    ),
    "heartbeats without their kind": (
        {"type": "webhook", "url": "${HOOK}", "kinds": ["best"], "heartbeat": {"trials": 1}},
        "heartbeat",
        "kinds",
    ),
    "heartbeats all the time": (
        {"type": "webhook", "url": "${HOOK}", "heartbeat": {"time": 0}},
        "heartbeat.time",
        "greater",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_fault_with_its_path_and_what_to_do(case: str, tmp_path: Path) -> None:
    channel, path, said = CASES[case]
    found = problems(tmp_path, {"type": "feishu", "webhook": "${HOOK}"}, channel)
    assert set(found) == {f"notify.1.{path}"}
    assert said in found[f"notify.1.{path}"]


def test_all_faults_of_all_channels_are_said_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        {"type": "webhook", "url": SECRET, "kinds": ["x"], "language": "y"},
        "hello",
        {"type": "feishu", "secret": SECRET, "retries": 99},
    )
    assert set(found) == {
        "notify.0.url", "notify.0.kinds.0", "notify.0.language", "notify.1",
        "notify.2.webhook", "notify.2.secret", "notify.2.retries",
    }  # fmt: skip


def test_a_list_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(BASE | {"notify": {"type": "webhook"}}))
    with pytest.raises(ExperimentError, match="notify: must be a list"):
        load_experiment(file)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_secret_file_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    secret = tmp_path / "address"
    secret.write_text(f"https://example.test/{SECRET}")
    secret.chmod(mode)
    found = problems(tmp_path, {"type": "webhook", "url_file": str(secret)})
    assert f"chmod 600 {secret}" in found["notify.0.url_file"]
    assert f"{mode:o}" in found["notify.0.url_file"]


@pytest.mark.parametrize("content", ["", "\n\n", f"{SECRET}\nand more", "x" * 9000, b"\xff\xfe"])
def test_a_secret_file_holds_one_line(content: str | bytes, tmp_path: Path) -> None:
    secret = tmp_path / "address"
    secret.write_bytes(content.encode() if isinstance(content, str) else content)
    secret.chmod(0o600)
    found = problems(tmp_path, {"type": "webhook", "url_file": str(secret)})
    assert str(secret) in found["notify.0.url_file"]


def test_a_missing_secret_file_and_a_folder_are_named(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        {"type": "webhook", "url_file": str(tmp_path / "none")},
        {"type": "feishu", "webhook": "${HOOK}", "secret_file": str(tmp_path)},
    )
    assert "No such file" in found["notify.0.url_file"]
    both = {"type": "webhook", "url": "${HOOK}", "url_file": str(tmp_path / "none")}
    assert "give one of them" in problems(tmp_path, both)["notify.0.url"]
    assert str(tmp_path) in found["notify.1.secret_file"]


def test_secrets_are_read_and_stay_out_of_what_is_stored_and_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    experiment = load_experiment(
        write(
            tmp_path,
            {"type": "feishu", "webhook": "${HOOK}", "secret_file": str(secret)},
            {"type": "webhook", "url": "${HOOK}", "headers": {"Authorization": "Bearer ${WORD}"}},
            {"type": "apprise", "url": "mailto://me:${WORD}@mail.test"},
        )
    )
    feishu, webhook, mail = experiment.notify
    assert feishu.secret_of("secret") == SECRET
    assert webhook.secret_of("url") == f"https://example.test/{SECRET}"
    assert mail.secret_of("url") == f"mailto://me:{SECRET}@mail.test"
    assert SECRET not in repr(experiment) + str(experiment.notify)
    experiment.save(tmp_path / "saved.yaml")
    assert SECRET not in (tmp_path / "saved.yaml").read_text()
    assert load_experiment(tmp_path / "saved.yaml").notify == experiment.notify


def test_apprise_does_not_log_an_address_it_does_not_understand(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        problems(tmp_path, {"type": "apprise", "url": "nowhere://${WORD}"})
    assert SECRET not in caplog.text


def test_what_a_channel_takes(tmp_path: Path) -> None:
    everything, chosen, fallback = load_experiment(
        write(
            tmp_path,
            {"type": "webhook", "url": "${HOOK}"},
            {"type": "webhook", "url": "${HOOK}", "kinds": ["best", "done"]},
            {"type": "webhook", "url": "${HOOK}", "fallback": True},
        )
    ).notify
    assert len(everything.takes) == 9
    assert chosen.takes == {"best", "done"}
    assert fallback.takes == {"best", "crashed", "done"}


def test_the_schema_knows_every_channel() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = experiment_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    def faults(channel: dict[str, Any]) -> list[Any]:
        return list(validator.iter_errors(BASE | {"notify": [channel]}))

    assert not faults({"type": "apprise", "url_file": "x", "fallback": True, "language": "zh"})
    assert not faults({"type": "feishu", "webhook": "${A}", "secret": "${B}", "kinds": ["best"]})
    assert not faults({"type": "webhook", "url": "${A}", "heartbeat": {"trials": 5, "time": "30M"}})
    assert not faults({"type": "webhook", "url": "${A}", "headers": {"Authorization": "${B}"}})
    assert faults({"type": "pigeon"})
    assert faults({"type": "webhook", "url": "${A}", "kinds": ["besst"]})
    assert faults({"type": "webhook", "url": "${A}", "secret": "${B}"})

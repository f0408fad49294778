"""Flags and variables: what counts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.autotune.calls import prepared
from tests.tuner.autotune.repo import write_repo
from tuner.cli import main
from tuner.compat.autotune import SETTINGS, read_secrets, read_settings

DEFAULTS = {
    "repo": ".",
    "port": 8000,
    "eval_runs": 5,
    "startup_timeout": 240.0,
    "eval_timeout": 420.0,
    "cooldown": 1.0,
    "accuracy_threshold": 0.88,
    "results": "tune_results.jsonl",
    "best": "best_params.json",
    "server_log_dir": "tune_server_logs",
    "status_file": "tune_status.json",
    "heartbeat_trials": 10,
    "heartbeat_interval_s": 0.0,
    "search_space_file": "",
    "port_busy_retries": 3,
    "port_busy_wait_s": 10.0,
    "port_busy_kill": False,
    "notify_trial_done": False,
    "notify_trial_done_every": 1,
    "smtp_host": "",
    "smtp_port": 587,
    "smtp_user": "",
    "smtp_pass": "",
    "smtp_from": "",
    "smtp_to": "",
    "smtp_no_starttls": False,
    "smtp_ssl": False,
    "email_kinds": "best,crashed,done",
    "webhook_url": "",
    "webhook_kind": "feishu",
    "feishu_secret": "",
    "eval_command": "",
}


def test_flags_and_defaults_are_those_of_the_original() -> None:
    problems: list[tuple[str, str]] = []
    assert dict(read_settings({}, {}, problems).values) == DEFAULTS
    assert not problems


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_variable_says_what_its_flag_says(setting: object) -> None:
    name, variables = setting.name, setting.variables  # type: ignore[attr-defined]
    samples = {str: "x", bool: "1", int: "7", float: "7.5"}
    text = "generic" if name == "webhook_kind" else samples[type(DEFAULTS[name])]
    expected = read_settings({name: text}, {}, []).values[name]
    assert expected != DEFAULTS[name]
    for variable in variables:
        assert read_settings({}, {variable: text}, []).values[name] == expected


def test_a_flag_goes_before_variables_and_the_short_variable_before_the_long() -> None:
    both = {"HEARTBEAT_INTERVAL_S": "60", "TUNE_HEARTBEAT_INTERVAL_S": "600"}
    settings = read_settings({}, both, [])
    assert settings["heartbeat_interval_s"] == 60
    assert settings.notes == (
        "TUNE_HEARTBEAT_INTERVAL_S: does not count beside HEARTBEAT_INTERVAL_S",
    )
    assert read_settings({"heartbeat_interval_s": "5"}, both, [])["heartbeat_interval_s"] == 5
    assert read_settings({}, {"ACC": "", "EVAL_RUNS": "3"}, [])["accuracy_threshold"] == 0.88


def test_everything_wrong_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNE_PORT_BUSY_WAIT_S", "soon")
    monkeypatch.setenv("TUNE_WEBHOK_URL", "https://example.com")
    monkeypatch.setenv("TUNE_EMAIL_KINDS", "best,worst")
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    (tmp_path / "space.json").write_text('{"A": [], "B=C": ["1"], "D": ["1"]}')
    (tmp_path / "best_params.json").write_text("[1]")
    code = main(
        [
            *("auto-tune", "--repo", str(tmp_path), "--eval_runs", "none", "--port", "70000"),
            *("--accurracy_threshold", "0.9", "--smtp_to", "you@example.com"),
            *("--smtp_ssl", "--smtp_no_starttls", "--feishu_secret", "s"),
            *("--search_space_file", str(tmp_path / "space.json")),
            *("--notify_trial_done_every", "5"),
        ]
    )
    assert code == 2
    *lines, last = capsys.readouterr().err.splitlines()
    places = [line.split(": ")[1] for line in lines]
    assert places == [
        "--accurracy_threshold",
        "--best",
        "--eval_runs",
        "--feishu_secret",
        "--notify_trial_done_every",
        "--port",
        "--search_space_file",
        "--search_space_file",
        "--smtp_no_starttls",
        "--smtp_to",
        "0.9",
        "TUNE_EMAIL_KINDS",
        "TUNE_PORT_BUSY_WAIT_S",
        "TUNE_WEBHOK_URL",
    ]
    assert "was TUNE_WEBHOOK_URL meant?" in lines[-1]
    assert last == "14 problems; nothing was started"


def test_faults_of_the_experiment_are_placed_at_what_the_user_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNE_WEBHOOK_URL", "nowhere")
    call = ["auto-tune", "--repo", str(tmp_path), "--eval_command", "/none/evaluate", "--dry_run"]
    assert main(call) == 2
    said = capsys.readouterr().err
    assert "TUNE_WEBHOOK_URL: must be a URL" in said
    assert "run_model.sh.command: " in said or "run_model.sh: " in said
    assert "--eval_command: " in said
    assert "nowhere" not in said


def test_tune_secrets_are_read_as_if_sourced_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = write_repo(tmp_path)
    file = repo / "tune_secrets.sh"
    file.write_text(
        "#!/usr/bin/env bash\n# secrets\n\nexport TUNE_WEBHOOK_KIND=generic\n"
        "export TUNE_WEBHOOK_URL='https://example.com/$hook'\nTUNE_HEARTBEAT_INTERVAL_S=600 # s\n"
    )
    file.chmod(0o600)
    monkeypatch.setenv("TUNE_HEARTBEAT_INTERVAL_S", "5")
    call = prepared("--repo", str(repo))
    assert call.settings["heartbeat_interval_s"] == 600
    assert call.translation.secrets == {"TUNE_WEBHOOK_URL": "https://example.com/$hook"}


def test_secrets_that_others_can_read_or_that_need_a_shell_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tune_secrets.sh"
    file.write_text(
        'export TUNE_SMTP_PASS="$(cat /etc/passwd)"\nif true; then\nTUNE_SMTP_TO=a@b.c\n'
    )
    file.chmod(0o644)
    problems: list[tuple[str, str]] = []
    assert read_secrets(tmp_path, problems) == {"TUNE_SMTP_TO": "a@b.c"}
    assert [place for place, _ in problems] == [str(file), f"{file}:1", f"{file}:2"]
    assert "chmod 600" in problems[0][1]

"""The flags of ``auto_tune.py``, and the variables of ``auto_tune.sh`` that stand for them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.compat._options import Problems

PREFIX = "TUNE_"
SECRETS = ("TUNE_WEBHOOK_URL", "TUNE_FEISHU_SECRET", "TUNE_SMTP_PASS")
"""Variables whose values are never shown."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Setting:
    """One flag.

    Attributes:
        name: The flag without dashes.
        parse: From text; raises ``ValueError``.
        default: Used where neither flag nor variable says anything.
        variables: Looked at in this order where the flag is not given; an empty one says nothing.
        switch: The flag takes no value.
        help: For people.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    variables: tuple[str, ...] = ()
    switch: bool = False
    help: str = ""

    @property
    def flag(self) -> str:
        return f"--{self.name}"


def _text(text: str) -> str:
    return text


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is no whole number") from None
        if value < least or (most is not None and value > most):
            bound = f"at least {least}" if most is None else f"from {least} to {most}"
            raise ValueError(f"must be {bound}, not {value}")
        return value

    return parse


def _number(least: float, *, more: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{text!r} is no number") from None
        if not math.isfinite(value) or value < least or (more and value == least):
            raise ValueError(f"must be {'more than' if more else 'at least'} {least:g}, not {text}")
        return value

    return parse


def _truth(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r}: write 1 or 0")


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r}: write {' or '.join(words)}")
        return text

    return parse


_RETRIES = "TUNE_PORT_BUSY_RETRIES"
_EVERY = "TUNE_NOTIFY_TRIAL_DONE_EVERY"
SETTINGS = (
    Setting("repo", _text, ".", ("REPO",), help="folder of the scripts and of all outputs"),
    Setting("port", _whole(1, 65535), 8000, help="port of the server"),
    Setting("eval_runs", _whole(1), 5, ("EVAL_RUNS",), help="evaluations of each trial"),
    Setting("startup_timeout", _number(0, more=True), 240.0, ("STARTUP_TIMEOUT",)),
    Setting("eval_timeout", _number(0, more=True), 420.0, ("EVAL_TIMEOUT",)),
    Setting("cooldown", _number(0), 1.0, help="seconds of rest after a trial"),
    Setting("accuracy_threshold", _number(-math.inf), 0.88, ("ACC",)),
    Setting("results", _text, "tune_results.jsonl", ("RESULTS",), help="relative to the repo"),
    Setting("best", _text, "best_params.json"),
    Setting("server_log_dir", _text, "tune_server_logs"),
    Setting("status_file", _text, "tune_status.json"),
    Setting("heartbeat_trials", _whole(0), 10, ("HEARTBEAT_TRIALS",), help="0: none"),
    Setting(
        "heartbeat_interval_s",
        _number(0),
        0.0,
        ("HEARTBEAT_INTERVAL_S", "TUNE_HEARTBEAT_INTERVAL_S"),
        help="0: none",
    ),
    Setting("search_space_file", _text, "", ("SEARCH_SPACE_FILE", "TUNE_SEARCH_SPACE_FILE")),
    Setting("port_busy_retries", _whole(0), 3, ("PORT_BUSY_RETRIES", _RETRIES)),
    Setting("port_busy_wait_s", _number(0), 10.0, ("PORT_BUSY_WAIT_S", "TUNE_PORT_BUSY_WAIT_S")),
    Setting(
        "port_busy_kill", _truth, False, ("PORT_BUSY_KILL", "TUNE_PORT_BUSY_KILL"), switch=True
    ),
    Setting(
        "notify_trial_done",
        _truth,
        False,
        ("NOTIFY_TRIAL_DONE", "TUNE_NOTIFY_TRIAL_DONE"),
        switch=True,
    ),
    Setting("notify_trial_done_every", _whole(1), 1, ("NOTIFY_TRIAL_DONE_EVERY", _EVERY)),
    Setting("smtp_host", _text, "", ("TUNE_SMTP_HOST",)),
    Setting("smtp_port", _whole(1, 65535), 587, ("TUNE_SMTP_PORT",)),
    Setting("smtp_user", _text, "", ("TUNE_SMTP_USER",)),
    Setting("smtp_pass", _text, "", ("TUNE_SMTP_PASS",)),
    Setting("smtp_from", _text, "", ("TUNE_SMTP_FROM",)),
    Setting("smtp_to", _text, "", ("TUNE_SMTP_TO",)),
    Setting("smtp_no_starttls", _truth, False, ("TUNE_SMTP_NO_STARTTLS",), switch=True),
    Setting("smtp_ssl", _truth, False, ("TUNE_SMTP_SSL",), switch=True),
    Setting("email_kinds", _text, "best,crashed,done", ("TUNE_EMAIL_KINDS",)),
    Setting("webhook_url", _text, "", ("TUNE_WEBHOOK_URL",)),
    Setting("webhook_kind", _one_of("feishu", "generic"), "feishu", ("TUNE_WEBHOOK_KIND",)),
    Setting("feishu_secret", _text, "", ("TUNE_FEISHU_SECRET",)),
    Setting(
        "eval_command",
        _text,
        "",
        ("TUNE_EVAL_COMMAND",),
        help="what evaluates (default: the command built into auto_tune.py)",
    ),
)
_VARIABLES = {name: setting for setting in SETTINGS for name in setting.variables}


@dataclass(frozen=True)
class Settings:
    """What flags and variables say together.

    Attributes:
        values: By the name of the flag.
        places: Where each value that was given was given: a flag or a variable.
        notes: What was given and does not count.
    """

    values: Mapping[str, Any]
    places: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def place(self, name: str) -> str:
        """The flag or variable to name in a message."""
        return self.places.get(name, f"--{name}")


def read_settings(
    flags: Mapping[str, str | bool | None], environment: Mapping[str, str], problems: Problems
) -> Settings:
    """Every setting from its flag, else from its variables, else its default.

    Args:
        flags: By name; None where the flag is not given.
        problems: Takes what is wrong, each at its flag or variable.
    """
    values, places, notes = dict[str, Any](), dict[str, str](), list[str]()
    for setting in SETTINGS:
        values[setting.name] = setting.default
        given = list(_given(setting, flags.get(setting.name), environment))
        for place, text in given:
            try:
                value = setting.parse(text)
            except ValueError as error:
                problems.append((place, str(error)))
                continue
            if setting.name not in places:
                values[setting.name], places[setting.name] = value, place
            elif value != values[setting.name] and place != places[setting.name]:
                notes.append(f"{place}: does not count beside {places[setting.name]}")
    problems += _unknown(environment)
    settings = Settings(values, places, tuple(notes))
    problems += _contradictions(settings)
    return settings


def _given(
    setting: Setting, flag: str | bool | None, environment: Mapping[str, str]
) -> Iterable[tuple[str, str]]:
    """Places that say something, with what they say, the one that counts first."""
    if flag is not None:
        yield setting.flag, str(flag)
    for name in setting.variables:
        if environment.get(name, "") != "":
            yield name, environment[name]


def _unknown(environment: Mapping[str, str]) -> Problems:
    """Variables that look like a misspelt one of ours; other programs have ``TUNE_`` too."""
    ours = [name for name in _VARIABLES if name.startswith(PREFIX)]
    problems: Problems = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in ours:
            close = difflib.get_close_matches(name, ours, n=1, cutoff=0.85)
            if close:
                problems.append((name, f"unknown variable; was {close[0]} meant?"))
    return problems


def _contradictions(settings: Settings) -> Problems:
    """What does not go together."""
    problems: Problems = []
    mail = [name for name in ("smtp_to", "smtp_user", "smtp_pass", "smtp_from") if settings[name]]
    if settings["smtp_host"] and not settings["smtp_to"]:
        problems.append((settings.place("smtp_host"), "nobody to write to: give smtp_to as well"))
    if mail and not settings["smtp_host"]:
        problems.append((settings.place(mail[0]), "no server to send by: give smtp_host as well"))
    if settings["smtp_ssl"] and settings["smtp_no_starttls"]:
        said = "contradicts smtp_ssl, which needs no STARTTLS to begin with; give one of them"
        problems.append((settings.place("smtp_no_starttls"), said))
    if settings["smtp_pass"] and not settings["smtp_user"]:
        problems.append((settings.place("smtp_pass"), "whose password? give smtp_user as well"))
    if settings["feishu_secret"] and settings["webhook_kind"] == "generic":
        said = "contradicts webhook_kind generic, which signs nothing; give one of them"
        problems.append((settings.place("feishu_secret"), said))
    if settings["feishu_secret"] and not settings["webhook_url"]:
        said = "signs messages that go nowhere: give webhook_url as well"
        problems.append((settings.place("feishu_secret"), said))
    if settings["notify_trial_done_every"] > 1 and not settings["notify_trial_done"]:
        said = "says how often for what is not sent at all: give notify_trial_done as well"
        problems.append((settings.place("notify_trial_done_every"), said))
    return problems

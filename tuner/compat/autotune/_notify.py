"""The notification flags of ``auto_tune.py`` as a ``notify`` list."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from tuner.compat._options import Problems
from tuner.compat.autotune._settings import Settings
from tuner.experiment import KINDS

WEBHOOK = "TUNE_WEBHOOK_URL"
SECRET = "TUNE_FEISHU_SECRET"
MAIL = "AUTO_TUNE_MAIL_URL"
"""Variable that the address of the mail, password included, is put into."""


def notify_list(
    settings: Settings, problems: Problems
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The channels, and the variables that they refer to for their secrets.

    The webhook comes first; mail is for what it does not deliver, of the kinds in ``email_kinds``.
    """
    channels: list[dict[str, Any]] = []
    secrets: dict[str, str] = {}
    heartbeat = _heartbeat(settings)
    if settings["webhook_url"]:
        secrets[WEBHOOK] = settings["webhook_url"]
        channel = _webhook(settings, secrets)
        channel = _with(channel, _kinds(settings, heartbeat), heartbeat)
        channels.append(channel | _every(settings, channel))
    kinds = _email_kinds(settings, problems)
    if settings["smtp_host"] and settings["smtp_to"]:
        secrets[MAIL] = _address(settings)
        mail: dict[str, Any] = {"type": "apprise", "url": f"${{{MAIL}}}"}
        if channels:
            channels.append({**mail, "kinds": kinds, "fallback": True})
        else:
            mail = _with(mail, kinds, heartbeat if "heartbeat" in kinds else {})
            channels.append(mail | _every(settings, mail))
    return channels, secrets


def _every(settings: Settings, channel: dict[str, Any]) -> dict[str, int]:
    every: int = settings["notify_trial_done_every"]
    return {"trial_done_every": every} if every > 1 and "trial_done" in channel["kinds"] else {}


def _heartbeat(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if settings["heartbeat_trials"]:
        found["trials"] = settings["heartbeat_trials"]
    if settings["heartbeat_interval_s"]:
        found["time"] = settings["heartbeat_interval_s"]
    return found


def _kinds(settings: Settings, heartbeat: dict[str, Any]) -> list[str]:
    """All, but for what was not asked for."""
    left_out = {"trial_done"} if not settings["notify_trial_done"] else set()
    left_out |= set() if heartbeat else {"heartbeat"}
    return [kind for kind in KINDS if kind not in left_out]


def _email_kinds(settings: Settings, problems: Problems) -> list[str]:
    words = [word.strip() for word in settings["email_kinds"].split(",") if word.strip()]
    unknown = [word for word in words if word not in KINDS]
    if unknown:
        said = f"unknown: {', '.join(unknown)}; there are {', '.join(KINDS)}"
        problems.append((settings.place("email_kinds"), said))
    if not words and settings["smtp_host"]:
        problems.append((settings.place("email_kinds"), "names nothing to mail"))
    return [kind for kind in KINDS if kind in words]


def _webhook(settings: Settings, secrets: dict[str, str]) -> dict[str, Any]:
    if settings["webhook_kind"] == "generic":
        return {"type": "webhook", "url": f"${{{WEBHOOK}}}"}
    channel = {"type": "feishu", "webhook": f"${{{WEBHOOK}}}"}
    if settings["feishu_secret"]:
        secrets[SECRET] = settings["feishu_secret"]
        channel["secret"] = f"${{{SECRET}}}"
    return channel


def _with(channel: dict[str, Any], kinds: list[str], heartbeat: dict[str, Any]) -> dict[str, Any]:
    return {**channel, "kinds": kinds, **({"heartbeat": heartbeat} if heartbeat else {})}


def _address(settings: Settings) -> str:
    """As apprise writes it. The server is named apart: its name may be an address, while what
    stands before it is taken for the domain of the sender."""
    host, user = settings["smtp_host"], settings["smtp_user"]
    sender = settings["smtp_from"] or (user if "@" in user else settings["smtp_to"].split(",")[0])
    secure = settings["smtp_ssl"] or not settings["smtp_no_starttls"]
    mode = "ssl" if settings["smtp_ssl"] else "starttls" if secure else "insecure"
    login = ""
    if user:
        secret = f":{quote(settings['smtp_pass'], safe='')}" if settings["smtp_pass"] else ""
        login = f"{quote(user, safe='')}{secret}@"
    domain = sender.rpartition("@")[2].strip()
    query = {"smtp": host, "from": sender.strip(), "to": settings["smtp_to"], "mode": mode}
    scheme = "mailtos" if secure else "mailto"
    return f"{scheme}://{login}{domain}:{settings['smtp_port']}?{urlencode(query)}"

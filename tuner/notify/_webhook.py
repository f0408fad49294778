"""Channels that take JSON over HTTP: services of one's own, and Feishu."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from tuner.experiment import FeishuOptions, Kind, WebhookOptions
from tuner.notify._channel import Channel
from tuner.notify._errors import SendError
from tuner.notify._http import post_json
from tuner.notify._notice import Notice
from tuner.notify._texts import Text

_COLOURS: Mapping[Kind, str] = {
    "start": "blue",
    "heartbeat": "grey",
    "trial_done": "turquoise",
    "best": "green",
    "failed": "orange",
    "timeout": "orange",
    "crashed": "red",
    "abnormal": "yellow",
    "done": "indigo",
}
_ADVICE: Mapping[int, str] = {
    19021: "check the secret, and this machine's clock",
    19022: "this machine's address is not on the bot's allow list",
    19024: "the text has none of the bot's keywords; the experiment's name may be one",
}
_BUSY = (9499, 11232, 11233)
"""Answers of a Feishu that is overloaded or asked too often."""


class WebhookChannel(Channel[WebhookOptions]):
    """POSTs ``{kind, experiment, title, text, ...}``; any status 2xx is a success."""

    def send(self, text: Text, notice: Notice) -> None:
        options = self.options
        headers = {name: value.get_secret_value() for name, value in options.headers.items()}
        document = notice.to_json() | {"title": text.title, "text": text.body}
        post_json(options.secret_of("url") or "", document, headers, options.timeout)

    def _secrets(self) -> list[str]:
        values = [value.get_secret_value() for value in self.options.headers.values()]
        return [*super()._secrets(), *values]


class FeishuChannel(Channel[FeishuOptions]):
    """Sends an interactive card to a custom bot of a Feishu group.

    Args:
        clock: Seconds since 1970; Feishu refuses signatures that are more than an hour off.
    """

    def __init__(
        self, name: str, options: FeishuOptions, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(name, options)
        self._clock = clock

    def send(self, text: Text, notice: Notice) -> None:
        options = self.options
        message: dict[str, Any] = {"msg_type": "interactive", "card": _card(text, notice.kind)}
        secret = options.secret_of("secret")
        if secret is not None:
            timestamp = str(int(self._clock()))
            message |= {"timestamp": timestamp, "sign": sign(timestamp, secret)}
        answer = post_json(options.secret_of("webhook") or "", message, {}, options.timeout)
        _check(answer)


def sign(timestamp: str, secret: str) -> str:
    """Feishu's signature: HMAC-SHA256 of nothing, keyed with both lines, in base64.

    Source: Feishu's guide to custom bots, "signature verification".
    """
    key = f"{timestamp}\n{secret}".encode()
    return base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()


def _card(text: Text, kind: Kind) -> dict[str, Any]:
    """Plain text only: what a log says must not become markup or mention people."""
    elements = [{"tag": "div", "text": {"tag": "plain_text", "content": text.body or text.title}}]
    title = {"tag": "plain_text", "content": text.title}
    return {
        "config": {"wide_screen_mode": True},
        "header": {"title": title, "template": _COLOURS[kind]},
        "elements": elements,
    }


def _check(answer: bytes) -> None:
    """HTTP status 200 says only that Feishu has read the request."""
    try:
        document = json.loads(answer)
        code = document["code"]
    except (ValueError, KeyError, TypeError) as error:
        raise SendError("answer", "the answer has no code; this is no Feishu webhook") from error
    if code == 0:
        return
    said = f"Feishu's code {code}: {str(document.get('msg', ''))[:200]}"
    advice = _ADVICE.get(code) if isinstance(code, int) else None
    message = f"{said}; {advice}" if advice else said
    raise SendError(f"code {code}", message, lasting=code not in _BUSY)

"""Single sends to real local services: what counts as delivered, and what is said if it is not."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest
from pydantic import SecretStr

from tests.tuner.notify.sinks import HttpSink, SmtpSink
from tuner.experiment import AppriseOptions, FeishuOptions, WebhookOptions
from tuner.notify import Notice, Progress, sign, write
from tuner.notify._channel import Channel
from tuner.notify._channels import make_channels
from tuner.notify._errors import SendError
from tuner.notify._webhook import FeishuChannel

NOTICE = Notice(
    "done", "demo", "2026-11-28T00:00:00+00:00", Progress(measured=3), verdict="satisfied"
)
SECRET = "hunter2-the-password"


def webhook(url: str, **options: Any) -> Channel[Any]:
    return make_channels([WebhookOptions(url=SecretStr(url), **options)])[0]


def feishu(url: str, **options: Any) -> Channel[Any]:
    return make_channels([FeishuOptions(webhook=SecretStr(url), **options)])[0]


def send(channel: Channel[Any]) -> None:
    channel.send(write(NOTICE, channel.options.language), NOTICE)


def test_a_webhook_gets_the_facts_and_the_text(sink: HttpSink) -> None:
    send(webhook(f"{sink.url}/{SECRET}?a=b", headers={"Authorization": SecretStr("Bearer x")}))
    (received,) = sink.received
    assert received["path"] == f"/{SECRET}"
    assert received["headers"]["Authorization"] == "Bearer x"
    message = received["json"]
    assert (message["kind"], message["experiment"], message["verdict"]) == (
        "done", "demo", "satisfied",
    )  # fmt: skip
    assert message["progress"]["measured"] == 3
    assert message["title"] == "[demo] over, demands met"
    assert "trials: 3" in message["text"].splitlines()


def test_a_feishu_card_is_plain_text_and_signed(sink: HttpSink) -> None:
    options = FeishuOptions(webhook=SecretStr(sink.url), secret=SecretStr(SECRET), language="zh")
    send(FeishuChannel("notify.0 (feishu)", options, clock=lambda: 1599360473.9))
    message = sink.received[0]["json"]
    assert message["msg_type"] == "interactive"
    assert message["timestamp"] == "1599360473"
    assert message["sign"] == sign("1599360473", SECRET)
    assert message["card"]["header"]["title"] == {
        "tag": "plain_text", "content": "[demo] 运行结束，已达到要求",
    }  # fmt: skip
    assert message["card"]["elements"][0]["text"]["tag"] == "plain_text"
    assert "试验数：3" in message["card"]["elements"][0]["text"]["content"]


def test_a_feishu_bot_without_a_secret_gets_no_signature(sink: HttpSink) -> None:
    send(feishu(sink.url))
    assert not {"sign", "timestamp"} & set(sink.received[0]["json"])


def test_the_signature_is_that_of_openssl() -> None:
    """``openssl dgst -sha256 -hmac KEY -binary < /dev/null | base64``, KEY both lines."""
    assert sign("1599360473", "secret") == OPENSSL


OPENSSL = "q4jswNiMy51J5JuQV566yJat0/lQ/c+22kINzUgKsGU="


@pytest.mark.parametrize(
    ("answer", "reason", "lasting", "said"),
    [
        (500, "HTTP 500", False, "HTTP status 500"),
        (429, "HTTP 429", False, "429"),
        (404, "HTTP 404", True, "404"),
        (302, "HTTP 302", True, "302"),
        ({"code": 19021, "msg": "sign match fail"}, "code 19021", True, "clock"),
        ({"code": 19024, "msg": "Key Words Not Found"}, "code 19024", True, "keywords"),
        ({"code": 11232, "msg": "frequency limited"}, "code 11232", False, "frequency"),
        ({"StatusCode": 0}, "answer", False, "no code"),
        ([0], "answer", False, "no code"),
        ("<html>hello</html>", "answer", False, "no code"),
        ("hang", "timeout", False, "0.3 s"),
        ("drip", "timeout", False, "0.3 s"),
    ],
)
def test_what_is_no_success_for_feishu(
    sink: HttpSink, answer: Any, reason: str, lasting: bool, said: str
) -> None:
    sink.answer = lambda message: answer
    with pytest.raises(SendError) as caught:
        send(feishu(sink.url, timeout=0.3))
    assert (caught.value.reason, caught.value.lasting) == (reason, lasting)
    assert said in str(caught.value)
    assert len(sink.received) == 1, "a redirect was followed, or a send repeated"


def test_a_webhook_needs_no_code(sink: HttpSink) -> None:
    sink.answer = lambda message: "thanks"
    send(webhook(sink.url))
    assert len(sink.received) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_there(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(SendError) as caught:
            send(webhook(f"http://{host}:{port}/{SECRET}", timeout=5))
    assert SECRET not in str(caught.value)


def test_an_e_mail_arrives_through_apprise(mail: SmtpSink) -> None:
    send(make_channels([AppriseOptions(url=SecretStr(mail.url()), language="zh")])[0])
    (message,) = mail.received
    assert message["Subject"] == "[demo] 运行结束，已达到要求"
    assert message["To"] == "person@there.test"
    assert "试验数：3" in message.get_content()


def test_a_mail_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = (
            f"mailto://127.0.0.1:{silent.getsockname()[1]}?from=a@b.test&to=c@d.test&mode=insecure"
        )
        (channel,) = make_channels([AppriseOptions(url=SecretStr(url), timeout=0.3)])
        with pytest.raises(SendError):
            send(channel)


def test_a_refused_e_mail_is_an_error_without_its_secrets(
    mail: SmtpSink, caplog: pytest.LogCaptureFixture
) -> None:
    mail.refuses = True
    url = f"{mail.url()}&name={SECRET}"
    (channel,) = make_channels([AppriseOptions(url=SecretStr(url))])
    with caplog.at_level(logging.DEBUG), pytest.raises(SendError) as caught:
        send(channel)
    assert mail.received == []
    assert SECRET not in channel.discretion(str(caught.value))
    assert not [record for record in caplog.records if record.name == "apprise"]


@pytest.mark.parametrize(
    "secret",
    [
        "https://open.feishu.cn/open-apis/bot/v2/hook/0123-4567-89ab",
        "mailtos://me:p%40ss!@smtp.test:465/?to=you@there.test",
        "tgram://123456789:abcdefg_hijklmnop/987654321/",
        "plain secret",
    ],
)
def test_no_part_of_an_address_that_matters_is_shown(secret: str) -> None:
    channel = webhook("http://h/x", headers={"X-Token": SecretStr(secret)})
    masked = channel.discretion(f"cannot reach {secret}, not even {secret.rpartition('/')[2]}")
    for part in ("0123-4567-89ab", "p%40ss", "p@ss", "abcdefg", "987654321", "plain secret"):
        assert part not in masked
    assert masked.startswith("cannot reach ")


def test_the_library_logs_of_a_send_are_not_kept(
    sink: HttpSink, caplog: pytest.LogCaptureFixture
) -> None:
    from tuner.notify._unlogged import unlogged

    with caplog.at_level(logging.DEBUG):
        with unlogged():
            send(webhook(f"{sink.url}/{SECRET}"))
        assert SECRET not in caplog.text
        send(webhook(f"{sink.url}/{SECRET}"))
        assert SECRET in caplog.text, "nothing would have been logged anyway"

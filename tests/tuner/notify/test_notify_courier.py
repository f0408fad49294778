"""Messages on their way: order, repetitions, fallbacks, and that nothing waits for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.tuner.notify.sinks import HttpSink, SmtpSink
from tuner.experiment import AppriseOptions, ChannelOptions, Kind, WebhookOptions
from tuner.notify import Notice, Progress, Text
from tuner.notify._channel import Channel
from tuner.notify._channels import make_channels
from tuner.notify._courier import Courier
from tuner.notify._errors import SendError

SECRET = "hunter2-the-token"


def notice(kind: Kind, message: str = "") -> Notice:
    return Notice(kind, "demo", "2026-11-28T00:00:00+00:00", Progress(), message=message)


def webhook(url: str, **options: Any) -> WebhookOptions:
    return WebhookOptions.model_validate({"url": url, "timeout": 60, **options})


def courier(
    *options: ChannelOptions, said: list[str] | None = None, room: int = 100, pause: float = 0.01
) -> Courier:
    say: Callable[[str], None] = [].append if said is None else said.append
    return Courier(make_channels(options), say, pause=pause, room=room)


class Scripted(Channel[ChannelOptions]):
    """Fails, hangs and delivers as told.

    Attributes:
        work: Called with each message; what it raises, the send raises.
    """

    def __init__(self, work: Callable[[Notice], None], **options: Any) -> None:
        name = "fallback" if options.get("fallback") else "notify.0 (scripted)"
        super().__init__(name, ChannelOptions.model_validate(options))
        self.work = work
        self.delivered: list[str] = []

    def send(self, text: Text, notice: Notice) -> None:
        self.work(notice)
        self.delivered.append(notice.message)


def test_every_channel_gets_its_kinds_in_order(sink: HttpSink) -> None:
    way = courier(webhook(f"{sink.url}/all"), webhook(f"{sink.url}/some", kinds=["best", "done"]))
    kinds: list[Kind] = ["start", "trial_done", "best", "trial_done", "best", "done"]
    for kind in kinds:
        way.post(notice(kind))
    way.close()
    got = [(one["path"], one["json"]["kind"]) for one in sink.received]
    assert [kind for path, kind in got if path == "/all"] == kinds
    assert [kind for path, kind in got if path == "/some"] == ["best", "best", "done"]


def test_a_failure_that_passes_is_repeated(sink: HttpSink) -> None:
    answers = iter([500, 429, {}, {}])
    sink.answer = lambda message: next(answers)
    said: list[str] = []
    way = courier(webhook(sink.url, retries=2), said=said)
    way.post(notice("start"))
    sink.wait_for(lambda sink: len(sink.received) == 3)
    way.post(notice("done"))
    assert way.close() == {"notify.0 (webhook)": {"sent": 2, "failed": 0, "dropped": 0}}
    assert sink.kinds == ["start", "start", "start", "done"]
    assert said == []


def test_a_refusal_is_not_repeated_and_said_once_without_the_address(sink: HttpSink) -> None:
    sink.answer = lambda message: 403
    said: list[str] = []
    way = courier(webhook(f"{sink.url}/{SECRET}", retries=5), said=said)
    for _ in range(3):
        way.post(notice("trial_done"))
    sink.wait_for(lambda sink: len(sink.received) == 3)
    assert way.close()["notify.0 (webhook)"] == {"sent": 0, "failed": 3, "dropped": 0}
    assert len(sink.received) == 3
    assert len(said) == 2, "one line for the failure, one at the end"
    assert "HTTP status 403" in said[0] and "3 not delivered" in said[1]
    assert SECRET not in "".join(said)


def test_the_fallback_gets_what_the_others_did_not_deliver(sink: HttpSink, mail: SmtpSink) -> None:
    sink.answer = lambda message: 500 if message["kind"] != "start" else {}
    way = courier(
        webhook(f"{sink.url}/one", retries=0),
        AppriseOptions(url=SecretStr(mail.url()), fallback=True),
    )
    for kind in ("start", "trial_done", "best", "failed", "crashed", "done"):
        way.post(notice(kind))
    way.close()
    subjects = [message["Subject"] for message in mail.received]
    assert [subject.split("] ")[1].split(",")[0] for subject in subjects] == [
        "new best", "the run crashed", "over",
    ]  # fmt: skip


def test_one_delivery_of_several_is_enough(sink: HttpSink) -> None:
    way = courier(
        webhook("http://127.0.0.1:1/", retries=0),
        webhook(f"{sink.url}/good"),
        webhook(f"{sink.url}/fallback", fallback=True),
    )
    way.post(notice("best"))
    way.close()
    assert [one["path"] for one in sink.received] == ["/good"]


def test_a_fallback_alone_is_used_for_its_kinds(sink: HttpSink) -> None:
    way = courier(webhook(sink.url, fallback=True), webhook(f"{sink.url}/x", kinds=["heartbeat"]))
    for kind in ("start", "best", "done"):
        way.post(notice(kind))
    way.close()
    assert sink.kinds == ["best", "done"]


def test_a_service_that_hangs_delays_nobody(sink: HttpSink) -> None:
    hangs = iter(["hang"])
    sink.answer = lambda message: next(hangs, {}) if message["message"] == "bad" else {}
    said: list[str] = []
    way = courier(
        webhook(f"{sink.url}/a", kinds=["failed"], timeout=1.5, retries=0),
        webhook(f"{sink.url}/b", kinds=["best"]),
        webhook(f"{sink.url}/c", kinds=["failed"], fallback=True),
        said=said,
    )
    way.post(notice("failed", "bad"))
    for _ in range(20):
        way.post(notice("best"))
    sink.wait_for(lambda sink: sink.kinds.count("best") == 20)
    way.close()
    assert [one["path"] for one in sink.received if one["json"]["kind"] == "failed"] == ["/a", "/c"]
    assert "no answer within 1.5 s" in said[0]


def test_a_send_that_never_returns_is_given_up_and_not_sent_twice() -> None:
    """As a name server that does not answer: no timeout of a socket reaches it."""
    released = threading.Event()
    started: list[str] = []

    def hang(message: Notice) -> None:
        started.append(message.message)
        assert released.wait(240)

    channel, spare = Scripted(hang, timeout=0.1, retries=3), Scripted(lambda message: None,
                                                                      fallback=True)  # fmt: skip
    said: list[str] = []
    way = Courier([channel, spare], said.append, pause=0.01)
    way.post(notice("best", "first"))
    way.post(notice("done", "second"))
    way.close()
    released.set()
    assert started == ["first"]
    assert spare.delivered == ["first", "second"]
    assert len(said) == 2


def test_posting_to_a_dead_channel_takes_no_time_and_drops_what_can_be_spared() -> None:
    released, busy = threading.Event(), threading.Event()

    def wait(message: Notice) -> None:
        busy.set()
        assert released.wait(240)

    channel = Scripted(wait, timeout=60)
    said: list[str] = []
    way = Courier([channel], said.append, room=5)
    way.post(notice("start", "start"))
    assert busy.wait(120)
    for number in range(3):
        way.post(notice("best", f"best {number}"))
    for number in range(50):
        way.post(notice("trial_done", f"trial {number}"))
        way.post(notice("heartbeat", f"beat {number}"))
    way.post(notice("done", "done"))
    released.set()
    tally = way.close()["notify.0 (scripted)"]
    assert channel.delivered == ["start", "best 0", "best 1", "best 2", "beat 49", "done"]
    assert tally["sent"] == 6 and tally["dropped"] > 0
    assert [line for line in said if "5 messages wait" in line] == said[:1]


def test_a_newer_heartbeat_takes_the_place_of_one_that_waits() -> None:
    released, busy = threading.Event(), threading.Event()

    def wait(message: Notice) -> None:
        busy.set()
        assert released.wait(240)

    channel = Scripted(wait, timeout=60)
    way = Courier([channel], [].append)
    way.post(notice("start", "start"))
    assert busy.wait(120)
    for number in range(1000):
        way.post(notice("heartbeat", str(number)))
    released.set()
    assert way.close()["notify.0 (scripted)"] == {"sent": 2, "failed": 0, "dropped": 0}
    assert channel.delivered == ["start", "999"]


@pytest.mark.parametrize("fault", [ValueError(SECRET), MemoryError(), OSError("x"), SystemExit(1)])
def test_whatever_a_channel_raises_is_counted_and_goes_no_further(fault: BaseException) -> None:
    def broken(message: Notice) -> None:
        raise fault

    channel = Scripted(broken, retries=0)
    way = Courier([channel], [].append)
    way.post(notice("start"))
    way.post(notice("done"))
    assert way.close()["notify.0 (scripted)"] == {"sent": 0, "failed": 2, "dropped": 0}


def test_a_user_interface_that_fails_hurts_nobody(sink: HttpSink) -> None:
    def say(line: str) -> None:
        raise BrokenPipeError

    sink.answer = lambda message: 403 if message["kind"] == "start" else {}
    way = Courier(make_channels([webhook(sink.url)]), say)
    way.post(notice("start"))
    way.post(notice("done"))
    way.close()
    assert sink.kinds == ["start", "done"]


def test_the_end_of_a_run_waits_for_two_sends_of_a_dead_channel_at_most() -> None:
    """Fifty messages that would take a second each; what counts is the last one."""
    tried: list[str] = []

    def refuse(message: Notice) -> None:
        tried.append(message.message)
        time.sleep(0.05)
        raise SendError("refused", "no")

    spare = Scripted(lambda message: None, fallback=True, kinds=["best", "done"])
    way = Courier([Scripted(refuse, timeout=1, retries=5), spare], [].append, pause=60)
    for number in range(50):
        way.post(notice("best", str(number)))
    way.post(notice("done", "done"))
    way.close()
    assert tried[0] == "0" and tried[-1] == "done" and len(tried) < 10
    assert spare.delivered == [*map(str, range(50)), "done"]


def test_after_the_end_nothing_is_sent(sink: HttpSink) -> None:
    way = courier(webhook(sink.url))
    way.close()
    way.post(notice("done"))
    assert way.close() == {"notify.0 (webhook)": {"sent": 0, "failed": 0, "dropped": 0}}
    assert sink.received == []


KINDS_SENT = st.sampled_from(["trial_done", "best", "failed", "done"])


@settings(max_examples=40, deadline=None)
@given(kinds=st.lists(KINDS_SENT, max_size=12), failing=st.sets(st.integers(0, 11)))
def test_every_message_is_delivered_once_by_channel_or_fallback_and_in_order(
    kinds: list[Kind], failing: set[int]
) -> None:
    def sometimes(message: Notice) -> None:
        if int(message.message) in failing:
            raise SendError("refused", "no", lasting=True)

    channel = Scripted(sometimes)
    spare = Scripted(lambda message: None, fallback=True, kinds=["best", "failed", "done"])
    way = Courier([channel, spare], [].append)
    for number, kind in enumerate(kinds):
        way.post(notice(kind, str(number)))
    way.close()
    through, over = [int(one) for one in channel.delivered], [int(one) for one in spare.delivered]
    assert through == sorted(through) and over == sorted(over)
    assert not set(through) & set(over)
    for number, kind in enumerate(kinds):
        wanted = kind != "trial_done" or number not in failing
        assert ((number in through) or (number in over)) is wanted

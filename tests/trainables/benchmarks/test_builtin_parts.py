"""Schedules, streams and windows of the built-in benchmark, one by one."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trainables.benchmarks import Load, make_benchmark
from trainables.benchmarks._builtin_options import BuiltinOptions
from trainables.benchmarks._builtin_run import due_times
from trainables.benchmarks._builtin_schedule import arrivals, closed_loop, rescaled
from trainables.benchmarks._builtin_stream import Events, Heard, Refused
from trainables.benchmarks._builtin_windows import WindowLog, WindowReader
from trainables.benchmarks._workload import Ask


@given(st.integers(1, 200), st.floats(0.01, 1000), st.integers(0, 9), st.floats(0.05, 50))
def test_arrivals_come_at_exactly_the_rate(
    count: int, rate: float, seed: int, burstiness: float
) -> None:
    due = arrivals(count, rate, seed, burstiness=burstiness)
    assert len(due) == count
    assert due[0] == 0
    assert due == sorted(due)
    assert due[-1] == pytest.approx((count - 1) / rate, rel=1e-6)
    assert due == arrivals(count, rate, seed, burstiness=burstiness)


def test_gaps_are_distributed_as_told() -> None:
    def variation(**how: Any) -> float:
        due = arrivals(20001, 10, 0, **how)
        gaps = [b - a for a, b in itertools.pairwise(due)]
        assert statistics.fmean(gaps) == pytest.approx(0.1)
        return statistics.pstdev(gaps) / 0.1

    assert variation() == pytest.approx(1, rel=0.05)  # of an exponential distribution
    assert variation(burstiness=4) == pytest.approx(0.5, rel=0.05)
    assert variation(burstiness=0.25) == pytest.approx(2, rel=0.1)
    assert variation(how="constant") == pytest.approx(0, abs=1e-6)
    assert arrivals(9, 1, 0) != arrivals(9, 1, 1)


def test_recorded_arrivals_are_kept_or_stretched() -> None:
    assert rescaled([5, 6, 9], None) == [0, 1, 4]
    assert rescaled([5, 6, 9], 1.0) == [0, 0.5, 2.0]
    assert rescaled([5, 5], 1.0) == [0, 0]
    assert rescaled([5], 1.0) == [0]


def test_what_the_load_makes_of_arrivals() -> None:
    options = BuiltinOptions()
    plain = [Ask("a", 1, 1)] * 3
    recorded = [Ask("a", 1, 1, arrival=at) for at in (0.0, 1.0, 4.0)]
    assert due_times(plain, options, Load(), 0) is None
    assert due_times(plain, options, Load(concurrency=2), 0) is None
    assert due_times(plain, options, Load(concurrency=2, request_rate=2), 0) is not None
    assert due_times(recorded, options, Load(), 0) == [0, 1, 4]
    assert due_times(recorded, options, Load(request_rate=2), 0) == [0, 0.25, 1]
    assert due_times(recorded, options, Load(concurrency=2), 0) is None


def test_a_closed_loop_sends_when_another_one_ends() -> None:
    running, most, order = 0, 0, []

    async def send(number: int, due: float, since: float) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(number)
        await asyncio.sleep(0.001 * (number % 3))
        running -= 1

    asyncio.run(closed_loop(20, 3, send))
    assert most == 3
    assert order == list(range(20))


STREAM = (
    b'data: {"choices": [{"text": "a", "finish_reason": null}]}\r\n\r\n'
    b": a comment\n\n"
    b'data:{"choices": [{"text": "", "finish_reason": null}]}\n\n'
    b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}\n\n'
    b"data: [DONE]\n\n"
)


@given(st.lists(st.integers(1, len(STREAM) - 1)))
def test_events_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    events, heard = Events(), Heard()
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    for at, piece in enumerate(pieces):
        for event in events.feed(piece):
            heard.take(event, float(at))
    assert heard.chunks == 2  # one without text: half of a character
    assert heard.usage == (5, 2)
    assert heard.ended
    assert sum(heard.gaps) == heard.last - (heard.first or 0.0)


@pytest.mark.parametrize(
    ("choice", "brings"),
    [
        ({"delta": {"role": "assistant", "content": ""}, "finish_reason": None}, False),
        ({"delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}, True),
        ({"delta": {"content": "Hi"}, "finish_reason": None}, True),
        ({"delta": {"content": ""}, "finish_reason": None}, True),
        ({"delta": {"reasoning_content": "Hm"}, "finish_reason": None}, True),
        ({"delta": {}, "finish_reason": "stop"}, False),
        ({"delta": {"content": "!"}, "finish_reason": "stop"}, True),
        ({"text": "!", "finish_reason": "length"}, True),
        ({"text": "", "finish_reason": "stop"}, False),
    ],
)
def test_which_chunks_bring_tokens(choice: dict[str, Any], brings: bool) -> None:
    heard = Heard()
    assert heard.take(json.dumps({"choices": [choice]}).encode(), 1.0) == brings
    assert heard.chunks == brings


@pytest.mark.parametrize(("tokens", "first"), [(1, 2.0), (0, None)])
def test_an_answer_of_half_a_character_came_with_its_end(tokens: int, first: float | None) -> None:
    heard = Heard()
    heard.take(b'{"choices": [{"text": "", "finish_reason": "length"}]}', 2.0)
    usage = {"prompt_tokens": 5, "completion_tokens": tokens}
    heard.take(json.dumps({"choices": [], "usage": usage}).encode(), 3.0)
    assert heard.settle() == bool(tokens)
    assert (heard.first, heard.chunks) == (first, tokens)


@pytest.mark.parametrize("event", [b"{", b"[]", b'{"error": {"message": "no"}}'])
def test_errors_in_an_answer(event: bytes) -> None:
    with pytest.raises(Refused):
        Heard().take(event, 1.0)


def test_windows_are_read_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "windows.jsonl"
    reader = WindowReader(file)
    assert reader.windows() == ()
    with file.open("w") as stream:
        log = WindowLog(stream, begin=10.0)
        log.sent()
        log.answered(0.25)
        log.tokens(3)
        log.close(11.0)
        (first,) = reader.windows()
        assert (first.begin, first.end, first.running, first.output_tokens) == (0, 1, 1, 3)
        assert list(first.ttft_s) == [0.25]
        log.ended(failed=False, tpot=0.1)
        stream.write('{"begin": 1.0')
        stream.flush()
        assert reader.windows() == (first,)
    again = io.StringIO()
    log = WindowLog(again, begin=0.0)
    log.sent()
    log.ended(failed=True, tpot=None)
    log.close(2.0)
    file.unlink()
    file.write_text(again.getvalue())
    (other,) = reader.windows()
    assert (other.failed, other.completed, other.end) == (1, 0, 2)


def test_options_that_cannot_be() -> None:
    for change, where in (
        ({"extra_body": {"stream": False}}, ("extra_body",)),
        ({"requests": 0}, ("requests",)),
        ({"endpoint": "chat", "workload": {"type": "random", "form": "token_ids"}}, ()),
        ({"goodput": {"itl_s": 1}}, ("goodput", "itl_s")),
        ({"port": 8000}, ("port",)),
    ):
        with pytest.raises(ValidationError) as caught:
            make_benchmark({"type": "builtin", **change})
        assert caught.value.errors()[0]["loc"] == where

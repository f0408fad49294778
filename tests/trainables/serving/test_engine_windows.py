"""What a window is made of where only the engine tells."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from trainables.serving import _engine_windows
from trainables.serving._engine_windows import EngineWindows, read_counters, window

RECORDED = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:generation_tokens_total{engine="0",model_name="tiny"} 20917.0
vllm:generation_tokens_created{engine="0",model_name="tiny"} 1.7955475178361745e+09
vllm:request_success_total{engine="0",finished_reason="stop",model_name="tiny"} 2.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 219.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="tiny"} 0.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 221.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="tiny"} 22.1
vllm:request_time_per_output_token_seconds_count{engine="0",model_name="tiny"} 221.0
vllm:request_time_per_output_token_seconds_sum{engine="0",model_name="tiny"} 4.42
process_cpu_seconds_total 12.5
"""


def test_counters_are_summed_over_their_labels() -> None:
    counters = read_counters(RECORDED)
    assert counters["vllm:request_success_total"] == 221
    assert counters["vllm:generation_tokens_total"] == 20917
    assert "process_cpu_seconds_total" not in counters


def test_a_window_is_what_has_grown() -> None:
    before = read_counters(RECORDED)
    after = before | {
        "vllm:generation_tokens_total": 21017.0,
        "vllm:request_success_total": 223.0,
        "vllm:time_to_first_token_seconds_count": 224.0,
        "vllm:time_to_first_token_seconds_sum": 22.7,
        "vllm:request_time_per_output_token_seconds_count": 223.0,
        "vllm:request_time_per_output_token_seconds_sum": 4.5,
    }
    seen = window(before, after, 2.0, 4.0)
    assert (seen.completed, seen.output_tokens, seen.running) == (2, 100, 3)
    assert seen.ttft_s == pytest.approx([0.2] * 3)
    assert seen.tpot_s == pytest.approx([0.04] * 2)


class _Metrics(http.server.BaseHTTPRequestHandler):
    text = RECORDED
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200 if self.text else 404)
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(_engine_windows, "_EVERY_S", 0.0)
    monkeypatch.setattr(_Metrics, "asked", 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metrics)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_first_reading_is_only_a_beginning(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = EngineWindows(engine)
    assert windows.news() == []
    monkeypatch.setattr(_Metrics, "text", RECORDED.replace("20917.0", "20950.0"))
    (seen,) = windows.news()
    assert seen.output_tokens == 33


def test_an_engine_without_counters_is_asked_once(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Metrics, "text", "")
    windows = EngineWindows(engine)
    assert [windows.news() for _ in range(3)] == [[], [], []]
    assert _Metrics.asked == 1

"""Windows of a run from the engine's counters, where a benchmark tells nothing before its end.

vLLM counts tokens, requests and latencies at ``/metrics`` in Prometheus' text format; the
difference of two readings is a window. A latency there begins when the engine got the request, so
it is never more than what the client sees: what breaks a limit here breaks it there.
"""

from __future__ import annotations

import re
import time

import httpx

from trainables.benchmarks import Window

_SAMPLE = re.compile(r"^(vllm:\w+)(?:\{[^}]*\})? ([0-9.eE+-]+|NaN|\+Inf)$", re.MULTILINE)
_TOKENS = "vllm:generation_tokens_total"
_ENDED = "vllm:request_success_total"
_RUNNING = "vllm:num_requests_running"
_TTFT = "vllm:time_to_first_token_seconds"
_TPOT = ("vllm:request_time_per_output_token_seconds", "vllm:time_per_output_token_seconds")
_EVERY_S = 2.0
_PATIENCE_S = 0.5
_MOST_FAULTS = 3


def read_counters(text: str) -> dict[str, float]:
    """Samples of vLLM's metrics by name, summed over labels such as engine and reason."""
    found: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def window(before: dict[str, float], after: dict[str, float], begin: float, end: float) -> Window:
    """What happened between two readings; latencies are the mean of each request that counted."""

    def grown(name: str) -> float:
        return max(0.0, after.get(name, 0.0) - before.get(name, 0.0))

    def means(*names: str) -> tuple[float, ...]:
        for name in names:
            if count := round(grown(f"{name}_count")):
                return (grown(f"{name}_sum") / count,) * count
        return ()

    return Window(
        begin,
        end,
        completed=round(grown(_ENDED)),
        failed=0,
        output_tokens=round(grown(_TOKENS)),
        running=round(after.get(_RUNNING, 0.0)),
        ttft_s=means(_TTFT),
        tpot_s=means(*_TPOT),
    )


class EngineWindows:
    """Reads an engine's counters now and then, as long as it has any."""

    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/metrics"
        self._begun = self._last = time.monotonic()
        self._counters: dict[str, float] | None = None
        self._faults = 0

    def news(self) -> list[Window]:
        """The windows since the last call; blocks for half a second at most."""
        now = time.monotonic()
        if self._faults >= _MOST_FAULTS:
            return []
        if self._counters is not None and now - self._last < _EVERY_S:
            return []
        counters = self._read()
        before, self._counters = self._counters, counters or self._counters
        if counters is None or before is None:
            return []
        begin, self._last = self._last - self._begun, now
        return [window(before, counters, begin, now - self._begun)]

    def _read(self) -> dict[str, float] | None:
        try:
            reply = httpx.get(self._url, timeout=_PATIENCE_S, trust_env=False)
        except httpx.HTTPError:
            self._faults += 1
            return None
        counters = read_counters(reply.text) if reply.status_code == 200 else {}
        self._faults = 0 if _TOKENS in counters else _MOST_FAULTS
        return counters or None

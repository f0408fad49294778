"""What every number of a benchmark means, once and for all.

For one request that succeeded, with n output tokens, sent at ``sent``, whose tokens became visible
to the client at ``t1 <= ... <= tk`` (an engine may send several tokens at once, so k <= n):

* TTFT: ``t1 - sent``, time to first token.
* E2EL: ``end - sent``, end-to-end latency; ``end`` is when the last token had arrived.
* TPOT: ``(E2EL - TTFT) / (n - 1)``, time per output token; a request with n = 1 has none.
* ITL: each ``t[i+1] - t[i]``, inter-token latency, over all requests together. A gap that brought
  several tokens is one gap.

``sent`` is the time at which an open loop had the request due, so that neither a slow service nor
a slow client hides a wait (no coordinated omission); where a limit on the concurrency held it back,
it is when it got its place, and in a closed loop when an earlier one ended.

Over a run, with ``duration`` from the first request sent to the last response ended:

* ``output_tokens_per_s``, ``total_tokens_per_s`` (prompt and output), ``requests_per_s``: those of
  succeeded requests, over the duration.
* ``goodput_per_s``: requests that succeeded and kept every bound of the goodput, per second.
* ``success_rate``: succeeded / sent, in [0, 1].
* ``concurrency``, ``request_rate``: the load that was asked for; absent where it is unlimited.
* ``mean_concurrency``: sum of E2EL over the duration (Little's law).

Percentiles lie between the two nearest ranks, interpolated linearly, as numpy's do by default.

Sources: vLLM's ``vllm bench serve``, AISBench's performance documentation; both agree with this.
Tools that divide by n instead of n - 1 are converted when they are read.
"""

from __future__ import annotations

LATENCIES = ("ttft", "tpot", "itl", "e2el")
STATISTICS = ("mean", "min", "max", "p50", "p75", "p90", "p95", "p99")
THROUGHPUTS = ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_per_s")
OTHERS = (
    "success_rate",
    "duration_s",
    "requests",
    "input_tokens",
    "output_tokens",
    "concurrency",
    "request_rate",
    "mean_concurrency",
)


def latency_name(latency: str, statistic: str) -> str:
    """The metric of a statistic of a latency, in seconds: ``ttft_p99_s``."""
    return f"{latency}_{statistic}_s"


ALL = frozenset(
    {
        *THROUGHPUTS,
        *OTHERS,
        *(latency_name(latency, one) for latency in LATENCIES for one in STATISTICS),
    }
)
"""Every metric a benchmark may report. An adapter leaves out what its tool does not tell."""

REQUIRED = frozenset(
    {
        "output_tokens_per_s",
        "requests_per_s",
        "success_rate",
        "duration_s",
        "requests",
        "ttft_mean_s",
        "tpot_mean_s",
    }
)
"""What every adapter reports of a run in which at least one request succeeded with two tokens."""

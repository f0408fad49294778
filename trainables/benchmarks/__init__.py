"""Benchmarks: load on a running service, and what it did to it.

What an adapter has to keep is checked by :mod:`trainables.benchmarks.testing`; what every number
means is said in :mod:`trainables.benchmarks._metrics`.
"""

from trainables.benchmarks._ais_bench_results import read_ais_bench_performance
from trainables.benchmarks._benchmark import (
    DEFAULT,
    Benchmark,
    BenchmarkResult,
    Load,
    Target,
    Window,
    benchmark_type,
    benchmark_types,
    make_benchmark,
    register_benchmark,
)
from trainables.benchmarks._foreign import ResultError
from trainables.benchmarks._metrics import ALL as METRICS
from trainables.benchmarks._metrics import LATENCIES, STATISTICS, latency_name
from trainables.benchmarks._vllm_benchmark_results import read_vllm_bench_json

__all__ = [
    "DEFAULT",
    "LATENCIES",
    "METRICS",
    "STATISTICS",
    "Benchmark",
    "BenchmarkResult",
    "Load",
    "ResultError",
    "Target",
    "Window",
    "benchmark_type",
    "benchmark_types",
    "latency_name",
    "make_benchmark",
    "read_ais_bench_performance",
    "read_vllm_bench_json",
    "register_benchmark",
]

"""benchmark: {type: my-benchmark}: a load tool of one's own, beside the built-in ones.

This one only differs from the built-in benchmark in its name; a tool that is a program runs in
``trial.program(...)``, as trainables/benchmarks/_vllm_benchmark.py does.
"""

from __future__ import annotations

from typing import Any, Literal

from trainables.benchmarks import Benchmark, benchmark_type

Builtin: Any = benchmark_type("builtin")


class MyOptions(Builtin.Options):
    type: Literal["my-benchmark"] = "my-benchmark"


class MyBenchmark(Builtin):
    Options = MyOptions

    def identity(self) -> Any:
        return {**super().identity(), "type": "my-benchmark"}


assert issubclass(MyBenchmark, Benchmark)

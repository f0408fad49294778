"""What the command line of ``msserviceprofiler optimizer`` says, understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tuner.compat._options import Problems, Tools

ENGINES = ("mindie", "vllm")
BENCHMARKS = ("ais_bench", "vllm_benchmark")
LOG_VARIABLE = "MODELEVALSTATE_LEVEL"
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


_NO_SPLIT = (
    "the settings of vllm cannot say how many instances there are and how they pass KV caches, and "
    "the original ignores the flag; take what --print-experiment prints without it, make it an "
    "experiment with trial.type: disaggregated and search.type: pd_split, and start that with run"
)


@dataclass(frozen=True)
class OptimizerRequest:
    """Everything but the settings.

    Attributes:
        disaggregated: Prefill and decode apart.
        everywhere: Trials on all nodes of the Ray cluster that this machine belongs to.
        native: Search the load inside each trial, and maximise throughput within the SLO.
        search: Type of the strategy; None: the one that fits ``native``.
        backup: Keep a copy of what each trial leaves.
        device: Where the engine runs.
        environment: Variables of the caller.
        cwd: Folder that relative paths of the settings refer to.
    """

    engine: str = "mindie"
    benchmark: str = "ais_bench"
    disaggregated: bool = False
    everywhere: bool = False
    native: bool = False
    search: str | None = None
    backup: bool = False
    device: Literal["npu", "cpu"] = "npu"
    tools: Tools = field(default_factory=Tools)
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)


def request_problems(engine: str, benchmark: str, deploy_policy: str, pd: str) -> Problems:
    """What cannot be had, and what to do instead."""
    problems: Problems = []
    for flag, value, known in (
        ("--engine", engine, ENGINES),
        ("--benchmark_policy", benchmark, BENCHMARKS),
    ):
        if value not in known:
            said = f"unknown {value!r}; there are {', '.join(known)}"
            problems.append((flag, said))
    if pd == "disaggregation" and engine == "vllm":
        problems.append(("--pd", _NO_SPLIT))
    if pd == "disaggregation" and deploy_policy == "multiple":
        said = "the scripts of Kubernetes deploy on the node they lie on; start it with -d single"
        problems.append(("--deploy_policy", said))
    return problems


def parse_level(environment: Mapping[str, str]) -> str | None:
    """The level that ``MODELEVALSTATE_LEVEL`` sets; None when it is not set.

    Raises:
        ValueError: It is none.
    """
    text = environment.get(LOG_VARIABLE)
    if not text:
        return None
    if text.lower() not in LOG_LEVELS:
        raise ValueError(f"{text!r}: write {', '.join(LOG_LEVELS)}")
    return text.lower()


def has_npu(devices: Path = Path("/dev")) -> bool:
    """Whether this machine has Ascend NPUs."""
    return any(devices.glob("davinci[0-9]*"))

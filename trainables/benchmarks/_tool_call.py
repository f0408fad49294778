"""One run of somebody else's benchmark: the stage that calls it, and the call inside."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from trainables._aisbench import failure_class
from trainables._program import StageError
from trainables._tool import SHELL_PROMPT, run_tool, tool_environment
from trainables._trial import Json, Progress, TrialRun
from trainables.benchmarks._benchmark import Benchmark, BenchmarkResult, Load

_REPORT_S = 30.0
"""What a stage program needs, beyond the time its tool may take, to begin and to report."""
_LISTEN_S = 10.0
_PROXY = ("NO_PROXY", "no_proxy")


class ToolCall(BaseModel):
    """Everything about one run, as JSON.

    Attributes:
        argv: The command line.
        env: Additions to the environment.
        defaults: Additions where the environment has nothing of the name.
        folder: Where the tool works.
        log: File to which this program's own output goes, and the tool's with it.
        base_url: The service that is measured.
        timeout: Seconds until the tool is stopped.
        suggestion: What to do when the tool cannot be started.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    argv: list[str]
    env: dict[str, str] = {}
    defaults: dict[str, str] = {}
    folder: str
    log: str
    base_url: str
    timeout: float
    suggestion: str

    @property
    def address(self) -> tuple[str, int]:
        """Host without brackets, and port."""
        url = urlsplit(self.base_url)
        return url.hostname or "", url.port or 80


def tool_stage(
    benchmark: Benchmark,
    trial: TrialRun,
    call: ToolCall,
    load: Load,
    *,
    program: str,
    stage: str,
    seed: int,
    version: str | None,
    **request: Json,
) -> Generator[Progress, None, BenchmarkResult]:
    """One run of ``benchmark`` as a stage of the trial.

    Args:
        call: How its tool is called.
        program: The stage program. Its answer has ``metrics``, ``data``, ``artifacts`` (name to
            path) and ``asked``, which it returns as it was; an answer of an earlier attempt holds
            as long as ``asked`` is the same and the artifacts are there.
        version: The tool's.
        request: What the program needs beside ``call`` and ``asked``.
    """
    asked = {"load": asdict(load), "seed": seed, "benchmark": benchmark.identity()}
    before = len(trial.stages)
    found = yield from trial.program(
        stage,
        program,
        {**request, "call": call.model_dump(mode="json"), "asked": asked},
        timeout=call.timeout + _REPORT_S,
        valid=lambda known: (
            known.get("asked") == asked
            and all(Path(path).exists() for path in known["artifacts"].values())
        ),
    )
    seconds = sum(one["seconds"] for one in trial.stages[before:])
    return BenchmarkResult(
        metrics=found["metrics"],
        seconds=max(seconds, found["metrics"]["duration_s"]),
        data=found["data"],
        artifacts=found["artifacts"],
        environment={"benchmark": f"{benchmark.options.type}/{version or 'unknown'}"},
    )


def run_call(call: ToolCall, explain: Callable[[int, str], StageError]) -> str:
    """All the tool printed, once it ended well.

    Raises ``StageError`` when it cannot be started or is late, and what ``explain`` makes of its
    exit status and output when it failed.
    """
    name = Path(call.argv[0]).name
    log = Path(call.log)
    print(SHELL_PROMPT + shlex.join(call.argv), flush=True)
    begin = log.stat().st_size
    code = run_tool(
        call.argv,
        cwd=call.folder,
        env=_direct(tool_environment(call.defaults) | call.env, call.address[0]),
        timeout=call.timeout,
        suggestion=call.suggestion,
    )
    output = _from(log, begin)
    if code is None:
        raise StageError(
            "timeout",
            f"{name} did not finish within {call.timeout:g} s",
            "give the benchmark more time, or send fewer requests",
        )
    if code != 0:
        raise explain(code, output)
    return output


def require_listener(call: ToolCall) -> None:
    """Raise ``StageError`` when nobody listens at the service's address any more: requests that
    failed are then no measurement of it."""
    try:
        socket.create_connection(call.address, _LISTEN_S).close()
    except OSError as error:
        raise StageError(
            "network",
            f"nobody listens at {call.base_url} any more: {error}",
            "see the engine's log for why it ended",
        ) from error


def all_failed(failures: Mapping[str, int]) -> StageError:
    """The failure of a run in which no request succeeded."""
    reasons = "; ".join(f"{reason} ({count})" for reason, count in failures.items())
    return StageError(
        failure_class(reasons),
        f"all {sum(failures.values())} requests failed: {reasons}",
        "see the engine's log for what it says about them",
    )


def failure_note(failures: Mapping[str, int], requests: float) -> str:
    """What a person should know of failed requests; empty when none failed."""
    failed = sum(failures.values())
    if not failed:
        return ""
    return f"{failed} of {requests:g} requests failed: {next(iter(failures))}"


def _direct(environment: dict[str, str], host: str) -> dict[str, str]:
    """The environment with no proxy between the tool and ``host``."""
    known = next((environment[name] for name in _PROXY if environment.get(name)), "")
    hosts = ",".join(filter(None, (known, host)))
    return {**environment, **dict.fromkeys(_PROXY, hosts)}


def _from(file: Path, begin: int) -> str:
    with file.open("rb") as stream:
        stream.seek(begin)
        return stream.read().decode("utf-8", errors="replace")

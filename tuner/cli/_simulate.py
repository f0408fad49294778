"""``simulate``: one configuration of an experiment on a virtual clock."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table

from trainables import StageError
from tuner.cli._options import add_json, add_settings, configs
from tuner.experiment import (
    Document,
    Experiment,
    ExperimentError,
    Problem,
    check_experiment,
    read_document,
)

if TYPE_CHECKING:
    from trainables.serving.simulation import SimulationReport

_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
_LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2EL"}
_OTHERS = {
    "output_tokens_per_s": "output tokens/s",
    "total_tokens_per_s": "all tokens/s",
    "requests_per_s": "requests/s",
    "goodput_per_s": "goodput, requests/s",
    "success_rate": "success rate",
    "requests": "requests",
    "concurrency": "concurrency",
    "request_rate": "request rate, 1/s",
    "mean_concurrency": "mean concurrency",
    "duration_s": "duration, s",
}
_EPILOG = """\
example:
  python -m tuner simulate configs/simulated.yaml --rate 4 --config max-num-seqs=64
  python -m tuner simulate my_real_experiment.yaml --latency xgboost --path result/latency_model
docs/simulation.md says what is simulated and how far it can be trusted."""
_FAILED = 1
_TYPE = "simulated"
_SIMULATED = ("serving", "disaggregated")


def add_commands(commands: Any) -> None:
    parser = commands.add_parser(
        "simulate",
        help="one configuration on a virtual clock: numbers, picture, trace",
        description="Play the load of a serving or disaggregated experiment on simulated engines.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "experiment",
        nargs="?",
        type=Path,
        default=configs() / "simulated.yaml",
        help="serving or disaggregated experiment (default: configs/simulated.yaml)",
    )
    add(
        "--config",
        action="append",
        default=[],
        metavar="NAME=VALUE|FILE",
        help="a parameter of the configuration, or a JSON or YAML file of them; may be repeated "
        "(default: the experiment's baseline)",
    )
    add("--concurrency", type=int, metavar="N", help="requests under way at once")
    add("--rate", type=float, metavar="R", help="requests per second")
    add("--requests", type=int, metavar="N", help="how many are sent")
    add("--latency", metavar="TYPE", help="simulate the experiment's real engine with this model")
    add("--path", type=Path, metavar="PATH", help="where the latency model's files are")
    add("--output", type=Path, metavar="DIR", help="default: <storage>/<name>/simulation")
    add("--no-picture", action="store_true", help="write no timeline.png and timeline.svg")
    add_settings(parser)
    add_json(parser)
    parser.set_defaults(command=_simulate)


def _simulate(arguments: argparse.Namespace) -> int:
    from trainables.serving.simulation import simulate_trial, write_report

    parameters = _parameters(arguments.config)
    experiment = check_experiment(_document(arguments))
    console = Console(stderr=arguments.json, highlight=False)
    folder = arguments.output or experiment.storage / "simulation"
    begun = time.perf_counter()
    try:
        _prepare(experiment)
        with tempfile.TemporaryDirectory(prefix="npu-tuner-") as work:
            chosen = {**_baseline(experiment), **parameters}
            report = simulate_trial(experiment.trial, chosen, Path(work) / "trial")
    except StageError as error:
        said = f"error: {error}. {error.suggestion}".strip(". ")
        Console(stderr=True, highlight=False).print(said, soft_wrap=True)
        return _FAILED
    elapsed = time.perf_counter() - begun
    folder.mkdir(parents=True, exist_ok=True)
    limits = {
        limit.metric: limit.max for limit in experiment.objective.limits if limit.max is not None
    }
    written = write_report(
        report,
        folder,
        title=_title(experiment, report),
        limits=limits,
        pictures=not arguments.no_picture,
    )
    for line in [*_lines(experiment, report, elapsed), *written]:
        console.print(line, soft_wrap=True)
    if arguments.json:
        print((folder / "simulation.json").read_text(encoding="utf-8").replace("\n", " ").strip())
    return 0


def _document(arguments: argparse.Namespace) -> Document:
    """The experiment with a simulated engine and the load that was asked for."""
    document = read_document(arguments.experiment)
    trial = document.data.get("trial")
    if not isinstance(trial, dict) or trial.get("type") not in _SIMULATED:
        said = f"only experiments with trials of {' and '.join(_SIMULATED)} can be simulated"
        raise document.error([("trial.type", said)])
    if arguments.latency is not None:
        engine = trial.get("engine")
        simulated = engine if isinstance(engine, dict) and engine.get("type") == _TYPE else None
        latency: dict[str, Any] = {"type": arguments.latency}
        if arguments.path is not None:
            latency["path"] = str(arguments.path.expanduser().absolute())
        kept = {"type": _TYPE, "of": engine} if simulated is None else simulated
        trial["engine"] = {**kept, "latency": latency}
    elif arguments.path is not None:
        raise ExperimentError("--path", [Problem("", "say --latency TYPE as well")])
    if (load := _load(arguments)) is not None:
        trial["load"] = load
        trial.pop("refine", None)
    for assignment in arguments.settings:
        document.set(assignment)
    if arguments.requests is not None:
        name = "requests" if _benchmark(trial) == "builtin" else "num_prompts"
        document.set(f"trial.benchmark.{name}={arguments.requests}")
    return document


def _benchmark(trial: Mapping[str, Any]) -> str:
    block = trial.get("benchmark")
    return str(block.get("type", "builtin")) if isinstance(block, dict) else "builtin"


def _load(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """A fixed load, where one is asked for."""
    given = {"concurrency": arguments.concurrency, "request_rate": arguments.rate}
    wanted = {name: value for name, value in given.items() if value is not None}
    return {"type": "fixed", **wanted} if wanted else None


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    """Parameters from files and assignments; later ones count.

    Raises:
        ExperimentError: One is neither, or a file holds something else.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            if equals and not Path(text).is_file():
                found[name.strip()] = yaml.safe_load(value)
                continue
            document = yaml.safe_load(Path(text).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise _refused(f"{text!r} is neither NAME=VALUE nor a file: {error}") from error
        if not isinstance(document, dict):
            raise _refused(f"{text} holds no mapping of parameters")
        inner = document.get("parameters", document.get("best", document))
        found |= inner if isinstance(inner, dict) else document
    return found


def _refused(said: str) -> ExperimentError:
    return ExperimentError("--config", [Problem("", said)])


def _baseline(experiment: Experiment) -> dict[str, Any]:
    return dict(experiment.trial.baseline() or {})


def _prepare(experiment: Experiment) -> None:
    """A built-in model is converted at its first use."""
    from trainables import TrialFailure, TrialRun, TrialSpec

    with tempfile.TemporaryDirectory(prefix="npu-tuner-") as work:
        spec = TrialSpec("simulate", "prepare", work, experiment.trial_type, "prepare", {}, 0, {})
        try:
            for _ in experiment.trial.prepare(TrialRun(spec)):
                pass
        except TrialFailure as failure:
            raise StageError(failure.failure, str(failure), failure.suggestion) from failure


def _title(experiment: Experiment, report: SimulationReport) -> str:
    metrics = report.metrics
    named = ", ".join(f"{name} {value}" for name, value in report.parameters.items())
    return (
        f"{experiment.name} (simulated): {metrics['requests']:.0f} requests, "
        f"{metrics['output_tokens_per_s']:,.0f} output tokens/s" + (f"\n{named}" if named else "")
    )


def _lines(experiment: Experiment, report: SimulationReport, elapsed: float) -> list[Any]:
    """What is printed: tables and lines."""
    simulation = report.data["simulation"]
    lines: list[Any] = [_latency_table(report.metrics), _other_table(report.metrics)]
    for check, ok in _checks(experiment, report):
        lines.append(f"{check}: {'met' if ok else 'not met'}")
    pools = simulation.get("pools", {"engine": simulation})
    lines += [f"{f'{name}:':9} {_pool(pool)}" for name, pool in pools.items()]
    iterations = f"{simulation['iterations']:,} iterations"
    if simulation["extrapolated"] is not None:
        share = simulation["extrapolated"]
        iterations += f", {share:.1%} of them unlike any that the latency model has seen"
    runs = len(report.data["runs"])
    lines.append(
        f"time:     {simulation['virtual_s']:,.1f} s in {simulation['wall_s']:.2f} s of simulation "
        f"({report.speed_up:,.0f} x; {elapsed:.1f} s with all else), "
        f"{runs} run{'s' if runs > 1 else ''}, {iterations}"
    )
    if note := report.data.get("note"):
        lines.append(f"note:     {note}")
    return lines


def _pool(pool: Mapping[str, Any]) -> str:
    settings = pool["settings"]
    return (
        f"{pool['instances']} x {settings['max_num_seqs']} sequences, "
        f"{settings['max_num_batched_tokens']} tokens per iteration, {settings['num_blocks']} KV "
        f"blocks of {settings['block_size']} tokens ({pool['kv_blocks_from']})"
    )


def _checks(experiment: Experiment, report: SimulationReport) -> list[tuple[Any, bool]]:
    from tuner._judge import BaselineMissing, judge

    try:
        verdict = judge(experiment.objective, report.metrics, None)
    except BaselineMissing:
        return []
    return [(check, check.ok) for check in verdict.checks]


def _latency_table(metrics: Mapping[str, float]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("ms", no_wrap=True)
    for statistic in _STATISTICS:
        table.add_column(statistic, justify="right")
    for latency, label in _LATENCIES.items():
        values = [metrics.get(f"{latency}_{one}_s") for one in _STATISTICS]
        table.add_row(label, *("" if one is None else f"{1000 * one:,.2f}" for one in values))
    return table


def _other_table(metrics: Mapping[str, float]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, label in _OTHERS.items():
        if name in metrics:
            value = metrics[name]
            table.add_row(label, f"{value:,.0f}" if value >= 1000 else f"{value:.5g}")
    return table

"""The script trial: start a server by any command, and measure it by any other."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from trainables._program import StageError
from trainables._trial import Json, Progress, Result, Steps, TrialFailure, TrialRun
from trainables._types import TrialType, register_trial_type
from trainables.engines._engine import Deployment
from trainables.engines._options import variable_name
from trainables.engines._substitution import variables
from trainables.script._command import StartCommand, decided
from trainables.script._evaluation import Evaluation
from trainables.script._metrics import summary
from trainables.script._options import OK_RUNS, SE, STARTUP, ScriptTrialOptions
from trainables.script._record import Record, ScriptFailure
from trainables.script._server import EVALUATE, START, Server, leased, pause

_SHOWN_PORT = 8000
_SCRIPT_BYTES = 1024 * 1024
"""Files in command lines that are larger are data, and too many to be read for an identity."""
_BINARY = b"\x7fELF"
_INTERPRETERS = ("sh", "bash", "dash", "zsh", "python", "python3", "node", "perl", "ruby")
_DECIDED = "{name} is decided by the trial: its port, its host, and its run; choose another name"
_INNER = (("start", "StartOptions"), ("evaluate", "EvaluateOptions"))


@register_trial_type("script")
class ScriptTrial(TrialType):
    """Parameters: any, each an environment variable of both commands. Metrics: the experiment's
    own, as means over the runs that succeeded, their standard errors, ``ok_runs`` and
    ``startup_s``. ``data`` is a :class:`trainables.script._record.Record`."""

    Options = ScriptTrialOptions
    options: ScriptTrialOptions

    @classmethod
    def schema(cls) -> dict[str, Json]:
        """What a preset fills in is only required without one."""
        document = super().schema()
        needed = document.pop("required")
        inner = {key: {"required": document["$defs"][name].pop("required")} for key, name in _INNER}
        preset = {"properties": {"preset": {"const": "rouge"}}, "required": ["preset"]}
        document["anyOf"] = [preset, {"required": needed, "properties": inner}]
        return document

    def identity(self, kind: str) -> Json:
        options = self.options
        evaluate = options.evaluate
        return {
            "start": _decides(options.start.command, options.start.cwd, options.start.env),
            "evaluate": _decides(evaluate.command, evaluate.cwd or options.start.cwd, evaluate.env),
            "runs": evaluate.runs,
            "constants": dict(sorted(options.constants.items())),
            "metrics": {name: one.model_dump() for name, one in sorted(options.metrics.items())},
        }

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        start, evaluate = options.start, options.evaluate
        found = _folder_problems({"trial.start": start.cwd, "trial.evaluate": evaluate.cwd})
        if not found:
            found += _command_problems("trial.start", start.command, start.cwd, start.env)
            folder = evaluate.cwd or start.cwd
            found += _command_problems("trial.evaluate", evaluate.command, folder, evaluate.env)
        blocks = {"constants": options.constants, "start.env": start.env}
        blocks["evaluate.env"] = evaluate.env
        for key, block in blocks.items():
            taken = sorted(decided(options) & block.keys())
            found += [(f"trial.{key}.{name}", _DECIDED.format(name=name)) for name in taken]
        return found

    def parameter_problems(self, names: Iterable[str]) -> list[tuple[str, str]]:
        found = []
        own = {"start.env": self.options.start.env, "evaluate.env": self.options.evaluate.env}
        for name in names:
            if name in decided(self.options):
                found.append((name, _DECIDED.format(name=name)))
            for key, block in own.items():
                if name in block:
                    found.append((name, f"trial.{key} sets it too; take it out there"))
            try:
                variable_name(name)
            except ValueError as error:
                found.append((name, str(error)))
        return found

    def metric_names(self) -> frozenset[str]:
        names = self.options.metrics
        return frozenset({*names, *(f"{name}{SE}" for name in names), OK_RUNS, STARTUP})

    def headlines(self) -> tuple[str, ...]:
        return (*self.options.metrics, OK_RUNS, STARTUP)

    def stage_names(self, kind: str) -> tuple[str, ...]:
        return (START, EVALUATE)

    def run(self, trial: TrialRun) -> Steps:
        record = Record(self._params(trial.spec.parameters))
        try:
            yield from self._measured(trial, record)
        except StageError as error:
            failure = TrialFailure(error.failure, START, str(error), suggestion=error.suggestion)
            raise ScriptFailure(failure, record) from error
        except TrialFailure as failure:
            raise ScriptFailure(failure, record) from failure
        return self._result(record)

    def deliverables(self, parameters: Mapping[str, Json]) -> Mapping[str, str]:
        options = self.options
        port = options.port or _SHOWN_PORT
        shown = Deployment(Path(), "", options.host, port, env=parameters)
        return StartCommand(options, to_keep=True).deliverables(shown)

    def _measured(self, trial: TrialRun, record: Record) -> Generator[Progress, None, None]:
        options = self.options
        yield from pause("cooldown", options.cooldown)
        with ExitStack() as held:
            lease = held.enter_context((yield from leased(options)))
            server = held.enter_context(Server(trial, options, lease.ports[0], record))
            yield from server.become_ready()
            startup_s = record.startup_s
            trial.stages.append({"name": START, "seconds": startup_s, "resumed": False})
            before = server.elapsed
            yield from Evaluation(trial, options, server, record).steps()
            seconds = round(server.elapsed - before, 3)
            trial.stages.append({"name": EVALUATE, "seconds": seconds, "resumed": False})

    def _result(self, record: Record) -> Result:
        good = record.succeeded()
        metrics = summary(self.options.metrics, [run.metrics for run in good])
        metrics |= {OK_RUNS: float(len(good)), STARTUP: record.startup_s or 0.0}
        data = record.to_json()
        if failed := [run for run in record.eval_runs if not run.ok]:
            why = "; ".join(f"run {run.i}: {run.error}" for run in failed)
            data["note"] = f"{len(failed)} of {len(record.eval_runs)} runs failed: {why}"
        return Result(metrics, data)

    def _params(self, parameters: Mapping[str, Json]) -> dict[str, str]:
        return variables({}, {**self.options.constants, **parameters})[0]


def _decides(command: Sequence[str], cwd: Path | None, env: Mapping[str, str]) -> Json:
    """What of a command decides numbers: its words, its variables, and the scripts it names."""
    files = {word: _file(word, cwd) for word in command}
    texts = {word: _text(file) for word, file in files.items() if file is not None}
    digests = {word: hashlib.sha256(text).hexdigest() for word, text in texts.items() if text}
    return {"command": list(command), "scripts": digests, "env": dict(sorted(env.items()))}


def _file(word: str, cwd: Path | None) -> Path | None:
    """The file that a word of a command line names, if it names one."""
    file = Path(word) if cwd is None else cwd / word
    try:
        return file if file.is_absolute() and file.is_file() else None
    except (OSError, ValueError):
        return None


def _text(file: Path) -> bytes:
    """What a file says; nothing for a binary program, or for one that cannot be read."""
    try:
        if file.stat().st_size > _SCRIPT_BYTES:
            return b""
        data = file.read_bytes()
    except OSError:
        return b""
    return b"" if data.startswith(_BINARY) else data


def _folder_problems(folders: Mapping[str, Path | None]) -> list[tuple[str, str]]:
    return [
        (f"{key}.cwd", f"there is no folder {folder}")
        for key, folder in folders.items()
        if folder is not None and not folder.is_dir()
    ]


def _command_problems(
    key: str, command: Sequence[str], cwd: Path | None, env: Mapping[str, str]
) -> list[tuple[str, str]]:
    found = []
    program, *rest = command
    if "$" not in program and shutil.which(program, path=env.get("PATH")) is None:
        found.append((f"{key}.command", f"there is no program {program!r} here"))
    script = next(iter(rest), "-")
    named = Path(program).name in _INTERPRETERS and not script.startswith(("-", "$"))
    if named and _file(script, cwd) is None:
        where = "the trial's folder; say trial.start.cwd" if cwd is None else str(cwd)
        found.append((f"{key}.command", f"there is no file {script} in {where}"))
    return found

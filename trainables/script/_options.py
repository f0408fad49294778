"""The ``trial`` block of a script experiment."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from trainables.engines._options import (
    AbsolutePath,
    Command,
    UrlPath,
    Variables,
    private_host,
    variable_name,
)
from trainables.script._json_path import steps
from trainables.script._preset import with_preset

SE = "_se"
"""Ends the name of a standard error."""
OK_RUNS = "ok_runs"
STARTUP = "startup_s"
_RESERVED = (OK_RUNS, STARTUP)
_SETTINGS = ConfigDict(extra="forbid", frozen=True)


def _status(value: int) -> int:
    if not 100 <= value <= 599:
        raise ValueError(f"{value} is no status of HTTP; they go from 100 to 599")
    return value


def _rising(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise ValueError(f"{list(value)} is no range: give the first status and the last")
    return value


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    if not groups:
        raise ValueError(
            f"{text!r} has no group; put the number into brackets, as in 'x=([0-9.]+)'"
        )
    return text


def _path(text: str) -> str:
    steps(text)
    return text


def _metric_name(name: str) -> str:
    if not name.strip() or name != name.strip():
        raise ValueError(f"{name!r} cannot be the name of a metric")
    if name in _RESERVED or name.endswith(SE):
        said = f"{', '.join(_RESERVED)}, and names that end with {SE}"
        raise ValueError(f"{name}: {said}, are the trial's own metrics; choose another name")
    return name


Status = Annotated[int, AfterValidator(_status)]
Name = Annotated[str, AfterValidator(variable_name)]


class StartOptions(BaseModel):
    """How the server is started.

    Attributes:
        command: Program and arguments, in which ``$NAME`` stands for a parameter, a constant, or
            the port. It has to stay in the foreground; all it leaves behind is ended with it.
        cwd: Folder it runs in; by default the trial's own.
        env: Further environment variables, for it alone.
    """

    model_config = _SETTINGS
    command: Command
    cwd: AbsolutePath | None = None
    env: Variables = {}


class ReadyOptions(BaseModel):
    """How the server shows that it serves.

    Attributes:
        path: Path that is asked with GET until it answers.
        statuses: First and last status that count as an answer.
        timeout: Seconds from the start until then.
    """

    model_config = _SETTINGS
    path: UrlPath = "/"
    statuses: Annotated[tuple[Status, Status], AfterValidator(_rising)] = (200, 499)
    timeout: PositiveFloat = 240


class EvaluateOptions(BaseModel):
    """How the server is measured.

    Attributes:
        command: Program and arguments, in which ``$NAME`` stands for a parameter, a constant, or
            one of ``PORT``, ``HOST``, ``BASE_URL``, ``EVAL_RUN``, ``EVAL_FOLDER``.
        runs: How often it is run, one after the other.
        timeout: Seconds that one run may take.
        cwd: Folder it runs in; by default that of the start command.
        env: Further environment variables, for it alone.
    """

    model_config = _SETTINGS
    command: Command
    runs: PositiveInt = 3
    timeout: PositiveFloat = 420
    cwd: AbsolutePath | None = None
    env: Variables = {}


class MetricOptions(BaseModel):
    """Where a number is found.

    Attributes:
        pattern: Regular expression over what the evaluation prints; the first group of its first
            match is the number. ``^`` and ``$`` are ends of lines.
        json_path: Place in a JSON document, such as ``results[0].score``.
        file: The document, which the run has to write; by default what the evaluation prints, or
            the last line of it that is one. Relative to its folder; ``$NAME`` as in its command.
        optional: Whether a run without it is still a success.
    """

    model_config = _SETTINGS
    pattern: Annotated[str, Field(min_length=1), AfterValidator(_pattern)] | None = None
    json_path: Annotated[str, Field(min_length=1), AfterValidator(_path)] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None
    optional: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> MetricOptions:
        if (self.pattern is None) == (self.json_path is None):
            raise ValueError("give either pattern or json_path")
        if self.file is not None and self.json_path is None:
            raise ValueError("file needs json_path; a pattern is looked for in what is printed")
        return self


class ScriptTrialOptions(BaseModel):
    """See the attributes' own models.

    Attributes:
        preset: ``rouge`` fills in what ``auto_tune.py`` has built in.
        start: The server.
        ready: How it shows that it serves.
        host: Address that it is asked at: ``localhost``, or a loopback, private or link-local one.
        port: Its port; by default a free one is leased for each trial.
        port_env: Variable that tells both programs the port.
        port_busy_retries: How often a taken port is looked at again.
        port_busy_wait: Seconds between two looks.
        evaluate: What measures it.
        metrics: Metric to where its value is found.
        constants: Parameters that are not searched. A parameter of that name goes first.
        retry_partial: How often the failed runs of a trial are repeated when others succeeded.
        stop_grace: Seconds between the request to end and the kill, for both programs.
        cooldown: Seconds of rest before a start.
    """

    model_config = _SETTINGS
    type: Literal["script"] = "script"
    preset: Literal["none", "rouge"] = "none"
    start: StartOptions
    ready: ReadyOptions = ReadyOptions()
    host: Annotated[str, AfterValidator(private_host)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    port_env: Name = "PORT"
    port_busy_retries: NonNegativeInt = 3
    port_busy_wait: NonNegativeFloat = 10
    evaluate: EvaluateOptions
    metrics: Annotated[
        dict[Annotated[str, AfterValidator(_metric_name)], MetricOptions], Field(min_length=1)
    ]
    constants: Variables = {}
    retry_partial: NonNegativeInt = 1
    stop_grace: NonNegativeFloat = 10
    cooldown: NonNegativeFloat = 0

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, block: Any) -> Any:
        return with_preset(block)

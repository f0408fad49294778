"""Engines by the name that ``engine: {type: ...}`` of an experiment gives them."""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from trainables._program import FailureClass
from trainables._registry import Registry
from trainables._trial import Json
from trainables.engines._options import EngineOptions


@dataclass(frozen=True)
class Deployment:
    """What one instance of an engine is to serve, and where.

    Attributes:
        model: Folder of the checkpoint.
        served_name: Name that clients use.
        host: Address to listen on, without brackets.
        port: TCP port to listen on, leased.
        options: Tuned arguments, over the engine's own.
        env: Tuned environment variables, over the engine's own. ``$NAME`` anywhere in the
            engine's arguments stands for their value.
        config: Tuned entries of the engine's configuration file, by dotted path, for engines
            that have one: ``BackendConfig.ScheduleConfig.maxBatchSize``.
    """

    model: Path
    served_name: str
    host: str
    port: int
    options: Mapping[str, Json] = field(default_factory=dict)
    env: Mapping[str, Json] = field(default_factory=dict)
    config: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Launch:
    """How a deployment is started.

    Attributes:
        argv: Program and arguments; a program without a slash is searched in ``PATH``.
        env: Additions to the environment.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Symptom:
    """A line of an engine's log after which it will not serve any more.

    Attributes:
        failure: What sort of failure it is.
        pattern: Found in one line, in any case; what it matches begins what the user is told.
        suggestion: What the user can do.
    """

    failure: FailureClass
    pattern: str
    suggestion: str


class Engine(ABC):
    """One serving engine: how it is started, and how it shows that it serves or fails.

    Attributes:
        Options: Model of the ``engine`` block, ``type`` included.
        symptoms: What its log says when a start has failed; the earliest line that matches any
            of them names the cause.
        ready_line: Pattern of a line of the log without which the engine is not up; None for
            those that show it by answering.
        models_path: Path that lists the served models in OpenAI's form; None when there is none.
        completions_path: Path for plain completions in OpenAI's form.
        stop_grace: Seconds between the request to end and the kill.
    """

    Options: ClassVar[type[EngineOptions]]
    symptoms: ClassVar[tuple[Symptom, ...]] = ()
    ready_line: ClassVar[re.Pattern[str] | None] = None
    models_path: ClassVar[str | None] = "/v1/models"
    completions_path: ClassVar[str] = "/v1/completions"
    stop_grace: ClassVar[float] = 10.0

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def launch(self, deployment: Deployment) -> Launch:
        """The command for a deployment. Changes nothing anywhere."""

    @abstractmethod
    def identity(self) -> Json:
        """What of the engine decides results: type, command, arguments, environment, versions.

        Not host, port, timeouts, and what only concerns logs.
        """

    def prepared(self, deployment: Deployment) -> AbstractContextManager[None]:
        """Entered before an instance starts, left after it ended, whichever way.

        For engines that read configuration files, which are edited and restored here.
        """
        return nullcontext()

    def deliverables(self, deployment: Deployment) -> Mapping[str, str]:
        """What somebody needs to deploy it without us: file name to text.

        ``serve.sh`` runs the engine in the foreground with the tuned arguments and environment.
        """
        launch = self.launch(deployment)
        exports = [f"export {name}={shlex.quote(value)}" for name, value in launch.env.items()]
        lines = ["#!/bin/sh", *exports, f"exec {shlex.join(launch.argv)}"]
        return {"serve.sh": "\n".join(lines) + "\n"}

    def problems(self) -> list[tuple[str, str]]:
        """Faults as (dotted path inside the ``engine`` block, message), without starting it."""
        return []

    def versions(self) -> Mapping[str, str]:
        """Versions of the engine's packages, as far as they are known without running it."""
        return {}

    @property
    def startup_timeout(self) -> float:
        timeout: float = self.options.startup_timeout
        return timeout

    @property
    def health_path(self) -> str:
        path: str = self.options.health_check_endpoint
        return path


_ENGINES: Registry[Engine] = Registry(
    "engine",
    "npu_tuner.engines",
    {"vllm": "trainables.engines._vllm", "vllm-ascend": "trainables.engines._vllm"},
)
register_engine = _ENGINES.register
engine_types = _ENGINES.names
engine_type = _ENGINES.find


def make_engine(block: Mapping[str, Any]) -> Engine:
    """The engine an ``engine`` block describes.

    Raises:
        KeyError, ImportError: As ``engine_type``.
        pydantic.ValidationError: Its options are wrong.
    """
    kind = engine_type(str(block.get("type", "")))
    return kind(kind.Options.model_validate(dict(block)))

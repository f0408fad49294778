"""Any program that serves a model: a command, or a script and what runs it."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from trainables._program import StageError
from trainables._trial import Json
from trainables.engines._engine import Deployment, Launch, register_engine
from trainables.engines._foreign import ForeignEngine, ForeignOptions
from trainables.engines._options import AbsolutePath, Command, Words, variable_name
from trainables.engines._substitution import in_list, variables

_LOG_VARIABLE = re.compile(r"LOG(GING)?_")


class ScriptOptions(ForeignOptions):
    """Options of ``script``.

    Attributes:
        command: Program and arguments, where it is not a script that is started.
        script: File of the script.
        interpreter: What runs the script.
        args: Arguments after those of ``command`` or after the script.
        work_path: Folder it runs in; by default the trial's.
        port_variable: Environment variable that tells it the port, which ``$PORT`` in its arguments
            stands for as well. A program that does not use it needs ``port``, the one it serves at.
    """

    type: Literal["script"] = "script"
    command: Command | None = None
    script: AbsolutePath | None = None
    interpreter: Command = Field(default_factory=lambda: ["bash"])
    args: Words = Field(default_factory=list)
    work_path: AbsolutePath | None = None
    port_variable: Annotated[str, AfterValidator(variable_name)] = "PORT"

    @model_validator(mode="after")
    def _one_of_two(self) -> ScriptOptions:
        if (self.command is None) == (self.script is None):
            raise ValueError("give either command or script")
        return self


@register_engine("script")
class ScriptEngine(ForeignEngine):
    """A program of the user's own.

    All tuned parameters reach it as environment variables of their names, and as ``$NAME`` in its
    arguments; so do ``PORT``, ``HOST``, ``MODEL`` (the folder) and ``SERVED_MODEL_NAME``.
    """

    Options = ScriptOptions
    options: ScriptOptions

    def launch(self, deployment: Deployment) -> Launch:
        options = self.options
        told: dict[str, Json] = {
            options.port_variable: deployment.port,
            "HOST": deployment.host,
            "MODEL": str(deployment.model),
            "SERVED_MODEL_NAME": deployment.served_name,
        }
        tuned = {**deployment.options, **deployment.env}
        if taken := sorted(told.keys() & tuned.keys()):
            raise StageError("input", f"{', '.join(taken)}: the deployment decides these variables")
        tuned |= told
        try:
            argv = in_list(self._command(), tuned)
        except ValueError as error:
            raise StageError("input", str(error), "see engine.command and engine.args") from None
        env, unset = variables(options.env_vars, tuned)
        return Launch(tuple(argv), env, unset, options.work_path, self.unproven())

    def identity(self) -> Json:
        options = self.options
        return {
            "type": options.type,
            "command": options.command or options.interpreter,
            "script": self._digest(),
            "args": options.args,
            "env_vars": {
                name: value
                for name, value in sorted(options.env_vars.items())
                if not _LOG_VARIABLE.search(name)
            },
        }

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        program = "command" if options.command is not None else "interpreter"
        name = self._command()[0]
        found = []
        if shutil.which(name) is None:
            found.append((program, f"there is no program {name!r} here"))
        if options.script is not None and not options.script.is_file():
            found.append(("script", f"there is no file {options.script}"))
        if options.work_path is not None and not options.work_path.is_dir():
            found.append(("work_path", f"there is no folder {options.work_path}"))
        return found

    def _command(self) -> list[str]:
        options = self.options
        start = options.command or [*options.interpreter, str(options.script)]
        return [*start, *options.args]

    def _digest(self) -> str | None:
        """Of the script's text: another script has other results."""
        script: Path | None = self.options.script
        try:
            return None if script is None else hashlib.sha256(script.read_bytes()).hexdigest()
        except OSError:
            return None

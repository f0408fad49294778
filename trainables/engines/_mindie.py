"""MindIE: Ascend's serving engine, which takes everything from its config.json."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cluster import write_atomic
from trainables._program import StageError
from trainables._trial import Json
from trainables.engines._config_file import ConfigFile
from trainables.engines._engine import (
    Deployment,
    Engine,
    Launch,
    register_engine,
    serve_script,
)
from trainables.engines._mindie_config import (
    HTTPS,
    OURS,
    addressed,
    canonical,
    corrected,
    parsed,
    value_at,
    values_at,
    with_entries,
    written,
)
from trainables.engines._options import AbsolutePath, Command, EngineOptions, UrlPath, private_host
from trainables.engines._substitution import in_list, is_void, variables
from trainables.engines._symptoms import MINDIE_SYMPTOMS
from trainables.engines._versions import package_versions

_HOME = "MIES_INSTALL_PATH"
_LLM_HOME = "MINDIE_LLM_HOME_PATH"
_FILE = "conf/config.json"
_USUAL_HOME = "/usr/local/Ascend/mindie/latest/mindie-service"
_CONFIG = "MIES_CONFIG_JSON_PATH"
_ADDRESSES = ("MIES_CONTAINER_IP", "MIES_CONTAINER_MANAGEMENT_IP")
"""Where they are set, they go before the addresses of config.json."""
_LONGEST_PATH = 256
"""MindIE takes a longer value of a variable for none, and reads the installed file."""
_STRICTEST_MODE = 0o640
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,254}[A-Za-z0-9])?")
_LOG_VARIABLE = re.compile(r"LOG(GING)?_")


class MindieOptions(EngineOptions):
    """Options of ``mindie``.

    Attributes:
        command: The daemon; by default ``$MIES_INSTALL_PATH/bin/mindieservice_daemon``, or
            ``mindie_llm_server`` where that is not there.
        config_path: config.json as it is installed; by default the file of
            ``MIES_CONFIG_JSON_PATH``, else that of the installation.
        config: Entries over those of the file, by dotted path, below the tuned ones:
            ``{ServerConfig.httpsEnabled: false}``.
        edit: ``copy`` gives each instance a file of its own (``MIES_CONFIG_JSON_PATH``) and leaves
            the installed one alone, so that several can run at once. ``in_place`` edits the
            installed file while an instance runs and restores it, for a MindIE that does not know
            the variable; one instance at a time.
        keep_address: Listen where the file says instead of at ``host`` and a leased port.
        work_path: Folder the daemon runs in; by default the trial's.
    """

    type: Literal["mindie"] = "mindie"
    command: Command | None = None
    config_path: AbsolutePath | None = None
    config: dict[str, Json] = Field(default_factory=dict)
    edit: Literal["copy", "in_place"] = "copy"
    keep_address: bool = False
    work_path: AbsolutePath | None = None
    health_check_endpoint: UrlPath = "/health"
    startup_timeout: float = Field(default=1800, gt=0)


@register_engine("mindie")
class MindieEngine(Engine):
    """The daemon of MindIE with its endpoints in OpenAI's form.

    All its interfaces share one address, because only then is what it lists and how it feels told
    where it is asked. The model's folder and name are written into the configuration as well.
    """

    Options = MindieOptions
    symptoms = MINDIE_SYMPTOMS
    ready_line = re.compile(r"Daemon start success!")
    configurable = True
    # It is its own group's executioner when a start fails.
    kills_itself = True
    # It waits 5 s for what it answers, and 15 s for its processes.
    stop_grace = 30.0
    packages: ClassVar[tuple[str, ...]] = ("mindie-llm",)
    options: MindieOptions

    def launch(self, deployment: Deployment) -> Launch:
        options = self.options
        if arguments := [key for key, value in deployment.options.items() if not is_void(value)]:
            raise StageError(
                "input",
                f"{', '.join(arguments)}: MindIE takes no arguments",
                "give the parameters a position such as BackendConfig.ScheduleConfig.maxBatchSize",
            )
        env, unset = variables({"MINDIE_LOG_TO_STDOUT": "1", **options.env_vars}, deployment.env)
        env[_CONFIG] = str(self._file_of(deployment))
        unset = (*unset, *(name for name in _ADDRESSES if name not in env))
        _, notes = corrected(self._entries(deployment))
        try:
            argv = in_list(self._command(), deployment.env)
        except ValueError as error:
            raise StageError("input", str(error), "see engine.command") from None
        return Launch(tuple(argv), env, unset, options.work_path, notes)

    def configuration(self, deployment: Deployment) -> str:
        return self._changed(ConfigFile(self._config_path()).original(), deployment)

    def configured(self, paths: Iterable[str]) -> dict[str, Json]:
        return values_at(self._installed(), paths)

    @contextmanager
    def prepared(self, deployment: Deployment) -> Iterator[list[str]]:
        installed = ConfigFile(self._config_path())
        if self.options.edit == "in_place":
            change = partial(self._changed, deployment=deployment)
            with installed.edited(change, deployment.run_id) as notes:
                yield notes
            return
        file = self._file_of(deployment)
        if len(str(file)) > _LONGEST_PATH:
            raise StageError(
                "input",
                f"MindIE reads no configuration from a path of more than {_LONGEST_PATH} "
                f"characters: {file}",
                "choose a storage folder with a shorter path, or say edit: in_place",
            )
        text = self.configuration(deployment)
        write_atomic(file, text, mode=installed.path.stat().st_mode & _STRICTEST_MODE)
        yield []

    def deliverables(self, deployment: Deployment) -> Mapping[str, str]:
        here = ['here=$(cd "$(dirname "$0")" && pwd)', 'chmod 640 "$here/config.json"']
        here.append(f'export {_CONFIG}="$here/config.json"')
        script = serve_script(self.launch(deployment), before=here, without=[_CONFIG])
        return {"serve.sh": script, "config.json": self.configuration(deployment)}

    def identity(self) -> Json:
        options = self.options
        document: dict[str, Json] = {
            "type": options.type,
            "command": options.command,
            "config": self._meaning(),
            "env_vars": {
                name: value
                for name, value in sorted(options.env_vars.items())
                if not _LOG_VARIABLE.search(name) and name != _CONFIG
            },
        }
        if versions := self.versions():
            document["versions"] = versions
        return document

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        found = [
            (f"config.{path}", "the deployment decides it; leave it out")
            for path in options.config
            if path in OURS
        ]
        if shutil.which(self._command()[0]) is None:
            said = f"there is no program {self._command()[0]!r} here; set {_HOME}, or name MindIE's"
            found.append(("command", f"{said} own: [/opt/mindie/bin/mindieservice_daemon]"))
        name = options.served_model_name
        if name is not None and not _NAME.fullmatch(name):
            found.append(("served_model_name", _name_problem(name)))
        try:
            document = with_entries(self._installed(), options.config)
            _ = self.host
        except StageError as error:
            found.append(("config_path", str(error)))
        except ValueError as error:
            found.append(("config", str(error)))
        else:
            if said := _https_problem(document):
                found.append(("config", said))
        return found

    def versions(self) -> Mapping[str, str]:
        return package_versions(self._command()[0], self.packages)

    @property
    def host(self) -> str:
        """Raises ``StageError`` where the file's address is to be kept and is not private."""
        if not self.options.keep_address:
            return super().host
        try:
            return private_host(str(self.configured(OURS).get(OURS[0], super().host)))
        except ValueError as error:
            raise StageError("input", f"{OURS[0]}: {error}", "see engine.keep_address") from None

    @property
    def port(self) -> int | None:
        if not self.options.keep_address or super().port is not None:
            return super().port
        found = self.configured(OURS).get(OURS[2])
        return found if isinstance(found, int) else None

    def _changed(self, text: str, deployment: Deployment) -> str:
        """The text of the configuration for a deployment."""
        if not _NAME.fullmatch(deployment.served_name):
            said = _name_problem(deployment.served_name)
            raise StageError("input", said, "set engine.served_model_name")
        entries, _ = corrected(self._entries(deployment))
        if ours := sorted(entries.keys() & set(OURS)):
            raise StageError("input", f"{', '.join(ours)}: the deployment decides these")
        ip = "127.0.0.1" if deployment.host == "localhost" else deployment.host
        name, weights = deployment.served_name, str(deployment.model)
        try:
            document = with_entries(self._parsed(text), entries)
            document = addressed(document, ip, deployment.port, name, weights)
        except ValueError as error:
            raise StageError("input", str(error), "see the positions of the parameters") from None
        if said := _https_problem(document):
            raise StageError("input", said)
        return written(document)

    def _entries(self, deployment: Deployment) -> dict[str, Json]:
        tuned = {path: value for path, value in deployment.config.items() if not is_void(value)}
        return {**self.options.config, **tuned}

    def _installed(self) -> Json:
        return self._parsed(ConfigFile(self._config_path()).original())

    def _parsed(self, text: str) -> Json:
        try:
            return parsed(text)
        except ValueError as error:
            said = f"{self._config_path()} {error}"
            raise StageError("input", said, "repair it, or see engine.config_path") from None

    def _meaning(self) -> Json:
        """The configuration as far as it decides results; the block's entries where there is no
        file here."""
        try:
            return canonical(with_entries(self._installed(), self.options.config))
        except (StageError, ValueError):
            return dict(self.options.config)

    def _file_of(self, deployment: Deployment) -> Path:
        """The file that an instance reads."""
        if self.options.edit == "in_place":
            return ConfigFile(self._config_path()).path
        return deployment.folder.absolute() / f"config-{deployment.port}.json"

    def _variable(self, name: str) -> str:
        return self.options.env_vars.get(name) or os.environ.get(name, "")

    def _command(self) -> list[str]:
        if self.options.command is not None:
            return self.options.command
        daemon = Path(self._variable(_HOME) or _USUAL_HOME) / "bin" / "mindieservice_daemon"
        return [str(daemon)] if daemon.is_file() else ["mindie_llm_server"]

    def _config_path(self) -> Path:
        if self.options.config_path is not None:
            return self.options.config_path
        home = self._variable(_HOME)
        usual = Path(_USUAL_HOME, _FILE)
        places = [Path(given)] if (given := self._variable(_CONFIG)) else []
        places += [Path(llm, _FILE)] if (llm := self._variable(_LLM_HOME)) else []
        places += [Path(home, _FILE)] if home else []
        places.append(usual)
        places += [Path(home, "..", "mindie_llm", _FILE)] if home else []
        return next((place for place in places if place.is_file()), usual)


def _name_problem(name: str) -> str:
    said = "has other characters than letters, digits, dots, dashes and underscores, begins or "
    return f"MindIE takes no model name like {name!r}: it {said}ends with a sign, or is too long"


def _https_problem(document: Json) -> str:
    try:
        encrypted = value_at(document, HTTPS) is True
    except KeyError:
        encrypted = False
    if not encrypted:
        return ""
    return (
        f"{HTTPS} is true, and clients here speak plain HTTP; the engine only listens privately, "
        f"so set engine.config: {{{HTTPS}: false}}"
    )

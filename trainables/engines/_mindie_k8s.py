"""MindIE with prefill and decode apart on one node, deployed by its own Kubernetes scripts."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat

from cluster import RunLock, RunLockedError, write_atomic
from trainables._program import FAILURE_CLASSES, StageError
from trainables._trial import Json
from trainables.engines._config_file import ConfigFile
from trainables.engines._engine import Deployment, Engine, Launch, Symptom, register_engine
from trainables.engines._mindie_config import canonical, corrected, parsed, value_at, values_at
from trainables.engines._mindie_k8s_delivery import deploy_script
from trainables.engines._mindie_k8s_manifest import Manifest, read_manifest
from trainables.engines._mindie_k8s_request import (
    CONFIG,
    CONTROLLER,
    CONTROLLER_PREFIX,
    COORDINATOR,
    DELETE,
    DEPLOY,
    RATES,
    DeploymentRequest,
    Records,
    changed,
)
from trainables.engines._mindie_k8s_supervisor import FAILED, SERVES
from trainables.engines._options import AbsolutePath, Command, EngineOptions, UrlPath, private_host
from trainables.engines._substitution import is_void, variables
from trainables.engines._symptoms import MINDIE_SYMPTOMS

_MODEL = "BackendConfig.ModelDeployConfig.ModelConfig.0"
_WEIGHTS, _NAME = f"{_MODEL}.modelWeightPath", f"{_MODEL}.modelName"
_ENCRYPTED = "tls_config.request_server_tls_enable"
_RATE_VARIABLES = ("MINDIE_MS_P_RATE", "MINDIE_MS_D_RATE")
"""Where the pods have them, they go before ms_controller.json."""
_FILES = (CONFIG, CONTROLLER)
_BOOT = "boot_helper/boot.sh"
_SUGGESTION = "its log has what the cluster and the pods said about it"


def _symptom(failure: Any) -> Symptom:
    return Symptom(failure, rf"(?<={FAILED} \({failure}\): )[^\n]+", _SUGGESTION)


class MindieK8sOptions(EngineOptions):
    """Options of ``mindie-k8s``. ``host`` and ``port`` are those of the program that watches the
    deployment; clients go to the service itself.

    Attributes:
        folder: That of ``deploy.sh`` and ``delete.sh``: ``kubectl_default_path`` of the original.
        namespace: Namespace of the pods.
        manifest: The manifest that ``deploy.sh`` applies, relative to ``folder``.
        kubectl: How ``kubectl`` is called.
        deploy_arguments: Arguments of ``deploy.sh``, such as ``800i_a3``.
        service_host: Where the node answers at its port.
        service_port: That port; by default the ``nodePort`` of the manifest.
        probe_path: Path of the service that a real request goes to before anything is measured, in
            the form of OpenAI where it ends so, else in that of text generation interfaces.
        config: Entries over those of ``conf/config.json``, and of ``conf/ms_controller.json`` with
            ``ms_controller.`` before them, below the tuned ones.
        replace: Delete what somebody else has deployed in the namespace.
        startup_timeout: Seconds from ``deploy.sh`` to the first answer.
        schedule_timeout: Seconds that pods may wait for a node.
        answer_timeout: Seconds to an answer once the coordinator has said that it is ready.
        delete_timeout: Seconds until deleted pods have to be gone.
        kubectl_timeout: Seconds for one answer of ``kubectl``.
        poll_interval: Seconds between two looks at the pods.
    """

    type: Literal["mindie-k8s"] = "mindie-k8s"
    folder: AbsolutePath
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] = "mindie"
    manifest: str = "deployment/mindie_service_single_container.yaml"
    kubectl: Command = Field(default_factory=lambda: ["kubectl"])
    deploy_arguments: list[str] = Field(default_factory=list)
    service_host: Annotated[str, AfterValidator(private_host)] = "127.0.0.1"
    service_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    probe_path: UrlPath = "/"
    config: dict[str, Json] = Field(default_factory=dict)
    replace: bool = False
    health_check_endpoint: UrlPath = "/health"
    startup_timeout: float = Field(default=1800, gt=0)
    schedule_timeout: PositiveFloat = 300
    answer_timeout: PositiveFloat = 120
    delete_timeout: PositiveFloat = 300
    kubectl_timeout: PositiveFloat = 30
    poll_interval: PositiveFloat = 5


@register_engine("mindie-k8s")
class MindieK8sEngine(Engine):
    """One deployment at a time, which ``run_mindie_k8s`` makes, watches and deletes.

    What is served, and as what, is what ``conf/config.json`` says; where the manifest shows that
    the pods see another folder than the trial's model, nothing is started.
    """

    Options = MindieK8sOptions
    symptoms = (*map(_symptom, FAILURE_CLASSES), *MINDIE_SYMPTOMS)
    configurable = True
    # Its program asks the service, which need not be in OpenAI's form.
    models_path = None
    completions_path = None
    options: MindieK8sOptions

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.ready_line = re.compile(rf"^mindie-k8s: {SERVES} ", re.MULTILINE)
        self.stop_grace = self.orphan_grace = self.options.delete_timeout + 15

    def launch(self, deployment: Deployment) -> Launch:
        options = self.options
        config, controller = self._entries(deployment)
        self._check(deployment, controller)
        _, notes = corrected(config)
        env, unset = variables(options.env_vars, deployment.env)
        program = [sys.executable, "-m", "trainables.engines.run_mindie_k8s"]
        argv = (*program, str(self._request_file(deployment)))
        return Launch(argv, env, unset, notes=notes)

    def address(self, deployment: Deployment) -> str:
        host = self.options.service_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._service_port()}"

    def configuration(self, deployment: Deployment) -> str:
        return self._texts(deployment)[CONFIG]

    def configured(self, paths: Iterable[str]) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for path in paths:
            name, inside = _split(path)
            values = values_at(self._parsed(name), [inside])
            if inside in values:
                found[path] = values[inside]
        return found

    def serves(self) -> dict[str, Json]:
        manifest, inside = self._manifest(), str(self._value(_WEIGHTS) or "")
        found = {
            "model": manifest.on_node(inside) or inside,
            "name": self._value(_NAME),
            "devices": manifest.devices,
        }
        return {key: value for key, value in found.items() if value}

    @contextmanager
    def prepared(self, deployment: Deployment) -> Iterator[list[str]]:
        file = self._request_file(deployment)
        write_atomic(file, self._request(deployment).model_dump_json(indent=1))
        try:
            yield []
        finally:
            self._settle()

    def deliverables(self, deployment: Deployment) -> Mapping[str, str]:
        options = self.options
        env, _ = variables(options.env_vars, deployment.env)
        script = deploy_script(
            options.folder, options.namespace, options.deploy_arguments, env, _FILES
        )
        texts = self._texts(deployment)
        return {"serve.sh": script, **{Path(name).name: text for name, text in texts.items()}}

    def identity(self) -> Json:
        options = self.options
        return {
            "type": options.type,
            "config": canonical(self._meant(CONFIG)),
            "controller": self._meant(CONTROLLER),
            "coordinator": self._digest(COORDINATOR),
            "boot": self._digest(_BOOT),
            "manifest": self._digest(options.manifest),
            "deploy_arguments": options.deploy_arguments,
            "env_vars": dict(sorted(options.env_vars.items())),
        }

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        found = [
            ("folder", f"there is no file {options.folder / name}")
            for name in (DEPLOY, DELETE, *_FILES, options.manifest)
            if not (options.folder / name).is_file()
        ]
        if shutil.which(options.kubectl[0], path=options.env_vars.get("PATH")) is None:
            found.append(("kubectl", f"there is no program {options.kubectl[0]!r} here"))
        if found:
            return found
        for key, ask in (("config", self._all_meant), ("manifest", self._check_manifest)):
            try:
                ask()
            except StageError as error:
                found.append((key, str(error)))
        if self._encrypted():
            said = f"{_ENCRYPTED} of {COORDINATOR} is true, and clients here speak plain HTTP"
            found.append(("folder", f"{said}; make it false on a node that is trusted"))
        return found

    @property
    def startup_timeout(self) -> float:
        """The program keeps its own time, and says more about what was late."""
        options = self.options
        return float(options.startup_timeout + 2 * options.delete_timeout + 30)

    def _request(self, deployment: Deployment) -> DeploymentRequest:
        options = self.options
        config, controller = self._entries(deployment)
        return DeploymentRequest(
            folder=options.folder,
            manifest=options.manifest,
            namespace=options.namespace,
            kubectl=options.kubectl,
            deploy_arguments=options.deploy_arguments,
            replace=options.replace,
            run_id=deployment.run_id,
            config=config,
            controller=controller,
            url=self.address(deployment),
            probe_path=options.probe_path,
            served_name=deployment.served_name,
            host=deployment.host,
            port=deployment.port,
            startup_timeout=options.startup_timeout,
            schedule_timeout=options.schedule_timeout,
            answer_timeout=options.answer_timeout,
            delete_timeout=options.delete_timeout,
            kubectl_timeout=options.kubectl_timeout,
            poll=options.poll_interval,
        )

    def _entries(self, deployment: Deployment) -> tuple[dict[str, Json], dict[str, Json]]:
        """Entries of config.json and of ms_controller.json: the block's, and the tuned over them.

        The rates may be given as arguments, for parameters without a position.
        """
        tuned = {path: value for path, value in deployment.config.items() if not is_void(value)}
        unknown = []
        for name, value in deployment.options.items():
            if name in RATES:
                tuned.setdefault(f"{CONTROLLER_PREFIX}{name}", value)
            elif not is_void(value):
                unknown.append(name)
        if unknown:
            raise StageError(
                "input",
                f"{', '.join(unknown)}: MindIE takes no arguments",
                "give the parameters a position such as BackendConfig.ScheduleConfig.maxBatchSize, "
                f"or {CONTROLLER_PREFIX}default_p_rate",
            )
        entries: dict[str, dict[str, Json]] = {CONFIG: {}, CONTROLLER: {}}
        for path, value in {**self.options.config, **tuned}.items():
            name, inside = _split(path)
            entries[name][inside] = value
        if self.options.served_model_name is not None:
            entries[CONFIG][_NAME] = deployment.served_name
        return entries[CONFIG], entries[CONTROLLER]

    def _check(self, deployment: Deployment, controller: Mapping[str, Json]) -> None:
        """Raise ``StageError`` for what would be measured as something that it is not."""
        manifest = self._manifest()
        given = [name for name in _RATE_VARIABLES if manifest.variables.get(name)]
        if given and any(rate in controller for rate in RATES):
            raise StageError(
                "input",
                f"{self.options.manifest} sets {', '.join(given)}, which goes before "
                f"{CONTROLLER}, so the rates that are searched would have no effect",
                "remove the variables from the manifest",
            )
        inside = str(self._value(_WEIGHTS) or "")
        outside = manifest.on_node(inside)
        if outside is not None and Path(outside).resolve() != deployment.model.resolve():
            raise StageError(
                "input",
                f"the pods serve {outside} (as {inside}), but the trial's model is "
                f"{deployment.model}",
                "make trial.model and the mount in the manifest the same",
            )

    def _check_manifest(self) -> None:
        options, manifest = self.options, self._manifest()
        self._service_port()
        if other := sorted(manifest.namespaces - {options.namespace}):
            said = f"{options.manifest} is for the namespace {', '.join(other)}"
            raise StageError("input", f"{said}, not {options.namespace}; see engine.namespace")

    def _manifest(self) -> Manifest:
        file = self.options.folder / self.options.manifest
        try:
            return read_manifest(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise StageError("input", f"{file} {error}", "see engine.manifest") from error

    def _service_port(self) -> int:
        if self.options.service_port is not None:
            return self.options.service_port
        ports = self._manifest().node_ports
        if len(ports) == 1:
            return ports[0]
        said = f"has the nodePorts {', '.join(map(str, ports))}" if ports else "has no nodePort"
        raise StageError("input", f"{self.options.manifest} {said}; set engine.service_port")

    def _texts(self, deployment: Deployment) -> dict[str, str]:
        """Both files for a deployment."""
        return dict(zip(_FILES, self._changed(self._entries(deployment)), strict=True))

    def _changed(self, entries: tuple[dict[str, Json], dict[str, Json]]) -> list[str]:
        texts = []
        for name, given in zip(_FILES, entries, strict=True):
            try:
                texts.append(changed(self._original(name), given))
            except ValueError as error:
                raise StageError("input", f"{name}: {error}", "see engine.config") from None
        return texts

    def _all_meant(self) -> list[str]:
        return self._changed(self._entries(Deployment(Path(), "", "", 0)))

    def _meant(self, name: str) -> Json:
        """A file as the block has it; the block's entries where it cannot be read."""
        try:
            texts = dict(zip(_FILES, self._all_meant(), strict=True))
            return parsed(texts[name])
        except StageError:
            return dict(self.options.config)

    def _original(self, name: str) -> str:
        return ConfigFile(self.options.folder / name).original()

    def _parsed(self, name: str) -> Json:
        try:
            return parsed(self._original(name))
        except ValueError as error:
            raise StageError("input", f"{self.options.folder / name} {error}") from None

    def _value(self, path: str) -> Json:
        return self.configured([path]).get(path)

    def _encrypted(self) -> bool:
        try:
            document = json.loads((self.options.folder / COORDINATOR).read_bytes())
            return value_at(document, _ENCRYPTED) is True
        except (OSError, ValueError, KeyError):
            return False

    def _digest(self, name: str) -> str | None:
        try:
            return hashlib.sha256((self.options.folder / name).read_bytes()).hexdigest()
        except OSError:
            return None

    def _settle(self) -> None:
        """Put back what a killed program has left edited, and tell of a deployment it has left.

        Nothing where another one has the folder.
        """
        folder, records = self.options.folder, Records(self.options.folder)
        try:
            with RunLock(records.folder):
                for name in _FILES:
                    ConfigFile(folder / name).recover()
                left = records.read()
        except RunLockedError:
            return
        except (StageError, OSError) as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
            return
        if left is not None:
            said = f"MindIE is still deployed ({left}): see the end of the engine's log. The next"
            hint = (
                f"trial deletes it first; bash {DELETE} {left.namespace} . in {folder} does it now"
            )
            warnings.warn(f"{said} {hint}", RuntimeWarning, stacklevel=2)

    def _request_file(self, deployment: Deployment) -> Path:
        return deployment.folder.absolute() / f"deployment-{deployment.port}.json"


def _split(path: str) -> tuple[str, str]:
    """The file that a tuned path leads into, and the path inside of it."""
    if path.startswith(CONTROLLER_PREFIX):
        return CONTROLLER, path.removeprefix(CONTROLLER_PREFIX)
    return CONFIG, path

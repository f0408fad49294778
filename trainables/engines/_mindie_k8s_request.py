"""What the program that supervises a deployment is told, and what it leaves for the next one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster import write_json
from trainables._trial import Json
from trainables.engines._mindie_config import corrected, parsed, with_entries, written
from trainables.engines._mindie_k8s_pods import Pod

CONFIG, CONTROLLER = "conf/config.json", "conf/ms_controller.json"
COORDINATOR = "conf/ms_coordinator.json"
DEPLOY, DELETE = "deploy.sh", "delete.sh"
CONTROLLER_PREFIX = "ms_controller."
RATES = ("default_p_rate", "default_d_rate")
RECORDS = ".npu-tuner"
"""Folder in the deployment's, with a lock and :class:`Record`."""


class DeploymentRequest(BaseModel):
    """One deployment.

    Attributes:
        folder: That of ``deploy.sh``.
        manifest: The manifest, relative to it.
        namespace: Where the pods are.
        kubectl: How ``kubectl`` is called.
        deploy_arguments: Arguments of ``deploy.sh``.
        replace: Whether what somebody else has deployed in the namespace may be deleted.
        run_id: The run that it is for.
        config: Entries of ``conf/config.json`` by dotted path.
        controller: Entries of ``conf/ms_controller.json`` by dotted path.
        url: Where the service answers.
        probe_path: Path there that a real request is sent to.
        served_name: The model's name in such a request.
        host, port: Where the program tells how the service feels.
        timeouts: Seconds, see the options of the engine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    manifest: str
    namespace: str
    kubectl: list[str]
    deploy_arguments: list[str]
    replace: bool
    run_id: str
    config: dict[str, Any]
    controller: dict[str, Any]
    url: str
    probe_path: str
    served_name: str
    host: str
    port: int
    startup_timeout: float
    schedule_timeout: float
    answer_timeout: float
    delete_timeout: float
    kubectl_timeout: float
    poll: float


@dataclass(frozen=True)
class Record:
    """A deployment that is there, or was left behind.

    Attributes:
        run_id: The run it is for.
        namespace: Where its pods are.
        since: When it was begun; ISO 8601 with time zone.
        owners: Identities of what has made its pods, see ``Pod.owner``; none until there are pods.
    """

    run_id: str
    namespace: str
    since: str
    owners: Sequence[str] = ()

    def __str__(self) -> str:
        return f"run {self.run_id} since {self.since}, namespace {self.namespace}"

    def has(self, pod: Pod) -> bool:
        """Whether a pod of the same manifest is of this deployment."""
        return pod.run_id == self.run_id or not self.owners or pod.owner in self.owners


class Records:
    """The record of the one deployment that a folder can have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / RECORDS
        self._file = self.folder / "deployment.json"

    def read(self) -> Record | None:
        """What is, or was left, deployed. A record that nobody can read counts as one."""
        try:
            return Record(**json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return Record("unknown", "unknown", "an unknown time")

    def begin(self, run_id: str, namespace: str) -> Record:
        """Write the record of a deployment that is about to be made."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        return self.write(Record(run_id, namespace, now))

    def write(self, record: Record) -> Record:
        write_json(self._file, asdict(record))
        return record

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)


def changed(text: str, entries: Mapping[str, Json]) -> str:
    """The text of a JSON file with these entries, as MindIE can take them.

    Raises ``ValueError`` where it is no JSON object, or a path leads nowhere.
    """
    return written(with_entries(parsed(text), corrected(entries)[0]))

"""A Kubernetes with one node and MindIE's image, for tests: pods and a service without a model.

``Cluster`` is the API server and the node; ``kubectl.py`` asks it over HTTP. What its pods do is
decided by :class:`Conduct`. The service answers at the manifest's node port as ``openai_engine.py``
does, and a ``POST`` of ``/`` as text generation interfaces do, once the coordinator is ready.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai_engine
import yaml

_LOOK_S = 0.05
_READY = "[INFO] MindIE-MS coordinator is ready!!!\n"


@dataclass
class Conduct:
    """What the pods do.

    Attributes:
        starts_after: Seconds from the creation of a pod to its running.
        ready_after: Seconds from there to a coordinator that is ready.
        says_ready: Whether its log says so.
        answers: Status of the service's answers once it is ready; 0: none ever comes.
        delete_takes: Seconds until a deleted pod is gone; None: it never goes.
        waiting: Reason for which its container waits for ever instead of running.
        unschedulable: Why no node takes it.
        dies: Reason that its container ends with, again and again.
        dies_saying: What it says before.
        deaf: Whether ``kubectl`` is not answered.
        forbids: Commands of ``kubectl`` that are forbidden.
    """

    starts_after: float = 0.2
    ready_after: float = 0.3
    says_ready: bool = True
    answers: int = 200
    delete_takes: float | None = 0.3
    waiting: str = ""
    unschedulable: str = ""
    dies: str = ""
    dies_saying: str = ""
    deaf: bool = False
    forbids: tuple[str, ...] = ()


@dataclass
class Pod:
    name: str
    namespace: str
    labels: Mapping[str, str]
    owner: str
    created: float = field(default_factory=time.monotonic)
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    annotations: dict[str, str] = field(default_factory=dict)
    restarts: int = 0
    ended: str = ""
    phase: str = ""
    deleted: float | None = None


class Cluster:
    """One cluster, until :meth:`close`.

    Attributes:
        conduct: What its pods do, also later.
        pods: All pods there are.
        maps: Files of the configuration maps there are, by namespace and name.
        calls: What ``kubectl`` was called with.
    """

    def __init__(self, **conduct: Any) -> None:
        self.conduct = Conduct(**conduct)
        self.pods: list[Pod] = []
        self.maps: dict[tuple[str, str], dict[str, str]] = {}
        self.calls: list[list[str]] = []
        self._services: dict[int, openai_engine.Stub] = {}
        self._lock = threading.RLock()
        self._api = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
        self._api.daemon_threads = True
        self._api.cluster = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._api.server_address[1]}"
        threading.Thread(target=self._api.serve_forever, args=(_LOOK_S,), daemon=True).start()

    def close(self) -> None:
        self._api.shutdown()
        self._api.server_close()
        for port in list(self._services):
            self._close_service(port)

    def mindie(self) -> list[Pod]:
        """The pods of the deployment that are still there."""
        self._forget()
        return [pod for pod in self.pods if pod.labels.get("app") == "mindie-server"]

    def add(self, name: str, namespace: str = "mindie", app: str = "mindie-server") -> Pod:
        """A pod of somebody else."""
        pod = Pod(name, namespace, {"app": app}, owner=uuid.uuid4().hex)
        self.pods.append(pod)
        return pod

    def restart(self, reason: str = "Error") -> None:
        """The container of the deployment ends and is started again."""
        for pod in self.mindie():
            pod.restarts, pod.ended = pod.restarts + 1, reason

    def evict(self) -> None:
        """The pod of the deployment vanishes, and its owner makes another one."""
        (old,) = self.mindie()
        self.pods.remove(old)
        self.pods.append(Pod(f"{old.name}-b", old.namespace, old.labels, old.owner))

    def is_ready(self) -> bool:
        conduct, now = self.conduct, time.monotonic()
        wait = conduct.starts_after + conduct.ready_after
        fine = not (conduct.waiting or conduct.unschedulable or conduct.dies)
        return fine and any(now - pod.created >= wait for pod in self.mindie())

    def answer(self, argv: list[str], files: Mapping[str, str]) -> tuple[int, str, str]:
        """Exit code, output and errors of ``kubectl``."""
        while self.conduct.deaf:
            time.sleep(_LOOK_S)
        with self._lock:
            self.calls.append(argv)
            self._forget()
            if argv[0] in self.conduct.forbids:
                return 1, "", f"Error from server (Forbidden): cannot {argv[0]} pods"
            verb = {"get": self._get, "describe": self._describe, "annotate": self._annotate}
            change = {"create": self._create, "apply": self._apply, "delete": self._delete}
            if argv[0] in verb:
                return verb[argv[0]](argv)
            if argv[0] in change:
                return change[argv[0]](argv, files)
            if argv[0] == "logs":
                return 0, self.conduct.dies_saying, ""
        return 1, "", f"error: unknown command {argv[0]!r}"

    def log(self, name: str) -> Iterator[str]:
        """The log of a pod as ``logs -f`` gives it, cut where nobody expects it."""
        yield "[INFO] MindIE-MS coordinator is starting\n"
        if self.conduct.dies_saying:
            yield f"{self.conduct.dies_saying}\n"
        while not self.is_ready():
            if name not in [pod.name for pod in self.mindie()]:
                return
            time.sleep(_LOOK_S)
        if self.conduct.says_ready:
            for part in (_READY[:17], _READY[17:31], _READY[31:]):
                yield part
                time.sleep(_LOOK_S)
        while name in [pod.name for pod in self.mindie()]:
            time.sleep(_LOOK_S)

    def _get(self, argv: list[str]) -> tuple[int, str, str]:
        if "-A" in argv:
            head = "NAMESPACE NAME READY STATUS RESTARTS AGE IP NODE\n"
            rows = [
                f"{p.namespace} {p.name} 1/1 {self._phase(p)} {p.restarts} 1m" for p in self.pods
            ]
            return 0, head + "\n".join(rows) + "\n", ""
        place = argv[argv.index("-n") + 1]
        items = [self._document(pod) for pod in self.pods if pod.namespace == place]
        return 0, json.dumps({"kind": "List", "items": items}), ""

    def _describe(self, argv: list[str]) -> tuple[int, str, str]:
        conduct = self.conduct
        why = conduct.unschedulable or conduct.waiting or conduct.dies or "Started"
        events = f"Events:\n  Type  Reason  Age  From  Message\n  Warning  {why}  1s  stub  {why}\n"
        return 0, f"Name: {argv[-1]}\nNamespace: mindie\n{events}", ""

    def _annotate(self, argv: list[str]) -> tuple[int, str, str]:
        names = [word.removeprefix("pod/") for word in argv if word.startswith("pod/")]
        key, _, value = argv[-1].partition("=")
        for pod in self.pods:
            if pod.name in names:
                pod.annotations[key] = value
        return 0, "", ""

    def _create(self, argv: list[str], files: Mapping[str, str]) -> tuple[int, str, str]:
        key = argv[argv.index("-n") + 1], argv[2]
        if key in self.maps:
            return 1, "", f'error: configmaps "{argv[2]}" already exists'
        self.maps[key] = dict(files)
        return 0, f"configmap/{argv[2]} created\n", ""

    def _apply(self, argv: list[str], files: Mapping[str, str]) -> tuple[int, str, str]:
        (text,) = files.values()
        for one in yaml.safe_load_all(text):
            template = one["spec"].get("template")
            if template is not None:
                name = f"{one['metadata']['name']}-7b795f8df9-{uuid.uuid4().hex[:5]}"
                place = one["metadata"].get("namespace", "default")
                labels = template["metadata"]["labels"]
                self.pods.append(Pod(name, place, labels, owner=uuid.uuid4().hex))
            for port in one["spec"].get("ports", ()):
                self._open_service(port["nodePort"])
        return 0, "deployment.apps/mindie-server created\n", ""

    def _delete(self, argv: list[str], files: Mapping[str, str]) -> tuple[int, str, str]:
        place = argv[argv.index("-n") + 1]
        if argv[1] == "cm":
            gone = self.maps.pop((place, argv[2]), None)
            said = f'Error from server (NotFound): configmaps "{argv[2]}" not found'
            return (1, "", said) if gone is None else (0, "deleted\n", "")
        for text in files.values():
            for one in yaml.safe_load_all(text):
                for port in one["spec"].get("ports", ()):
                    self._close_service(port["nodePort"])
        found = [pod for pod in self.mindie() if pod.namespace == place]
        for pod in found:
            pod.deleted = time.monotonic()
        return (0, "deleted\n", "") if found else (1, "", "Error from server (NotFound)")

    def leaving(self, namespace: str) -> bool:
        """Whether ``kubectl delete`` still waits."""
        return any(pod.deleted and pod.namespace == namespace for pod in self.mindie())

    def _forget(self) -> None:
        takes, now = self.conduct.delete_takes, time.monotonic()
        if takes is not None:
            self.pods = [p for p in self.pods if p.deleted is None or now - p.deleted < takes]

    def _phase(self, pod: Pod) -> str:
        conduct = self.conduct
        early = time.monotonic() - pod.created < conduct.starts_after
        waits = early or conduct.waiting or conduct.unschedulable
        return pod.phase or ("Pending" if waits else "Running")

    def _document(self, pod: Pod) -> dict[str, Any]:
        phase, conduct = self._phase(pod), self.conduct
        status: dict[str, Any] = {"phase": phase}
        if phase == "Running" and conduct.dies and pod.labels.get("app") == "mindie-server":
            pod.restarts, pod.ended = 1, conduct.dies
        if conduct.unschedulable and phase == "Pending":
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            status["conditions"] = [{**condition, "message": conduct.unschedulable}]
        else:
            state: dict[str, Any] = {"running": {}}
            if phase == "Pending":
                state = {"waiting": {"reason": conduct.waiting or "ContainerCreating"}}
            container = {"name": "mindie", "restartCount": pod.restarts, "state": state}
            if pod.ended:
                code = 137 if pod.ended == "OOMKilled" else 1
                container["lastState"] = {"terminated": {"exitCode": code, "reason": pod.ended}}
            status["containerStatuses"] = [container]
        metadata: dict[str, Any] = {
            "name": pod.name,
            "uid": pod.uid,
            "labels": pod.labels,
            "annotations": pod.annotations,
            "ownerReferences": [{"kind": "ReplicaSet", "uid": pod.owner}],
        }
        if pod.deleted is not None:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return {"metadata": metadata, "status": status}

    def _open_service(self, port: int) -> None:
        files = next(iter(self.maps.values()), {})
        config = json.loads(files.get("config.json", "{}"))
        model = config["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]
        behaviour = openai_engine.Behaviour.of(Path(model["modelWeightPath"]), {})
        service = openai_engine.Stub("127.0.0.1", port, model["modelName"], behaviour)
        service.RequestHandlerClass = _Service
        service.cluster = self  # type: ignore[attr-defined]
        threading.Thread(target=service.serve_forever, args=(_LOOK_S,), daemon=True).start()
        self._services[port] = service

    def _close_service(self, port: int) -> None:
        if (service := self._services.pop(port, None)) is not None:
            service.shutdown()
            service.server_close()


class _Service(openai_engine.Handler):
    """The coordinator's port."""

    def do_POST(self) -> None:  # noqa: N802 as http.server names it
        cluster: Cluster = self.server.cluster  # type: ignore[attr-defined]
        if not cluster.is_ready():
            self.close_connection = True
            self._error(503, "no instance is available")
        elif not cluster.conduct.answers:
            self.connection.recv(65536)
            time.sleep(600)
        elif cluster.conduct.answers != 200:
            self.close_connection = True
            self._error(cluster.conduct.answers, "stub: not well")
        elif self.path == "/":
            self.rfile.read(int(self.headers["Content-Length"]))
            self._send(200, {"generated_text": "I am a stub."})
        else:
            super().do_POST()

    def log_message(self, format: str, *args: Any) -> None:
        """The log is the pod's."""


class _Api(BaseHTTPRequestHandler):
    """One call of ``kubectl``: its arguments and the files they name."""

    def do_POST(self) -> None:
        cluster: Cluster = self.server.cluster  # type: ignore[attr-defined]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        argv = asked["argv"]
        self.send_response(200)
        self.end_headers()
        if argv[:2] == ["logs", "-f"]:
            for part in cluster.log(argv[4]):
                self.wfile.write(part.encode())
                self.wfile.flush()
            return
        code, output, errors = cluster.answer(argv, asked["files"])
        while argv[0] == "delete" and code == 0 and argv[1] == "-f":
            if not cluster.leaving(argv[argv.index("-n") + 1]):
                break
            time.sleep(_LOOK_S)
        self.wfile.write(json.dumps([code, output, errors]).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

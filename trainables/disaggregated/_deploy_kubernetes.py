"""A split as Kubernetes objects. Pure. *Not run on NPU.*

Each role is a StatefulSet behind a headless Service, so that its pods have names a router can be
told before they run; the router is a Deployment behind a Service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from trainables.disaggregated._deploy_words import kubernetes_word, slots
from trainables.disaggregated._options import ROLES
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._router import make_router
from trainables.disaggregated._transfer_environment import is_ascend
from trainables.disaggregated._transfer_sizes import engine_block
from trainables.engines import Launch, make_engine

Object: TypeAlias = dict[str, Any]

ENGINE_IMAGE, ROUTER_IMAGE = "engine-image", "router-image"
MODEL_CLAIM, SHARED_CLAIM = "model-claim", "shared-claim"
_MODEL, _SHARED = "/model", "/kv-transfer"
_FILLED = {"POD_IP": "$(POD_IP)", "MODEL": _MODEL, "SHARED_FOLDER": _SHARED}
_ASCEND_RESOURCE = "huawei.com/Ascend910"
_START_S = 3600
_PROBE_S = 10
_GRACE_S = 60


def manifests(
    plan: Plan,
    launches: Sequence[tuple[Instance, Launch]],
    router: Callable[[Sequence[str]], Launch | None],
    *,
    name: str,
    device_resource: str | None,
) -> dict[str, str]:
    """``kubernetes/ROLE.yaml`` for each role, and ``kubernetes/router.yaml``.

    Args:
        launches: All instances of the plan, with commands for pods.
        router: The router's command, given the instances' host names in their order.
        name: What all objects' names begin with.
        device_resource: Extended resource of the devices; None: the usual one on Ascend.
    """
    if device_resource is None and is_ascend(plan):
        device_resource = _ASCEND_RESOURCE
    health = _health_path(plan)
    files: dict[str, str] = {}
    hosts: list[str] = []
    for role in ROLES:
        objects: list[Object] = []
        for group in _alike([one for one in launches if one[0].role == role]):
            first, launch = group[0]
            whole = f"{name}-{role}" if len(group) == _count(launches, role) else ""
            title = whole or f"{name}-{first.name}"
            pod = _engine_pod(plan, first, launch, health, device_resource)
            objects += _role_objects(name, role, title, len(group), pod, first.port)
            hosts += [f"{title}-{number}.{title}" for number in range(len(group))]
        if objects:
            files[f"kubernetes/{role}.yaml"] = _text(objects)
    if (launch_router := router(hosts)) is not None and plan.router is not None:
        ready = make_router(plan.router).ready_path
        port = launches[0][0].port
        files["kubernetes/router.yaml"] = _text(_router_objects(name, launch_router, ready, port))
    return files


def _alike(ones: Sequence[tuple[Instance, Launch]]) -> list[list[tuple[Instance, Launch]]]:
    """Neighbours with the same command, which one StatefulSet can have."""
    groups: list[list[tuple[Instance, Launch]]] = []
    for instance, launch in ones:
        if groups and groups[-1][0][1] == launch:
            groups[-1].append((instance, launch))
        else:
            groups.append([(instance, launch)])
    return groups


def _count(launches: Sequence[tuple[Instance, Launch]], role: str) -> int:
    return sum(instance.role == role for instance, _ in launches)


def _health_path(plan: Plan) -> str:
    engine = make_engine(engine_block(plan))
    return "/health" if engine.options.type.startswith("vllm") else engine.health_path


def _role_objects(
    name: str, role: str, title: str, replicas: int, pod: Object, port: int
) -> list[Object]:
    labels = _labels(name, role, title)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": title, "labels": labels},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": [{"name": "http", "port": port, "targetPort": "http"}],
        },
    }
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": title, "labels": labels},
        "spec": {
            "serviceName": title,
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    return [service, stateful]


def _router_objects(name: str, launch: Launch, ready_path: str, port: int) -> list[Object]:
    title = f"{name}-router"
    labels = _labels(name, "router", title)
    container = {
        **_container("router", ROUTER_IMAGE, launch, port),
        "readinessProbe": _probe(ready_path, 3),
        "livenessProbe": _probe(ready_path, 6),
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": title, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": title, "labels": labels},
        "spec": {
            "selector": labels,
            "ports": [{"name": "http", "port": port, "targetPort": "http"}],
        },
    }
    return [service, deployment]


def _engine_pod(
    plan: Plan, instance: Instance, launch: Launch, health: str, resource: str | None
) -> Object:
    container = _container("engine", ENGINE_IMAGE, launch, instance.port)
    if resource is not None:
        amount = {resource: str(instance.devices)}
        container["resources"] = {"requests": amount, "limits": dict(amount)}
    container |= {
        "startupProbe": _probe(health, _START_S // _PROBE_S),
        "readinessProbe": _probe(health, 3),
        "livenessProbe": _probe(health, 6),
    }
    claimed = {"claimName": MODEL_CLAIM, "readOnly": True}
    volumes: list[tuple[str, Object, Object]] = [
        ("model", {"mountPath": _MODEL, "readOnly": True}, {"persistentVolumeClaim": claimed}),
        ("shm", {"mountPath": "/dev/shm"}, {"emptyDir": {"medium": "Memory"}}),
    ]
    if "SHARED_FOLDER" in slots(launch):
        shared = {"persistentVolumeClaim": {"claimName": SHARED_CLAIM}}
        volumes.append(("kv-transfer", {"mountPath": _SHARED}, shared))
    if is_ascend(plan):
        # Addresses of the NPUs' own network interfaces, which pods do not have.
        file = {"hostPath": {"path": "/etc/hccn.conf", "type": "File"}}
        volumes.append(("hccn", {"mountPath": "/etc/hccn.conf", "readOnly": True}, file))
    container["volumeMounts"] = [{"name": title, **mount} for title, mount, _ in volumes]
    return {
        "terminationGracePeriodSeconds": _GRACE_S,
        "containers": [container],
        "volumes": [{"name": title, **source} for title, _, source in volumes],
    }


def _container(title: str, image: str, launch: Launch, port: int) -> Object:
    """A container that runs a command; a program with a path is the image's own of that name."""
    program = Path(launch.argv[0]).name
    words = [program, *(kubernetes_word(word, _FILLED) for word in launch.argv[1:])]
    own = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    env = [
        {"name": name, "value": kubernetes_word(value, _FILLED)}
        for name, value in launch.env.items()
    ]
    found: Object = {
        "name": title,
        "image": image,
        "command": words,
        "env": [own, *env],
        "ports": [{"name": "http", "containerPort": port}],
    }
    if launch.cwd is not None:
        found["workingDir"] = kubernetes_word(str(launch.cwd), _FILLED)
    return found


def _probe(path: str, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": _PROBE_S,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _labels(name: str, role: str, title: str) -> Mapping[str, str]:
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/component": role,
        "app.kubernetes.io/instance": title,
    }


class _Plain(yaml.SafeDumper):
    """Without anchors: equal labels are written out each time."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(objects: Sequence[Object]) -> str:
    names = [ENGINE_IMAGE, ROUTER_IMAGE, MODEL_CLAIM, SHARED_CLAIM]
    body = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=100)
    used = ", ".join(one for one in names if f" {one}\n" in body)
    return f"# Replace by your own: {used}.\n{body}"

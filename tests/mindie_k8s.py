"""A stub Kubernetes, and MindIE's scripts for it as a user has unpacked them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import lease_ports

STUBS = Path(__file__).parent / "stubs"
sys.path.insert(0, str(STUBS))
from k8s_cluster import Cluster  # noqa: E402

KUBECTL = f"""#!/bin/sh
exec {sys.executable} -S -E {STUBS}/kubectl.py "$@"
"""
DEPLOY = """#!/bin/bash
set -e
kubectl create configmap config-file-path --from-file="$(pwd)"/conf -n mindie
kubectl apply -f ./deployment/mindie_service_single_container.yaml
"""
DELETE = """#!/bin/bash
kubectl delete cm config-file-path -n "$1";
for yaml_file in "$2"/deployment/*.yaml; do
    kubectl delete -f "$yaml_file" -n "$1"
done
"""
MANIFEST = """apiVersion: v1
kind: Service
metadata:
  name: mindie-service
  namespace: mindie
spec:
  selector: {{app: mindie-server}}
  type: NodePort
  ports:
  - {{name: http, port: 1025, targetPort: 1025, nodePort: {port}}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: mindie-server
  namespace: mindie
spec:
  replicas: 1
  template:
    metadata:
      labels: {{app: mindie-server}}
    spec:
      containers:
      - name: mindie
        image: mindie:2.1
        env:
        - {{name: MINDIE_LOG_TO_STDOUT, value: "1"}}
        resources:
          limits: {{huawei.com/Ascend910: "8"}}
        volumeMounts:
        - {{name: model-path, mountPath: {inside}}}
      volumes:
      - name: model-path
        hostPath: {{path: {model}}}
"""
CONFIG: dict[str, Any] = {
    "备注": "手工配置 ±",
    "ServerConfig": {"ipAddress": "127.0.0.1", "port": 1025, "httpsEnabled": True},
    "BackendConfig": {
        "npuDeviceIds": [[0, 1]],
        "ModelDeployConfig": {
            "ModelConfig": [{"modelName": "tiny", "modelWeightPath": "", "worldSize": 2}]
        },
        "ScheduleConfig": {"maxPrefillBatchSize": 50, "maxBatchSize": 200},
    },
}
CONTROLLER = {"deploy_mode": "pd_disaggregation_single_container"}
CONTROLLER |= {"default_p_rate": 1, "default_d_rate": 3}


class K8sWorld:
    """A node with the scripts in :attr:`scripts` and a cluster that they deploy to."""

    def __init__(self, folder: Path, cluster: Cluster, model: Path, inside: str | None) -> None:
        self.cluster, self.model = cluster, model
        self.scripts = folder / "kubernetes_deploy_scripts_latest"
        (self.scripts / "conf").mkdir(parents=True)
        (self.scripts / "deployment").mkdir()
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        self.kubectl = bin_folder / "kubectl"
        for file, text in (
            (self.kubectl, KUBECTL),
            (self.scripts / "deploy.sh", DEPLOY),
            (self.scripts / "delete.sh", DELETE),
        ):
            file.write_text(text)
            file.chmod(0o755)
        with lease_ports() as lease:
            self.port = lease.ports[0]
        seen = inside or str(model)
        self.manifest = self.scripts / "deployment" / "mindie_service_single_container.yaml"
        self.manifest.write_text(MANIFEST.format(port=self.port, inside=seen, model=model))
        config = json.loads(json.dumps(CONFIG))
        served = config["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]
        served["modelWeightPath"] = seen
        self.write("config.json", config)
        self.write("ms_controller.json", CONTROLLER)
        self.write("ms_coordinator.json", {"tls_config": {"request_server_tls_enable": False}})
        self.originals = self.files()

    def file(self, name: str) -> Path:
        return self.scripts / "conf" / name

    def write(self, name: str, document: Any) -> None:
        self.file(name).write_text(json.dumps(document, ensure_ascii=False, indent=3), "utf-8")
        self.file(name).chmod(0o640)

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Content and mode of all files in ``conf``."""
        found = [file for file in sorted((self.scripts / "conf").iterdir()) if file.is_file()]
        return {file.name: (file.read_bytes(), file.stat().st_mode) for file in found}

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.kubectl.parent}:/usr/local/bin:/usr/bin:/bin"
        return {"STUB_KUBERNETES": self.cluster.url, "PATH": path}

    def block(self, **keys: Any) -> dict[str, Any]:
        """An ``engine`` block; keywords override its keys."""
        variables = {**self.environment, **keys.pop("env_vars", {})}
        quick = {"startup_timeout": 300, "answer_timeout": 120, "delete_timeout": 120}
        quick |= {"poll_interval": 0.2, "kubectl_timeout": 120}
        block = {"type": "mindie-k8s", "folder": str(self.scripts), "env_vars": variables}
        return {**block, **quick, **keys}

    def deployed(self, name: str) -> Any:
        """A file of ``conf`` as the pods have it."""
        ((_, files),) = self.cluster.maps.items()
        return json.loads(files[name])


@contextmanager
def k8s_world(folder: Path, model: Path, *, inside: str | None = None) -> Iterator[K8sWorld]:
    """A world; ``inside``: the model's folder as the pods see it, where that is another one."""
    cluster = Cluster()
    try:
        yield K8sWorld(folder, cluster, model, inside)
    finally:
        cluster.close()

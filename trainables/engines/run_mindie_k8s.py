"""Program that deploys MindIE on Kubernetes, watches over it, and deletes it when told to end.

``python -m trainables.engines.run_mindie_k8s REQUEST``: a file with the JSON of
:class:`~trainables.engines._mindie_k8s_request.DeploymentRequest`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trainables.engines._mindie_k8s_request import DeploymentRequest
from trainables.engines._mindie_k8s_supervisor import Supervisor

if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text("utf-8")
    sys.exit(Supervisor(DeploymentRequest.model_validate_json(text)).run())

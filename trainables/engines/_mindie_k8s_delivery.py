"""What somebody needs to deploy the best configuration without us. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainables.engines._mindie_k8s_request import DELETE, DEPLOY
from trainables.engines._shell import shell_environment


def deploy_script(
    folder: Path,
    namespace: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    files: Sequence[str],
) -> str:
    """A script that puts the files beside it into the deployment's folder, keeping those that are
    there, and deploys."""
    copies = []
    for name in files:
        copies += [
            f'cp -p "$folder/{name}" "$kept/"',
            f'cp "$here/{Path(name).name}" "$folder/{name}"',
        ]
    variables, words = shell_environment(env)
    lines = [
        "#!/bin/sh",
        f"# Deploys the best configuration in the namespace {namespace}, in the place of what is",
        "# there. The files that it replaces are kept beside conf.",
        "set -eu",
        'here=$(cd "$(dirname "$0")" && pwd)',
        f"folder=${{1:-{shlex.quote(str(folder))}}}",
        'kept="$folder/conf-before-$(date +%Y%m%d%H%M%S)"',
        'mkdir "$kept"',
        *copies,
        *variables,
        'cd "$folder"',
        f"bash {DELETE} {namespace} . || true",
        f"kubectl wait --for=delete pod --all -n {namespace} --timeout=300s || true",
        shlex.join(["exec", *words, "bash", DEPLOY, *arguments]),
    ]
    return "\n".join(lines) + "\n"

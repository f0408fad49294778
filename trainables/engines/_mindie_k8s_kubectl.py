"""``kubectl``, asked with a bound on every answer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence

from trainables.engines._mindie_k8s_manifest import Manifest
from trainables.engines._mindie_k8s_pods import ANNOTATION, Pod, pods_of

_EVENTS = "Events:"
_EXCERPT_LINES = 20
_SAID_CHARS = 500


class KubectlError(Exception):
    """It has not answered, or not as it should."""


class Kubectl:
    """The pods of one namespace.

    Args:
        command: Program and arguments before its own.
        namespace: Where the pods are.
        timeout: Seconds that one answer may take.
    """

    def __init__(self, command: Sequence[str], namespace: str, timeout: float) -> None:
        self._command = list(command)
        self._place = ["-n", namespace]
        self._timeout = timeout

    def pods(self, manifest: Manifest) -> tuple[list[Pod], list[Pod]]:
        """The pods of the manifest, and the others of the namespace."""
        text = self._ask("get", "pods", *self._place, "-o", "json")
        try:
            return pods_of(json.loads(text), manifest)
        except (ValueError, KeyError, TypeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise KubectlError(f"kubectl get pods has not listed pods: {said}") from error

    def mark(self, pods: Iterable[Pod], run_id: str) -> None:
        """Annotate pods with the run that they belong to."""
        names = [f"pod/{pod.name}" for pod in pods if pod.run_id != run_id]
        if names:
            mark = f"{ANNOTATION}={run_id}"
            self._ask("annotate", "--overwrite", *self._place, *names, mark)

    def described(self, pod: str) -> str:
        """What ``kubectl describe`` says about the events of a pod, its last lines."""
        text = self._ask("describe", "pod", *self._place, pod)
        events = text[text.rfind(_EVENTS) :] if _EVENTS in text else text
        return "\n".join(events.splitlines()[-_EXCERPT_LINES:])

    def last_words(self, pod: str) -> str:
        """The last lines of the container that was there before the one that runs."""
        count = f"--tail={_EXCERPT_LINES}"
        return self._ask("logs", *self._place, pod, "--previous", "--all-containers", count)

    def follow(self, pod: str, since: str | None) -> list[str]:
        """The command that prints the log of a pod and waits for more.

        Args:
            since: Leave out what is older; RFC 3339.
        """
        later = [] if since is None else [f"--since-time={since}"]
        return [*self._command, "logs", "-f", *self._place, pod, *later]

    def _ask(self, *arguments: str) -> str:
        what = f"kubectl {' '.join(arguments[:2])}"
        try:
            done = subprocess.run(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"{what} has not answered within {self._timeout:g} s") from error
        except OSError as error:
            raise KubectlError(f"{self._command[0]} cannot be run: {error.strerror}") from error
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[-_SAID_CHARS:]
            raise KubectlError(f"{what} ended with exit code {done.returncode}: {said}")
        return done.stdout.decode(errors="replace")

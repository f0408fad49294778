"""Pods as ``kubectl get pods -o json`` lists them, and what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from trainables._program import FailureClass
from trainables.engines._mindie_k8s_manifest import Manifest

Json: TypeAlias = Any

ANNOTATION = "npu-tuner/run-id"
"""Annotation of a pod with the run that it was deployed for."""
_NEVER_STARTS: Mapping[str, FailureClass] = {
    "ImagePullBackOff": "input",
    "ErrImageNeverPull": "input",
    "InvalidImageName": "input",
    "CreateContainerConfigError": "input",
    "CreateContainerError": "startup",
    "RunContainerError": "startup",
    "CrashLoopBackOff": "startup",
}
"""Reasons of a container to wait after which waiting is useless."""
_KILLED = "OOMKilled"


@dataclass(frozen=True)
class Pod:
    """One pod.

    Attributes:
        uid: Its identity: another pod of the same name has another one.
        phase: ``Pending``, ``Running``, ``Succeeded``, ``Failed`` or ``Unknown``.
        reason: Why it is in its phase, where the cluster says so.
        owner: Identity of what has made it, such as a replica set; its own where nothing has.
        run_id: The run it was deployed for; empty for those of others.
        leaves: Whether it is being deleted.
        restarts: How often its containers were started again.
        running: Whether all its containers are.
        waiting: Reason and message of containers that wait.
        ended: What its containers last ended with, in words, and whether for want of memory.
        unschedulable: Why no node takes it; empty where one does.
    """

    name: str
    uid: str
    phase: str
    owner: str = ""
    reason: str = ""
    run_id: str = ""
    leaves: bool = False
    restarts: int = 0
    running: bool = False
    waiting: tuple[tuple[str, str], ...] = ()
    ended: tuple[tuple[str, bool], ...] = ()
    unschedulable: str = ""

    def __str__(self) -> str:
        reasons = [reason for reason, _ in self.waiting]
        words = [self.phase, self.reason, *reasons, "being deleted" if self.leaves else ""]
        return f"{self.name} ({', '.join(word for word in words if word)})"


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a pod.

    Attributes:
        pod: Its name.
        failure: What sort of failure it is.
        said: In words.
        restarted: Whether what the last container said is in the log of its predecessor.
    """

    pod: str
    failure: FailureClass
    said: str
    restarted: bool = False

    def __str__(self) -> str:
        return f"pod {self.pod}: {self.said}"


def pods_of(document: Json, manifest: Manifest) -> tuple[list[Pod], list[Pod]]:
    """The pods of a list: those of the manifest, and the others."""
    own: list[Pod] = []
    others: list[Pod] = []
    for item in document["items"]:
        labels = item["metadata"].get("labels") or {}
        (own if manifest.has(labels) else others).append(_pod(item))
    return own, others


def trouble_at_start(pods: Sequence[Pod]) -> Trouble | None:
    """Why these pods will not come up, however long one waits."""
    return next((found for pod in pods for found in _at_start(pod)), None)


def change(before: Sequence[Pod], now: Sequence[Pod]) -> Trouble | None:
    """What has happened to pods that were all well before."""
    found = {pod.uid: pod for pod in now}
    for old in before:
        pod = found.get(old.uid)
        if pod is None:
            return Trouble(old.name, "lost", "it is gone, though nobody here has deleted it")
        if pod.leaves:
            return Trouble(old.name, "lost", "somebody deletes it")
        if pod.restarts > old.restarts or (pod.ended and not pod.running):
            said, failure = _ended(pod, "tool")
            return Trouble(old.name, failure, said, restarted=pod.restarts > old.restarts)
        if pod.phase != "Running":
            failure = "lost" if pod.phase == "Unknown" else "tool"
            why = f" ({pod.reason})" if pod.reason else ""
            return Trouble(old.name, failure, f"its phase is {pod.phase} now{why}")
    return None


def _at_start(pod: Pod) -> Iterator[Trouble]:
    if pod.restarts or (pod.ended and not pod.running):
        said, failure = _ended(pod, "startup")
        yield Trouble(pod.name, failure, said, restarted=pod.restarts > 0)
    for reason, message in pod.waiting:
        if reason in _NEVER_STARTS:
            yield Trouble(pod.name, _NEVER_STARTS[reason], f"{reason}: {message}".strip(": "))
    if pod.phase in ("Failed", "Succeeded"):
        yield Trouble(pod.name, "startup", f"its phase is {pod.phase} {pod.reason}".strip())


def _ended(pod: Pod, otherwise: FailureClass) -> tuple[str, FailureClass]:
    said = "; ".join(words for words, _ in pod.ended) or "a container was started again"
    return said, "out_of_memory" if any(memory for _, memory in pod.ended) else otherwise


def _pod(item: Json) -> Pod:
    metadata, status = item["metadata"], item.get("status") or {}
    containers = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    states = [container.get("state") or {} for container in containers]
    waiting = [state["waiting"] for state in states if state.get("waiting")]
    main = [container.get("state") or {} for container in status.get("containerStatuses") or ()]
    uid = metadata.get("uid", metadata["name"])
    owners = metadata.get("ownerReferences") or [{}]
    return Pod(
        metadata["name"],
        uid,
        status.get("phase", "Unknown"),
        owners[0].get("uid", uid),
        status.get("reason", ""),
        (metadata.get("annotations") or {}).get(ANNOTATION, ""),
        "deletionTimestamp" in metadata,
        sum(container.get("restartCount", 0) for container in containers),
        bool(main) and all("running" in state for state in main),
        tuple((one.get("reason", ""), one.get("message", "")) for one in waiting),
        tuple(words for container in containers for words in _endings(container)),
        _unschedulable(status),
    )


def _endings(container: Json) -> Iterator[tuple[str, bool]]:
    for key in ("state", "lastState"):
        ended = (container.get(key) or {}).get("terminated")
        if ended and (ended.get("exitCode") or key == "lastState"):
            reason = ended.get("reason") or "no reason given"
            code = ended.get("exitCode")
            said = f"container {container.get('name')} ended with exit code {code} ({reason})"
            yield said, reason == _KILLED


def _unschedulable(status: Json) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return ""

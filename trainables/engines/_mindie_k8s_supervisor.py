"""One deployment of MindIE on Kubernetes, from the deletion of the last one to its own.

Whoever owns it ends it with SIGTERM; it then deletes what it has deployed and puts the user's
files back. A record in the deployment's folder says so to the next one where it could not.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from cluster import RunLock, RunLockedError
from trainables._program import StageError
from trainables._trial import Json
from trainables.engines._config_file import ConfigFile
from trainables.engines._mindie_k8s_kubectl import Kubectl, KubectlError
from trainables.engines._mindie_k8s_log import PodLog, say
from trainables.engines._mindie_k8s_manifest import Manifest, read_manifest
from trainables.engines._mindie_k8s_pods import Pod, Trouble, change, trouble_at_start
from trainables.engines._mindie_k8s_request import (
    CONFIG,
    CONTROLLER,
    DELETE,
    DEPLOY,
    DeploymentRequest,
    Record,
    Records,
    changed,
)
from trainables.engines._mindie_k8s_scripts import Script
from trainables.engines._mindie_k8s_status import Prober, StatusServer, ask

SERVES = "serves at"
FAILED = "deployment failed"
_TOLD = 128 + signal.SIGTERM
_LOOK_S = 0.5
_PROBE_S = 10.0
_BLIND_S = 60.0
"""How long ``kubectl`` may fail while the service is used before nobody can say that it is well."""
_SCRIPT_TRIES = 3


class _Told(Exception):
    """The owner wants the deployment to end."""


class Supervisor:
    """Carries out one request; :meth:`run` once."""

    def __init__(self, request: DeploymentRequest) -> None:
        self._request = request
        self._kubectl = Kubectl(request.kubectl, request.namespace, request.kubectl_timeout)
        self._records = Records(request.folder)
        self._told = threading.Event()
        self._broken: Trouble | None = None
        self._manifest: Manifest
        self._record: Record
        self._pods: list[Pod] = []
        self._seen = time.monotonic()

    def run(self) -> int:
        """The exit status: 1 after a failure, which the last line of the log explains."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._told.set())
        try:
            with self._locked(), ExitStack() as files:
                self._manifest = self._read()
                self._delete_old()
                self._edit(files)
                self._serve()
        except _Told:
            say("ended, as it was told to")
            return _TOLD
        except StageError as error:
            hint = f"; {error.suggestion}" if error.suggestion else ""
            say(f"{FAILED} ({error.failure}): {' '.join(str(error).split())}{hint}")
        except KubectlError as error:
            say(f"{FAILED} (network): {error}")
        except OSError as error:
            say(f"{FAILED} (tool): {error}")
        return 1

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = RunLock(self._records.folder)
        try:
            lock.acquire()
        except RunLockedError as error:
            who = error.holder or "another process"
            said = f"{self._request.folder} is in use by {who}"
            hint = "one deployment at a time: say budget: {concurrent: 1}"
            raise StageError("startup", said, hint) from error
        except OSError as error:
            said = f"nothing can be written in {self._request.folder}: {error.strerror or error}"
            raise StageError("input", said) from error
        try:
            yield
        finally:
            lock.release()

    def _read(self) -> Manifest:
        file = self._request.folder / self._request.manifest
        try:
            return read_manifest(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise StageError("input", f"{file} {error}") from error

    def _edit(self, files: ExitStack) -> None:
        request = self._request
        edits: Sequence[tuple[str, dict[str, Json]]] = (
            (CONFIG, request.config),
            (CONTROLLER, request.controller),
        )
        for name, entries in edits:
            change = partial(_changed, name=name, entries=entries)
            edited = ConfigFile(request.folder / name).edited(change, request.run_id)
            try:
                notes = files.enter_context(edited)
            except StageError as error:
                said = f"{error}; MindIE's files are edited while it runs, and put back"
                raise StageError(error.failure, said) from error
            for note in notes:
                say(note)

    def _delete_old(self) -> None:
        """Delete what an earlier deployment has left, and nobody else's unless that is wanted."""
        request, left = self._request, self._records.read()
        own, others = self._kubectl.pods(self._manifest)
        ours = [
            pod
            for pod in own
            if pod.run_id == request.run_id or (left is not None and left.has(pod))
        ]
        strangers = [pod for pod in (*own, *others) if pod not in ours]
        if strangers and not request.replace:
            listed = ", ".join(map(str, strangers))
            raise StageError(
                "input",
                f"somebody else uses the namespace {request.namespace}: {listed}",
                f"delete it (bash {DELETE} {request.namespace} .), choose another "
                "engine.namespace, or say engine.replace: true to have it deleted",
            )
        if left is not None:
            say(f"an earlier deployment was left behind ({left}) and is deleted first")
        if strangers:
            say(f"replaced, as engine.replace says: {', '.join(map(str, strangers))}")
        self._delete(self._pause)

    def _serve(self) -> None:
        """Deploy, and stay until the deployment is to end or fails; it is deleted in any case."""
        request = self._request
        self._record = self._records.begin(request.run_id, request.namespace)
        deadline = time.monotonic() + request.startup_timeout
        try:
            self._deploy(deadline)
            self._await_pods(deadline)
            self._use(deadline)
        except BaseException:
            try:
                self._delete(time.sleep)
            except StageError as error:
                say(f"LEFT BEHIND: {error}; {error.suggestion}")
            raise

    def _deploy(self, deadline: float) -> None:
        script = Script(self._request.folder, DEPLOY, self._request.deploy_arguments)
        code = script.wait(deadline, self._pause)
        if code is None:
            raise StageError("timeout", f"{DEPLOY} has not ended within engine.startup_timeout")
        if code:
            said = f"{DEPLOY} ended with exit code {code}; the log has what it said"
            raise StageError("startup", said)

    def _await_pods(self, deadline: float) -> None:
        request = self._request
        waits_since: float | None = None
        said = ""
        while True:
            self._pods = self._look()
            if trouble := trouble_at_start(self._pods):
                raise self._failure(trouble)
            complete = len(self._pods) >= len(self._manifest.labels)
            if complete and all(pod.running for pod in self._pods):
                return
            now, listed = time.monotonic(), ", ".join(map(str, self._pods)) or "there are no pods"
            if listed != said:
                say(listed)
                said = listed
            pending = [pod for pod in self._pods if pod.unschedulable]
            waits_since = (waits_since or now) if pending else None
            if waits_since is not None and now - waits_since > request.schedule_timeout:
                why = f"no node takes it: {pending[0].unschedulable}"
                raise self._failure(Trouble(pending[0].name, "startup", why))
            if now >= deadline:
                for pod in self._pods[:1]:
                    self._describe(pod.name)
                raise StageError("timeout", f"the pods did not run in time: {listed}")
            self._pause(_LOOK_S)

    def _use(self, deadline: float) -> None:
        """Wait until it serves, then watch it until it fails or the owner has had enough."""
        request = self._request
        followed = next((pod for pod in self._pods if "coordinator" in pod.name), self._pods[0])
        with ExitStack() as resources:
            log = PodLog(partial(self._kubectl.follow, followed.name))
            resources.callback(log.close)
            patience = min(_PROBE_S, request.answer_timeout)
            prober = Prober(partial(self._asked, patience), request.poll)
            resources.callback(prober.close)
            self._await_answer(log, prober, deadline)
            status = StatusServer(request.host, request.port, self._check)
            resources.callback(status.close)
            say(f"{SERVES} {request.url}")
            look_at = 0.0
            while True:
                self._pause(_LOOK_S)
                if time.monotonic() >= look_at or self._broken is not None:
                    self._watch()
                    look_at = time.monotonic() + request.poll

    def _await_answer(self, log: PodLog, prober: Prober, deadline: float) -> None:
        """Wait for the answer to a real request, whatever the log says; but not long for that once
        the log has said that the service is ready."""
        allowed = self._request.answer_timeout
        limit, look_at = deadline, 0.0
        while not prober.fine.wait(_LOOK_S):
            self._pause(0)
            now = time.monotonic()
            if now >= look_at:
                self._watch(at_start=True)
                look_at = now + self._request.poll
            if log.ready.is_set():
                limit = min(limit, now + allowed)
            if now >= limit and log.ready.is_set():
                said = f"the coordinator says that it is ready, but after {allowed:g} s still"
                raise StageError("startup", f"{said} {prober.said}")
            if now >= limit:
                said = "the coordinator has not said that it is ready in time"
                raise StageError("timeout", f"{said}; {prober.said}")

    def _watch(self, *, at_start: bool = False) -> None:
        """Raise ``StageError`` once the pods are not any more what they were."""
        try:
            found, _ = self._kubectl.pods(self._manifest)
        except KubectlError as error:
            blind = time.monotonic() - self._seen
            if blind > max(_BLIND_S, 2 * self._request.kubectl_timeout):
                raise StageError("network", f"for {blind:.0f} s: {error}") from error
            return
        self._seen = time.monotonic()
        if trouble := change(self._pods, found) or self._broken:
            if at_start and trouble.failure == "tool":
                trouble = Trouble(trouble.pod, "startup", trouble.said, trouble.restarted)
            raise self._failure(trouble)

    def _check(self) -> str | None:
        """What is wrong now; asked by who has used the service, in a thread of the server's."""
        try:
            found, _ = self._kubectl.pods(self._manifest)
        except KubectlError as error:
            return str(error)
        self._broken = change(self._pods, found)
        if self._broken is not None:
            return str(self._broken)
        return self._asked(self._request.answer_timeout)

    def _asked(self, timeout: float) -> str | None:
        request = self._request
        return ask(request.url, request.probe_path, request.served_name, timeout)

    def _look(self) -> list[Pod]:
        """The pods of the deployment, marked as ours; none where ``kubectl`` fails."""
        try:
            found, _ = self._kubectl.pods(self._manifest)
        except KubectlError as error:
            say(str(error))
            return []
        owners = tuple(sorted({pod.owner for pod in found}))
        if owners and owners != tuple(self._record.owners):
            self._record = self._records.write(replace(self._record, owners=owners))
            self._tell(partial(self._kubectl.mark, found, self._request.run_id), "")
        return found

    def _failure(self, trouble: Trouble) -> StageError:
        """The failure; what the cluster knows of it goes to the log."""
        self._describe(trouble.pod)
        if trouble.restarted:
            self._tell(partial(self._kubectl.last_words, trouble.pod), "said before its end:")
        return StageError(trouble.failure, str(trouble))

    def _describe(self, pod: str) -> None:
        self._tell(partial(self._kubectl.described, pod), f"kubectl describe pod {pod}:")

    def _tell(self, asked: Callable[[], str | None], head: str) -> None:
        """Write what ``kubectl`` says, or why it does not."""
        try:
            if (text := asked()) is not None:
                say(f"{head}\n{text}")
        except KubectlError as error:
            say(str(error))

    def _delete(self, pause: Callable[[float], None]) -> None:
        """Delete the deployment and wait until its pods are gone.

        Raises ``StageError`` when they are not in time; the record then stays.
        """
        request = self._request
        deadline = time.monotonic() + request.delete_timeout
        script, tries, left = self._deletion(), 1, "nobody knows which pods there are"
        try:
            while True:
                code = script.poll()
                gone, left = self._gone(left)
                if gone and code is not None:
                    self._records.remove()
                    return
                if time.monotonic() >= deadline:
                    break
                # It dies with the group it was told to end with; nothing else deletes pods.
                if code is not None and code < 0 and tries < _SCRIPT_TRIES:
                    script, tries = self._deletion(), tries + 1
                pause(_LOOK_S)
        finally:
            script.end()
        if self._gone(left)[0]:
            say(
                f"{DELETE} has not ended within {request.delete_timeout:g} s, but the pods are gone"
            )
            self._records.remove()
            return
        command = f"bash {DELETE} {request.namespace} ."
        raise StageError(
            "timeout",
            f"the deployment is not gone {request.delete_timeout:g} s after {DELETE}: {left}",
            f"look at the pods, then run {command} in {request.folder}; the next trial does so too",
        )

    def _deletion(self) -> Script:
        return Script(self._request.folder, DELETE, [self._request.namespace, "."])

    def _gone(self, before: str) -> tuple[bool, str]:
        """Whether no pod of the deployment is there, and which are; as before if nobody knows."""
        try:
            own, _ = self._kubectl.pods(self._manifest)
        except KubectlError as error:
            return False, before if "pods" in before else str(error)
        return not own, ", ".join(map(str, own))

    def _pause(self, seconds: float) -> None:
        if self._told.wait(seconds):
            raise _Told


def _changed(text: str, *, name: str, entries: dict[str, Json]) -> str:
    try:
        return changed(text, entries)
    except ValueError as error:
        raise StageError("input", f"{name}: {error}") from error

"""A private Ray on this machine: started, watched and stopped with everything of it.

Ray's servers listen on all interfaces of the machine, and whoever may talk to them may run code.
So a private cluster always demands a token, kept in a file only this user can read, and its
sockets and logs live in a folder only this user can enter.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from cluster._dashboard import without_dashboard_process
from cluster._files import write_atomic
from cluster._locks import FileLock, private_folder, runtime_folder
from cluster._orphans import RUN_VARIABLE

_SYSTEM = {
    # Workers started ahead are of no use to Tune, whose trials have a runtime environment of their
    # own, and on a large machine there would be hundreds of them.
    "prestart_worker_first_driver": False,
    # By default workers run at nice 15, and so would every engine they start.
    "worker_niceness": 0,
}
_NOT_FOR_PRIVATE = (
    "RAY_ADDRESS",
    "RAY_REDIS_ADDRESS",
    "RAY_GCS_SERVER_PORT",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_AUTH_MODE",
)
"""Variables that would lead a private cluster to another one, or leave its door open."""
_SESSIONS_KEPT = 3
_LONGEST_TEMP_DIR = 44
"""Ray puts ``session_<date>_<pid>/sockets/plasma_store`` below it; a socket path holds 107."""
_SHUTDOWN_BOUND_S = 20.0
_STARTS = 5
_START_BOUND_S = 180.0
_LOOK_AGAIN_S = 0.1


class ClusterError(RuntimeError):
    """The cluster could not be started or reached. The message is for the user."""


class PrivateCluster:
    """A Ray that this process starts, on construction, and stops in :meth:`close`.

    Attributes:
        token_file: The token it demands; ``None`` when the user's environment provides one.
        lost: In words, which of its servers died by itself; ``None`` while all is well.
    """

    def __init__(self, name: str, temp_dir: Path | None, options: Mapping[str, Any]) -> None:
        if threading.current_thread() is not threading.main_thread():
            # Ray's processes get SIGKILL when the thread that started them ends.
            raise ClusterError("a private cluster must be started from the main thread")
        self.lost: str | None = None
        self.token_file: Path | None = None
        self._ending = threading.Event()
        with ExitStack() as stack:
            self._folder = _slot(temp_dir, stack)
            if len(str(self._folder)) > _LONGEST_TEMP_DIR:
                raise ClusterError(
                    f"the folder for Ray, {self._folder}, has a path of more than "
                    f"{_LONGEST_TEMP_DIR} characters, too long for the sockets Ray makes in it. "
                    "Choose a shorter one"
                )
            for variable in _NOT_FOR_PRIVATE:
                os.environ.pop(variable, None)
            if "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
                self.token_file = _token_file()
                os.environ["RAY_AUTH_TOKEN_PATH"] = str(self.token_file)
            # A node without the vendor's Python packages logs two tracebacks when it offers NPUs.
            logging.getLogger("ray._private.accelerators.npu").setLevel(logging.CRITICAL)
            _init(name, self._folder, options)
            self._resources = stack.pop_all()
        self._watcher = threading.Thread(target=self._watch, name="ray-watch", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        """Reap Ray's servers when they die, and say so.

        Unreaped, a dead raylet looks alive to its workers, and they and their programs would stay.
        """
        servers = {child: child.name() for child in _children(self._folder)}
        while servers and not self._ending.is_set():
            gone, _ = psutil.wait_procs(list(servers), timeout=1)
            for process in gone:
                name = servers.pop(process)
                if name in ("raylet", "gcs_server") and not self._ending.is_set():
                    self.lost = (
                        f"Ray's process {name} ended unexpectedly, perhaps for want of memory; "
                        f"its logs are in {self._folder}/session_latest/logs"
                    )

    def close(self) -> None:
        """Stop it and all its processes, in bounded time, and nothing else."""
        self._ending.set()
        _stop(self._folder)
        self._watcher.join(5)
        self._resources.close()


def _init(name: str, folder: Path, options: Mapping[str, Any]) -> None:
    """Start Ray, again where it fails: its raylet gives up after 15 s in which its agent has not
    come up, which happens on a loaded machine."""
    for start in range(1, _STARTS + 1):
        try:
            _try_init(name, folder, options)
        except (ValueError, TypeError, AssertionError) as error:
            raise ClusterError(f"Ray refuses these settings: {error}") from error
        except Exception as error:
            if start == _STARTS:
                raise ClusterError(
                    f"Ray did not start on this machine: {error}. Its logs are in "
                    f"{folder}/session_latest/logs; want of CPU or memory is the usual reason"
                ) from error
        else:
            return


def _try_init(name: str, folder: Path, options: Mapping[str, Any]) -> None:
    import ray

    try:
        with without_dashboard_process(), _waiting_for_the_raylet(folder):
            ray.init(
                address="local",
                namespace=name,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=str(folder),
                _system_config=_SYSTEM,
                **options,
            )
    except BaseException:
        _stop(folder)
        raise


@contextmanager
def _waiting_for_the_raylet(folder: Path) -> Iterator[None]:
    """Within, ``ray.init`` waits for a raylet as long as that lives, and no longer. Otherwise it
    waits 30 s in any case."""
    from ray._private import services

    original = services.get_node
    deadline = time.monotonic() + _START_BOUND_S

    def get_node(*arguments: Any) -> Any:
        while True:
            try:
                return original(*arguments)
            except RuntimeError as error:
                if time.monotonic() > deadline:
                    raise
                if not any(_is_raylet(child) for child in _children(folder)):
                    raise ConnectionError("its raylet ended at once") from error
            time.sleep(_LOOK_AGAIN_S)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = original


def _is_raylet(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.name() == "raylet"
    return False


def _stop(folder: Path) -> None:
    """Stop the private cluster whose files are in ``folder``, and nothing else."""
    import ray

    processes = _processes(folder)
    watchdog = threading.Timer(_SHUTDOWN_BOUND_S, _kill, (processes,))
    watchdog.daemon = True
    watchdog.start()
    try:
        with suppress(Exception):
            ray.shutdown()
    finally:
        watchdog.cancel()
    processes = list({*processes, *_processes(folder)})
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=2)
    _kill(alive)
    psutil.wait_procs(alive, timeout=5)


def _children(folder: Path) -> list[psutil.Process]:
    """Ray's processes that this process started with files in ``folder``."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(f"{folder}/session_" in argument for argument in child.cmdline()):
                found.append(child)
    return found


def _processes(folder: Path) -> list[psutil.Process]:
    """:func:`_children` and their descendants, Ray's workers.

    Programs of trials are not among them: they have wardens, and end with their owners.
    """
    found = _children(folder)
    for child in list(found):
        with suppress(psutil.Error):
            found += child.children(recursive=True)
    return [process for process in found if not _belongs_to_run(process)]


def _belongs_to_run(process: psutil.Process) -> bool:
    try:
        return RUN_VARIABLE in process.environ()
    except psutil.Error:
        return False


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def _slot(temp_dir: Path | None, stack: ExitStack) -> Path:
    """A folder for Ray that no other living cluster of this user uses; old sessions are pruned.

    Ray lets everybody write to the folder it is given; the one around it keeps others out.
    """
    parent = temp_dir / f"tuner-{os.getuid()}" if temp_dir else runtime_folder() / "ray"
    base = private_folder(parent)
    for number in range(1000):
        folder = base / str(number)
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            # A lock on the folder itself also keeps systemd-tmpfiles from cleaning it up.
            stack.callback(FileLock(folder).close)
        except BlockingIOError:
            continue
        sessions = sorted(folder.glob("session_2*"), reverse=True)
        for session in sessions[_SESSIONS_KEPT - 1 :]:
            shutil.rmtree(session, ignore_errors=True)
        return folder
    raise ClusterError(f"all folders in {base} are in use")


def _token_file() -> Path:
    """The user's token for private clusters on this host; made at the first use."""
    path = runtime_folder() / "ray-token"
    if not path.exists():
        candidate = path.with_name(f"ray-token-{os.getpid()}")
        write_atomic(candidate, secrets.token_hex(32), mode=0o600)
        with suppress(FileExistsError):
            path.hardlink_to(candidate)
        candidate.unlink()
    return path

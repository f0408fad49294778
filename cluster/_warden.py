"""The warden of one process tree: starts a program, and outlives it until nothing of it is left.

Not imported: ``cluster._processes`` runs this file as a small program of its own, one per tree.
It uses only the standard library and imports little, because it starts with every stage.

What makes the tree inescapable (all from prctl(2) and unix(7)):

* It is a *child subreaper*: whatever descends from the program and loses its parent, by a double
  fork or a new session, becomes a child of the warden. "No children left" is "nothing left".
* Standard input is one end of a socket whose other end only the owner holds. However the owner
  dies, SIGKILL included, the kernel closes that end, and the warden takes the tree down.
* It lives in a session of its own and is no child of its owner, for Ray kills the process group
  of a worker, and a worker that ends kills its children.
* The program gets SIGKILL from the kernel when the warden dies (``PR_SET_PDEATHSIG``).

Standard output and error are the program's log. On the socket the owner sends
``<size>\n<arguments joined by NUL>``, then ``orphaned <grace seconds>\n`` where the program needs
more than the usual time once its owner is dead, and later ``stop <grace seconds>\n``. The warden
answers ``started <pid> <own pid>\n`` or ``refused <errno>\n``, and at the end
``ended <code> <pids not gone>\n``, where code is the exit status or the negative signal number.
Then it is gone, and with it its end of the socket.
"""

import ctypes
import os
import select
import signal
import sys
import time

SOCKET = 0
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LEFTOVER_GRACE_S = 2.0
"""Between TERM and KILL for what the program left behind, and for the tree of a dead owner where
the owner has not said otherwise."""
KILL_BOUND_S = 15.0
"""How long killed processes may take to vanish; one stuck in a device driver may never."""
_LOOK_AGAIN_S = 0.1

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def prefer_as_oom_victim(score: int) -> None:
    """Set how likely the kernel picks this process when memory runs out, 0 to 1000."""
    try:
        with open("/proc/self/oom_score_adj", "w") as stream:  # noqa: PTH123 pathlib starts slowly
            stream.write(str(score))
    except OSError:
        pass  # a container may forbid lowering the score; the program's own is only ever raised


def descendants(root: int) -> list[int]:
    """Living processes below ``root``, parents before their children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 pathlib starts slowly
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stream:  # noqa: PTH123 as above
                state, parent = stream.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        if state not in (b"Z", b"X"):
            children.setdefault(int(parent), []).append(int(name))
    found = list(children.get(root, ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def send(pids: list[int], *signals: int) -> None:
    for pid in pids:
        for number in signals:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                break


def start(arguments: list[bytes]) -> int:
    """Fork and execute; the pid. Raises ``OSError`` when the program cannot be executed."""
    warden = os.getpid()
    failure, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(arguments, warden)
        except OSError as error:
            os.write(report, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(report)
    code = os.read(failure, 16)
    os.close(failure)
    if code:
        os.waitpid(pid, 0)
        raise OSError(int(code), os.strerror(int(code)))
    return pid


def become(arguments: list[bytes], warden: int) -> None:
    """Turn this forked child into the program."""
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != warden:
        os._exit(127)
    prefer_as_oom_victim(1000)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # A shell makes what it runs in the background ignore SIGINT and SIGQUIT.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The interpreter may have added a locale of its own to os.environ; the program gets exactly
    # what the owner gave.
    with open("/proc/self/environ", "rb") as stream:  # noqa: PTH123 as above
        pairs = [entry.partition(b"=") for entry in stream.read().split(b"\0") if b"=" in entry]
    os.execvpe(arguments[0], arguments, {name: value for name, _, value in pairs})


class Warden:
    """Waits for the program, the owner and signals, and brings the tree to its end."""

    SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.child = -1
        self.code = 0
        self.child_ended = False
        self.kill_at = float("inf")
        self.asked: set[int] = set()
        self.owner_lives = True
        self.orphan_grace = LEFTOVER_GRACE_S
        self.received = b""
        self.wakeup, writer = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in self.SIGNALS:
            signal.signal(number, lambda *_: None)

    def serve(self) -> None:
        """Read the order, start the program, return when nothing of it is left."""
        try:
            self.child = start(self.order())
        except OSError as error:
            self.tell(f"refused {error.errno}")
            return
        self.tell(f"started {self.child} {os.getpid()}")
        while not self.reaped_all():
            if time.monotonic() >= self.kill_at + KILL_BOUND_S:
                break
            if self.kill_at < float("inf"):
                self.press()
            self.wait()
        remaining = " ".join(map(str, descendants(os.getpid())))
        self.tell(f"ended {self.code} {remaining}")

    def order(self) -> list[bytes]:
        while b"\n" not in self.received:
            self.receive()
        size, _, self.received = self.received.partition(b"\n")
        while len(self.received) < int(size):
            self.receive()
        arguments, self.received = self.received[: int(size)], self.received[int(size) :]
        return arguments.split(b"\0")

    def receive(self) -> None:
        data = os.read(SOCKET, 65536)
        if not data and self.child < 0:
            sys.exit(0)
        self.owner_lives = bool(data)
        self.received += data

    def tell(self, message: str) -> None:
        try:
            os.write(SOCKET, message.strip().encode() + b"\n")
        except OSError:
            self.owner_lives = False

    def reaped_all(self) -> bool:
        """Collect the dead; whether no child is left, neither born here nor adopted."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.child:
                self.child_ended = True
                self.code = os.waitstatus_to_exitcode(status)
                if self.kill_at == float("inf"):
                    self.stop(LEFTOVER_GRACE_S)

    def wait(self) -> None:
        """Sleep until something happens, then act on it."""
        now = time.monotonic()
        pause = _LOOK_AGAIN_S if self.kill_at < float("inf") else 3600.0
        if now < self.kill_at < now + pause:
            pause = self.kill_at - now
        poll = select.poll()
        poll.register(self.wakeup, select.POLLIN)
        if self.owner_lives:
            poll.register(SOCKET, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(pause * 1000)}
        if self.wakeup in ready and set(os.read(self.wakeup, 4096)) - {signal.SIGCHLD}:
            self.stop(self.orphan_grace)
        if SOCKET in ready:
            self.listen()

    def listen(self) -> None:
        try:
            self.receive()
        except OSError:
            self.owner_lives = False
        *lines, self.received = self.received.split(b"\n")
        for line in lines:
            word, _, seconds = line.partition(b" ")
            if word == b"orphaned":
                self.orphan_grace = float(seconds)
            else:
                self.stop(float(seconds))
        if not self.owner_lives:
            self.stop(self.orphan_grace)

    def stop(self, grace_s: float) -> None:
        """Bring the whole tree to its end; who is left after the grace is killed."""
        self.kill_at = min(self.kill_at, time.monotonic() + grace_s)

    def press(self) -> None:
        """TERM once for each process of the tree, KILL when the grace is over."""
        pids = descendants(os.getpid())
        if time.monotonic() >= self.kill_at:
            send(pids, signal.SIGKILL)
        elif not self.asked or self.child_ended:
            # What the program starts to clean up is left to it; once it is gone, nothing is.
            # A stopped process acts on TERM only once it continues.
            send([pid for pid in pids if pid not in self.asked], signal.SIGTERM, signal.SIGCONT)
            self.asked.update(pids)


def main() -> None:
    if os.fork() == 0:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prefer_as_oom_victim(0)
        Warden().serve()


if __name__ == "__main__":
    main()

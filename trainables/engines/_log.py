"""Logs: what is written to them meanwhile, and what an engine's last words say about its death."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from trainables._failures import failure_of
from trainables._program import FailureClass
from trainables._tool import SHELL_PROMPT
from trainables._trial import TrialFailure
from trainables.engines._engine import Symptom
from trainables.engines._health_check import ErrorPatterns, ForeseenFailure

_READ_BYTES = 1024 * 1024
_EXCERPT_LINES = 20
_LINE_CHARS = 400
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXCEPTION = re.compile(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception)): (?P<said>\S.*)$", re.M)
_CONSEQUENCE = re.compile(r"root cause", re.IGNORECASE)

COMMON_SYMPTOMS = (
    Symptom(
        "startup",
        r"(?:\w*Error: )?\[Errno \d+\][^\n]*address already in use",
        "another program took the port; leave engine.port out to have a free one chosen",
    ),
    Symptom(
        "input",
        r"(?:\w*Error: )?\[Errno \d+\][^\n]*cannot assign requested address",
        "engine.host is no address of the trial's node",
    ),
)


class LogPart:
    """What is written to a log from now on; it need not exist yet."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._begin = self._read = self._size()

    def text(self) -> str:
        """All of it, at most the last MiB, without colours."""
        return _plain(self._from(max(self._begin, self._size() - _READ_BYTES)))

    def new_lines(self, *, ended: bool = False) -> list[str]:
        """The lines written since this was asked last, as far as they are complete.

        ``ended``: nobody writes any more, so an unfinished last line counts.
        """
        data = self._from(self._read)
        if not ended:
            data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        return _plain(data).splitlines()

    def excerpt(self, lines: int = _EXCERPT_LINES) -> str:
        """Its last lines."""
        return last_lines(self.text(), lines)

    def look_for(
        self, errors: ErrorPatterns, *, what: str, stage: str, lines: int, ended: bool = False
    ) -> None:
        """Raise :class:`ForeseenFailure` when one of the words is in the lines that are new.

        Args:
            errors: The words.
            what: Who writes the log, for the message.
            stage: The stage that fails.
            lines: Last lines that are kept with the failure.
            ended: As in :meth:`new_lines`.
        """
        if not errors:
            return
        heard = [line for line in self.new_lines(ended=ended) if not line.startswith(SHELL_PROMPT)]
        if found := errors.found_in(heard):
            raise ForeseenFailure(found, stage, f"{what}: {found}", excerpt=self.excerpt(lines))

    def _size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def _from(self, begin: int) -> bytes:
        if not self.file.exists():
            return b""
        with self.file.open("rb") as stream:
            stream.seek(begin)
            return stream.read()


class EngineLog(LogPart):
    """What one start of an engine writes to a log that earlier starts have written to as well."""

    def __init__(self, file: Path, argv: Sequence[str], notes: Sequence[str] = ()) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        heads = [f"{now} {shlex.join(argv)}", *notes]
        with file.open("ab") as stream:
            stream.write("".join(f"=== {head}\n" for head in heads).encode(errors="replace"))
        super().__init__(file)


def _plain(data: bytes) -> str:
    """Text without colours, in which progress bars are lines."""
    text = data.decode(errors="replace")
    return _COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def last_lines(text: str, count: int) -> str:
    return "\n".join(text.splitlines()[-count:])


def first_symptom(symptoms: Sequence[Symptom], text: str) -> tuple[Symptom, str] | None:
    """The earliest symptom in a log and its line, from where the pattern matches."""
    found = [
        (match.start(), symptom)
        for symptom in symptoms
        if (match := re.search(symptom.pattern, text, re.IGNORECASE))
    ]
    if not found:
        return None
    start, symptom = min(found, key=lambda pair: pair[0])
    # pydantic ends its messages with "[type=..., input_value=...]".
    line = text[start:].split("\n", 1)[0].partition(" [type=")[0]
    return symptom, line.strip()[:_LINE_CHARS]


def death(
    symptoms: Sequence[Symptom],
    log: EngineLog,
    *,
    what: str,
    stage: str,
    code: int,
    otherwise: FailureClass,
    own_kill: bool = False,
) -> TrialFailure:
    """Why an engine ended that nobody had asked to.

    Args:
        symptoms: Those that may apply.
        what: The engine, for the message.
        stage: The stage in which its end was noticed.
        code: Its exit status, negative for a signal.
        otherwise: The class of failure when nothing is known.
        own_kill: Whether it may have been the engine itself that sent SIGKILL.
    """
    text = log.text()
    excerpt = last_lines(text, _EXCERPT_LINES)
    failure, message, suggestion = failure_of(what, code, excerpt)
    silent, ended, _ = failure_of(what, code, "")
    if own_kill and code == -signal.SIGKILL:
        ended = f"{what} ended itself with SIGKILL"
        if failure == silent:
            failure, message = "tool", ended
    if known := first_symptom(symptoms, text):
        symptom, line = known
        failure, message, suggestion = symptom.failure, f"{ended}: {line}", symptom.suggestion
    elif failure == "tool":
        failure, suggestion = otherwise, f"see {log.file}"
        cause, is_root = _cause(text)
        if cause:
            message = f"{ended}: {cause}"
        if cause and not is_root:
            suggestion = f"did the kernel kill one of its processes? See dmesg, and {log.file}"
    return TrialFailure(failure, stage, message, excerpt=excerpt, suggestion=suggestion)


def _cause(text: str) -> tuple[str, bool]:
    """The last exception of the log, and whether it is more than the consequence of another one.

    One that is goes before all that are not; empty where there is none.
    """
    found = list(_EXCEPTION.finditer(text))
    roots = [match for match in found if not _CONSEQUENCE.search(match["said"])]
    for match in (roots or found)[-1:]:
        return f"{match[1]}: {match['said']}".strip()[:_LINE_CHARS], bool(roots)
    return "", False

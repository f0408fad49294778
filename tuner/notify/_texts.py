"""Notices put into words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from searchers import Json
from tuner._words import five_digits
from tuner.notify._notice import Notice, Progress, Score
from tuner.notify._words import WORDS, Language, Words

_LONGEST_LINE = 600
_UNITS = (86400, 3600, 60, 1)


@dataclass(frozen=True)
class Text:
    """A message for a person.

    Attributes:
        title: One line that begins with the experiment's name in brackets.
        lines: What else there is to know, each without a line break.
    """

    title: str
    lines: tuple[str, ...]

    @property
    def body(self) -> str:
        return "\n".join(self.lines)


def write(notice: Notice, language: Language) -> Text:
    """The message of a notice."""
    words = WORDS[language]
    title = f"[{notice.experiment}] {_title(notice, words)}"
    lines = [*_about(notice, words), *_standing(notice, words), *_next(notice, words)]
    return Text(_line(title), tuple(_line(line) for line in lines))


def greeting(experiment: str, language: Language) -> Text:
    """What ``notify --test`` sends."""
    return Text(f"[{experiment}] {WORDS[language].titles['test']}", ())


def _title(notice: Notice, words: Words) -> str:
    key: str = notice.kind
    if key in ("crashed", "abnormal") and notice.subject is None:
        key = f"{key}.run"
    if key == "start" and notice.resumed:
        key = "start.resumed"
    subject = notice.subject
    metrics = notice.metrics
    name = next(iter(metrics), None)
    return words.titles[key].format(
        number="" if subject is None else subject.number,
        trial="" if subject is None else words.trials.get(subject.kind, subject.kind),
        trials=_trials(notice.progress, words),
        score="" if notice.score is None else f"{words.comma}{_score(notice.score)}",
        metric="" if name is None else f"{words.comma}{name} {five_digits(metrics[name])}",
        verdict=words.verdicts.get(notice.verdict or "", notice.verdict or ""),
    )


def _about(notice: Notice, words: Words) -> Iterator[str]:
    """What has happened."""
    lines, subject = words.lines, notice.subject
    if subject is not None:
        yield lines["parameters"].format(_parameters(subject.parameters, words))
    if notice.metrics:
        named = [f"{name} {five_digits(value)}" for name, value in notice.metrics.items()]
        yield lines["metrics"].format(words.comma.join(named))
    if subject is not None and subject.broken:
        yield lines["broken"].format(words.comma.join(subject.broken))
    if subject is not None and subject.failure is not None:
        stage = f"{subject.stage}{words.comma}" if subject.stage else ""
        yield lines["failure"].format(stage=stage, failure=subject.failure, message=notice.message)
    elif notice.message:
        yield notice.message
    if notice.kind == "best" and notice.score is not None and notice.score.before is not None:
        yield lines["before"].format(five_digits(notice.score.before))
    if notice.died:
        yield lines["died"]
    if notice.known:
        yield lines["known"].format(notice.known)


def _standing(notice: Notice, words: Words) -> Iterator[str]:
    """Where the run stands."""
    lines, progress = words.lines, notice.progress
    yield lines["progress"].format(
        trials=_trials(progress, words),
        failed=lines["failed"].format(progress.failed) if progress.failed else "",
        reused=lines["reused"].format(progress.reused) if progress.reused else "",
    )
    elapsed = _time(progress.elapsed_s, words)
    if progress.time_s is None:
        yield lines["elapsed"].format(elapsed)
    else:
        yield lines["elapsed_of"].format(elapsed, _time(progress.time_s, words))
    if progress.best is not None and notice.kind != "best":
        parts = [] if notice.score is None else [_score(notice.score)]
        parts.append(_parameters(progress.best, words))
        key = "won" if notice.kind == "done" else "best"
        yield lines[key].format(words.comma.join(parts))


def _next(notice: Notice, words: Words) -> Iterator[str]:
    """What comes now."""
    lines, progress = words.lines, notice.progress
    if notice.kind == "done" or (notice.kind == "crashed" and notice.subject is None):
        delivered = notice.verdict in ("satisfied", "budget") and progress.best is not None
        resumable = notice.verdict in ("interrupted", None)
        key = "delivered" if delivered else "resume" if resumable else "records"
        yield lines[key].format(notice.where or "")
        return
    if notice.kind == "abnormal" and notice.subject is not None:
        yield lines["again"].format(notice.subject.attempt + 1)
    elif progress.running:
        yield lines["running"].format(words.comma.join(_running(progress, words)))
    else:
        yield lines["search"]
    if progress.remaining_s is not None:
        yield lines["remaining"].format(_time(progress.remaining_s, words))


def _running(progress: Progress, words: Words) -> Iterator[str]:
    for one in progress.running:
        yield words.lines["under"].format(
            number=one.number,
            trial=words.trials.get(one.kind, one.kind),
            stage=one.stage,
            time=_time(one.stage_s, words),
        )


def _trials(progress: Progress, words: Words) -> str:
    if progress.most is None:
        return str(progress.measured)
    return words.lines["of"].format(progress.measured, progress.most)


def _score(score: Score) -> str:
    return f"{score.metric} {five_digits(score.value)}"


def _parameters(parameters: Mapping[str, Json], words: Words) -> str:
    """Parameters in a few words: long lists as their length."""
    parts = [
        words.lines["items"].format(name=name, count=len(value))
        if isinstance(value, (list, dict))
        else f"{name} {value}"
        for name, value in parameters.items()
    ]
    return words.comma.join(parts) or words.lines["defaults"]


def _time(seconds: float, words: Words) -> str:
    """The two leading units."""
    rest = round(seconds)
    parts: list[str] = []
    for unit, name in zip(_UNITS, words.units, strict=True):
        count, rest = divmod(rest, unit)
        if count or parts or unit == 1:
            parts.append(f"{count}{name}")
    return words.gap.join(parts[:2])


def _line(text: str) -> str:
    """One line of bounded length, whatever a log or a parameter had in it."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST_LINE else f"{flat[: _LONGEST_LINE - 1]}…"

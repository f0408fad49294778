"""The immutable record of a finished trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cluster import write_json

SCHEMA = 1


class MeasurementError(Exception):
    """A measurement is there but cannot be understood, which must not pass in silence."""


@dataclass(frozen=True)
class Measurement:
    """A fact: what was measured, how, where and when.

    Attributes:
        identity: Digest of everything that decides the numbers; equal identity, equal question.
        metrics: Named finite numbers, units in the name.
        data: Structured results, such as a layer ranking or per-item records.
        artifacts: Name to ``{path, ...}`` of what the trial left on disk. May be gone later.
        stages: ``{name, seconds, resumed}`` in order of execution.
        started: Start of the attempt that finished, UTC, ISO 8601.
        seconds: Duration of that attempt.
    """

    identity: str
    type: str
    kind: str
    parameters: Mapping[str, Any]
    repeat: int
    metrics: Mapping[str, float]
    data: Mapping[str, Any]
    artifacts: Mapping[str, Any]
    environment: Mapping[str, Any]
    stages: tuple[Mapping[str, Any], ...]
    attempt: int
    run_id: str
    started: str
    seconds: float

    @property
    def ended(self) -> str:
        """End of the attempt that finished, UTC, ISO 8601, whole seconds."""
        ended = datetime.fromisoformat(self.started) + timedelta(seconds=self.seconds)
        return ended.isoformat(timespec="seconds")

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self), "stages": list(self.stages)}

    @classmethod
    def from_json(cls, document: Any) -> Measurement:
        """Raises :class:`MeasurementError` for anything that :meth:`to_json` did not write."""
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise MeasurementError(f"not a measurement of schema {SCHEMA}")
        fields = {key: value for key, value in document.items() if key != "schema"}
        try:
            return cls(**{**fields, "stages": tuple(fields["stages"])})
        except (TypeError, KeyError) as error:
            raise MeasurementError(f"not a whole measurement: {error}") from error

    @staticmethod
    def file(folder: Path) -> Path:
        return folder / "measurement.json"

    def write(self, folder: Path) -> None:
        write_json(self.file(folder), self.to_json())

    @classmethod
    def read(cls, folder: Path) -> Measurement | None:
        """The measurement in a trial's folder, or None.

        Raises:
            MeasurementError: There is one, and it cannot be understood.
        """
        file = cls.file(folder)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return cls.from_json(json.loads(text))
        except (ValueError, MeasurementError) as error:
            raise MeasurementError(f"{file}: {error}; move it away to measure again") from error

"""The append-only log of measurements: the only source of truth of a run."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster import GrowingFile
from trainables import Measurement, MeasurementError

IMPORTED = "imported"
"""Run id of measurements that no run of ours has made."""


class Ledger:
    """Measurements by identity, kept in one JSON line each.

    Lines are only ever appended, each with an fsync before anybody is told. A line that a crash
    left torn is set aside: the trial's own ``measurement.json`` was whole before the line was
    begun, and :meth:`adopt` brings it back.

    Args:
        file: Where it is kept.
        insist: Carries out what writes to it, again if need be.

    Attributes:
        faults: What could not be read, for the user; never silently dropped.
    """

    def __init__(
        self, file: Path, insist: Callable[[Callable[[], None]], None] = lambda write: write()
    ) -> None:
        self._file = file
        self._lines = GrowingFile(file, durable=True)
        self._insist = insist
        self._measurements: dict[str, Measurement] = {}
        self._spent: Counter[str] = Counter()
        self.faults: list[str] = []
        self._load()

    def __len__(self) -> int:
        return len(self._measurements)

    def __iter__(self) -> Iterator[Measurement]:
        """All measurements in the order they were learned."""
        return iter(self._measurements.values())

    def find(self, identity: str) -> Measurement | None:
        """The measurement of that identity, or None."""
        return self._measurements.get(identity)

    def spent(self, run_id: str) -> int:
        """Candidates that the run of this id has measured or simulated itself; rejected by
        arithmetic alone, one costs nothing."""
        return self._spent[run_id]

    def append(self, measurement: Measurement) -> None:
        """Make a measurement durable. One whose identity is known is not written again."""
        if measurement.identity in self._measurements:
            return
        line = json.dumps(measurement.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        self._insist(lambda: self._write(line))
        self._learn(measurement)

    def _write(self, line: str) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._lines.append(line.encode())

    def adopt(self, trials: Path) -> int:
        """Take in measurements that trials finished and no ledger heard of; their number."""
        found = 0
        for folder in sorted(trials.glob("*/")):
            try:
                measurement = Measurement.read(folder)
            except MeasurementError as error:
                self.faults.append(str(error))
                continue
            if measurement is not None and self.find(measurement.identity) is None:
                self.append(measurement)
                found += 1
        return found

    def forget(self, identity: str) -> None:
        """Stop reusing a measurement in this run, since what it left on disk is gone."""
        measurement = self._measurements.pop(identity, None)
        if measurement is not None and _costs(measurement):
            self._spent[measurement.run_id] -= 1

    def _learn(self, measurement: Measurement) -> None:
        self.forget(measurement.identity)
        self._measurements[measurement.identity] = measurement
        if _costs(measurement):
            self._spent[measurement.run_id] += 1

    def _load(self) -> None:
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            self._set_aside(torn, keep=len(data) - len(torn))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                measurement = Measurement.from_json(json.loads(line))
            except (ValueError, MeasurementError) as error:
                self.faults.append(f"{self._file}:{number}: {error}")
                continue
            self._learn(measurement)

    def _set_aside(self, torn: bytes, keep: int) -> None:
        """Cut a torn last line off, so that the next line does not grow onto it."""
        aside = self._file.with_suffix(".torn")
        with aside.open("ab") as stream:
            stream.write(torn + b"\n")
        os.truncate(self._file, keep)
        self.faults.append(f"{self._file}: the last line was torn by a crash; kept in {aside}")


def _costs(measurement: Measurement) -> bool:
    real = measurement.data.get("real_evaluation", True) or "simulation" in measurement.data
    return bool(measurement.kind == "candidate" and real)

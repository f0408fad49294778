"""From all target fields of an engine and a benchmark to space, positions, baseline and load."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from searchers import Json
from tuner.compat.serviceparam._field import DERIVED, Scalar, TargetField
from tuner.compat.serviceparam._parameters import Entry, Remarks, parameter, targets

ENV = "env"
CONTROLLER = "ms_controller."
"""Before what is an entry of MindIE's ms_controller.json, which the original knows by its name."""
_DISAGGREGATED = "default"
_ENDS = ("low", "high")
_CIRCLE = "is derived from itself"


@dataclass(frozen=True)
class LoadField:
    """CONCURRENCY or REQUESTRATE: part of the load, not of the search.

    Attributes:
        name: The field's own.
        low, high: Its range; equal where it is fixed.
        value: That of the baseline; 0 or less: no limit.
    """

    name: str
    low: float
    high: float
    value: float

    @property
    def fixed(self) -> bool:
        return math.isclose(self.low, self.high)


@dataclass(frozen=True)
class Today:
    """The configuration in use, as far as it is not in the settings.

    Attributes:
        environment: Variables that go before the value of a field; None: they do not count.
        entries: Values in the engine's configuration file, by dotted path.
    """

    environment: Mapping[str, str] | None = None
    entries: Mapping[str, Json] = field(default_factory=dict)


@dataclass
class Translated:
    """What the fields come to.

    Attributes:
        space: The ``search.space`` block; derived parameters after those they are derived from.
        positions: The ``trial.positions`` block.
        baseline: Parameters of the configuration in use today; of the engine's configuration file
            those that it has.
        columns: Names in the order of the file.
        load: ``concurrency`` and ``request_rate``, where there are such fields.
    """

    space: dict[str, dict[str, Json]] = field(default_factory=dict)
    positions: dict[str, str] = field(default_factory=dict)
    baseline: dict[str, Json] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    load: dict[str, LoadField] = field(default_factory=dict)


def file_entry(position: str) -> str:
    """The position of our own for one that the settings name."""
    return f"{CONTROLLER}{position}" if position.startswith(_DISAGGREGATED) else position


def entries(table: str, fields: Sequence[TargetField]) -> list[Entry]:
    """The fields of a table with their places."""
    return [Entry(f"{table}.target_field[{index}]", one) for index, one in enumerate(fields)]


def translate_fields(
    given: Sequence[Entry], today: Today, remarks: Remarks, *, disaggregated: bool = False
) -> Translated:
    """Translate fields; the baseline is what they are ``today``.

    ``disaggregated``: whether there is a controller that is told a ratio of prefill to decode.
    """
    found = Translated(columns=[entry.name for entry in given])
    _check(given, remarks)
    by_name = {entry.name: entry for entry in given}
    _loads(given, found, today, remarks)
    free = [entry for entry in given if entry.name not in _names(found.load.values())]
    for entry in _ordered(free, by_name, remarks):
        made = parameter(entry, remarks)
        if made is None:
            continue
        made = _completed(made, entry, by_name, found, remarks)
        found.space[entry.name] = made
        found.positions[entry.name] = _position(entry, disaggregated, remarks)
        _add_baseline(entry, made, found, today, remarks)
    for load, one in found.load.items():
        found.positions[one.name] = load
        found.baseline[one.name] = _number(one.value)
    return found


def _check(given: Sequence[Entry], remarks: Remarks) -> None:
    first: dict[str, str] = {}
    for entry in given:
        written = entry.field
        if entry.name in first:
            said = f"{entry.name} stands in {first[entry.name]} already"
            remarks.problem(f"{entry.path}.name", said)
        first.setdefault(entry.name, entry.path)
        if written.min > written.max:
            said = f"{written.min:g} is more than max, which is {written.max:g}"
            remarks.problem(f"{entry.path}.min", said)
    for entry in given:
        for name in targets(entry):
            if name not in first:
                said = f"there is no field {name!r}; there are {', '.join(first)}"
                remarks.problem(f"{entry.path}.dtype_param", said)


def _loads(
    given: Sequence[Entry],
    found: Translated,
    today: Today,
    remarks: Remarks,
) -> None:
    for entry in given:
        load = entry.field.load
        if load is None or entry.field.dtype in DERIVED:
            continue
        if load in found.load:
            said = f"{found.load[load].name} is the {load} already; keep one of the two"
            remarks.problem(f"{entry.path}.name", said)
            continue
        if entry.field.dtype not in ("int", "float"):
            remarks.problem(f"{entry.path}.dtype", f"the {load} is an int or a float")
            continue
        written = entry.field
        low = high = written.fixed if written.fixed is not None else written.max
        if written.fixed is None:
            low = written.min
        if written.constant is not None and not written.closed:
            said = f"constant {written.constant:g}: the range does not count"
            remarks.note(entry.path, said)
        whole = written.dtype == "int"
        value = _value(entry, today, remarks)
        found.load[load] = LoadField(
            entry.name,
            int(low) if whole else low,
            int(high) if whole else high,
            _as_number(value, entry, remarks),
        )


def _ordered(
    given: Sequence[Entry], by_name: Mapping[str, Entry], remarks: Remarks
) -> Iterable[Entry]:
    """Derived fields after the others, and after those they are derived from."""
    ready = [entry for entry in given if entry.field.dtype not in DERIVED]
    waiting = [entry for entry in given if entry.field.dtype in DERIVED]
    listed = [entry.name for entry in waiting]
    while waiting:
        rest = {entry.name for entry in waiting}
        done = [entry for entry in waiting if not rest & {*targets(entry)}]
        if not done:
            for entry in waiting:
                others = ", ".join(sorted(rest - {entry.name}))
                said = f"is derived in a circle with {others}" if others else _CIRCLE
                remarks.problem(f"{entry.path}.dtype_param", said)
            return ready
        for entry in done:
            if late := [n for n in targets(entry) if n in listed[listed.index(entry.name) :]]:
                said = f"is derived after {', '.join(late)}, which the original does not wait for"
                remarks.note(entry.path, said)
        ready += done
        waiting = [entry for entry in waiting if entry not in done]
    return ready


def _completed(
    made: dict[str, Json],
    entry: Entry,
    by_name: Mapping[str, Entry],
    found: Translated,
    remarks: Remarks,
) -> dict[str, Json]:
    """A derived parameter with what only its targets know; a target that is load is a constant."""
    loads = {one.name: one for one in found.load.values()}
    of = made.get("of", "")
    names: list[str] = of if isinstance(of, list) else [of]
    if made["type"] == "ratio" and names[0] in loads:
        limit = loads[names[0]].high
        low, high = (max(int(made[end] * limit), made.get("minimum", 0)) for end in _ENDS)
        if low >= high:
            return {"type": "constant", "value": high}
        return {"type": "int", "low": low, "high": high}
    if made["type"] == "share" and names[0] in by_name:
        target = by_name[names[0]].field
        return {**made, "total": int(target.min + target.max)}
    if made["type"] in DERIVED and (loaded := [name for name in names if name in loads]):
        said = f"{loaded[0]} is the load, which is not searched; only a ratio of it can be taken"
        remarks.problem(f"{entry.path}.dtype_param", said)
    return made


def _position(entry: Entry, disaggregated: bool, remarks: Remarks) -> str:
    where = entry.field.config_position
    if (load := entry.field.load) is not None:
        return load
    if where == ENV or "." in where:
        return where
    if where.startswith(_DISAGGREGATED) and disaggregated:
        return file_entry(where)
    if where.startswith(_DISAGGREGATED):
        said = "the ratio of prefill to decode instances is for MindIE with --pd disaggregation"
        said += "; add the flag, or remove the field"
    else:
        said = "is env, or a path in the engine's configuration file such as BackendConfig.a.b"
    remarks.problem(f"{entry.path}.config_position", said)
    return where


def _add_baseline(
    entry: Entry,
    made: Mapping[str, Json],
    found: Translated,
    today: Today,
    remarks: Remarks,
) -> None:
    where = entry.field.config_position
    if where != ENV:
        value = today.entries.get(file_entry(where))
    elif made["type"] in DERIVED:
        value = _derived_baseline(made, entry, found.baseline)
    else:
        value = _baseline(entry, made, today, remarks)
    if value is not None:
        found.baseline[entry.name] = value


def _derived_baseline(made: Mapping[str, Json], entry: Entry, baseline: Mapping[str, Json]) -> Json:
    """What a derived field is in the baseline; None where a target is only in the engine's file."""
    if made["type"] == "ratio":
        return _number(float(entry.field.value))
    names = made["of"] if isinstance(made["of"], list) else [made["of"]]
    if any(not baseline.get(name) for name in names):
        return None
    product = math.prod(baseline[name] for name in names)
    if made["type"] == "share":
        return int(made["total"] - product)
    if made["type"].endswith("factories"):
        return int(made["product"] / product)
    return int(made["product"] * product)


def _baseline(
    entry: Entry,
    made: Mapping[str, Json],
    today: Today,
    remarks: Remarks,
) -> Json:
    """The baseline's value in the type of the parameter."""
    value = _value(entry, today, remarks)
    if made["type"] == "bool":
        return bool(value) if not isinstance(value, str) else value.lower() in ("1", "true")
    if made["type"] == "constant" and isinstance(made["value"], str):
        return str(value)
    if made["type"] == "enum":
        return next((one for one in made["values"] if str(one) == str(value)), value)
    number = _as_number(value, entry, remarks)
    return float(number) if made["type"] == "float" else _number(number)


def _value(entry: Entry, today: Today, remarks: Remarks) -> Scalar:
    name, environment = entry.name.upper(), today.environment
    if environment is None or entry.field.config_position != ENV or name not in environment:
        return entry.field.value
    text = environment[name]
    remarks.note(entry.path, f"the baseline has {text!r}, as the environment variable {name} says")
    return text


def _as_number(value: Any, entry: Entry, remarks: Remarks) -> float:
    try:
        return float(value)
    except ValueError:
        remarks.problem(f"{entry.path}.value", f"has to be a number, not {value!r}")
        return 0.0


def _number(value: float) -> Json:
    return int(value) if float(value).is_integer() else value


def _names(loads: Iterable[LoadField]) -> set[str]:
    return {one.name for one in loads}

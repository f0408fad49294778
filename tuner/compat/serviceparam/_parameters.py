"""From one ``target_field`` to one parameter of our space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from searchers import Json
from tuner.compat._options import Problems
from tuner.compat.serviceparam._field import DERIVED, TargetField

_NUMBERS: Mapping[str, Callable[[float], Json]] = {"int": int, "float": float, "str": str}


@dataclass(frozen=True)
class Entry:
    """A field and where it stands, as ``vllm.target_field[2]``."""

    path: str
    field: TargetField

    @property
    def name(self) -> str:
        return self.field.name


@dataclass
class Remarks:
    """What a person should know of a translation.

    Attributes:
        notes: What comes to mean something else than in the original, or nothing.
        problems: What cannot be translated.
    """

    notes: list[str] = field(default_factory=list)
    problems: Problems = field(default_factory=list)

    def note(self, place: str, said: str) -> None:
        self.notes.append(f"{place}: {said}")

    def problem(self, place: str, said: str) -> None:
        self.problems.append((place, said))


def parameter(entry: Entry, remarks: Remarks) -> dict[str, Json] | None:
    """The parameter as an experiment writes it; None after a problem."""
    written = entry.field
    if written.dtype == "ratio":
        return _ratio(entry, remarks)
    if written.dtype in DERIVED:
        return _derived(entry, remarks)
    if written.dtype == "enum":
        return _enum(entry, remarks)
    if written.constant is not None and not written.closed:
        remarks.note(entry.path, f"constant {written.constant:g}: the range is not searched")
    if written.dtype == "range":
        return _range(entry, remarks)
    if written.dtype == "bool":
        return _bool(entry)
    if written.dtype == "str":
        return _text(entry, remarks)
    if written.fixed is not None:
        return _constant(_NUMBERS[written.dtype](written.fixed))
    if written.dtype == "float":
        return {"type": "float", "low": written.min, "high": written.max}
    low, high = int(written.min), int(written.max)
    return {"type": "int", "low": low, "high": high} if low < high else _constant(low)


def targets(entry: Entry) -> list[str]:
    """Names of the fields that a derived field is computed from, as far as they are named."""
    given = entry.field.dtype_param
    if entry.field.dtype in ("ratio", "share"):
        return [given] if isinstance(given, str) else []
    if entry.field.dtype not in DERIVED or not isinstance(given, Mapping):
        return []
    names = given.get("target_names", given.get("target_name"))
    names = [names] if isinstance(names, str) else names
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _constant(value: Json) -> dict[str, Json]:
    return {"type": "constant", "value": value}


def _bool(entry: Entry) -> dict[str, Json]:
    written = entry.field
    if written.fixed is not None:
        return _constant(written.fixed > 0.5)
    if written.min > 0.5 or written.max <= 0.5:
        return _constant(written.min > 0.5)
    return {"type": "bool"}


def _text(entry: Entry, remarks: Remarks) -> dict[str, Json] | None:
    written = entry.field
    if not written.closed:
        said = "a str is never searched; write dtype enum with the texts in dtype_param"
        remarks.problem(f"{entry.path}.dtype", said)
        return None
    return _constant(str(written.value))


def _range(entry: Entry, remarks: Remarks) -> dict[str, Json] | None:
    written = entry.field
    step = _whole(written.dtype_param)
    if step is None or step < 1:
        said = f"is the step of the range, a whole number from 1, not {written.dtype_param!r}"
        remarks.problem(f"{entry.path}.dtype_param", said)
        return None
    if written.constant is not None:
        return _constant(int(written.constant))
    low, high = int(written.min), int(written.max)
    over = (high - low) % step
    if over:
        said = f"the last value is {high - over}; the original would also try"
        remarks.note(entry.path, f"{said} {high - over + step}, which is beyond max")
    if high - over == low:
        return _constant(low)
    return {"type": "int", "low": low, "high": high - over, "step": step}


def _enum(entry: Entry, remarks: Remarks) -> dict[str, Json] | None:
    written = entry.field
    values = written.dtype_param
    place = f"{entry.path}.dtype_param"
    if not isinstance(values, list) or not values or not all(map(_is_scalar, values)):
        remarks.problem(place, "has to list the values: numbers, texts, true or false")
        return None
    distinct: list[Json] = []
    for value in values:
        if not any(type(value) is type(known) and value == known for known in distinct):
            distinct.append(value)
    if len(distinct) < len(values):
        remarks.note(place, "values that stand there twice count once")
    if written.fixed is not None and len(distinct) > 1:
        return _chosen(entry, distinct, remarks)
    if len(distinct) == 1:
        return _constant(distinct[0])
    return {"type": "enum", "values": distinct}


def _chosen(entry: Entry, values: Sequence[Json], remarks: Remarks) -> dict[str, Json] | None:
    """The one value of an enum that is not searched: its constant, or its value if min is max."""
    written = entry.field
    key = "value" if written.constant is None else "constant"
    wanted = getattr(written, key)
    for value in values:
        if value == wanted and isinstance(value, bool) == isinstance(wanted, bool):
            return _constant(value)
    said = f"{wanted!r} is not in dtype_param; to search the field, write min = 0 and max = 1"
    remarks.problem(f"{entry.path}.{key}", said)
    return None


def _ratio(entry: Entry, remarks: Remarks) -> dict[str, Json] | None:
    written = entry.field
    if not isinstance(written.dtype_param, str):
        said = f"is the name of the field it is a share of, not {written.dtype_param!r}"
        remarks.problem(f"{entry.path}.dtype_param", said)
        return None
    low, high = written.min, written.max
    if written.fixed is not None:
        low = high = written.fixed
        said = f"is {low:g} times {written.dtype_param}; the original would make it 0"
        remarks.note(entry.path, said)
    if low < 0:
        remarks.problem(f"{entry.path}.min", f"a ratio is 0 or more, not {low:g}")
        return None
    found = {"type": "ratio", "of": written.dtype_param, "low": low, "high": high}
    if "maxPrefillBatchSize" in written.config_position:
        found["minimum"] = 1
    return found


def _derived(entry: Entry, remarks: Remarks) -> dict[str, Json] | None:
    written = entry.field
    place, given = f"{entry.path}.dtype_param", written.dtype_param
    if written.constant is not None:
        remarks.note(entry.path, f"constant {written.constant:g}: nothing is derived")
        return _constant(int(written.constant))
    if written.dtype == "share":
        if not isinstance(given, str):
            said = f"is the name of the field that it completes, not {given!r}"
            remarks.problem(place, said)
            return None
        return {"type": "share", "of": given}
    if not isinstance(given, Mapping):
        remarks.problem(place, "is a table with the target, product and dtype")
        return None
    names = targets(entry)
    pair = written.dtype.startswith("ternary_")
    if len(set(names)) != (2 if pair else 1):
        wanted = "target_names, two fields" if pair else "target_name, one field"
        remarks.problem(place, f"has to give {wanted}")
        return None
    return _product(entry, given, names, remarks)


def _product(
    entry: Entry, given: Mapping[str, Any], names: Sequence[str], remarks: Remarks
) -> dict[str, Json] | None:
    place, kind = f"{entry.path}.dtype_param", entry.field.dtype
    pair = kind.startswith("ternary_")
    before = len(remarks.problems)
    product = given.get("product", 1 if pair else None)
    if not _is_number(product):
        remarks.problem(f"{place}.product", f"has to be a number, not {product!r}")
    dtype = given.get("dtype", "int")
    if dtype not in ("int", "float"):
        remarks.problem(f"{place}.dtype", f"is int or float, not {dtype!r}")
    if len(remarks.problems) > before:
        return None
    assert isinstance(product, int | float)
    whole = int(product) if float(product).is_integer() else product
    found: dict[str, Json] = {"type": kind, "of": list(names) if pair else names[0]}
    found["product"] = whole
    if dtype == "float":
        found["dtype"] = "float"
    elif kind.endswith("factories"):
        found |= _bounds(given, pair)
        said = f"values that do not divide {whole} are moved to the nearest that do"
        remarks.note(entry.path, said if pair else f"{said}; the original cuts the fraction off")
    if kind == "ternary_factories":
        found["priority"] = _priority(place, given, names, remarks)
    return found


def _bounds(given: Mapping[str, Any], pair: bool) -> dict[str, Json]:
    """Range of a quotient; where nothing divides, it is brought into that."""
    found: dict[str, Json] = {"low": given.get("min_value", 1)} if pair else {}
    if pair and given.get("max_value") is not None:
        found["high"] = given["max_value"]
    return {**found, "clamp": True}


def _priority(place: str, given: Mapping[str, Any], names: Sequence[str], remarks: Remarks) -> Json:
    policy = given.get("priority_policy", "balanced")
    if policy == "balanced":
        return "balanced"
    if policy != "fixed":
        remarks.problem(f"{place}.priority_policy", f"is balanced or fixed, not {policy!r}")
        return "balanced"
    order = given.get("priority", list(names))
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(names):
        remarks.note(f"{place}.priority", f"does not list both targets; {', '.join(names)} counts")
        return list(names)
    return order


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool) or _is_number(value)

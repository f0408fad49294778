"""MindIE's config.json: entries by dotted path, and what must not be in it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from itertools import pairwise
from typing import Any, TypeAlias

Json: TypeAlias = Any

_MOST_LEVELS = 10
_SERVER = "ServerConfig"
_MODEL = "BackendConfig.ModelDeployConfig.ModelConfig.0"
OURS = (
    f"{_SERVER}.ipAddress",
    f"{_SERVER}.managementIpAddress",
    f"{_SERVER}.port",
    f"{_SERVER}.managementPort",
    f"{_SERVER}.metricsPort",
    f"{_MODEL}.modelName",
    f"{_MODEL}.modelWeightPath",
)
"""Entries that the deployment decides."""
HTTPS = f"{_SERVER}.httpsEnabled"
_LOG = "LogConfig"


def parsed(text: str) -> Json:
    """The document. Raises ``ValueError`` saying where ``text`` is no JSON object."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("holds no JSON object")
    return document


def written(document: Json) -> str:
    return json.dumps(document, indent=4, ensure_ascii=False, allow_nan=False) + "\n"


def value_at(document: Json, path: str) -> Json:
    """The value at a dotted path, where numbers index lists. Raises ``KeyError`` without one."""
    found = document
    for segment in path.split("."):
        if isinstance(found, dict) and segment in found:
            found = found[segment]
        elif isinstance(found, list) and segment.isdecimal() and int(segment) < len(found):
            found = found[int(segment)]
        else:
            raise KeyError(path)
    return found


def values_at(document: Json, paths: Iterable[str]) -> dict[str, Json]:
    """The values at those of ``paths`` that there are."""
    found = {}
    for path in paths:
        try:
            found[path] = value_at(document, path)
        except KeyError:
            continue
    return found


def with_entries(document: Json, entries: Mapping[str, Json]) -> Json:
    """A copy of ``document`` with these entries by dotted path.

    Missing keys are made, and the number of elements as an index appends one. Raises ``ValueError``
    for a path that leads nowhere.
    """
    changed = deepcopy(document)
    for path, value in entries.items():
        _set(changed, path, deepcopy(value))
    return changed


def corrected(entries: Mapping[str, Json]) -> tuple[dict[str, Json], tuple[str, ...]]:
    """Entries without what MindIE cannot take, and a note for each correction.

    A maximal prefill batch of 0 kills the service, so it becomes 1. Where batches are not selected
    by time, the times of prefill and decode mean nothing and are 0.
    """
    kept = dict(entries)
    notes = []
    for path, value in entries.items():
        place, _, name = path.rpartition(".")
        if name == "maxPrefillBatchSize" and value == 0:
            kept[path] = 1
            notes.append(f"{path} is 0, which kills the service; 1 is written instead")
        elif name == "supportSelectBatch" and value is False:
            times = [f"{place}.{time}" for time in ("prefillTimeMsPerReq", "decodeTimeMsPerReq")]
            if any(entries.get(time, 1) != 0 for time in times):
                kept |= dict.fromkeys(times, 0)
                notes.append(f"{path} is false, so {' and '.join(times)} are 0")
    return kept, tuple(notes)


def addressed(document: Json, ip: str, port: int, name: str, weights: str) -> Json:
    """A copy that serves ``weights`` as ``name`` at one address for all its interfaces.

    MindIE allows one address for requests, management and metrics; only then does the port of the
    requests also list the models and tell the health.
    """
    values = (ip, ip, port, port, port, name, weights)
    return with_entries(document, dict(zip(OURS, values, strict=True)))


def canonical(document: Json) -> Json:
    """What of the document decides results: not addresses, names, certificates or logs."""
    kept = deepcopy(document)
    kept.pop(_LOG, None)
    for path in OURS:
        place, _, name = path.rpartition(".")
        for holder in values_at(kept, [place]).values():
            if isinstance(holder, dict):
                holder.pop(name, None)
    for block in (kept.get(_SERVER), kept.get("BackendConfig")):
        if isinstance(block, dict):
            for key in [key for key in block if "tls" in key.lower()]:
                del block[key]
    return kept


def _set(document: Json, path: str, value: Json) -> None:
    segments = path.split(".")
    if not all(segments) or len(segments) > _MOST_LEVELS:
        raise ValueError(f"{path!r} is no path of at most {_MOST_LEVELS} names with dots between")
    holder = document
    for here, following in pairwise(segments):
        holder = _step(holder, here, path, [] if following.isdecimal() else {})
    _put(holder, segments[-1], path, value)


def _step(holder: Json, segment: str, path: str, empty: Json) -> Json:
    """What is at ``segment``; ``empty``, put there, where nothing is."""
    if isinstance(holder, list):
        missing = _index(holder, segment, path) == len(holder)
    else:
        missing = isinstance(holder, dict) and segment not in holder
    if missing:
        _put(holder, segment, path, empty)
    try:
        return holder[int(segment) if isinstance(holder, list) else segment]
    except TypeError:
        raise ValueError(f"{path}: there is no {segment} in {holder!r}") from None


def _put(holder: Json, segment: str, path: str, value: Json) -> None:
    if isinstance(holder, dict):
        if segment.isdecimal() and segment not in holder:
            raise ValueError(f"{path}: {segment} counts elements of a list, but there is none")
        holder[segment] = value
    elif isinstance(holder, list):
        index = _index(holder, segment, path)
        holder[index : index + 1] = [value]
    else:
        raise ValueError(f"{path}: there is no {segment} in {holder!r}")


def _index(holder: list[Json], segment: str, path: str) -> int:
    if not segment.isdecimal() or int(segment) > len(holder):
        raise ValueError(f"{path}: {segment} is no index of a list of {len(holder)}")
    return int(segment)

"""The ``trial.load`` block of an optimizer's settings, and the refinement after the search."""

from __future__ import annotations

from collections.abc import Sequence

from searchers import Json
from trainables.benchmarks import LATENCIES
from tuner.compat.serviceparam._config import Settings
from tuner.compat.serviceparam._fields import LoadField, Translated
from tuner.compat.serviceparam._parameters import Remarks

_AIS_CONCURRENCY = 1000
_FASTEST = "as fast as the concurrency allows"
_MOST_STEPS = 200
_TOP = "data_storage.pso_top_k"


def load_block(
    settings: Settings, fields: Translated, benchmark: dict[str, Json], remarks: Remarks
) -> dict[str, Json]:
    """The load of all candidates: the highest there is, and its rate calibrated where it varies."""
    concurrency, rate = fields.load.get("concurrency"), fields.load.get("request_rate")
    load: dict[str, Json] = {"type": "fixed"}
    if rate is not None and not rate.fixed:
        load["type"] = "calibrated"
        if rate.low > 0:
            said = f"a throughput below {rate.low:g} requests per second is followed, not raised"
            remarks.note(rate.name, said)
    if concurrency is not None and concurrency.high > 0:
        load["concurrency"] = int(concurrency.high)
    elif concurrency is None and "CONCURRENCY" not in fields.space:
        if benchmark["type"] == "ais_bench":
            load["concurrency"] = _AIS_CONCURRENCY
        limit = load.get("concurrency", "no limit")
        remarks.note("CONCURRENCY", f"there is no such field; the concurrency is {limit}")
    if rate is not None and rate.high > 0:
        load["request_rate"] = float(rate.high)
    if rate is None:
        remarks.note("REQUESTRATE", f"there is no such field; requests go {_FASTEST}")
    sample, whole = settings.sample_size, benchmark["num_prompts"]
    if sample and sample < whole:
        load["requests"] = sample
    return load


def operating_point(settings: Settings, fields: Translated, remarks: Remarks) -> dict[str, Json]:
    """The load of ``--native``: each trial searches its own."""
    load: dict[str, Json] = {"type": "operating_point", "by": "concurrency"}
    concurrency = fields.load.get("concurrency")
    if concurrency is not None and concurrency.high >= 1:
        load |= _range(concurrency)
    if settings.sample_size:
        said = "short runs look for the load, and the run that counts sends all requests"
        remarks.note("sample_size", said)
    if top := settings.data_storage.pso_top_k:
        remarks.note(f"{_TOP} = {top}", "--native searches the load of every trial already")
    return load


def refinement(
    settings: Settings, fields: Translated, limits: Sequence[dict[str, Json]], remarks: Remarks
) -> dict[str, Json]:
    """``finalists`` and ``refine`` of the ``trial`` block; empty where nothing is refined."""
    top = settings.data_storage.pso_top_k
    if not top:
        return {}
    place, found = f"{_TOP} = {top}", dict[str, Json](finalists=top)
    searched = _searched(fields)
    if searched is None:
        said = "neither CONCURRENCY nor REQUESTRATE has a range, so the best are measured again"
        remarks.note(place, f"{said} as they are")
    elif not any(limit["metric"].startswith(LATENCIES) for limit in limits):
        said = "no latency has a penalty, so no load is too high and the best are measured again"
        remarks.note(place, f"{said} as they are")
    elif not settings.max_fine_tune:
        remarks.note(place, "max_fine_tune is 0, so the best are measured again as they are")
    else:
        precision = settings.slo_coefficient
        searched["precision"] = precision if 0 < precision < 1 else 0.1
        searched["probes"] = min(settings.max_fine_tune, _MOST_STEPS)
        found["refine"] = searched
        said = (
            f"the highest {searched['by']} within the limits is searched for each of the best, on "
            "one running engine (max_fine_tune short runs at most, until the load is known to "
            "slo_coefficient); the original starts the engine again for every step"
        )
        remarks.note(place, said)
    return found


def _searched(fields: Translated) -> dict[str, Json] | None:
    """What is varied and in which range; None where the load is fixed."""
    concurrency, rate = fields.load.get("concurrency"), fields.load.get("request_rate")
    if concurrency is not None and not concurrency.fixed and concurrency.high >= 1:
        return {"by": "concurrency", **_range(concurrency)}
    if rate is None or rate.fixed or rate.high <= 0:
        return None
    found: dict[str, Json] = {"by": "request_rate"}
    found |= {"low": rate.low if rate.low > 0 else min(1.0, rate.high), "high": rate.high}
    if concurrency is not None and concurrency.high >= 1:
        found["concurrency"] = int(concurrency.high)
    return found


def _range(concurrency: LoadField) -> dict[str, Json]:
    return {"low": max(1, int(concurrency.low)), "high": max(1, int(concurrency.high))}

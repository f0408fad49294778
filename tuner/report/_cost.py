"""Where the devices' hours went: by phase, and trial by trial on each node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tuner._phases import phase_of
from tuner.report._data import Attempt, Json, RunData, Trial, device_unit, time_unit, took
from tuner.report._nodes import devices_of, on_nodes
from tuner.report._parts import Block, Cell, Chart, Table, Text, colour, hints, spec

_MOST_BARS = 2000
_ORDER = ("measuring", "producing", "starting", "failed", "cancelled", "waiting", "idle")
_MEANS: Mapping[str, str] = {
    "measuring": "benchmarks and evaluations",
    "producing": "quantizing, analysing, delivering",
    "starting": "engines coming up",
    "failed": "attempts that failed, retried ones among them",
    "cancelled": "trials whose answer was known without them",
    "idle": "against the most that was in use at once",
}


def cost_blocks(run: RunData) -> list[Block]:
    """Hours by phase, and the Gantt chart."""
    if not run.attempts:
        return []
    hours = phase_hours(run)
    factor, unit = device_unit(sum(hours.values()), run.resource)
    hours = {phase: factor * amount for phase, amount in hours.items()}
    total = sum(hours.values()) or 1.0
    shown = [phase for phase in _ORDER if hours.get(phase, 0.0) > 0]
    rows = [
        [
            Cell(phase),
            Cell(f"{hours[phase]:.3g}", sort=hours[phase]),
            Cell(f"{100 * hours[phase] / total:.0f} %", sort=hours[phase]),
            Cell(_MEANS.get(phase, ""), "dim"),
        ]
        for phase in shown
    ]
    found: list[Block] = []
    if rows:
        found.append(_bar([(phase, hours[phase]) for phase in shown], unit))
        found.append(Table(["phase", unit, "share", ""], rows))
    if not on_nodes(run):
        found.append(_gantt(run))
    longest = max(run.attempts, key=lambda one: one.carried)
    if longest.carried > 0:
        said = f"The longest trial, #{longest.number} {longest.kind}, took "
        found.append(Text(f"{said}{took(longest.carried)}.", "dim"))
    return found


def phase_hours(run: RunData) -> dict[str, float]:
    """Device-hours by phase; ``idle`` is what the most devices in use at once had left over."""
    trials = {trial.identity: trial for trial in run.trials}
    hours = dict.fromkeys(_ORDER, 0.0)
    for attempt in run.attempts:
        trial = trials.get(attempt.identity)
        devices = devices_of(attempt, trial)
        for phase, begun, ended in _pieces(attempt, trial):
            if phase != "waiting":
                hours[phase] += devices * (ended - begun) / 3600
    begun = min((one.begun for one in run.attempts), default=0.0)
    ended = max((one.ended for one in run.attempts), default=0.0)
    there = _most_at_once(run, trials) * (ended - begun) / 3600
    hours["idle"] = max(0.0, round(there - sum(hours.values()), 9))
    return hours


def _most_at_once(run: RunData, trials: Mapping[str, Trial]) -> float:
    steps: list[tuple[float, float]] = []
    for attempt in run.attempts:
        trial = trials.get(attempt.identity)
        held = [piece for piece in _pieces(attempt, trial) if piece[0] != "waiting"]
        if held:
            devices = devices_of(attempt, trial)
            steps += [(held[0][1], devices), (held[-1][2], -devices)]
    most = now = 0.0
    for _, change in sorted(steps):
        now += change
        most = max(most, now)
    return most


def _pieces(attempt: Attempt, trial: Trial | None) -> list[tuple[str, float, float]]:
    """Phase, begin and end of the parts of an attempt, in order.

    The stages of a measured one end where it ended; what is before them was starting, and waiting
    before a node took it.
    """
    taken = attempt.begun if attempt.started is None else attempt.started
    waited = [("waiting", attempt.begun, taken)] if taken > attempt.begun else []
    if attempt.status in ("retry", "failed", "lost"):
        return [*waited, ("failed", taken, attempt.ended)]
    if attempt.status == "cancelled":
        return [*waited, ("cancelled", taken, attempt.ended)]
    stages = [] if trial is None else [one for one in trial.stages if not one.get("resumed")]
    if not stages:
        phase = "waiting" if attempt.status == "reused" else "measuring"
        return [*waited, (phase, taken, attempt.ended)]
    at = max(attempt.begun, attempt.ended - sum(float(stage["seconds"]) for stage in stages))
    known = attempt.started is not None
    parts = [("waiting", attempt.begun, min(taken, at) if known else at)]
    parts += [("starting", taken, at)] if known else []
    for stage in stages:
        ended = min(attempt.ended, at + float(stage["seconds"]))
        parts.append((phase_of(str(stage["name"])), at, ended))
        at = ended
    return _joined(part for part in parts if part[2] > part[1])


def _joined(parts: Iterable[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Consecutive parts of one phase as one."""
    pieces: list[tuple[str, float, float]] = []
    for phase, begun, ended in parts:
        if pieces and pieces[-1][0] == phase:
            pieces[-1] = (phase, pieces[-1][1], ended)
        else:
            pieces.append((phase, begun, ended))
    return pieces


def _bar(hours: Sequence[tuple[str, float]], unit: str) -> Chart:
    rows, at = list[dict[str, Json]](), 0.0
    for phase, amount in hours:
        rows.append({"outcome": phase, "from": at, "to": at + amount, "hours": round(amount, 4)})
        at += amount
    bar = {
        "mark": {"type": "bar", "height": 26},
        "encoding": {
            "x": {"field": "from", "type": "quantitative", "title": unit},
            "x2": {"field": "to"},
            "color": colour([phase for phase, _ in hours]),
            "tooltip": hints(("outcome", "phase"), ("hours", unit)),
        },
    }
    return Chart("hours", f"{unit} by phase", spec(rows, bar, height=46))


def _gantt(run: RunData) -> Chart:
    trials = {trial.identity: trial for trial in run.trials}
    start = run.begun or 0.0
    unit, unit_name = time_unit(run.span)
    rows = list[dict[str, Json]]()
    lanes = _lanes(run.attempts[-_MOST_BARS:])
    many = len({node for _, node, _ in lanes}) > 1
    for attempt, node, lane in lanes:
        for phase, begun, ended in _pieces(attempt, trials.get(attempt.identity)):
            rows.append(
                {
                    "lane": f"{node} · {lane + 1}" if many or lane else f"{node} · 1",
                    "from": (begun - start) / unit,
                    "to": (ended - start) / unit,
                    "outcome": phase,
                    "name": f"#{attempt.number} {attempt.kind}",
                    "seconds": round(ended - begun, 1),
                }
            )
    order = sorted({row["lane"] for row in rows})
    bar = {
        "mark": {"type": "bar", "height": {"band": 0.72}},
        "encoding": {
            "x": {"field": "from", "type": "quantitative", "title": f"{unit_name} since the start"},
            "x2": {"field": "to"},
            "y": {
                "field": "lane",
                "type": "nominal",
                "title": None,
                "sort": order,
                "axis": {"labelLimit": 130},
            },
            "color": colour([row["outcome"] for row in rows]),
            "tooltip": hints(("name", "trial"), ("outcome", "phase"), ("seconds", "seconds")),
        },
    }
    height = min(900, 34 + 24 * len(order))
    note = "A line is a place on a node; trials that ran at once stand one above the other."
    return Chart("gantt", "Trials over time, by node", spec(rows, bar, height=height), note)


def _lanes(attempts: Iterable[Attempt]) -> list[tuple[Attempt, str, int]]:
    """Each attempt with its node and the first free line of that node."""
    free: dict[str, list[float]] = {}
    placed = []
    for attempt in attempts:
        node = attempt.node or "node not known"
        ends = free.setdefault(node, [])
        lane = next((i for i, end in enumerate(ends) if end <= attempt.begun + 1e-6), len(ends))
        if lane == len(ends):
            ends.append(0.0)
        ends[lane] = attempt.ended
        placed.append((attempt, node, lane))
    return placed

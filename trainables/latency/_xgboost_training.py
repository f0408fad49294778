"""Training of a latency model with XGBoost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.latency._card import Errors, errors_by_kind
from trainables.latency._features import FEATURES
from trainables.latency._xgboost_baseline import Baseline, fit_baseline
from trainables.latency._xgboost_hull import hull_of
from trainables.latency._xgboost_model import Fit
from trainables.latency._xgboost_rows import Parts, Rows, by_time, usual
from trainables.latency._xgboost_trees import MAX_LEAVES, Forest, trees_of

LEAST_ROWS = 50
_ROUNDS = 600
_PATIENCE = 40
_POWERS = (0.6, 0.8, 0.9, 1.0)
_PARTS = (0.125, 0.25, 0.5, 1.0)
_GROUPS = 5
_PARAMETERS: dict[str, Any] = {
    "objective": "reg:pseudohubererror",
    "huber_slope": 0.1,
    "eval_metric": "mphe",
    "base_score": 0.0,
    "tree_method": "hist",
    "grow_policy": "lossguide",
    "max_leaves": MAX_LEAVES,
    "max_depth": 0,
    "eta": 0.05,
    "min_child_weight": 4.0,
    "lambda": 1.0,
    "subsample": 0.8,
    "monotone_constraints": "(" + ",".join("1" for _ in FEATURES) + ")",
    # One thread adds up in one order: the same rows give the same trees on every machine.
    "nthread": 1,
}


@dataclass(frozen=True)
class Trained:
    """A model, and how well it is known to predict.

    Attributes:
        fit: Trained on all rows.
        booster: Its trees as XGBoost saves them (UBJSON).
        rounds: Trees.
        delay: Mean over typical duration of the same work: how much others delay iterations.
        set_aside: Rows that took ten times what their work explains; not trained on.
        held_out: By kind, errors on blocks of time the model that was judged had not seen.
        baseline_alone: The same of the physical baseline without trees.
        other_loads: By kind, errors on each recording of a model trained on the others; empty
            with one recording.
        curve: Rows trained on, and the errors on the same held-out blocks.
    """

    fit: Fit
    booster: bytes
    rounds: int
    delay: float
    set_aside: int
    held_out: dict[str, Errors]
    baseline_alone: dict[str, Errors]
    other_loads: dict[str, Errors]
    curve: list[tuple[int, Errors]]


def train(rows: Rows, seed: int) -> Trained:
    """Train on rows and judge what comes of it.

    The loss is of the logarithm, so of relative errors, and takes little notice of single
    iterations that something else delayed (pseudo-Huber). A request's time is the sum of many
    iterations and has its share of such delays, so the whole is then scaled to the mean (Duan's
    smearing, 1983).

    Args:
        rows: ``LEAST_ROWS`` at least.
        seed: Of the rows each tree sees.
    """
    keep, baseline = usual(rows)
    kept = rows[keep]
    parts = by_time(kept)
    power, rounds, judged = _chosen(kept, parts, seed)
    test = kept[parts.test]
    alone = fit_baseline(kept.table[parts.train], kept.seconds[parts.train])
    booster, fit = _fitted(kept, baseline, power, rounds, seed)
    return Trained(
        fit,
        bytes(booster.save_raw("ubj")),
        rounds,
        fit.baseline.intercept / baseline.intercept,
        int((~keep).sum()),
        errors_by_kind(judged.of(test.table), test.seconds, test.kinds),
        errors_by_kind(alone.of(test.table), test.seconds, test.kinds),
        _other_loads(kept, power, rounds, seed),
        _curve(kept, parts, power, rounds, seed),
    )


def _chosen(rows: Rows, parts: Parts, seed: int) -> tuple[float, int, Fit]:
    """Power and rounds with the least loss on the blocks for stopping, and that model."""
    training, stop = rows[parts.train], rows[parts.stop]
    baseline = fit_baseline(training.table, training.seconds)
    best: tuple[float, float, Any] | None = None
    for power in _POWERS:
        booster = _boosted(training, baseline, power, _ROUNDS, seed, stop)
        if best is None or booster.best_score < best[0]:
            best = (booster.best_score, power, booster)
    assert best is not None
    _, power, booster = best
    rounds = booster.best_iteration + 1
    return power, rounds, _fit_of(booster[:rounds], training, baseline, power)


def _fitted(
    rows: Rows, baseline: Baseline, power: float, rounds: int, seed: int
) -> tuple[Any, Fit]:
    booster = _boosted(rows, baseline, power, rounds, seed)
    return booster, _fit_of(booster, rows, baseline, power)


def _fit_of(booster: Any, rows: Rows, baseline: Baseline, power: float) -> Fit:
    document = json.loads(bytes(booster.save_raw("json")))
    offset, hull = _offset(rows, baseline, power), hull_of(rows.table)
    fit = Fit(baseline, Forest(trees_of(document)), power, offset, hull)
    mean = float(rows.seconds.sum() / fit.of(rows.table).sum())
    scaled = baseline.times(mean)
    return replace(fit, baseline=scaled, offset=offset + (1 - power) * math.log(mean))


def _offset(rows: Rows, baseline: Baseline, power: float) -> float:
    """What is left of the logarithm when the baseline's part is taken off."""
    return float(np.median(np.log(rows.seconds) - power * np.log(baseline.of(rows.table))))


def _boosted(
    rows: Rows,
    baseline: Baseline,
    power: float,
    rounds: int,
    seed: int,
    stop: Rows | None = None,
) -> Any:
    """The trees of XGBoost; with ``stop``, until its loss has not fallen for a while."""
    import xgboost

    offset = _offset(rows, baseline, power)

    def matrix(some: Rows) -> Any:
        margin = offset + power * np.log(baseline.of(some.table))
        wanted, names = np.log(some.seconds), list(FEATURES)
        return xgboost.DMatrix(some.table, wanted, base_margin=margin, feature_names=names)

    early: dict[str, Any] = {}
    if stop is not None:
        early = {"evals": [(matrix(stop), "stop")], "early_stopping_rounds": _PATIENCE}
    return xgboost.train(
        {**_PARAMETERS, "seed": seed}, matrix(rows), rounds, verbose_eval=False, **early
    )


def _curve(
    rows: Rows, parts: Parts, power: float, rounds: int, seed: int
) -> list[tuple[int, Errors]]:
    """Errors on the test blocks when the recording had ended earlier."""
    test, available = rows[parts.test], np.flatnonzero(parts.train)
    points = []
    for share in _PARTS:
        first = [
            mine[: max(1, round(share * len(mine)))]
            for mine in (available[rows.source[available] == one] for one in _sources(rows))
        ]
        some = rows[np.concatenate(first)]
        if len(some) >= LEAST_ROWS // 2:
            predicted = _predicted(some, test, power, rounds, seed)
            points.append((len(some), errors_by_kind(predicted, test.seconds, test.kinds)["all"]))
    return points


def _other_loads(rows: Rows, power: float, rounds: int, seed: int) -> dict[str, Errors]:
    """Each recording, or group of them, predicted from the others."""
    groups = rows.source % _GROUPS
    if len(_sources(rows)) < 2:
        return {}
    predicted = np.empty(len(rows))
    for group in np.unique(groups):
        mine = groups == group
        if (~mine).sum() < LEAST_ROWS // 2:
            return {}
        predicted[mine] = _predicted(rows[~mine], rows[mine], power, rounds, seed)
    return errors_by_kind(predicted, rows.seconds, rows.kinds)


def _predicted(
    known: Rows, asked: Rows, power: float, rounds: int, seed: int
) -> NDArray[np.float64]:
    baseline = fit_baseline(known.table, known.seconds)
    return _fitted(known, baseline, power, rounds, seed)[1].of(asked.table)


def _sources(rows: Rows) -> list[int]:
    return [int(one) for one in np.unique(rows.source)]

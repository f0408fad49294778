"""Files of a trained latency model.

In its folder, where msServiceProfiler has them: ``bak/base/xgb_model.ubj`` and
``model/xgb_model.ubj`` (the trees as XGBoost saves them), ``cache/train_data.csv`` (rows) and
``req_id_and_decode_num.json`` (tokens of each answer). Beside them ``latency_model.json``, all that
predicting needs, with the digest of the trees it belongs to, and the model card.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import write_atomic, write_json
from trainables.latency._card import as_markdown
from trainables.latency._features import FEATURES
from trainables.latency._model import LatencyError
from trainables.latency._xgboost_baseline import baseline_from
from trainables.latency._xgboost_hull import Hull
from trainables.latency._xgboost_model import Fit
from trainables.latency._xgboost_rows import Rows
from trainables.latency._xgboost_shares import shares_from
from trainables.latency._xgboost_training import Trained
from trainables.latency._xgboost_trees import Forest, trees_from

FORMAT = "npu-tuner latency model, 1"
MODEL = "latency_model.json"
CARD = "model_card.json"
BOOSTER = Path("bak/base/xgb_model.ubj")
_COPY = Path("model/xgb_model.ubj")
_ROWS = Path("cache/train_data.csv")
_REPLIES = "req_id_and_decode_num.json"
_AGAIN = "train it again with `python -m tuner train`"


def save_model(
    folder: Path,
    trained: Trained,
    rows: Rows,
    names: Sequence[str],
    replies: Sequence[int],
    card: dict[str, Any],
    pause: float,
    shares: Mapping[str, int],
) -> None:
    """Write all files; what predicting reads comes last, so that a torn set is noticed.

    Args:
        names: Of the sources of the rows.
        replies: Tokens of the answers.
        pause: Seconds between iterations.
        shares: Devices that share an iteration, as far as it is known.

    Raises:
        OSError: The folder cannot be written.
    """
    for path in (_COPY, BOOSTER, _ROWS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / _ROWS, _as_csv(rows, names))
    numbered = {str(number): tokens for number, tokens in enumerate(replies)}
    write_json(folder / _REPLIES, numbered)
    write_json(folder / CARD, card)
    write_atomic(folder / "model_card.md", as_markdown(card))
    for path in (_COPY, BOOSTER):
        write_atomic(folder / path, trained.booster)
    document = {
        "format": FORMAT,
        "features": FEATURES,
        "booster_sha256": hashlib.sha256(trained.booster).hexdigest(),
        "pause": pause,
        "shares": dict(shares),
        "power": trained.fit.power,
        "offset": trained.fit.offset,
        "baseline": trained.fit.baseline.document(),
        "hull": trained.fit.hull.document(),
        "trees": trained.fit.forest.document(),
    }
    write_atomic(folder / MODEL, json.dumps(document, separators=(",", ":")) + "\n")


@dataclass(frozen=True)
class Stored:
    """Attributes:
    fit: How long iterations take.
    pause: Seconds between them.
    shares: Devices that share one, as far as it is known.
    """

    fit: Fit
    pause: float
    shares: Mapping[str, int]


def load_model(folder: Path) -> Stored:
    """Read a model; neither XGBoost nor anything executable is needed for it.

    Raises:
        LatencyError: It is missing, torn, or from another program or version.
    """
    path = folder / MODEL
    if not path.is_file():
        raise LatencyError(_missing(folder))
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        known = document["format"], tuple(document["features"])
        if known != (FORMAT, FEATURES):
            raise LatencyError(f"{path}: was made by another version of this program; {_AGAIN}")
        _check_booster(folder / BOOSTER, str(document["booster_sha256"]))
        pause = _number(document, "pause", 0, math.inf)
        return Stored(_fit_from(document), pause, shares_from(document["shares"]))
    except OSError as error:
        raise LatencyError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LatencyError(f"{path}: is torn or no latency model ({error}); {_AGAIN}") from None


def digest_of(folder: Path) -> str:
    """Of all that decides the model's numbers; empty where it is missing."""
    path = folder / MODEL
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _missing(folder: Path) -> str:
    """Why there is no model in a folder, and what to do."""
    if (folder / BOOSTER).is_file() or (folder / _COPY).is_file():
        return (
            f"{folder}: holds trees but no {MODEL}: msServiceProfiler trained it, and its features "
            f"are others; {_AGAIN} from the same profile"
        )
    return f"{folder}: there is no {MODEL} in it; train one with `python -m tuner train`"


def _check_booster(path: Path, digest: str) -> None:
    if not path.is_file():
        raise LatencyError(f"{path}: is missing, so the model is not whole; {_AGAIN}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise LatencyError(f"{path}: is torn or belongs to another model; {_AGAIN}")


def _fit_from(document: Any) -> Fit:
    return Fit(
        baseline_from(document["baseline"]),
        Forest(trees_from(document["trees"])),
        _number(document, "power", 0, 1),
        _number(document, "offset", -math.inf, math.inf),
        Hull(**document["hull"]),
    )


def _number(document: Any, name: str, low: float, high: float) -> float:
    number = float(document[name])
    if not (low <= number <= high and math.isfinite(number)):
        raise ValueError(f"{name} is {number}")
    return number


def _as_csv(rows: Rows, names: Sequence[str]) -> str:
    lines = [",".join(("source", "kind", *FEATURES, "seconds"))]
    sources = [_cell(name) for name in names]
    for source, kind, values, seconds in zip(
        rows.source.tolist(), rows.kinds, rows.table.tolist(), rows.seconds.tolist(), strict=True
    ):
        numbers = (f"{value:.12g}" for value in values)
        lines.append(",".join((sources[source], str(kind), *numbers, repr(seconds))))
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n\r') else text

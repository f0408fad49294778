"""``latency: {type: xgboost, path: FOLDER}``: a model trained on recorded iterations."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from trainables._extras import how_to_install
from trainables._trial import Json
from trainables.latency._card import card_errors
from trainables.latency._features import FEATURES
from trainables.latency._model import LatencyError, LatencySource, Served, register_latency_model
from trainables.latency._xgboost_artifacts import digest_of, load_model, save_model
from trainables.latency._xgboost_model import LearnedLatency
from trainables.latency._xgboost_rows import Rows, pause_between, rows_of
from trainables.latency._xgboost_shares import check_shares, shares_of
from trainables.latency._xgboost_training import LEAST_ROWS, Trained, train
from trainables.latency.imports import Framework, Imported
from trainables.simulation import HostCosts

_MOST_ROWS = 100_000


class XgboostOptions(BaseModel):
    """Options of a learned latency model.

    Attributes:
        path: Folder that `python -m tuner train` wrote.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["xgboost"] = "xgboost"
    path: Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


@register_latency_model("xgboost")
class XgboostLatency(LatencySource):
    """A model trained on iterations of the very engine, model, devices and parallelism it is asked
    about; it knows no other."""

    Options = XgboostOptions

    def model(self, served: Served) -> LearnedLatency:
        stored = load_model(self.options.path)
        check_shares(stored.shares, served, str(self.options.path))
        return LearnedLatency(stored.fit)

    def host(self, served: Served) -> HostCosts:
        return HostCosts(iteration=load_model(self.options.path).pause)

    def identity(self) -> Json:
        return {"type": "xgboost", "sha256": digest_of(self.options.path)}

    def problems(self) -> list[tuple[str, str]]:
        try:
            load_model(self.options.path)
        except LatencyError as error:
            return [("path", str(error))]
        return []


def train_latency(
    imported: Imported, folder: Path, framework: Framework, seed: int = 0
) -> dict[str, Any]:
    """Train on recordings, write the model into a folder; its card.

    The same recordings and seed give the same files, byte for byte, with the same versions.

    Args:
        imported: What was read.
        folder: Made if it is not there; an older model in it is replaced.
        framework: Engine that was recorded, for the card.
        seed: Of the rows each tree sees.

    Raises:
        LatencyError: There are too few iterations, they are of engines that cannot be told apart,
            or XGBoost is not installed.
        OSError: The folder cannot be written.
    """
    if imported.iterations < LEAST_ROWS:
        raise LatencyError(
            f"there are {imported.iterations} usable iterations, training needs {LEAST_ROWS} at "
            "least and is better with thousands; record a longer run"
        )
    try:
        import xgboost  # noqa: F401
    except ImportError as error:
        raise LatencyError(f"training needs XGBoost: {how_to_install('simulate')}") from error
    shares = shares_of(imported.sources)
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of([source.records for source in imported.sources], _MOST_ROWS)
    trained = train(rows, seed)
    pause = pause_between(source.records for source in imported.sources if source.clocked)
    card = {**_card(imported, rows, trained, framework, seed), "pause": pause}
    names = [str(source.path) for source in imported.sources]
    save_model(folder, trained, rows, names, imported.replies, card, pause, shares)
    return card


def _card(
    imported: Imported, rows: Rows, trained: Trained, framework: Framework, seed: int
) -> dict[str, Any]:
    hull = trained.fit.hull
    return {
        "framework": framework,
        "data": {
            "sha256": _digest(rows),
            "rows": len(rows),
            "iterations": imported.iterations,
            "set_aside": trained.set_aside,
            "sources": [
                {"path": str(one.path), "format": one.format, "kept": len(one.records)}
                for one in imported.sources
            ],
            "dropped": dict(imported.dropped),
            "malformed": len(imported.faults),
        },
        "ranges": {
            name: [low, high] for name, low, high in zip(FEATURES, hull.low, hull.high, strict=True)
        },
        "held_out": card_errors(trained.held_out),
        "other_loads": card_errors(trained.other_loads),
        "baseline_alone": card_errors(trained.baseline_alone),
        "learning_curve": [
            {"trained_on": count, **asdict(errors)} for count, errors in trained.curve
        ],
        "training": {"trees": trained.rounds, "power": trained.fit.power, "seed": seed},
        "delay": trained.delay,
        "versions": _versions(("numpy", "scipy", "npu-tuner")),
        "engine_settings": {
            str(one.path): dict(one.settings) for one in imported.sources if one.settings
        },
    }


def _digest(rows: Rows) -> str:
    digest = hashlib.sha256(rows.table.tobytes())
    digest.update(rows.seconds.tobytes())
    return digest.hexdigest()


def _versions(names: Sequence[str]) -> dict[str, str]:
    import xgboost

    found = {"python": platform.python_version(), "xgboost": xgboost.__version__}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

"""From an experiment file to something that can be run, or to everything that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from cluster import Placement, write_atomic
from searchers import Goal, Proposal, Space, make_strategy, strategy_options, strategy_types
from searchers import Strategy as SearchStrategy
from trainables import TrialType, trial_type, trial_types
from tuner.experiment._channels import ChannelOptions, read_channels
from tuner.experiment._demand import Size, demand_problems, placement_of, sizes
from tuner.experiment._document import Document, read_document, to_yaml
from tuner.experiment._models import Budget, Cluster, Objective
from tuner.experiment._prior import PriorOptions, prior_problems
from tuner.experiment._problems import from_pydantic
from tuner.views import view_type, view_types

_NAME = re.compile(r"[^\W_][\w.-]{0,99}")
_LONGEST_NAME = 200
"""In bytes: it is the name of a folder, and those may have 255."""
_KEYS = ("name", "trial", "search", "objective", "budget", "cluster", "storage", "views", "notify")
B = TypeVar("B", bound=BaseModel)
_Problems = list[tuple[str, str]]


@dataclass(frozen=True)
class Search:
    """The ``search`` block.

    Attributes:
        type: Name of the strategy.
        strategy: Makes a fresh one, nothing asked yet.
        space: What may be varied; None where the strategy needs no space.
        known: Earlier runs and tables that the strategy may learn from, absolute paths.
        prior: What the strategy may believe before anything is measured.
        with_candidates: Makes a strategy as if that many fallback candidates were given, where
            it takes candidates and none are given yet.
    """

    type: str
    strategy: Callable[..., SearchStrategy]
    space: Space | None = None
    known: tuple[str, ...] = ()
    prior: PriorOptions | None = None
    with_candidates: Callable[[int], SearchStrategy] | None = None

    def after(self, goal: Goal) -> Search:
        """The same search, its strategies told what it is after."""
        return replace(self, strategy=partial(self.strategy, goal=goal))


@dataclass(frozen=True)
class Experiment:
    """A checked experiment.

    Attributes:
        document: What the user wrote, with ``--set`` applied and environment references kept, so
            that secrets stay out of what is stored.
        storage: The run's own folder, ``<storage>/<name>``, absolute.
        views: Blocks of further outputs, checked; see :mod:`tuner.views`.
        notify: Channels over which people hear of the run; see :mod:`tuner.notify`.
    """

    name: str
    trial_type: str
    trial: TrialType
    search: Search
    objective: Objective
    budget: Budget
    cluster: Cluster
    storage: Path
    document: Document
    views: tuple[Mapping[str, Any], ...] = ()
    notify: tuple[ChannelOptions, ...] = ()

    def placement(self, parameters: Mapping[str, Any], kind: str) -> Placement:
        """What such a trial occupies. Raises :class:`~tuner.experiment.SizeUnknown`."""
        return placement_of(self.trial, self.cluster, parameters, kind)

    def sizes(self, first: Iterable[Proposal]) -> list[Size]:
        """Sizes that trials can have, smallest first; ``first`` are proposals known already."""
        return sizes(self.trial, self.cluster, self.search.space, first)

    def save(self, file: Path) -> None:
        """Write the experiment so that loading it again gives the same run."""
        data = self.document.data | {"storage": str(self.storage.parent)}
        write_atomic(file, to_yaml(data))


def load_experiment(file: Path, settings: Iterable[str] = ()) -> Experiment:
    """Read and check an experiment file, with ``--set`` assignments applied.

    Relative paths in it are relative to the current folder.

    Raises:
        ExperimentError: With every fault that can be seen without touching an accelerator.
    """
    document = read_document(file)
    for assignment in settings:
        document.set(assignment)
    return check_experiment(document)


def check_experiment(document: Document) -> Experiment:
    """The experiment a document describes. Raises ``ExperimentError``, see load_experiment."""
    data = document.expanded()
    problems: _Problems = [
        (str(key), f"unknown key; known keys: {', '.join(_KEYS)}")
        for key in data
        if key not in _KEYS
    ]
    name = _name(data, problems)
    trial_class = _plugin(data, "trial", trial_types(), trial_type, problems)
    trial = _trial(data, trial_class, problems)
    search = _search(data, trial_class, trial, problems)
    objective = _block(data, "objective", Objective, problems, required=True)
    budget = _block(data, "budget", Budget, problems)
    cluster = _block(data, "cluster", Cluster, problems)
    storage = _storage(data, problems)
    views = _views(data, problems)
    notify = read_channels(data.get("notify"), document.data.get("notify"), problems)
    if objective is not None and search is not None:
        search = search.after(objective.goal())
    if objective is not None and trial is not None:
        trial.goal = {
            "maximize": list(objective.maximize),
            "minimize": list(objective.minimize),
            "limits": [limit.model_dump() for limit in objective.limits],
        }
    if trial is not None and search is not None:
        problems += _space_problems(search, trial)
        if search.prior is not None:
            problems += prior_problems(search.type, search.prior, trial, search.space)
    if trial is not None and cluster is not None:
        problems += demand_problems(trial, cluster, None if search is None else search.space)
    if trial is not None:
        problems += trial.problems()
        if objective is not None:
            problems += _objective_problems(objective, trial)
    if problems:
        raise document.error(problems)
    assert trial and search and objective and budget and cluster and storage
    return Experiment(
        name=name,
        trial_type=data["trial"]["type"],
        trial=trial,
        search=search,
        objective=objective,
        budget=budget,
        cluster=cluster,
        storage=storage / name,
        document=document,
        views=views,
        notify=notify,
    )


def _name(data: Mapping[str, Any], problems: _Problems) -> str:
    name = data.get("name")
    if isinstance(name, str) and _NAME.fullmatch(name) and len(name.encode()) <= _LONGEST_NAME:
        return name
    form = "letters, digits, dot, dash and underscore, at most 100, or 200 bytes of UTF-8"
    problems.append(("name", "is required" if name is None else f"{name!r}: use {form}"))
    return ""


def _storage(data: Mapping[str, Any], problems: _Problems) -> Path | None:
    storage = data.get("storage", "./results")
    if not isinstance(storage, str) or not storage:
        problems.append(("storage", "must be the path of a folder"))
        return None
    if "://" in storage:
        problems.append(("storage", "must be a folder that all nodes share, not a URL"))
        return None
    folder = Path(storage).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        problems.append(("storage", f"{folder} is a file; name a folder"))
    return folder


def _views(data: Mapping[str, Any], problems: _Problems) -> tuple[Mapping[str, Any], ...]:
    blocks = data.get("views") or []
    if not isinstance(blocks, list):
        problems.append(("views", "must be a list of blocks, each with its type"))
        return ()
    for index, block in enumerate(blocks):
        path = f"views.{index}"
        cls = _plugin({path: block}, path, view_types(), view_type, problems)
        if cls is not None:
            _validated(path, block, cls.Options, problems)
    return tuple(blocks)


def _block(
    data: Mapping[str, Any],
    key: str,
    model: type[B],
    problems: _Problems,
    *,
    required: bool = False,
) -> B | None:
    value = data.get(key)
    if value is None and required:
        problems.append((key, "is required"))
        return None
    return _validated(key, {} if value is None else value, model, problems)


def _validated(key: str, value: Any, model: type[B], problems: _Problems) -> B | None:
    if not isinstance(value, dict):
        problems.append((key, "must be a mapping"))
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems += from_pydantic(key, value, error.errors(), sorted(model.model_fields))
        return None


def _plugin(
    data: Mapping[str, Any],
    key: str,
    known: list[str],
    find: Callable[[str], Any],
    problems: _Problems,
) -> Any:
    """The plug-in class named by ``data[key]["type"]``; None after a problem was noted."""
    block = data.get(key)
    if not isinstance(block, dict):
        problems.append((key, "is required" if block is None else "must be a mapping"))
        return None
    name = block.get("type")
    try:
        if isinstance(name, str):
            return find(name)
    except ImportError as error:
        problems.append((f"{key}.type", str(error)))
        return None
    except KeyError:
        pass
    said = "is required" if name is None else f"unknown type {name!r}"
    problems.append((f"{key}.type", f"{said}; known types: {', '.join(known)}"))
    return None


def _trial(
    data: Mapping[str, Any], cls: type[TrialType] | None, problems: _Problems
) -> TrialType | None:
    if cls is None:
        return None
    options = _validated("trial", data["trial"], cls.Options, problems)
    search: BaseModel | None = None
    if cls.SearchOptions is not None:
        block = data.get("search")
        given = block if isinstance(block, dict) else {}
        mine = {key: value for key, value in given.items() if key in cls.SearchOptions.model_fields}
        search = _validated("search", mine, cls.SearchOptions, problems)
        if search is None:
            return None
    return None if options is None else cls(options, search)


def _search(
    data: Mapping[str, Any],
    trial_class: type[TrialType] | None,
    trial: TrialType | None,
    problems: _Problems,
) -> Search | None:
    model = _plugin(data, "search", strategy_types(), strategy_options, problems)
    if model is None:
        return None
    block = dict(data["search"])
    theirs = trial_class.SearchOptions if trial_class else None
    trial_keys = set(theirs.model_fields) if theirs else set()
    rest = {key: value for key, value in block.items() if key not in trial_keys}
    kind = rest.pop("type")
    before = len(problems)
    seed = _seed(rest.pop("seed", 0), problems)
    space = _space(rest.pop("space", None), problems)
    earlier = _known(rest.pop("known", []), problems)
    said, prior = rest.pop("prior", None), None
    if said is not None:
        prior = _validated("search.prior", said, PriorOptions, problems)
    told = {} if trial is None else trial.search_options()
    mine = {key: value for key, value in told.items() if key in model.model_fields}
    try:
        options = model.model_validate({**mine, **rest})
    except ValidationError as error:
        known = sorted(
            {*model.model_fields, *trial_keys, "type", "seed", "space", "known", "prior"}
        )
        problems += from_pydantic("search", rest, error.errors(), known)
    if len(problems) > before:
        return None
    make = partial(make_strategy, kind, options, space=space, seed=seed)
    try:
        make()
    except ValueError as error:
        if not _untold(trial_class, trial):
            problems.append(("search", str(error)))
    return Search(kind, make, space, earlier, prior, _with_candidates(kind, options))


def _untold(trial_class: type[TrialType] | None, trial: TrialType | None) -> bool:
    """Whether the trial's faults keep it from saying options that the search needs."""
    says = trial_class is not None and trial_class.search_options is not TrialType.search_options
    return trial is None and says


def _with_candidates(kind: str, options: BaseModel) -> Callable[[int], SearchStrategy] | None:
    if getattr(options, "candidates", None) != []:
        return None

    def make(count: int) -> SearchStrategy:
        names = [f"candidate {number}" for number in range(count)]
        return make_strategy(
            kind, options.model_copy(update={"candidates": names}), space=None, seed=0
        )

    return make


def _seed(value: Any, problems: _Problems) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return value
    problems.append(("search.seed", f"must be a whole number from 0 to 2**32 - 1, not {value!r}"))
    return 0


def _known(value: Any, problems: _Problems) -> tuple[str, ...]:
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        problems.append(("search.known", "must be a path, or a list of paths"))
        return ()
    return tuple(str(Path(path).expanduser().absolute()) for path in paths)


def _space(value: Any, problems: _Problems) -> Space | None:
    if value is None:
        return None
    try:
        return TypeAdapter(Space).validate_python(value)
    except ValidationError as error:
        problems += from_pydantic("search.space", value, error.errors())
    return None


def _space_problems(search: Search, trial: TrialType) -> _Problems:
    """Parameters that the trial would silently ignore."""
    if search.space is None:
        return []
    found = trial.parameter_problems(search.space.names)
    problems = [(f"search.space.{name}", said) for name, said in found]
    names = trial.parameter_names()
    if names is None:
        return problems
    return problems + [
        (f"search.space.{name}", _unknown("parameter", name, names))
        for name in search.space.names
        if name not in names
    ]


def _objective_problems(objective: Objective, trial: TrialType) -> _Problems:
    """Demands on datasets or metrics that no trial will ever report."""
    problems: _Problems = []
    datasets, metrics = trial.datasets(), trial.metric_names()
    for index, expectation in enumerate(objective.expectations):
        place = f"objective.expectations.{index}"
        if datasets is None or expectation.dataset is None:
            if metrics is not None and expectation.key not in metrics:
                problems.append((place, _unknown("metric", expectation.key, metrics)))
        elif expectation.dataset not in datasets:
            said = _unknown("dataset", expectation.dataset, datasets)
            problems.append((f"{place}.dataset", said))
        elif expectation.metric not in datasets[expectation.dataset]:
            said = _unknown("metric", expectation.metric, datasets[expectation.dataset])
            problems.append((f"{place}.metric", said))
    named = [("maximize", name) for name in objective.maximize]
    named += [("minimize", name) for name in objective.minimize]
    named += [
        (f"limits.{index}.metric", limit.metric) for index, limit in enumerate(objective.limits)
    ]
    for key, metric in named:
        if metrics is not None and metric not in metrics:
            problems.append((f"objective.{key}", _unknown("metric", metric, metrics)))
    return problems


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"no such {what}: {name!r}; there are: {', '.join(sorted(known))}"

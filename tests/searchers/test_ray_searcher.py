"""The adapter against the real Ray Tune of the pinned version, and its corners without Ray."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import connect
from searchers import WAIT, Done, Outcome, Proposal, Space, Strategy, make_strategy

pytest.importorskip("ray")

from ray import tune

from searchers.ray import TuneSearcher

SPACE = Space.model_validate({"x": {"type": "int", "low": 1, "high": 100}})
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
}


def to_config(proposal: Proposal) -> dict[str, Any]:
    return {"x": proposal.parameters["x"]}


def to_outcome(proposal: Proposal, result: Mapping[str, Any] | None, error: bool) -> Outcome:
    if error or result is None or "objective" not in result:
        return Outcome("failed", error="trial failed")
    assert result["x"] == proposal.parameters["x"]
    return Outcome("measured", objective=result["objective"])


def random_search(trials: int = 12, width: int = 2) -> Strategy:
    return make_strategy("random", {"trials": trials}, space=SPACE, seed=1, width=width)


class Told(list[tuple[int, str]]):
    """(number, status) of every outcome, in the order the strategy learns them."""

    def to_outcome(
        self, proposal: Proposal, result: Mapping[str, Any] | None, error: bool
    ) -> Outcome:
        outcome = to_outcome(proposal, result, error)
        self.append((proposal.number, outcome.status))
        return outcome


def bind(strategy: Strategy, told: Told | None = None) -> TuneSearcher:
    outcome = to_outcome if told is None else told.to_outcome
    return TuneSearcher.bind("test", strategy, to_config, outcome)


class Broken(Strategy):
    """Hands out some proposals and then does what it is told."""

    def __init__(self, proposals: Any, then: Any) -> None:
        self.width = 4
        self._left, self._then = proposals, then

    def ask(self) -> Any:
        if self._left:
            self._left -= 1
            return Proposal(self._left, {"x": self._left})
        if isinstance(self._then, Exception):
            raise self._then
        return self._then

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {"left": self._left}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._left = state["left"]

    def best(self) -> Proposal | None:
        return None


def test_counts_trials_itself_and_finishes_only_when_none_is_live() -> None:
    searcher = bind(random_search(trials=3, width=8))
    assert searcher.set_max_concurrency(2) is True
    assert searcher.set_search_properties(None, None, {}) is True
    first = searcher.suggest("a")
    assert isinstance(first, dict) and isinstance(searcher.suggest("b"), dict)
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", {**first, "objective": 1.0})
    assert isinstance(searcher.suggest("c"), dict)
    searcher.on_trial_complete("b", None, error=True)
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("c", None)
    assert searcher.suggest("d") == TuneSearcher.FINISHED
    assert searcher.suggest("d") == TuneSearcher.FINISHED
    assert searcher.fault is None


def test_never_has_more_in_flight_than_the_strategy_wants() -> None:
    strategy = random_search(width=1)
    searcher = bind(strategy)
    assert isinstance(searcher.suggest("a"), dict)
    assert searcher.suggest("b") is None
    strategy.width = 2
    assert isinstance(searcher.suggest("b"), dict)


def test_another_trial_begins_only_while_there_is_room_beside_those_in_flight() -> None:
    room = [False]
    searcher = TuneSearcher.bind(
        "test", random_search(trials=3, width=8), to_config, to_outcome, lambda: room[0]
    )
    first = searcher.suggest("a")
    assert isinstance(first, dict), "one may always wait in Ray's hands"
    assert searcher.suggest("b") is None
    room[0] = True
    assert isinstance(searcher.suggest("b"), dict)


def test_a_proposal_that_cannot_be_carried_out_is_told_at_once() -> None:
    told = Told()
    strategy = random_search(trials=3, width=8)

    def config(proposal: Proposal) -> dict[str, Any] | Outcome:
        if proposal.number == 1:
            return to_config(proposal)
        told.append((proposal.number, "refused"))
        return Outcome("failed", error="no node can hold it")

    searcher = TuneSearcher.bind("test", strategy, config, to_outcome)
    assert isinstance(searcher.suggest("a"), dict)
    assert searcher.suggest("b") is None and told == [(0, "refused"), (2, "refused")]
    (live,) = searcher.live.values()
    searcher.on_trial_complete("a", {"x": live.parameters["x"], "objective": 1.0})
    assert searcher.suggest("b") == TuneSearcher.FINISHED and searcher.fault is None


def test_unknown_and_second_completions_are_ignored() -> None:
    told = Told()
    searcher = bind(random_search(), told)
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    searcher.on_trial_complete("stranger", {**config, "objective": 1.0})
    searcher.on_trial_complete("a", {**config, "objective": 1.0})
    searcher.on_trial_complete("a", {**config, "objective": 2.0})
    assert told == [(0, "measured")]


def test_pickles_to_a_reference_to_the_live_searcher() -> None:
    searcher = bind(random_search())
    data = pickle.dumps(searcher)
    assert pickle.loads(data) is searcher
    assert b"RandomSearch" not in data
    TuneSearcher.unbind("test")
    with pytest.raises(LookupError, match=r"'test'.*bind first"):
        pickle.loads(data)


def test_state_travels_as_json_with_what_is_in_flight(tmp_path: Path) -> None:
    strategy = random_search()
    searcher = bind(strategy)
    configs = {trial: searcher.suggest(trial) for trial in "ab"}
    searcher.on_trial_complete("a", {**configs["a"], "objective": 3.0})
    file = tmp_path / "state"
    searcher.save(str(file))
    assert set(json.loads(file.read_text())["live"]) == {"b"}

    twin = random_search()
    restored = bind(twin)
    restored.restore(str(file))
    assert twin.state() == strategy.state()
    assert restored.live == searcher.live
    restored.on_trial_complete("b", {**configs["b"], "objective": 5.0})
    best = twin.best()
    assert best is not None and best.parameters == configs["b"]


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
def test_a_torn_state_is_refused_and_the_search_does_not_start_over(
    tmp_path: Path, keep: int
) -> None:
    searcher = bind(random_search())
    searcher.suggest("a")
    file = tmp_path / "state"
    searcher.save(str(file))
    file.write_bytes(file.read_bytes()[:keep])
    restored = bind(random_search())
    with pytest.raises(ValueError, match="state cannot be restored"):
        restored.restore(str(file))
    assert isinstance(restored.fault, ValueError)
    assert restored.suggest("b") == TuneSearcher.FINISHED


def test_waiting_for_nothing_is_a_fault() -> None:
    searcher = bind(Broken(0, WAIT))
    assert searcher.suggest("a") == TuneSearcher.FINISHED
    assert "Broken waits although nothing is in flight" in str(searcher.fault)


def test_a_fault_lets_live_trials_end_and_begins_no_more() -> None:
    searcher = bind(Broken(1, ZeroDivisionError("boom")))
    assert isinstance(searcher.suggest("a"), dict)
    assert searcher.suggest("b") is None
    assert isinstance(searcher.fault, ZeroDivisionError)
    searcher.on_trial_complete("a", {"x": 1, "objective": 1.0})
    assert searcher.suggest("b") == TuneSearcher.FINISHED


def test_a_config_that_cannot_be_made_leaves_no_phantom_in_flight() -> None:
    def fail(proposal: Proposal) -> dict[str, Any]:
        raise KeyError("no such parameter")

    searcher = TuneSearcher.bind("test", random_search(), fail, to_outcome)
    assert searcher.suggest("a") == TuneSearcher.FINISHED
    assert isinstance(searcher.fault, KeyError)


def test_an_outcome_that_cannot_be_read_is_a_fault() -> None:
    searcher = bind(random_search())
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"x": "nonsense", "objective": 1.0})
    assert isinstance(searcher.fault, AssertionError)


def test_a_state_that_is_not_json_is_a_fault(tmp_path: Path) -> None:
    searcher = bind(Broken(object(), WAIT))
    searcher.save(str(tmp_path / "state"))
    assert isinstance(searcher.fault, TypeError)
    with pytest.raises(ValueError, match="cannot be restored"):
        bind(random_search()).restore(str(tmp_path / "state"))


class NoOp(tune.Trainable):
    """A trial that is over at once, or fails for the ``x`` it is told to fail for."""

    def setup(self, config: dict[str, Any]) -> None:
        self._trial = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trial = new_config
        return True

    def step(self) -> dict[str, Any]:
        if self._trial["x"] in self._trial.get("failing", ()):
            raise RuntimeError("simulated infrastructure failure")
        return {"x": self._trial["x"], "objective": float(self._trial["x"]), "done": True}


class Interrupt(tune.Callback):
    """Interrupts the run like an operator would, once, after a number of trials.

    The count is not the instance's, of which a restored Tuner unpickles a fresh copy.
    """

    left = 0

    def __init__(self, after: int) -> None:
        Interrupt.left = after

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        Interrupt.left -= 1
        if Interrupt.left == 0:
            os.kill(os.getpid(), signal.SIGUSR1)


class Silent(tune.CLIReporter):
    def should_report(self, trials: Any, done: bool = False) -> bool:
        return False


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in SETTINGS}
    os.environ.update(SETTINGS)
    with connect("local", name="searcher-tests", num_cpus=2):
        yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def run(searcher: TuneSearcher, folder: Path, callbacks: Any = (), failing: Any = ()) -> Any:
    tuner = tune.Tuner(
        tune.with_resources(NoOp, {"cpu": 1}),
        param_space={"failing": list(failing)},
        tune_config=tune.TuneConfig(
            search_alg=searcher, num_samples=1000, max_concurrent_trials=2, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="experiment",
            storage_path=str(folder),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=list(callbacks),
            progress_reporter=Silent(),
            verbose=0,
        ),
    )
    return tuner.fit()


def resume(folder: Path) -> Any:
    trainable = tune.with_resources(NoOp, {"cpu": 1})
    return tune.Tuner.restore(str(folder / "experiment"), trainable, resume_unfinished=True).fit()


@pytest.mark.ray
def test_ray_runs_a_search_to_its_end(cluster: None, tmp_path: Path) -> None:
    strategy = random_search()
    searcher = bind(strategy, told := Told())
    results = run(searcher, tmp_path)
    assert searcher.fault is None
    assert sorted(told) == [(number, "measured") for number in range(12)]
    done = strategy.ask()
    assert isinstance(done, Done) and done.best is not None
    assert done.best.parameters["x"] == max(result.metrics["x"] for result in results)


@pytest.mark.ray
def test_a_trial_that_fails_in_ray_is_a_failed_outcome(cluster: None, tmp_path: Path) -> None:
    searcher = bind(random_search(trials=4), told := Told())
    preview = random_search(trials=4, width=4)
    points = [preview.ask() for _ in range(4)]
    failing = [point.parameters["x"] for point in points[1:3] if isinstance(point, Proposal)]
    run(searcher, tmp_path, failing=failing)
    expected = {0: "measured", 1: "failed", 2: "failed", 3: "measured"}
    assert dict(told) == expected and len(told) == 4
    assert searcher.fault is None


@pytest.mark.ray
def test_an_interrupted_search_continues_after_restore(cluster: None, tmp_path: Path) -> None:
    run(bind(random_search(), before := Told()), tmp_path, [Interrupt(after=5)])
    measured = [number for number, status in before if status == "measured"]
    assert 5 <= len(measured) < 12

    strategy = random_search()
    searcher = bind(strategy, after := Told())
    resume(tmp_path)
    assert searcher.fault is None
    done = strategy.ask()
    assert isinstance(done, Done) and "12 measured points" in done.message
    again = [number for number, status in after if status == "measured"]
    assert sorted(measured + again) == list(range(12))


@pytest.mark.ray
def test_a_torn_searcher_state_ends_the_run_instead_of_starting_over(
    cluster: None, tmp_path: Path
) -> None:
    run(bind(random_search()), tmp_path, [Interrupt(after=3)])
    for file in (tmp_path / "experiment").glob("searcher-state-*.pkl"):
        file.write_bytes(file.read_bytes()[:-10])
    searcher = bind(random_search(), told := Told())
    resume(tmp_path)
    assert "cannot be restored" in str(searcher.fault)
    assert told == []


@pytest.mark.ray
def test_a_broken_strategy_ends_the_run_with_its_exception_kept(
    cluster: None, tmp_path: Path
) -> None:
    searcher = bind(Broken(3, ZeroDivisionError("boom")))
    results = run(searcher, tmp_path)
    assert isinstance(searcher.fault, ZeroDivisionError)
    assert sorted(result.metrics["x"] for result in results) == [0, 1, 2]

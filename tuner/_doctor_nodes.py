"""Whether the nodes of a cluster can do what a run needs, and what differs between them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster import Bundle, Node, connect, infeasible
from tuner._doctor_node import NodeExaminer, enough
from tuner.experiment import Experiment

_ANSWER_S = 90.0
_NODE_ID = "ray.io/node-id"
_CLOCKS_APART_S = 1.0
_ASKS = 5
_DEVICES = ("NPU", "GPU")


@dataclass(frozen=True)
class NodeReport:
    """What was found out about one node.

    Attributes:
        address: IP address.
        id: Ray's node id.
        versions: By what they are of; they should be equal on all nodes.
        facts: What else is known.
        problems: What a run needs and the node lacks.
        notes: What may surprise.
    """

    address: str
    id: str
    versions: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClusterReport:
    """All nodes.

    Attributes:
        cluster: Its address.
        nodes: In the order of their addresses.
        problems: Those of no single node.
    """

    cluster: str
    nodes: list[NodeReport]
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing that a run needs. Nodes may differ all the same."""
        return not self.problems and not any(node.problems for node in self.nodes)

    @property
    def differences(self) -> dict[str, dict[str, list[str]]]:
        """Versions that are not the same on all nodes that have them: ``{what: {version:
        addresses}}``."""
        spread = _spread(self.nodes, "versions")
        return {what: values for what, values in spread.items() if len(values) > 1}

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok, "differences": self.differences}


def examine_cluster(address: str, experiment: Experiment | None = None) -> ClusterReport:
    """Ask every living node of a cluster. Takes seconds, and no resources of the nodes.

    Args:
        address: As ``cluster.address`` of an experiment, but not ``local``.
        experiment: Whose trials are to run there; without one, engines and storage stay unknown.

    Raises:
        ClusterError: There is no such cluster.
    """
    with connect(address, name="doctor") as connection:
        nodes = sorted((node for node in connection.nodes() if node.alive), key=lambda n: n.address)
        reports, problems = _ask_all(nodes, experiment)
        return ClusterReport(connection.address, reports, problems)


def _ask_all(
    nodes: Sequence[Node], experiment: Experiment | None
) -> tuple[list[NodeReport], list[str]]:
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=0)(NodeExaminer)
    actors = [actor.options(label_selector={_NODE_ID: node.id}).remote() for node in nodes]
    useful = [experiment is not None and _may_come(node, experiment) for node in nodes]
    questions = [
        one.examine.remote(node.resources.get("NPU", 0), _needs(experiment) if wanted else None)
        for one, node, wanted in zip(actors, nodes, useful, strict=True)
    ]
    ray.wait(questions, num_returns=len(questions), timeout=_ANSWER_S)
    reports = [_report(node, question) for node, question in zip(nodes, questions, strict=True)]
    answering = [
        (one, report) for one, report in zip(actors, reports, strict=True) if report.versions
    ]
    for one, report in answering:
        _compare_clock(one, report)
        _look_at_disk(one, report, experiment)
    if experiment is not None:
        _try_storage(experiment.storage.parent, answering)
    problems = []
    if experiment is not None and not any(useful):
        missing = infeasible((_bundle(experiment),), "PACK", nodes)
        problems.append("no node can hold a trial: " + "; ".join(missing))
    return reports, problems


def _needs(experiment: Experiment | None) -> dict[str, Any]:
    assert experiment is not None
    return {
        "type": experiment.trial_type,
        "settings": experiment.trial.settings(),
        "devices_linked": experiment.trial_type == "disaggregated",
    }


def _bundle(experiment: Experiment) -> Bundle:
    """What a node must have that is of use to a trial, of several devices at least one."""
    bundle = experiment.cluster.bundle(1)
    amounts = {
        name: min(amount, 1) if name in _DEVICES else amount
        for name, amount in bundle.resources.items()
    }
    return Bundle(amounts, bundle.labels)


def _may_come(node: Node, experiment: Experiment) -> bool:
    return not infeasible((_bundle(experiment),), "PACK", [node])


def _report(node: Node, question: Any) -> NodeReport:
    import ray

    try:
        return NodeReport(node.address, node.id, **ray.get(question, timeout=0.1))
    except ray.exceptions.GetTimeoutError:
        said = f"no answer within {_ANSWER_S:.0f} s: the node is busy, or cannot be reached"
    except ray.exceptions.RayError as error:
        said = _why(error)
    return NodeReport(node.address, node.id, problems=[said])


def _why(error: Exception) -> str:
    text = str(error)
    if "ModuleNotFoundError" in text or "No module named" in text:
        return (
            "the tuner is not installed in the environment that Ray runs in there: install the "
            "same version, or start the node with that environment's `python -m tuner cluster join`"
        )
    lines = [line for line in text.splitlines() if line.strip()]
    return f"cannot be asked: {lines[-1].strip() if lines else type(error).__name__}"


def _compare_clock(actor: Any, report: NodeReport) -> None:
    """The clock's distance to ours, from the quickest of several answers."""
    import ray

    best: tuple[float, float] | None = None
    with suppress(ray.exceptions.RayError):
        for _ in range(_ASKS):
            before = time.time()
            there = ray.get(actor.clock.remote(), timeout=10)
            after = time.time()
            asked = (after - before, there - (before + after) / 2)
            best = asked if best is None or asked < best else best
    if best is None:
        return
    took, apart = best
    report.facts["clock"] = f"{apart:+.3f} s (within {took / 2:.3f})"
    if abs(apart) > _CLOCKS_APART_S + took / 2:
        report.notes.append(f"the clock is {apart:+.1f} s off the driver's; use NTP")


def _look_at_disk(actor: Any, report: NodeReport, experiment: Experiment | None) -> None:
    import ray

    folders = {"/tmp": "/tmp"}
    if experiment is not None:
        folders["storage"] = str(experiment.storage)
        if (local := experiment.cluster.local_weights) is not None:
            folders["local weights"] = str(local.folder)
    with suppress(ray.exceptions.RayError, OSError):
        for what, free in ray.get(actor.free.remote(folders), timeout=10).items():
            report.facts[f"free in {what}"] = f"{free / 2**30:.0f} GiB"
            if not enough(free):
                needed = experiment is not None and what != "/tmp"
                where = report.problems if needed else report.notes
                where.append(f"only {free / 2**30:.1f} GiB are free in {what}; 5 are the least")


def _try_storage(storage: Path, answering: Sequence[tuple[Any, NodeReport]]) -> None:
    """A question of the driver that every node reads, and answers so that the driver reads it."""
    import ray

    with ExitStack() as stack:
        try:
            question = stack.enter_context(_question(storage))
        except OSError as failed:
            for _, report in answering:
                report.problems.append(f"the driver cannot write to {storage}: {failed.strerror}")
            return
        token = question.read_text()
        for actor, report in answering:
            answer = question.with_name(f"{question.name}-{report.id[:12]}")
            try:
                asked = actor.answer.remote(str(question), str(answer))
                error = ray.get(asked, timeout=_ANSWER_S)
            except ray.exceptions.RayError as failed:
                error = _why(failed)
            if error is None and not _arrives(answer, token):
                error = "what the node wrote there does not reach the driver"
            if error is None:
                report.facts["storage"] = "shared"
            else:
                report.problems.append(
                    f"{storage} is not the storage of the driver: {error}. All nodes must have "
                    "the same folder there, as on NFS"
                )


@contextmanager
def _question(storage: Path) -> Iterator[Path]:
    storage.mkdir(parents=True, exist_ok=True)
    question = storage / f".doctor-{uuid.uuid4().hex}"
    question.write_text(uuid.uuid4().hex)
    try:
        yield question
    finally:
        for file in storage.glob(f"{question.name}*"):
            file.unlink(missing_ok=True)


def _arrives(answer: Path, token: str) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError):
            if answer.read_text() == token:
                return True
        time.sleep(0.2)
    return False


def _spread(nodes: Sequence[NodeReport], which: str) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for node in nodes:
        values: Mapping[str, str] = getattr(node, which)
        for what, value in values.items():
            found.setdefault(what, {}).setdefault(value, []).append(node.address)
    return found


def print_cluster(report: ClusterReport, console: Console) -> None:
    """Each fact once where it is the same everywhere, else each of its values with its nodes."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "what", "found", "nodes"):
        table.add_column(heading)
    for which in ("versions", "facts"):
        for what, values in _spread(report.nodes, which).items():
            differs = which == "versions" and len(values) > 1
            for index, (value, where) in enumerate(values.items()):
                mark = "differs" if differs else ""
                first = (mark, what) if index == 0 else (mark, "")
                table.add_row(*first, value, _names(where, len(report.nodes)))
    count = len(report.nodes)
    console.print(f"cluster {report.cluster}: {count} node{'s' if count != 1 else ''}")
    console.print(table)
    for problem in report.problems:
        console.print(f"missing: {problem}", soft_wrap=True, markup=False)
    for node in report.nodes:
        for kind, said in (("missing", node.problems), ("note", node.notes)):
            for text in said:
                console.print(f"{kind}: {node.address}: {text}", soft_wrap=True, markup=False)


def _names(addresses: Sequence[str], nodes: int) -> str:
    return "all" if len(addresses) == nodes else ", ".join(addresses)

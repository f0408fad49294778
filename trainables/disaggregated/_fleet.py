"""The instances of a trial on their nodes: started together, watched together, ended together."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

from trainables._crew import Answer, Member, MemberFailure, lost
from trainables._trial import POLL_SECONDS, Json, Progress, TrialFailure, TrialRun
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._span import HEAD_PORTS, Head

_START = "deploy"
"""The stage until all instances serve."""
_FIRST_WORD_S = 180.0
"""A process on a node may take as long to come up, whatever silence is allowed later."""
_END_S = 90.0
"""How long the end of all instances may take; what then lives dies with its member."""

Settings = Callable[[Instance, Mapping[str, Json], Head], Instance]
"""A part of an instance with what its node decides, given what :meth:`Agent.reserve` returned
there, and where it meets the other parts."""


class InstanceFailure(MemberFailure):
    """What went wrong at one instance, or one part of it. Its document also has the
    ``instance``."""

    def __init__(self, failure: TrialFailure, instance: Instance, member: Member, stage: str):
        said = str(failure)
        message = f"{instance.title} on {member.name}: {said}"
        document = {**failure.to_json(), "message": message, "stage": stage}
        if failure.failure == "startup" and stage != _START:
            document["class"] = "tool"  # a part without an API cannot know that its instance serves
        super().__init__({**document, "instance": instance.name}, member.address)


@dataclass
class _Post:
    """A part of an instance and the member that has it."""

    instance: Instance
    member: Member
    state: Mapping[str, Json] = field(default_factory=dict)
    pending: Answer | None = None
    asked: float = 0.0
    spoke: bool = False
    lost: bool = False

    def ask(self, method: str, *arguments: Json) -> None:
        self.pending = self.member.ask(method, *arguments)
        self.asked = time.monotonic()

    def heard(self, seconds: float, silence_s: float) -> bool:
        """Whether what was asked is answered, after ``seconds`` at most.

        Raises ``TrialFailure`` (``lost``) when the member has been silent for too long.
        """
        if self.pending is None or self.pending.wait(seconds):
            self.spoke = True
            return True
        bound = silence_s if self.spoke else max(silence_s, _FIRST_WORD_S)
        if time.monotonic() - self.asked > bound:
            self.lost = True
            raise lost(self.member.address, f"no answer for {bound:g} s")
        return False

    def take(self) -> Json:
        """What was answered."""
        answer, self.pending = self.pending, None
        return None if answer is None else answer.get()


class Fleet:
    """All instances of one trial. Leaving its context ends them.

    Args:
        trial: Whose crew has a member for each part of an instance.
        plan: What is started.
        silence_s: How long a member may be silent before it counts as lost.
    """

    def __init__(self, trial: TrialRun, plan: Plan, *, silence_s: float) -> None:
        if len(trial.crew) != len(plan.parts):
            raise RuntimeError(f"{len(plan.parts)} parts, {len(trial.crew)} members")
        self._trial = trial
        self._plan = plan
        self._silence_s = silence_s
        self._stage = _START
        members = [trial.crew[number] for number in range(len(trial.crew))]
        self._posts = [
            _Post(instance, member) for instance, member in zip(plan.parts, members, strict=True)
        ]

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Those of the plan, where they serve: their heads."""
        return tuple(post.instance for post in self._posts if post.instance.part == 1)

    @property
    def nodes(self) -> dict[str, str]:
        """Which node has which instance, or part of one, by its title."""
        return {post.instance.title: post.member.address for post in self._posts}

    @property
    def notes(self) -> list[str]:
        """What the engines' adapters have to say, once for all that say the same."""
        said = [note for post in self._posts for note in post.state.get("notes", ())]
        return list(dict.fromkeys(said))

    @property
    def startup_s(self) -> float:
        """How long the slowest instance took to serve."""
        seconds = (post.state.get("seconds", {}) for post in self._posts)
        return max((float(sum(one.values())) for one in seconds), default=0.0)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the engine on the nodes, all of them where they differ."""
        found: dict[str, dict[str, None]] = {}
        for post in self._posts:
            for name, version in post.state.get("versions", {}).items():
                found.setdefault(name, {})[version] = None
        return {name: ", ".join(versions) for name, versions in found.items()}

    def start(
        self,
        model: str,
        settings: Settings,
        ports: Callable[[Instance], int] = lambda instance: 0,
        taken: range = range(0),
    ) -> Generator[Progress, None, None]:
        """Start all instances at the same time and return once every one of them serves.

        Args:
            model: Folder or ``builtin:`` name.
            settings: What is added to an instance on its node.
            ports: How many further ports an instance needs, on each of its nodes.
            taken: Ports that none of these may be, nor one that an instance listens at.

        Raises:
            InstanceFailure: One of them failed, or its member is lost.
        """
        near = _on_this_node({post.member.address for post in self._posts})
        for post in self._posts:
            wanted = ports(post.instance) + (HEAD_PORTS if post.instance.leads else 0)
            post.ask("reserve", wanted, [taken.start, taken.stop], near, self._plan.interface)
        there = yield from self._answers("nodes")
        heads: dict[str, Head] = {}
        for post, where in zip(self._posts, there, strict=True):
            placed = replace(post.instance, host=where["host"])
            if placed.part == 1:
                heads[placed.name] = Head(placed.host, (where["ports"] or [0])[-1])
            if placed.leads:
                where = {**where, "ports": where["ports"][:-HEAD_PORTS]}
            with self._named(post):
                post.instance = settings(placed, where, heads[placed.name])
            post.ask("start", self._request(post.instance, model))
        yield from self._answers("deploy")
        while not self._look(POLL_SECONDS):
            self._wait()
            yield Progress("deploy", self._waiting())

    def check(self) -> None:
        """Raise :class:`InstanceFailure` if an instance is known to have failed or is lost."""
        self._look(0.0)

    def confirm(self, seconds: float = 2 * POLL_SECONDS) -> Generator[Progress, None, None]:
        """:meth:`check` once all members have looked at their engines once more.

        Args:
            seconds: How long they look; they do it every :data:`POLL_SECONDS`.
        """
        yield from self._answers(self._stage)
        for post in self._posts:
            post.ask("poll", 0.0)  # what is new already
        for post, state in zip(self._posts, (yield from self._answers(self._stage)), strict=True):
            with self._named(post):
                self._take_in(post, state)
            post.ask("poll", seconds)
        for post, state in zip(self._posts, (yield from self._answers(self._stage)), strict=True):
            with self._named(post):
                self._take_in(post, state)

    def watch(self, stage: str) -> None:
        """:meth:`check` in a stage, which a failure is then named after."""
        self._stage = stage
        self.check()

    def stop(self) -> None:
        """End all instances at the same time. May be repeated."""
        asked = [(post, post.member.ask("stop")) for post in self._posts]
        deadline = time.monotonic() + _END_S
        failures = []
        for post, answer in asked:
            post.pending = None
            if post.lost or not post.spoke:
                continue  # it would keep all waiting, and holds nothing that does not die with it
            if not answer.wait(max(0.0, deadline - time.monotonic())):
                continue
            try:
                answer.get()
            except MemberFailure as failure:
                if failure.failure != "lost":
                    failures.append(InstanceFailure(failure, post.instance, post.member, "stop"))
        if failures:
            raise failures[0]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.stop()
        except TrialFailure:
            if not isinstance(error, TrialFailure):  # why it ends says more
                raise

    def _request(self, instance: Instance, model: str) -> dict[str, Json]:
        folder = Path(self._trial.folder) / instance.slug
        return {
            "spec": asdict(replace(self._trial.spec, folder=str(folder))),
            "engine": dict(self._plan.engine),
            "model": model,
            "served_name": self._plan.served_name,
            "options": dict(instance.args),
            "env": dict(instance.env),
            "config": dict(instance.config),
            "headless": instance.part > 1,
        }

    def _answers(self, note: str) -> Generator[Progress, None, list[Json]]:
        """What all members say to what they were asked last."""
        heard: dict[int, Json] = {}
        while len(heard) < len(self._posts):
            waiting = [n for n in range(len(self._posts)) if n not in heard]
            for number in waiting:
                post = self._posts[number]
                seconds = POLL_SECONDS if number == waiting[0] else 0.0
                with self._named(post):
                    if post.heard(seconds, self._silence_s):
                        heard[number] = post.take()
            if len(heard) < len(self._posts):
                silent = ", ".join(
                    post.member.name for n, post in enumerate(self._posts) if n not in heard
                )
                yield Progress(self._stage, f"{note}: waiting for {silent}")
        return [heard[number] for number in range(len(self._posts))]

    def _look(self, wait: float) -> bool:
        """Take in what members have said, and ask them again; whether all instances serve."""
        for post in self._posts:
            with self._named(post):
                if not post.heard(0.0, self._silence_s):
                    continue
                if post.pending is not None:
                    self._take_in(post, post.take())
                post.ask("poll", wait)
        return all(post.state.get("status") == "serving" for post in self._posts)

    def _wait(self) -> None:
        """Until a member may have news, for :data:`POLL_SECONDS` at most."""
        for post in self._posts:
            if post.pending is not None and post.state.get("status") != "serving":
                post.pending.wait(POLL_SECONDS / len(self._posts))

    def _take_in(self, post: _Post, state: Mapping[str, Json]) -> None:
        if state["failure"] is not None:
            raise MemberFailure(state["failure"], post.member.address)
        post.state = state
        if state["status"] == "serving" and state["base_url"] is not None:
            post.instance = post.instance.serving(
                post.instance.host, state["port"], state["base_url"]
            )

    @contextmanager
    def _named(self, post: _Post) -> Iterator[None]:
        """A failure inside is one of the instance."""
        try:
            yield
        except InstanceFailure:
            raise
        except TrialFailure as failure:
            raise InstanceFailure(failure, post.instance, post.member, self._stage) from failure

    def _waiting(self) -> str:
        """What is still missing, in words."""
        late = [post for post in self._posts if post.state.get("status") != "serving"]
        first = late[0] if late else self._posts[0]
        done = len(self._posts) - len(late)
        note = first.state.get("note", "")
        return f"{done} of {len(self._posts)} serve; {first.instance.title}: {note}".rstrip(": ")


def _on_this_node(addresses: Collection[str]) -> bool:
    """Whether all of these are one address, and this process's node has it."""
    own = {one.address for found in psutil.net_if_addrs().values() for one in found}
    return len(addresses) == 1 and own.issuperset(addresses)

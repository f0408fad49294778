"""What a trial holds on other nodes: one member for each further bundle of its placement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeAlias

from trainables._agent import Agent
from trainables._program import FAILURE_CLASSES, FailureClass
from trainables._trial import Json, TrialFailure


class Answer(Protocol):
    """What a member will say."""

    def wait(self, seconds: float) -> bool:
        """Whether it is there, after waiting at most ``seconds`` for it."""

    def get(self) -> Json:
        """What the method returned, once it is there.

        Raises:
            MemberFailure: The agent raised it, or (class ``lost``) the member or its node died.
        """


class Member(Protocol):
    """A process of ours on a node, from the start of the trial to its end.

    Attributes:
        name: Of the node, for people.
        address: IP address of the node.
    """

    name: str
    address: str

    def ask(self, method: str, /, *arguments: Json) -> Answer:
        """Have a method of the member's :class:`~trainables._agent.Agent` called. What one member
        is asked it does in turn."""

    def call(self, method: str, /, *arguments: Json, timeout: float) -> Json:
        """:meth:`ask`, and wait for what it returns.

        Raises:
            TrialFailure: The agent raised it, or (class ``lost``) the member or its node died, or
                it did not answer within ``timeout`` seconds.
        """


Crew: TypeAlias = Sequence[Member]
"""Members in the order of the bundles, the first bundle left out: the trial itself is there."""


class MemberFailure(TrialFailure):
    """What went wrong at a member. Its document also has the ``node``, and what else the failure's
    own document has, such as ``retry``.

    Attributes:
        node: Address of the member's node.
    """

    def __init__(self, document: Mapping[str, str], node: str) -> None:
        known = {"class", "stage", "message", "excerpt", "suggestion"}
        super().__init__(
            failure_class(document["class"]),
            document.get("stage", ""),
            document["message"],
            excerpt=document.get("excerpt", ""),
            suggestion=document.get("suggestion", ""),
        )
        self.node = node
        self._more = {key: value for key, value in document.items() if key not in known}

    def to_json(self) -> dict[str, str]:
        return {**self._more, **super().to_json(), "node": self.node}


def failure_class(name: str) -> FailureClass:
    """A class of failure, which a process of another version may not have."""
    return name if name in FAILURE_CLASSES else "tool"


def lost(address: str, said: str) -> MemberFailure:
    """A member that died, or is silent."""
    suggestion = f"see whether {address} is up, and what its kernel and Ray logs say"
    document = {"class": "lost", "message": said, "suggestion": suggestion}
    return MemberFailure(document, address)


def answered(document: Mapping[str, Any], node: str) -> Json:
    """The value in what :meth:`Agent.answer` returned; raises the failure that is in it."""
    if "failure" in document:
        raise MemberFailure(document["failure"], node)
    return document["value"]


class LocalMember:
    """A member in this process, for one node and for tests. :meth:`close` stops what it holds."""

    def __init__(self, name: str = "here", address: str = "127.0.0.1") -> None:
        self.name = name
        self.address = address
        self._agent = Agent(address)
        self._turns = ThreadPoolExecutor(1, thread_name_prefix=f"member-{name}")

    def ask(self, method: str, /, *arguments: Json) -> Answer:
        return _Local(self._turns.submit(self._agent.answer, method, arguments), self.address)

    def call(self, method: str, /, *arguments: Json, timeout: float) -> Json:
        return within(self.ask(method, *arguments), timeout, self)

    def close(self) -> None:
        self._turns.submit(self._agent.stop).exception()
        self._turns.shutdown()


class _Local:
    def __init__(self, future: Future[dict[str, Any]], node: str) -> None:
        self._future = future
        self._node = node

    def wait(self, seconds: float) -> bool:
        return bool(wait([self._future], seconds).done)

    def get(self) -> Json:
        return answered(self._future.result(), self._node)


def within(answer: Answer, seconds: float, member: Member) -> Json:
    """An answer that has to be there in time."""
    if not answer.wait(seconds):
        raise lost(member.address, f"no answer from {member.name} for {seconds:g} s")
    return answer.get()

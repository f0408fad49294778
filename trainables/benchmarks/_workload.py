"""Workloads by the name that ``workload: {type: ...}`` of a benchmark gives them.

A workload says what is asked, not how fast: each :class:`Ask` is a prompt and the number of tokens
of its answer. Equal seeds give equal asks, and a shorter list is the beginning of a longer one, so
a short run asks what the beginning of a full run asks.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from trainables._registry import Registry
from trainables._trial import Json
from trainables.benchmarks._workload_vocabulary import Prompt, Vocabulary, WorkloadError


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        prompt: Text, or the ids of its tokens.
        input_tokens: Tokens of the prompt, as far as they can be known without the service.
        output_tokens: Tokens that are to be generated.
        arrival: Seconds after the first request, where the workload has arrivals of its own.
    """

    prompt: Prompt
    input_tokens: int
    output_tokens: int
    arrival: float | None = None


class WorkloadOptions(BaseModel):
    """The keys that all workloads share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str


class Workload(ABC):
    """One sort of requests.

    Attributes:
        Options: Model of the whole ``workload`` block, ``type`` included.
    """

    Options: ClassVar[type[WorkloadOptions]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def asks(self, count: int, seed: int, vocabulary: Vocabulary) -> Sequence[Ask]:
        """The first ``count`` requests; fewer only where the workload has an end of its own.

        Raises:
            OSError: Its data cannot be opened.
            WorkloadError: Its data is not what it should be, or the prompts cannot be made.
        """

    def identity(self) -> Json:
        """What decides the requests, together with seed and tokenizer: the content of files
        instead of their places."""
        return self.options.model_dump(mode="json")

    def problems(self) -> list[tuple[str, str]]:
        """Faults as (dotted path inside the ``workload`` block, message)."""
        return []


class FileOptions(WorkloadOptions):
    """A workload that is read from a file.

    Attributes:
        path: The file.
    """

    path: Annotated[
        str,
        Field(min_length=1),
        AfterValidator(lambda path: str(Path(path).expanduser().absolute())),
    ]


class FileWorkload(Workload):
    """A workload whose requests, or their sizes, are read from a file."""

    options: FileOptions

    @abstractmethod
    def read(self) -> Sequence[Any]:
        """What the file holds, at least one.

        Raises:
            OSError: It cannot be opened.
            WorkloadError: Its content is not what it should be.
        """

    def identity(self) -> Json:
        document = self.options.model_dump(mode="json", exclude={"path"})
        try:
            with Path(self.options.path).open("rb") as stream:
                document["content"] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            document["content"] = None
        return document

    def problems(self) -> list[tuple[str, str]]:
        try:
            self.read()
        except OSError as error:
            return [("path", f"{self.options.path} cannot be read: {error.strerror}")]
        except WorkloadError as error:
            return [("path", str(error))]
        return []


_WORKLOADS: Registry[Workload] = Registry(
    "workload",
    "npu_tuner.workloads",
    {
        "random": "trainables.benchmarks._workload_random",
        "sharegpt": "trainables.benchmarks._workload_texts",
        "text": "trainables.benchmarks._workload_texts",
        "trace": "trainables.benchmarks._workload_trace",
    },
    default="random",
)
register_workload = _WORKLOADS.register
workload_types = _WORKLOADS.names
workload_type = _WORKLOADS.find
make_workload = _WORKLOADS.make


def resolved_workload(block: dict[str, Json]) -> dict[str, Json]:
    """The block with its defaults filled in, for pydantic: faults keep their paths."""
    try:
        document: dict[str, Json] = make_workload(block).options.model_dump(mode="json")
    except (KeyError, ImportError) as error:
        raise ValueError(str(error.args[0])) from None
    return document

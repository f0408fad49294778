"""What turns a model and a practice into quantized weights: ``quantizer: {type: ...}``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from trainables._registry import Registry
from trainables.quantization._calibration import Calibration, calibration_digest
from trainables.quantization._practice import Practice
from trainables.quantization._scheme import LinearScheme


@dataclass(frozen=True)
class QuantizeJob:
    """What is to be quantized.

    Attributes:
        model: Folder of the float checkpoint.
        practice: How.
        calibration: With which data.
        device: ``cpu``, ``cuda:0``, ``npu:0``.
        trust_remote_code: Whether Python files of the checkpoint may be run.
        threads: Processor threads to use; None leaves their number to the tool.
    """

    model: Path
    practice: Practice
    calibration: Calibration
    device: str = "cpu"
    trust_remote_code: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class Quantized:
    """What a quantizer was to do, and did if the weights agree.

    Attributes:
        layers: Every linear layer but the output head: its scheme, or the tool's own name for it
            (such as ``W4A8_DYNAMIC``) in a format of its own; None for float.
        head: Name of the output head, which stays in float; None when the model has none.
        seconds: Duration of each phase.
        calibration_tokens: Tokens the model was shown; None when the tool does not count them.
    """

    layers: Mapping[str, LinearScheme | str | None]
    head: str | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    calibration_tokens: int | None = 0


class Quantizer(ABC):
    """One quantization tool.

    Attributes:
        Options: Model of the ``quantizer`` block without ``type``.
    """

    Options: ClassVar[type[BaseModel]]

    def __init__(self, name: str, options: Any) -> None:
        self.name = name
        self.options = options

    def identity(self) -> dict[str, Any]:
        """What of the tool decides the weights: its name, options and versions."""
        return {
            "type": self.name,
            "options": self.options.model_dump(mode="json"),
            "versions": self.versions(),
        }

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the packages that do the work."""

    @abstractmethod
    def problems(self, practice: Practice) -> list[str]:
        """What this tool cannot do of ``practice``, each with its path; cheap and without torch."""

    def obstacles(self, model: Path, output: Path, device: str) -> list[str]:
        """Why the tool cannot work on these paths or this device; nothing by default."""
        return []

    def calibration_identity(self, practice: Practice, calibration: Calibration) -> dict[str, Any]:
        """What of the calibration decides the weights, wherever its file lies.

        ``content`` is the SHA-256 of the file that will be used; None when it is not known.

        Raises:
            CalibrationError: There is no such file.
        """
        rest = calibration.model_dump(exclude={"dataset"})
        return {**rest, "content": calibration_digest(calibration.dataset)}

    def pedigree(self) -> str:
        """The model's family in the tool's repository of practices.

        Raises ``ValueError`` when there is no such thing, or it cannot be known.
        """
        raise ValueError(f"the quantizer {self.name} has no repository of practices")

    @abstractmethod
    def quantize(self, job: QuantizeJob, folder: Path) -> Quantized:
        """Write weights and ``config.json`` into the empty ``folder``.

        Raises:
            StageError: The model or the data cannot be used, or the tool failed.
        """

    def verify(self, job: QuantizeJob, folder: Path, quantized: Quantized) -> list[str]:
        """What is wrong with the weights in ``folder``, by the tensors themselves; empty when
        nothing is. A tool that writes something else than compressed-tensors checks it here."""
        from trainables.quantization._verify import verify_artifact

        return verify_artifact(folder, job.model, quantized)


_QUANTIZERS: Registry[Quantizer] = Registry(
    "quantizer",
    "npu_tuner.quantizers",
    {
        "llmcompressor": "trainables.quantization._llmcompressor",
        "msmodelslim": "trainables.quantization._msmodelslim",
        "torch_reference": "trainables.quantization._reference",
    },
)
register_quantizer = _QUANTIZERS.register
quantizers = _QUANTIZERS.names
quantizer_type = _QUANTIZERS.find


def make_quantizer(block: Mapping[str, Any]) -> Quantizer:
    """The quantizer of a ``quantizer`` block: ``type`` and its options.

    Raises:
        KeyError: There is no such quantizer; the message lists those there are.
        ImportError: It cannot be loaded.
        ValidationError: Its options are wrong.
    """
    options = dict(block)
    name = options.pop("type", "llmcompressor")
    cls = quantizer_type(name)
    return cls(name, cls.Options.model_validate(options))

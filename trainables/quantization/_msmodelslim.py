"""Quantizer ``msmodelslim``: Ascend's tool, called in the environment it is installed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.quantization._calibration import (
    Calibration,
    CalibrationError,
    calibration_digest,
)
from trainables.quantization._device import parse_device
from trainables.quantization._msmodelslim_plan import (
    DEFAULT_DATASET,
    owns_dataset,
    path_problems,
    saver_problems,
)
from trainables.quantization._msmodelslim_tool import (
    MsModelSlimOptions,
    dataset_file,
    installation,
    missing_command,
    pedigree,
)
from trainables.quantization._practice import Practice
from trainables.quantization._quantizers import (
    Quantized,
    QuantizeJob,
    Quantizer,
    register_quantizer,
)

_SUFFIXES = (".json", ".jsonl")


@register_quantizer("msmodelslim")
class MsModelSlimQuantizer(Quantizer):
    """Any practice, by ``msmodelslim quant --config_path``.

    Calibration: a dataset the practice names itself counts as it is; otherwise the trial's
    calibration block is written in msModelSlim's form (see ``owns_dataset``).
    """

    Options = MsModelSlimOptions
    options: MsModelSlimOptions

    def identity(self) -> dict[str, Any]:
        """Which model type and versions; where the command lies decides nothing."""
        options = self.options.model_dump(mode="json", exclude={"command"})
        return {"type": self.name, "options": options, "versions": self.versions()}

    def versions(self) -> dict[str, str]:
        found = dict(installation(self.options.command).versions)
        return found or {"msmodelslim": "unknown"}

    def problems(self, practice: Practice) -> list[str]:
        missing = missing_command(self.options)
        found = ([] if missing is None else [missing]) + saver_problems(practice)
        if not practice.spec.dataset.startswith("builtin:"):
            try:
                self._dataset_file(practice.spec.dataset)
            except CalibrationError as error:
                found.append(f"spec.dataset: {error}")
        return found

    def obstacles(self, model: Path, output: Path, device: str) -> list[str]:
        found = path_problems({"the model folder": model, "the output folder": output})
        try:
            parse_device(device)
        except ValueError as error:
            found.append(f"device: {error}")
        return found

    def calibration_identity(self, practice: Practice, calibration: Calibration) -> dict[str, Any]:
        if not owns_dataset(practice, calibration):
            return super().calibration_identity(practice, calibration)
        name = practice.spec.dataset
        if Path(name).suffix not in _SUFFIXES:
            raise CalibrationError(f"spec.dataset: msModelSlim reads .json and .jsonl, not {name}")
        file = self._dataset_file(name)
        if file is None:
            return {"dataset": name, "content": None}
        if problems := path_problems({"spec.dataset": file}):
            raise CalibrationError(problems[0])
        return {"content": calibration_digest(str(file))}

    def pedigree(self) -> str:
        name, unknown = pedigree(self.options.command, self.options.model_type)
        if name is None:
            raise ValueError(unknown)
        return name

    def _dataset_file(self, name: str) -> Path | None:
        """The file of a dataset that a practice names; None when only msModelSlim can find it.

        Raises:
            CalibrationError: There is none.
        """
        if (file := dataset_file(self.options.command, name)) is not None:
            return file
        if not Path(name).is_absolute() and installation(self.options.command).root is None:
            return None
        raise CalibrationError(
            f"{name!r} is no file, and no dataset that comes with msModelSlim "
            f"(such as {DEFAULT_DATASET})"
        )

    def quantize(self, job: QuantizeJob, folder: Path) -> Quantized:
        from trainables.quantization._msmodelslim_run import quantize_msmodelslim

        return quantize_msmodelslim(job, folder, self.options)

    def verify(self, job: QuantizeJob, folder: Path, quantized: Quantized) -> list[str]:
        from trainables.quantization._msmodelslim_run import verify_msmodelslim

        return verify_msmodelslim(job, folder, quantized)

"""Quantization: schemes, practices and quantizers, without torch.

The arithmetic on tensors is in ``trainables.quantization._fake``; the work itself is done by the
stage program ``trainables.quantization.quantize``.
"""

from trainables.quantization._calibration import Calibration, CalibrationError, calibration_digest
from trainables.quantization._device import Device, parse_device
from trainables.quantization._fallback import (
    check_rollback_path,
    default_rollback_path,
    with_added_fallback,
    with_fallback,
)
from trainables.quantization._msmodelslim_errors import failure_report
from trainables.quantization._msmodelslim_tool import MsModelSlimOptions, dataset_file, pedigree
from trainables.quantization._patterns import (
    engine_patterns,
    fallback_patterns,
    fused_with,
    is_excluded,
    split_groups,
    unmatched_patterns,
)
from trainables.quantization._practice import (
    LinearQuant,
    Practice,
    PracticeError,
    parse_practice,
    processes,
)
from trainables.quantization._quantizers import (
    Quantized,
    QuantizeJob,
    Quantizer,
    make_quantizer,
    quantizers,
    register_quantizer,
)
from trainables.quantization._scheme import SCHEMES, LinearScheme, TensorScheme, named_scheme
from trainables.quantization._targets import (
    LinearTarget,
    layer_schemes,
    linear_targets,
    practice_from_scheme,
)

__all__ = [
    "SCHEMES",
    "Calibration",
    "CalibrationError",
    "Device",
    "LinearQuant",
    "LinearScheme",
    "LinearTarget",
    "MsModelSlimOptions",
    "Practice",
    "PracticeError",
    "QuantizeJob",
    "Quantized",
    "Quantizer",
    "TensorScheme",
    "calibration_digest",
    "check_rollback_path",
    "dataset_file",
    "default_rollback_path",
    "engine_patterns",
    "failure_report",
    "fallback_patterns",
    "fused_with",
    "is_excluded",
    "layer_schemes",
    "linear_targets",
    "make_quantizer",
    "named_scheme",
    "parse_device",
    "parse_practice",
    "pedigree",
    "practice_from_scheme",
    "processes",
    "quantizers",
    "register_quantizer",
    "split_groups",
    "unmatched_patterns",
    "with_added_fallback",
    "with_fallback",
]

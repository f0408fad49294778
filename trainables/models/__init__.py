"""Models: built-in ones, what a checkpoint folder holds, and which model it is. No torch here."""

from trainables.models._builtin import (
    BUILTIN_MODELS,
    ModelError,
    builtin_folder,
    builtin_source,
    cache_folder,
    is_builtin,
    is_complete,
)
from trainables.models._describe import ModelFacts, describe_model, read_header, weight_files
from trainables.models._fingerprint import (
    WEIGHT_SUFFIXES,
    checkpoint_digest,
    model_fingerprint,
    verify_digest,
)
from trainables.models._folder import new_folder, remove_unfinished

__all__ = [
    "BUILTIN_MODELS",
    "WEIGHT_SUFFIXES",
    "ModelError",
    "ModelFacts",
    "builtin_folder",
    "builtin_source",
    "cache_folder",
    "checkpoint_digest",
    "describe_model",
    "is_builtin",
    "is_complete",
    "model_fingerprint",
    "new_folder",
    "read_header",
    "remove_unfinished",
    "verify_digest",
    "weight_files",
]

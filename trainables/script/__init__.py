"""The script trial: any start command, any evaluation command, numbers read from what it says."""

from trainables.script._preset import RougePreset, rouge_preset

__all__ = ["RougePreset", "rouge_preset"]

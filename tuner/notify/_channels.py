"""From the ``notify`` list to channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tuner.experiment import AppriseOptions, ChannelOptions, FeishuOptions, WebhookOptions
from tuner.notify._apprise import AppriseChannel
from tuner.notify._channel import Channel
from tuner.notify._webhook import FeishuChannel, WebhookChannel


def make_channels(options: Iterable[ChannelOptions]) -> list[Channel[Any]]:
    """A channel for each block, in their order."""
    return [_channel(index, one) for index, one in enumerate(options)]


def _channel(index: int, options: ChannelOptions) -> Channel[Any]:
    name = f"notify.{index}"
    if isinstance(options, FeishuOptions):
        return FeishuChannel(f"{name} (feishu)", options)
    if isinstance(options, WebhookOptions):
        return WebhookChannel(f"{name} (webhook)", options)
    assert isinstance(options, AppriseOptions)
    return AppriseChannel(f"{name} (apprise)", options)

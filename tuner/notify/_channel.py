"""What a channel is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from tuner.experiment import ChannelOptions
from tuner.notify._discretion import Discretion
from tuner.notify._notice import Notice
from tuner.notify._texts import Text

Options = TypeVar("Options", bound=ChannelOptions)


class Channel(ABC, Generic[Options]):
    """Somewhere to send messages to.

    Attributes:
        name: Its place in the experiment and its type, such as ``notify.0 (feishu)``; no address.
    """

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.options: Options = options
        self.discretion = Discretion(self._secrets())

    @abstractmethod
    def send(self, text: Text, notice: Notice) -> None:
        """Deliver a message, within about ``options.timeout`` seconds.

        Raises:
            SendError: It was not delivered, or nobody knows.
        """

    def _secrets(self) -> list[str]:
        """Everything that must not be shown."""
        found = [self.options.secret_of(field) for field in self.options.secrets]
        return [secret for secret in found if secret is not None]

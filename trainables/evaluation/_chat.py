"""Single questions to a served model, in OpenAI's protocol."""

from __future__ import annotations

from typing import Any, Literal

import httpx

from trainables._program import StageError

_TEMPERATURE = 0.1
_BODY_CHARS = 500
_PLAIN: dict[str, Any] = {"temperature": _TEMPERATURE, "seed": 0}
_NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}
"""Both names that chat templates use; a template ignores the other."""


class Chat:
    """A model behind ``url`` (without a path).

    Attributes:
        endpoint: What answers: ``chat``, or ``completions`` once the model turned out to have no
            chat template.
    """

    def __init__(self, url: str, model: str) -> None:
        self._model = model
        self.endpoint: Literal["chat", "completions"] = "chat"
        # A proxy of the environment must not get between us and a local address.
        self._client = httpx.Client(base_url=url, trust_env=False)

    def ask(self, message: str, *, max_tokens: int, timeout: float) -> str:
        """The model's reply, which may be empty.

        Raises:
            StageError: There is none: ``timeout``, ``network``, or ``input`` when the server
                refuses the question, ``tool`` when what it says is no reply.
        """
        if self.endpoint == "chat":
            document = {"messages": [{"role": "user", "content": message}], **_NO_THINKING}
            path = "/v1/chat/completions"
            response = self._post(path, document, max_tokens=max_tokens, timeout=timeout)
            if not _lacks_chat(response):
                return _reply(response)
            self.endpoint = "completions"
        document = {"prompt": message}
        return _reply(
            self._post("/v1/completions", document, max_tokens=max_tokens, timeout=timeout)
        )

    def close(self) -> None:
        self._client.close()

    def _post(
        self, path: str, document: dict[str, Any], *, max_tokens: int, timeout: float
    ) -> httpx.Response:
        body = {"model": self._model, "max_tokens": max_tokens, **_PLAIN, **document}
        try:
            response = self._client.post(path, json=body, timeout=timeout)
        except httpx.TimeoutException as error:
            raise StageError(
                "timeout",
                f"{path} did not answer a precheck within {timeout:g} s",
                "raise the precheck's timeout, or lower its max_tokens",
            ) from error
        except httpx.HTTPError as error:
            said = f"the model cannot be asked: {type(error).__name__} {error}"
            raise StageError("network", said, "see the engine's log") from error
        if response.status_code >= 500:
            said = f"the model cannot be asked: {path} answers {_said(response)}"
            raise StageError("network", said, "see the engine's log")
        return response


def _lacks_chat(response: httpx.Response) -> bool:
    """Whether the server says that it cannot chat with this model, but not that it is absent."""
    text = response.text.lower()
    if response.status_code == 404:
        return "model" not in text
    return response.status_code == 400 and "chat template" in text.replace("_", " ")


def _reply(response: httpx.Response) -> str:
    if response.status_code != 200:
        raise StageError(
            "input", f"the server refuses the question of a precheck: {_said(response)}"
        )
    try:
        choice = response.json()["choices"][0]
        message = choice.get("message")
        if message is None:
            return str(choice["text"])
        thoughts = message.get("reasoning_content") or message.get("reasoning")
        return str(message.get("content") or thoughts or "")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StageError("tool", f"what the server says is no reply: {_said(response)}") from error


def _said(response: httpx.Response) -> str:
    return f"{response.status_code}: {' '.join(response.text.split())[:_BODY_CHARS]}"

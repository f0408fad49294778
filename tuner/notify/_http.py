"""One bounded POST of JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx

from tuner.notify._errors import SendError

_MOST_BYTES = 65536
_PASSING = (408, 425, 429)
"""Refusals that another attempt may not meet."""


def post_json(url: str, document: Any, headers: Mapping[str, str], timeout: float) -> bytes:
    """POST ``document`` and return the answer's body, cut at 64 KiB.

    Redirects are not followed: they would carry the message to somewhere nobody named.

    Raises:
        SendError: There was no answer within ``timeout`` seconds, or none of status 2xx.
    """
    deadline = time.monotonic() + timeout
    try:
        with (
            httpx.Client(timeout=timeout, follow_redirects=False) as client,
            client.stream("POST", url, json=document, headers=dict(headers)) as answer,
        ):
            body = b""
            for chunk in answer.iter_raw():
                body += chunk
                if len(body) > _MOST_BYTES:
                    break
                if time.monotonic() > deadline:
                    raise SendError("timeout", f"the answer is not whole after {timeout:g} s")
    except httpx.TimeoutException as error:
        raise SendError("timeout", f"no answer within {timeout:g} s") from error
    except httpx.HTTPError as error:
        raise SendError("connection", str(error) or type(error).__name__) from error
    status = answer.status_code
    if not 200 <= status < 300:
        lasting = 300 <= status < 500 and status not in _PASSING
        raise SendError(f"HTTP {status}", f"HTTP status {status}", lasting=lasting)
    return body[:_MOST_BYTES]

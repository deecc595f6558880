"""The policy of every answer, and requests that are refused before they are read."""

from collections.abc import MutableMapping
from typing import Any

import pytest

from shortrun.pages.guard import Guard

anyio = pytest.importorskip("anyio")


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
    await send({"type": "http.response.body", "body": b"well"})


def answer(method: str, headers: dict[bytes, bytes]) -> tuple[int, dict[bytes, bytes], int]:
    """Return status, headers and how often the body was asked for."""
    sent: list[MutableMapping[str, Any]] = []
    read: list[int] = []

    async def receive() -> MutableMapping[str, Any]:
        read.append(1)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "headers": list(headers.items())}
    anyio.run(Guard(app, most=1000, threads=3), scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), len(read)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("POST", {b"content-length": b"1000"}, 200),
        ("POST", {b"content-length": b"1001"}, 413),
        ("POST", {b"content-length": b"-5"}, 411),
        ("POST", {b"transfer-encoding": b"chunked"}, 411),
    ],
)
def test_requests(method: str, headers: dict[bytes, bytes], status: int) -> None:
    found, sent, read = answer(method, headers)
    assert found == status
    assert read == (status == 200), "a request that is refused is not read"
    policy = sent[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy

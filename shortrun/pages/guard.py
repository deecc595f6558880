"""What stands between a browser and the page's server.

No address outside is asked, no request is too large, and requests have a few threads among them.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)
"""What a browser may load: what comes from the server itself. The page's library has scripts inline and evaluates."""


class Guard:
    """Adds the policy to every answer, and refuses requests that are too large before they are read.

    app: that answers.
    most: bytes of a request's body.
    threads: at least 1, for all requests together; the server's own number is 40.
    """

    def __init__(self, app: App, most: int, threads: int) -> None:
        self.app, self.most, self.threads = app, most, threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        from anyio.to_thread import current_default_thread_limiter  # comes with the page's library

        current_default_thread_limiter().total_tokens = self.threads  # belongs to the loop, which runs by now
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
                message = {**message, "headers": headers}
            await send(message)

        if (status := self._refused(scope)) is None:
            await self.app(scope, receive, send_with_policy)
            return
        await send_with_policy({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"the request is too large, or does not say its length"})

    def _refused(self, scope: Scope) -> int | None:
        """Return the status of a request that is refused: 411 where it does not say its length, 413 where too large."""
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411
        return 413 if int(length) > self.most else None

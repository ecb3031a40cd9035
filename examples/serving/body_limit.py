"""Refuses long request bodies before anything parses them."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_DRAINED = 16  # times the limit, at most, are read of a refused body
_DRAIN_SECONDS = 2.0


class BodyLimit:
    """An ASGI application around another, which answers long bodies with a 413.

    It counts what arrives, so that a chunked body, which announces no length, is bounded too.

    Args:
        app: gets the requests that are short enough, and their bodies in one piece of memory.
        limit: bytes of a body, at most.
    """

    def __init__(self, app: App, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection scope, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self._limit:
            await self._refuse(receive, send)
            return
        messages = await self._read(receive)
        if messages is None:
            await self._refuse(receive, send)
            return
        messages.reverse()

        async def replayed() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replayed, send)

    async def _read(self, receive: Receive) -> list[Message] | None:
        """The messages of a body, None if they hold more than may be."""
        messages: list[Message] = []
        size = 0
        while not messages or messages[-1].get("more_body", False):
            messages.append(await receive())
            size += len(messages[-1].get("body", b""))
            if size > self._limit:
                return None
        return messages

    async def _refuse(self, receive: Receive, send: Send) -> None:
        message = f"the body must have {self._limit} bytes or fewer; send one image a request"
        body = json.dumps({"detail": message}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        # A connection that is closed while bytes arrive is reset, and the answer may be lost.
        drained = asyncio.ensure_future(self._drain(receive))
        await asyncio.wait([drained], timeout=_DRAIN_SECONDS)
        drained.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self, receive: Receive) -> None:
        size = 0
        while size <= _DRAINED * self._limit:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                return

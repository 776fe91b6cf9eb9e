"""Middleware that refuses requests that are not allowed or too large, and counts all requests."""

import asyncio
import hmac
import logging
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.metrics import Metrics

BODY_SECONDS = 30.0  # for a whole body
_OPEN = frozenset({"/", "/health", "/v2/health/live", "/v2/health/ready"})  # need no token
_ROUTES = {"/predict": "predict", "/explain": "explain"}
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_log = logging.getLogger("pipeline.serving")


@dataclass(frozen=True)
class Access:
    """Who may send requests, and how much at once."""

    hosts: frozenset[str]  # as the Host header names this server, without the port
    origins: frozenset[str]  # of other sites whose pages may send requests
    token: str | None
    body_bytes: int  # of one request
    total_bytes: int  # of all requests that are being read or answered


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self._app, self._access, self._metrics = app, access, metrics
        self._token = None if access.token is None else f"Bearer {access.token}".encode()
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        exchange = _Exchange(self, receive, send)
        try:
            answer = self._refusal(scope) or self._app
            await answer(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = 499
        except Exception:
            # Log the traceback, but nothing of what the client sent.
            _log.exception("A request could not be answered")
            if exchange.status:
                raise
            await _refuse(500, "The server failed: see its log.")(scope, receive, exchange.send)
        finally:
            self._bytes -= exchange.bytes
            self._metrics.request(_route(scope["path"]), exchange.status, time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers, access = Headers(scope=scope), self._access
        host = headers.get("host", "")
        if _name(host) not in access.hosts:
            return _refuse(421, f"{_name(host)!r} is not a name of this server: see --allowed-hosts.")
        origin = headers.get("origin")
        own = origin is None or origin.partition("://")[2] == host
        if not own and origin not in access.origins:
            return _refuse(403, f"Pages of {origin} may not use this server: see --allow-origin.")
        if self._token and scope["path"] not in _OPEN and scope["method"] != "OPTIONS":
            given = headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self._token):
                return _refuse(
                    401,
                    "This server requires a token: send the header Authorization: Bearer TOKEN.",
                    {"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "0")
        if len(length) > len(str(access.body_bytes)) or int(length) > access.body_bytes:
            return _refuse(413, self._too_large)
        if headers.get("content-encoding", "identity") != "identity":
            return _refuse(415, "Compressed bodies are not supported: send the body uncompressed.")
        return None

    @property
    def _too_large(self) -> str:
        return f"The body is larger than {self._access.body_bytes / 2**20:g} MiB, the limit of this server."

    def take(self, size: int, total: int) -> None:
        """Account for `size` more bytes of a body, of which `total` have arrived so far.

        Raises:
            HTTPException: If the body is too large, or all bodies together are.
        """
        self._bytes += size
        if total > self._access.body_bytes:
            raise HTTPException(413, self._too_large)
        if self._bytes > self._access.total_bytes:
            raise HTTPException(503, "The server is overloaded: try again.")


class _Exchange:
    """A request and its response, with the bytes received and the status sent."""

    def __init__(self, guard: Guard, receive: Receive, send: Send) -> None:
        self._guard, self._receive, self._send = guard, receive, send
        self._end: float | None = None
        self._ended = False
        self.bytes, self.status = 0, 0

    async def receive(self) -> Message:
        """Receive the next part of the body.

        Raises:
            HTTPException: If the body takes too long, or is too large.
        """
        if self._ended:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        if self._end is None:
            self._end = now + BODY_SECONDS
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"The body took longer than {BODY_SECONDS:g} seconds.") from None
        size = len(message.get("body", b""))
        self.bytes += size
        self._guard.take(size, self.bytes)
        self._ended = not message.get("more_body", False)
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send a part of the response, with the security headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, text in _HEADERS.items():
                headers.setdefault(name, text)
            headers.setdefault("Content-Security-Policy", _NOTHING)
        await self._send(message)


def _refuse(status: int, text: str, headers: dict[str, str] | None = None) -> ASGIApp:
    return JSONResponse({"error": text}, status, headers)


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def _route(path: str) -> str:
    if path.startswith("/v2/") and path.endswith("/infer"):
        return "infer"
    return _ROUTES.get(path, "other")

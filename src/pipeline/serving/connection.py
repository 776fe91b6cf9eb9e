"""Connections: closed when the client takes too long, whatever it is doing, or its head is too long."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0  # for the head of a request, and for the rest of a body that was refused
EXCHANGE_SECONDS = 90.0  # from the head of a request to the end of its answer
_HEAD_BYTES = 2**16


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's, which by itself limits only the time between two requests."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes: int | None = None  # of a head that has begun and not ended
        self._refusal: str | None = None  # of what came after the requests that are being answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._limit(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._unlimit()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request has come."""
        if self._refusal:
            return
        before = self.cycle
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        if (self._head_bytes or 0) > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")
        elif self.cycle is not before:
            self._limit(EXCHANGE_SECONDS)
        elif self._deadline is None and self._partial:
            self._limit(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        """A head has begun."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._head_bytes = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, and close, after the requests before it have their answers."""
        answered = self.cycle is None or self.cycle.response_complete
        if answered or (self.cycle.more_body and not self.pipeline):
            super().send_400_response(msg)
            return
        if self.cycle.more_body:
            # The last one that waits is the broken one itself.
            self.pipeline.popleft()
        self._refusal = msg

    def on_response_complete(self) -> None:
        """The answer was handed to the transport."""
        self._unlimit()
        if self._refusal and not self.pipeline:
            super().send_400_response(self._refusal)
        super().on_response_complete()
        if self.transport.is_closing():
            self._limit(HEAD_SECONDS)
        elif not self.cycle.response_complete:
            self._limit(EXCHANGE_SECONDS)

    def timeout_keep_alive_handler(self) -> None:
        """No other request has come; a client that does not read what was sent is not waited for longer."""
        super().timeout_keep_alive_handler()
        self._limit(HEAD_SECONDS)

    @property
    def _partial(self) -> bool:
        """Whether something was sent since the last answer, that is not a whole request yet."""
        return self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete)

    def _limit(self, seconds: float) -> None:
        self._unlimit()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _unlimit(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

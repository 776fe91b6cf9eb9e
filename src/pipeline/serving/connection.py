"""Connections: closed when the client takes too long, whatever it is doing."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the head of a request, and for the rest of a body that was refused
EXCHANGE_SECONDS = 90.0  # from the head of a request to the end of its answer


class LimitedProtocol(H11Protocol):
    """uvicorn's, which by itself limits only the time between two requests."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._deadline: asyncio.TimerHandle | None = None

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
        before = self.cycle
        super().data_received(data)
        self._after(before)

    def on_response_complete(self) -> None:
        """The answer was handed to the transport."""
        before = self.cycle
        self._unlimit()
        super().on_response_complete()
        self._after(before)

    def timeout_keep_alive_handler(self) -> None:
        """No other request has come; a client that does not read what was sent is not waited for longer."""
        super().timeout_keep_alive_handler()
        self._limit(HEAD_SECONDS)

    def _after(self, before: Any) -> None:
        if self.cycle is not before:
            self._limit(EXCHANGE_SECONDS)
        elif self._deadline is None and self.conn.their_state is not h11.DONE and self._partial:
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

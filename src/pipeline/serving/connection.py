"""HTTP connections with limits on the time of each exchange and on the size of a request's head."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0  # for the head of a request, or for the rest of a body that was refused
EXCHANGE_SECONDS = 90.0  # from the head of a request to the end of its answer
_HEAD_BYTES = 2**16


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with more limits: by itself, it limits only the time between two requests."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes: int | None = None  # received of an incomplete head
        self._refusal: str | None = None  # to send once all earlier requests are answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit when a client connects."""
        super().connection_made(transport)
        self._set_deadline(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limit when the connection ends."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process a part of a request, and check the size of its head."""
        if self._refusal:
            return
        before = self.cycle
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        if (self._head_bytes or 0) > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")
        elif self.cycle is not before:
            self._set_deadline(EXCHANGE_SECONDS)
        elif self._deadline is None and self._partial:
            self._set_deadline(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        """Start counting the bytes of a head."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Stop counting the bytes of the head."""
        self._head_bytes = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse an invalid request and close the connection, once earlier requests are answered."""
        answered = self.cycle is None or self.cycle.response_complete
        if answered or (self.cycle.more_body and not self.pipeline):
            super().send_400_response(msg)
            return
        if self.cycle.more_body:
            # The last request in the queue is the invalid one itself.
            self.pipeline.popleft()
        self._refusal = msg

    def on_response_complete(self) -> None:
        """Send a pending refusal, or set the time limit of what comes next, after an answer."""
        self._cancel_deadline()
        if self._refusal and not self.pipeline:
            super().send_400_response(self._refusal)
        super().on_response_complete()
        if self.transport.is_closing():
            self._set_deadline(HEAD_SECONDS)
        elif not self.cycle.response_complete:
            self._set_deadline(EXCHANGE_SECONDS)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one whose client does not read what was sent is aborted soon."""
        super().timeout_keep_alive_handler()
        self._set_deadline(HEAD_SECONDS)

    @property
    def _partial(self) -> bool:
        """Whether part of a request, and not yet all of its head, was received since the last answer."""
        return self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete)

    def _set_deadline(self, seconds: float) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

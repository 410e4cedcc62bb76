"""HTTP/1.1 of one connection: hypercorn's protocol without upgrades, with errors in the UCXL shape."""

import os
from collections.abc import Callable
from typing import Any

import h11
from hypercorn.config import Config
from hypercorn.events import RawData
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, H11SendableEvent

from node.api import serialize
from protocols.errors import BzzzError, InvalidPayload


class Http1(H11Protocol):
    """HTTP/1.1 only. It ignores an upgrade to HTTP/2 or WebSocket, as RFC 9110 (7.8) allows."""

    def __init__(
        self,
        app: Any,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        send: Any,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(app, config, context, task_group, ConnectionState({}), False, None, None, send)
        self._now_ms = now_ms
        self._head = b""

    def expects_nothing(self) -> bool:
        """Whether no more bytes are expected: the request arrived whole, or none has begun."""
        state = self.connection.their_state
        return state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED) or (
            state is h11.IDLE and not self.has_part_of_a_request()
        )

    def has_unanswered_request(self) -> bool:
        """Whether a whole request arrived and its answer is not complete."""
        return self.connection.their_state is h11.DONE

    def has_part_of_a_request(self) -> bool:
        return bool(self.connection.trailing_data[0])

    async def refuse(self, error: BzzzError) -> None:
        """Answer a client whose bytes never became a request."""
        body = serialize.error(error, path="", request_id=os.urandom(8).hex(), now_ms=self._now_ms())
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"connection", b"close"),
        ]
        await self._send_h11_event(h11.Response(status_code=error.status, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _send_error_response(self, status_code: int) -> None:
        why = "its headers are too long" if status_code == 431 else "it is not HTTP/1.1"
        await self.refuse(InvalidPayload(f"the request cannot be read: {why}"))

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """As in hypercorn, but the headers of an answer wait for its body: one write instead of three."""
        try:
            data = self._head + (self.connection.send(event) or b"")
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        self._head = b""
        if isinstance(event, h11.Response):
            self._head = data
        elif data:
            await self.send(RawData(data=data))

    async def _check_protocol(self, event: h11.Request) -> None:
        pass

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = HTTPStream(
            self.app, self.config, self.context, self.task_group, False, None, None, self.stream_send, STREAM_ID
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode("ascii"),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

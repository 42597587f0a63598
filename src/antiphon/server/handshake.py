"""From a connection's first byte to the app's answer: the request, the app's accept, or an HTTP response instead.

`Handshake` holds the state needed only until then. It is dropped with the answer, so that an idle connection does not
keep it. It writes to the connection's pipe, and reports to an `Answered`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol

from antiphon.masking import masked_subprotocols
from antiphon.shown import shown
from antiphon.types import CARRIER_EXTENSION, OBSERVERS_EXTENSION, Message, Scope
from antiphon.wire import HandshakeError
from antiphon.wire.handshake import Request, accept_response, parse_request, refuse_response, subprotocols, validate

from .backend import Pipe
from .denial import Denial
from .engine import Engine
from .scope import NO_DETAILS, build_scope, path_of
from .sockets import direct_fd, peer_address
from .state import Opening, move
from .watch import Watch

Addresses = tuple[tuple[str, int] | None, tuple[str, int | None] | None]

_SCHEMES: Final = ("ws", "wss")


class Answered(Protocol):
    """A handshake's calls to its connection. `session.Session` implements it."""

    address: str | None

    def run_app(self, scope: Scope) -> None:
        """The request is whole."""

    def answered(self, *, half_close: bool) -> None:
        """The answer was an HTTP response, and it is whole."""


class Handshake:
    """One connection's, until it is answered. An entry of the engine's `Deadlines`."""

    __slots__ = (
        *("_denial", "_due", "_early", "_engine", "_extensions", "_key", "_pipe", "_scope", "_session", "_watch"),
        *("addresses", "slot"),
    )

    def __init__(self, engine: Engine, pipe: Pipe, watch: Watch, session: Answered) -> None:
        self.slot = -1
        self.addresses: Addresses | None = None
        """The client's and ours, where somebody has asked the transport already."""
        self._engine: Final = engine
        self._pipe: Final = pipe
        self._watch: Final = watch
        self._session: Final = session
        self._scope: Scope | None = None
        self._key = b""
        self._extensions: bytes | None = None
        self._early: bytearray | None = None
        self._denial: Denial | None = None
        self._due = 0.0
        timeout = engine.config.handshake_timeout
        if timeout is not None:
            self._due = engine.clock() + timeout
            engine.deadlines.enter(self, self._due)

    def on_deadline(self, now: float) -> float | None:
        """`Deadlines`: the request, or the app's answer to it, has perhaps not come in time."""
        pipe, engine = self._pipe, self._engine
        if pipe.transport is None or pipe.state > Opening.WAITING_APP:
            return None
        if now < self._due:
            return self._due
        if pipe.state == Opening.HANDSHAKE:
            self.refuse(408, "the request did not come in time")
        else:
            engine.logger.warning("WebSocket %s refused: the app did not accept in time", shown(self._watch.path))
            self.refuse(503, "no answer in time", engine.retry_headers)
        return None

    # ------------------------------------------------------------ the request

    def receive(self, data: bytes) -> None:
        """Bytes of the request, or frames of a client in a hurry."""
        state = self._pipe.state
        if state > Opening.WAITING_APP:
            return
        early, self._early = self._early, None
        if early is not None:
            early += data
        limit = self._engine.config.handshake_size
        if state == Opening.WAITING_APP:
            self._early = bytearray(data) if early is None else early
            if len(self._early) > limit:
                self._watch.abort()
            return
        try:
            head = data if early is None else early  # a head usually comes in one piece
            request = parse_request(head, max_head=limit)
            if request is None:
                self._early = bytearray(data) if early is None else early
                return
            if len(head) > request.consumed:
                self._early = bytearray(head[request.consumed :])
            self._begin(request)
        except HandshakeError as error:
            self.refuse(error.status, error.reason, error.headers)

    def _begin(self, request: Request) -> None:
        """Start the app for a request, whose bytes have been taken off. Raises HandshakeError for a request that is no
        handshake."""
        engine, pipe, watch = self._engine, self._pipe, self._watch
        self._key = validate(request)
        offered = request.values(b"sec-websocket-extensions")
        if offered:
            pipe.deflate, self._extensions = engine.agree_on_compression(offered)
        transport = pipe.transport
        assert transport is not None
        client, server = self.addresses = self.addresses or addresses_of(transport)
        if was_reset(self.addresses):
            watch.abort()
            return
        tls = transport.get_extra_info("sslcontext") is not None
        client, server = engine.addresses.share(client, server)
        address = client[0] if client is not None else ""
        status = engine.admit(address)
        if status is not None:
            watch.path = path_of(request.target)
            raise HandshakeError(status, engine.refusals[status], engine.retry_headers)
        self._session.address = address
        scope = build_scope(
            engine.targets.read(request.target),
            engine.headers.share(request.headers),
            subprotocols(request),
            asgi=engine.asgi,
            scheme=_SCHEMES[tls],
            root_path=engine.root_path,
            client=client,
            server=server,
            state=engine.app_state.copy(),
            extensions={
                "websocket.http.response": NO_DETAILS,
                CARRIER_EXTENSION: pipe,
                OBSERVERS_EXTENSION: engine.config.observers,
            },
        )
        watch.path = scope["path"]
        self._scope = scope
        if not tls:
            pipe.fd = direct_fd(transport)
        transport.set_write_buffer_limits(high=0)
        if transport.get_write_buffer_size():  # a response to a request before this one is still on its way
            pipe.handed = True
            watch.on_handed()
        move(pipe, Opening.WAITING_APP)
        self._session.run_app(scope)

    # ------------------------------------------------------------ the answer

    def accept(self, message: Message) -> bytes | None:
        """The app accepts. Returns the bytes that the client has already sent behind its request."""
        engine, scope = self._engine, self._scope
        assert scope is not None
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in scope["subprotocols"]:
            engine.logger.warning(
                "WebSocket %s: the app chose subprotocol '%s', which the client did not offer; it is left out",
                shown(self._watch.path),
                shown(", ".join(masked_subprotocols([subprotocol]))),
            )
            subprotocol = None
        response = accept_response(
            self._key,
            subprotocol=subprotocol,
            extensions=self._extensions,
            headers=message.get("headers") or (),
            lines=engine.default_lines(),
        )
        self._pipe.put(response)
        engine.log_answer(scope, "[accepted]")
        return bytes(self._early) if self._early else None

    def refuse(
        self,
        status: int,
        reason: str = "",
        headers: Iterable[tuple[bytes, bytes]] = (),
        *,
        body: bytes | None = None,
        expected: bool = True,
    ) -> None:
        """Answer with a whole HTTP response, which ends the connection."""
        pipe = self._pipe
        body = reason.encode() if body is None else body
        content_type = b"text/plain; charset=utf-8" if body else None
        self._note_answer(status, reason if expected else "the app failed")
        headers = (*self._engine.default_headers(), *headers)
        pipe.put(refuse_response(status, headers, body, content_type=content_type))
        unfinished = pipe.state == Opening.HANDSHAKE
        move(pipe, Opening.DENYING)
        self._session.answered(half_close=unfinished)

    def deny(self, message: Message) -> None:
        """The app answers with a response of its own (ASGI extension `websocket.http.response`)."""
        status = message["status"]
        if not 200 <= status < 600:
            raise RuntimeError(f"the status of a denial response is between 200 and 599, not {status}")
        self._denial = Denial(status, [*self._engine.default_headers(), *(message.get("headers") or ())])
        self._note_answer(status, "denied by the app")
        move(self._pipe, Opening.DENYING)

    async def deny_body(self, message: Message) -> bool:
        """A part of that response. Returns whether it is whole."""
        pipe, denial = self._pipe, self._denial
        assert denial is not None
        more = message.get("more_body", False)
        pipe.put(denial.chunk(message.get("body", b""), more))
        if not more:
            self._session.answered(half_close=False)
            return True
        pipe.flush()
        if pipe.buffered > pipe.outbox_limit:
            await self._watch.drain_slowly()
        return False

    def _note_answer(self, status: int, reason: str) -> None:
        """Log and report that the answer is something else than an open connection."""
        engine, path = self._engine, self._watch.path
        if self._scope is None:  # no app, and no access line
            engine.logger.info("WebSocket %s refused: %d %s", shown(path) or "?", status, shown(reason))
        engine.log_answer(self._scope, str(status))
        engine.note_refusal(path, status, reason)
        self._scope = None


def was_reset(addresses: Addresses) -> bool:
    """Only a socket that was reset already does not know its peer. No app expects that, and nobody would answer."""
    client, server = addresses
    return client is None and server is not None and server[1] is not None


def addresses_of(transport: asyncio.BaseTransport) -> Addresses:
    """The scope's `client` and `server`."""
    server = transport.get_extra_info("sockname")
    return (
        _address(peer_address(transport)),
        (server, None) if isinstance(server, str) else _address(server),
    )


def _address(info: Any) -> tuple[str, int] | None:
    return info[:2] if isinstance(info, tuple) and len(info) >= 2 else None
